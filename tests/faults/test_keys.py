"""The API key is exchanged at each stage of a create whose answer is lost: there is one POST.

A key shows only the tasks that it may see. So the listings of another key are complete, empty, and prove nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from seedance_temporal import JobState
from seedance_temporal.identity import key_fingerprint
from seedance_temporal.storage.bucket import BucketError
from tests.e2e.requests import creates_of, until_committed
from tests.faults.cases import PATIENCE, SOON, Case, Harness, all_of
from tests.faults.report import AddRow
from tests.support.jobs import detail_of
from tests.support.polling import until

TITLE = "An exchanged API key"
FIRST, OTHER, NARROWED = "key-of-the-films-project", "key-of-the-shop-project", "key-of-one-fast-model"
CUSTOM = "key-of-the-model-of-all-jobs"
MODEL = "dreamina-seedance-2-0-mini-260615"
FAST = "dreamina-seedance-2-0-fast-260128"
# Two listings a tenth of the window apart prove absence, and a search asks at least every sixth of it.
LONG_ENOUGH_FOR_ABSENCE = 15.0

EXCHANGES = {"another project": OTHER, "narrowed to another model": NARROWED}


# The points of the create, and the number of POSTs that have been sent by then.
STAGES = {
    "before the claim": 0,
    "after the claim": 0,
    "before the POST left": 0,
    "after the POST left": 1,
    "after its answer": 1,
}


@pytest.fixture(scope="module", autouse=True)
async def keys(harness: Harness) -> None:
    """Keys of two projects and a narrowed one; of the first two, LIST is known to show our identifiers."""
    ark = harness.stack.ark
    await ark.set_key("byteplus", FIRST, project="films")
    await ark.set_key("byteplus", OTHER, project="shop")
    await ark.set_key("byteplus", NARROWED, project="films", models=[FAST])
    await ark.set_key("byteplus", CUSTOM, project="films", models=[MODEL])
    await asyncio.gather(*(_identifiers_are_listed(harness, key) for key in (FIRST, OTHER, CUSTOM)))


async def _identifiers_are_listed(harness: Harness, key: str) -> None:
    async with harness.case("first-job") as case:
        await case.start_worker(ARK_API_KEY=key)
        await case.submit()
        await case.stored_once(await case.settle())
        of_model = f"-{MODEL}" if key == CUSTOM else ""
        note = f"seedance/echo-byteplus-{key_fingerprint(key)}{of_model}.json"
        await until(lambda: _is_noted(harness, note), "LIST has shown an identifier", PATIENCE)


async def _is_noted(harness: Harness, note: str) -> bool:
    # A note that is written between GET and LIST of one look at it is an error.
    with contextlib.suppress(BucketError):
        return await harness.stack.bucket.stat(note) is not None
    return False


async def _case(harness: Harness, report: AddRow, what: str, play: Callable[[Case], Awaitable[str]]) -> None:
    async with harness.case("keys", SOON | {"ARK_API_KEY": FIRST}) as case:
        end = await play(case)
        entries = await creates_of(harness.stack, case.request)
        assert sum(entry.committed for entry in entries) <= 1, f"{what}: paid {entries}"
        report(TITLE, {"what happens": what, "POSTs": len(entries), "ledger": await case.ledger(), "end": end})


def _exchanged(point: str, posts: int, key: str) -> Callable[[Case], Awaitable[str]]:
    """Kill the worker at a point of the create; start one with another key, then one with the first key."""

    async def play(case: Case) -> str:
        await case.crash(point)
        second = await case.start_worker(ARK_API_KEY=key)
        if not await _is_claimed(case):
            if key == NARROWED:
                return await _refused(case)
            await case.stored_once(await case.settle())
            return "stored: nothing was claimed under the first key"
        shown = await _asks_for_an_operator(case)
        assert key_fingerprint(FIRST) in (detail_of(shown).advice or ""), "it names the key"
        await _is_listed_for_long(case)
        assert len(await creates_of(case.stack, case.request)) == posts, "nothing was sent under another key"
        assert (await case.jobs.job(case.job_id).state()).attention == "unknown_create"
        await second.kill()
        await case.start_worker()
        await case.stored_once(await case.settle())
        return "an operator is asked, naming the key; stored under the first key"

    return play


async def _is_claimed(case: Case) -> bool:
    return "before the claim" not in case.fired[0]


async def _refused(case: Case) -> str:
    """A key that may not use the model is refused by the provider, at no cost."""
    job = await case.settle()
    assert job.phase == "refused", job
    return "refused: the narrowed key may not use the model"


async def _asks_for_an_operator(case: Case) -> JobState:
    async def asks() -> JobState | None:
        job = await case.jobs.job(case.job_id).state()
        return job if job.detail is not None and job.attention == "unknown_create" and job.detail.advice else None

    job: JobState = await until(asks, "the job needs an operator", PATIENCE, every=0.5)
    return job


async def _is_listed_for_long(case: Case) -> None:
    """Wait for longer than listings need that would prove absence under the same key."""
    ark = case.stack.ark
    before = (await ark.requests()).list.get("byteplus", 0)

    async def is_listed() -> bool:
        return (await ark.requests()).list.get("byteplus", 0) >= before + 3

    await until(is_listed, "three more listings", PATIENCE, every=0.5)
    await asyncio.sleep(LONG_ENOUGH_FOR_ABSENCE)


def _narrowed_in_place(others: str) -> Callable[[Case], Awaitable[str]]:
    return partial(_narrowed, others=others)


async def _narrowed(case: Case, others: str) -> str:
    """The same key, which may no longer use the model of the job when its answer is lost.

    LIST is known to show our identifiers under it, and answers a model that it does not name with no tasks, or with all
    that it sees.
    """
    key, ark = f"key-of-{case.client.namespace}", case.stack.ark
    await ark.set_key("byteplus", key, project="films")
    await _identifiers_are_listed(case.harness, key)
    await ark.configure(list_of_other_models=others)
    ours = f"{'0' * 16}-{'0' * 32}"
    await ark.add_foreign("byteplus", project="films", fields={"model": FAST, "safety_identifier": ours})
    case.settings = SOON | {"ARK_API_KEY": key}
    await case.crash("after its answer")
    await ark.set_key("byteplus", key, project="films", models=[FAST])
    await case.start_worker()
    await _asks_for_an_operator(case)
    await asyncio.sleep(LONG_ENOUGH_FOR_ABSENCE)
    assert len(await creates_of(case.stack, case.request)) == 1, "a LIST that hides the task proves nothing"
    await ark.set_key("byteplus", key, project="films")
    await case.stored_once(await case.settle())
    return "an operator is asked; stored once the key sees the task again"


def _custom(point: str) -> Callable[[Case], Awaitable[str]]:
    """The worker's key is Custom, and names the model: its listing finds the task, or proves its absence."""

    async def play(case: Case) -> str:
        case.settings = SOON | {"ARK_API_KEY": CUSTOM}
        if point == "after the claim":
            return await _same_key(case)
        await case.crash(point)
        await case.start_worker()
        await case.stored_once(await case.settle())
        return "found in the listing of its model; stored"

    return play


def _later(stage: str, key: str) -> Callable[[Case], Awaitable[str]]:
    """Exchange the key while the task runs, or when its video waits to be copied; give the first key back at last."""

    async def play(case: Case) -> str:
        ark = case.stack.ark
        fault = await ark.fault("task", "stay_running", contains=str(case.request.prompt))
        first = await case.start_worker()
        await case.submit()
        task_id = await until_committed(case.stack, case.request)
        await until(lambda: _follows(case, task_id), "the job follows its task", PATIENCE)
        await first.kill()
        if stage == "before the copy":
            await ark.release(task_id)
            await until(lambda: _has_succeeded(case, task_id), "the task has succeeded", PATIENCE)
        second = await case.start_worker(ARK_API_KEY=key)
        shown = await until(lambda: _misses_its_task(case), "the job misses its task", PATIENCE, every=0.5)
        assert key_fingerprint(FIRST) in (detail_of(shown).advice or ""), "it names the key"
        await second.kill()
        await ark.release(task_id)
        await case.start_worker()
        await case.stored_once(await case.settle())
        assert await ark.fired(fault)
        return "an operator is asked, naming the key; stored under the first key"

    return play


async def _follows(case: Case, task_id: str) -> bool:
    return (await case.jobs.job(case.job_id).state()).task_id == task_id


async def _has_succeeded(case: Case, task_id: str) -> bool:
    return any(task["id"] == task_id and task["status"] == "succeeded" for task in await case.stack.ark.tasks())


async def _misses_its_task(case: Case) -> JobState | None:
    job = await case.jobs.job(case.job_id).state()
    return job if job.detail is not None and job.attention == "task_gone" and job.detail.advice else None


async def _same_key(case: Case) -> str:
    """The control: under the claim's own key, absence is proved, and the POST sent again."""
    await case.crash("after the claim")
    await case.start_worker()
    name = f"seedance/{case.job_id.removeprefix('seedance-')}/attempts/0001.outcome.json"
    # A busy machine may need an operator before the second listing. No operator answers: that listing decides.
    outcome = await until(lambda: case.stack.bucket.read(name), "the outcome is written", PATIENCE, every=0.5)
    assert json.loads(outcome)["kind"] == "absent", "two listings prove it"
    await case.stored_once(await case.settle())
    return "absent; stored"


@pytest.mark.faults
@pytest.mark.timeout(400)
async def test_exchanged_key_smoke(harness: Harness, report: AddRow) -> None:
    """The exchange that once paid twice, and the control without an exchange, whose listings prove absence."""
    await all_of(
        [
            _case(harness, report, "after its answer: another project", _exchanged("after its answer", 1, OTHER)),
            _case(harness, report, "after the claim: the same key", _same_key),
        ]
    )


@pytest.mark.faults
@pytest.mark.timeout(900)
async def test_custom_key_never_pays_twice(harness: Harness, report: AddRow) -> None:
    await all_of(
        [
            _case(harness, report, "after its answer: a Custom key", _custom("after its answer")),
            _case(harness, report, "after the claim: a Custom key", _custom("after the claim")),
        ]
    )


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("exchange", EXCHANGES)
async def test_exchanged_key_never_pays_twice(harness: Harness, report: AddRow, exchange: str) -> None:
    key = EXCHANGES[exchange]
    await all_of(
        [
            _case(harness, report, f"{point}: {exchange}", _exchanged(point, posts, key))
            for point, posts in STAGES.items()
        ]
    )


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("exchange", EXCHANGES)
async def test_exchanged_key_loses_no_task(harness: Harness, report: AddRow, exchange: str) -> None:
    key = EXCHANGES[exchange]
    await all_of(
        [
            _case(harness, report, f"{stage}: {exchange}", _later(stage, key))
            for stage in ("while it runs", "before the copy")
        ]
    )


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("others", ["none", "all"])
async def test_narrowed_key_never_pays_twice(harness: Harness, report: AddRow, others: str) -> None:
    what = f"after its answer: the same key, narrowed; LIST of its old model shows {others}"
    try:
        await _case(harness, report, what, _narrowed_in_place(others))
    finally:
        await harness.stack.ark.configure(list_of_other_models="refused")
