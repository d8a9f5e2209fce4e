"""The lister: one listing answers all jobs that asked before it began, and no signal stops it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from temporalio import workflow
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.task_list import ListedTask, ListerInput, ListingRequest, ListPageInput, Page
from seedance_temporal.contract import LISTER, SIGNAL_LISTED, SIGNAL_LISTING_REQUESTED, Queues, lister_id
from seedance_temporal.ledger.facts import Listing
from tests.support.polling import until
from tests.workflows.conftest import SUGGESTED_FROM
from tests.workflows.fakes import Held, now
from tests.workflows.harness import Harness, Job
from workflows import policies
from workflows.list_tasks import ListTasks

MODEL = "dreamina-seedance-2-0-260128"
OURS = "0123456789abcdef-" + "a" * 32
THEIRS = "fedcba9876543210-" + "b" * 32
LONG_AGO = 1_700_000_000.0


@workflow.defn(name="AskingJob")
class AskingJob:
    """A job that records the lister's answers."""

    def __init__(self) -> None:
        self._answers: list[Listing] = []
        self._over = False

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: self._over)

    @workflow.signal(name=SIGNAL_LISTED)
    def listed(self, listing: Listing) -> None:
        self._answers.append(listing)

    @workflow.signal
    def end(self) -> None:
        self._over = True

    @workflow.query
    def answers(self) -> list[Listing]:
        return self._answers


@dataclass
class Lister:
    """The lister of a route, and the jobs that ask it."""

    harness: Harness
    handle: Job | None = None
    jobs: dict[str, WorkflowHandle[Any, Any]] = field(default_factory=dict)

    async def start_job(self, name: str) -> None:
        if name not in self.jobs:
            self.jobs[name] = await self.harness.client.start_workflow(
                "AskingJob", id=f"{self.harness.route}-{name}", task_queue=f"{self.harness.route}-jobs"
            )

    def request(self, name: str | None, attempt: int = 1, **given: Any) -> ListingRequest:
        nothing = {
            "attempt": attempt,
            "safety_identifier": OURS,
            "model": MODEL,
            "service_tier": "default",
            "since": LONG_AGO,
        }
        job_id = None if name is None else f"{self.harness.route}-{name}"
        return ListingRequest.model_validate(nothing | {"job_id": job_id} | given)

    async def ask(self, name: str | None, attempt: int = 1, **given: Any) -> None:
        """Ask as the activity does: start the lister if there is none."""
        if name is not None:
            await self.start_job(name)
        await self.start(SIGNAL_LISTING_REQUESTED, self.request(name, attempt, **given))

    async def ask_held(self, name: str) -> Held:
        """Ask for a job, and return the listing that answers it, when it has begun; it is held back."""
        held = Held(a_page())
        self.harness.fake.plan("list_page", held)
        await self.ask(name)
        await held.reached.wait()
        return held

    async def start(self, signal: str | None = None, *args: Any, requested: tuple[ListingRequest, ...] = ()) -> None:
        handle = await self.harness.client.start_workflow(
            LISTER,
            ListerInput(route=self.harness.route, requested=requested),
            id=lister_id(self.harness.route),
            task_queue=Queues(self.harness.route).workflows,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            start_signal=signal,
            start_signal_args=args,
        )
        self.handle = Job(handle)
        if handle.first_execution_run_id not in {known.first_execution_run_id for known in self.harness.jobs}:
            self.harness.jobs.append(self.handle)

    async def answers(self, name: str, count: int = 1, seconds: float = 15) -> list[Listing]:
        """Return the answers to a job, as soon as there are so many."""
        found: list[Listing] = []

        async def enough() -> bool:
            found[:] = await self.jobs[name].query("answers", result_type=list[Listing])
            return len(found) >= count

        await until(enough, f"{count} answers to {name}", seconds)
        assert len(found) == count
        return found

    @property
    def pages(self) -> list[tuple[int, str]]:
        return [(call.input.page, call.input.service_tier) for call in self.harness.fake.of("list_page")]


@asynccontextmanager
async def run_lister(harness: Harness) -> AsyncIterator[Lister]:
    # It runs workflows of this module, which the sandbox cannot import.
    queue, runner = f"{harness.route}-jobs", UnsandboxedWorkflowRunner()
    async with Worker(harness.client, task_queue=queue, workflows=[AskingJob], workflow_runner=runner):
        yield Lister(harness)


@pytest_asyncio.fixture(loop_scope="session")
async def lister(harness: Harness) -> AsyncIterator[Lister]:
    async with run_lister(harness) as lister:
        yield lister


def a_task(task_id: str, identifier: str | None = THEIRS, model: str | None = MODEL, **given: Any) -> ListedTask:
    nothing = {"id": task_id, "safety_identifier": identifier, "model": model, "created_at": LONG_AGO}
    return ListedTask.model_validate(nothing | given)


def a_page(*tasks: ListedTask, total: int | None = None) -> Page:
    return Page(tasks=tasks, total=len(tasks) if total is None else total, asked_at=now())


async def test_listing_is_signalled_to_job(lister: Lister) -> None:
    before = now()
    lister.harness.fake.plan("list_page", a_page(a_task("cgt-1"), a_task("cgt-2", OURS)))
    await lister.ask("a", attempt=3)
    (answer,) = await lister.answers("a")
    assert (answer.attempt, answer.safety_identifier, answer.task_id) == (3, OURS, "cgt-2")
    assert (answer.complete, answer.unmarked) == (True, False)
    assert before - timedelta(seconds=1) < answer.began_at < now()


async def test_pages_of_two_keys_name_no_key(lister: Lister) -> None:
    """During a key exchange, one listing is read with two keys; each may hide tasks that the other shows."""
    for second, key in (("first", "first"), ("other", "")):
        pages = [a_page(a_task(f"cgt-{second}-{n}"), total=2) for n in (1, 2)]
        keyed = [page.model_copy(update={"key": k}) for page, k in zip(pages, ("first", second), strict=True)]
        held = await lister.ask_held(f"{second}-before")
        lister.harness.fake.plan("list_page", *keyed)
        # Several jobs ask for the same listing.
        for name in ("x", "y", "z"):
            await lister.ask(f"{second}-{name}")
        held.release()
        for name in ("x", "y", "z"):
            (answer,) = await lister.answers(f"{second}-{name}")
            assert (answer.key, answer.complete) == (key, True)


async def test_one_listing_answers_all_earlier_requests(lister: Lister) -> None:
    """A request during a listing gets the next one: the first does not show later tasks."""
    first = await lister.ask_held("a")
    lister.harness.fake.plan("list_page", a_page(a_task("cgt-1", OURS)))
    for name in ("b", "c", "d"):
        await lister.ask(name)
    asked = now()
    first.release()
    assert [(await lister.answers(name))[0].task_id for name in ("a", "b", "c", "d")] == [None, *["cgt-1"] * 3]
    assert (await lister.answers("a"))[0].began_at < asked <= (await lister.answers("b"))[0].began_at
    assert lister.pages == [(1, "default")] * 2


async def test_repeated_request_is_answered_once(lister: Lister) -> None:
    first = await lister.ask_held("a")
    lister.harness.fake.plan("list_page", a_page())
    for attempt in (1, 1, 2, 1):
        await lister.ask("b", attempt)
    first.release()
    assert sorted(answer.attempt for answer in await lister.answers("b", 2)) == [1, 2]
    assert len(lister.pages) == 2


async def test_custom_key_lists_each_model(lister: Lister) -> None:
    async def of_model(input: ListPageInput) -> Page:
        if not input.model:
            raise ApplicationError("filter.model is required", type="ModelNeeded", non_retryable=True)
        return a_page(a_task(f"cgt-{input.model}", OURS, model=None), total=1)

    first = await lister.ask_held("first")
    lister.harness.fake.always("list_page", of_model)
    await lister.ask("a", model="ep-1")
    await lister.ask("b")
    await lister.ask("c", model="ep-1")
    await lister.ask(None, model="ep-2")
    first.release()
    answers = [(await lister.answers(name))[0] for name in "abc"]
    assert [answer.task_id for answer in answers] == ["cgt-ep-1", f"cgt-{MODEL}", "cgt-ep-1"]
    assert all(answer.complete for answer in answers)
    await until(lambda: len(lister.harness.fake.of("list_page")) == 5, "the last model is listed", 60)
    asked = [call.input.model for call in lister.harness.fake.of("list_page")]
    assert asked == ["", "", MODEL, "ep-1", "ep-2"]


async def test_failing_listing_of_a_model_is_told(lister: Lister, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that does not name the model of a job gets no listing for it; other jobs get theirs."""

    async def of_model(input: ListPageInput) -> Page:
        if not input.model:
            raise ApplicationError("filter.model is required", type="ModelNeeded", non_retryable=True)
        if input.model == "ep-1":
            raise ApplicationError("404 no access to ep-1", type="ModelHidden", non_retryable=True)
        return a_page(a_task("cgt-1", OURS))

    first = await lister.ask_held("first")
    lister.harness.fake.always("list_page", of_model)
    await lister.ask("a", model="ep-1")
    await lister.ask("b")
    first.release()
    (failed,), (found,) = await lister.answers("a"), await lister.answers("b")
    assert (failed.complete, failed.task_id, found.task_id) == (False, None, "cgt-1")
    assert "no access to ep-1" in failed.problem
    await lister.ask("c", model="ep-1")
    assert (await lister.answers("c"))[0].problem == failed.problem, "each job that asks is told"
    asked = [call.input.model for call in lister.harness.fake.of("list_page")]
    assert asked.count("ep-1") == 2, "it is read once for each request"


@pytest.mark.parametrize(
    ("model", "tasks", "is_blind"),
    [
        ("ep-1", (), True),
        ("ep-1", (a_task("cgt-1", None), a_task("cgt-2", "of-another-program")), True),
        ("ep-1", (a_task("cgt-1", THEIRS),), False),
        ("ep-1", (a_task("cgt-1", THEIRS, is_other=True),), True),
        ("", (), False),
    ],
)
async def test_model_without_our_tasks_is_blind(
    lister: Lister, model: str, tasks: tuple[ListedTask, ...], is_blind: bool
) -> None:
    """A narrowed key may get nothing for a model that it no longer names, or tasks of other models."""

    async def of_model(input: ListPageInput) -> Page:
        if model and not input.model:
            raise ApplicationError("filter.model is required", type="ModelNeeded", non_retryable=True)
        return a_page(*tasks, total=len(tasks))

    first = await lister.ask_held("first")
    lister.harness.fake.always("list_page", of_model)
    await lister.ask("a", model="ep-1")
    first.release()
    (listing,) = await lister.answers("a")
    assert (listing.complete, listing.is_blind) == (True, is_blind)


async def test_each_requested_tier_is_listed(lister: Lister) -> None:
    async def tier(input: ListPageInput) -> Page:
        return a_page(a_task(f"cgt-{input.service_tier}", OURS))

    first = await lister.ask_held("first")
    lister.harness.fake.always("list_page", tier)
    await lister.ask("a", service_tier="flex")
    await lister.ask("b", service_tier="default")
    await lister.ask("c", service_tier="flex")
    first.release()
    assert [(await lister.answers(name))[0].task_id for name in "abc"] == ["cgt-flex", "cgt-default", "cgt-flex"]
    assert lister.pages == [(1, "default"), (1, "default"), (1, "flex")]


# --- the answer ------------------------------------------------------------------------------------------------------

SINCE = 1_800_000_000.0


def numbered(*numbers: int, **given: Any) -> list[ListedTask]:
    return [a_task(f"cgt-{number}", **given) for number in numbers]


NEW = {"created_at": 32_000_000_000.0}


@pytest.mark.parametrize(
    ("pages", "complete", "read"),
    [
        pytest.param([a_page()], True, 1, id="nothing"),
        pytest.param([a_page(*numbered(1, 2), total=3), a_page(*numbered(3), total=3)], True, 2, id="two pages"),
        pytest.param([a_page(*numbered(1, 2), total=2)], True, 1, id="a page that is full is the last one"),
        pytest.param([a_page(*numbered(1), total=3), a_page(total=3)], False, 2, id="an empty page ends it"),
        pytest.param([a_page(total=3)], False, 1, id="nothing, and more was promised"),
        pytest.param(
            [a_page(*numbered(1, 2), total=3), a_page(*numbered(2), total=4)],
            False,
            3,
            id="pushed to the next page by a new one",
        ),
        pytest.param(
            [a_page(*numbered(1, 2), total=4), a_page(*numbered(4), total=3)],
            False,
            2,
            id="one was erased meanwhile, and another slipped past",
        ),
        pytest.param([a_page(*numbered(1, 1))], False, 1, id="the same one twice"),
        pytest.param([a_page(*numbered(9, **NEW), *numbered(1), total=2)], False, 1, id="one is new"),
        pytest.param(
            [a_page(*numbered(1, 2), total=3), a_page(*numbered(9, **NEW), total=3)],
            False,
            2,
            id="a new one in the place of an old one",
        ),
        pytest.param([a_page(*numbered(1, created_at=None))], False, 1, id="one without an age"),
    ],
)
async def test_listing_with_all_older_tasks_is_complete(
    lister: Lister, pages: list[Page], complete: bool, read: int
) -> None:
    lister.harness.fake.plan("list_page", *pages)
    lister.harness.fake.always("list_page", a_page(total=4))
    await lister.ask("a")
    (answer,) = await lister.answers("a")
    assert (answer.complete, answer.task_id) == (complete, None)
    assert [page for page, _ in lister.pages] == list(range(1, read + 1))


async def test_listing_age_counts_from_request(lister: Lister) -> None:
    """A page can wait for its turn: tasks that are created meanwhile do not make the listing incomplete."""
    await lister.harness.stop("list")
    await lister.ask("a")
    await until(lambda: _is_scheduled(lister), "the page waits")
    await asyncio.sleep(1)
    lister.harness.fake.plan("list_page", a_page(a_task("cgt-1", created_at=now().timestamp())))
    await lister.harness.start_workers("list")
    assert (await lister.answers("a"))[0].complete


async def _is_scheduled(lister: Lister) -> bool:
    return lister.handle is not None and await lister.handle.scheduled("list_page") != []


async def test_fast_worker_clock_makes_no_task_older(lister: Lister) -> None:
    ahead = now() + timedelta(hours=2)
    task = a_task("cgt-1", created_at=(now() + timedelta(hours=1)).timestamp())
    lister.harness.fake.plan("list_page", a_page(task).model_copy(update={"asked_at": ahead}))
    await lister.ask("a")
    assert not (await lister.answers("a"))[0].complete


async def test_task_on_later_page_is_found(lister: Lister) -> None:
    lister.harness.fake.plan(
        "list_page", a_page(*numbered(1, 2), total=5), a_page(*numbered(3, 4), total=5), a_page(a_task("x", OURS))
    )
    await lister.ask("a")
    assert (await lister.answers("a"))[0].task_id == "x"


@pytest.mark.parametrize(("bound", "most"), [("MOST_PAGES", 3), ("MOST_LISTING_BYTES", 200_000)])
async def test_endless_listing_is_given_up(
    unsandboxed: Harness, monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    """The server would end a run whose pages fill its history."""
    monkeypatch.setattr(policies, bound, most)
    tasks = [a_task(f"cgt-{number}" + "é" * 200) for number in range(200)]
    unsandboxed.fake.always("list_page", a_page(*tasks, total=1_000_000))
    async with run_lister(unsandboxed) as lister:
        await lister.ask("a")
        assert not (await lister.answers("a"))[0].complete
        assert 2 <= len(lister.pages) <= 3


@pytest.mark.parametrize(
    ("task", "wanted", "unmarked"),
    [
        pytest.param(a_task("x", THEIRS, created_at=SINCE), {}, False, id="of another user"),
        pytest.param(a_task("x", None, created_at=SINCE), {}, True, id="as old as the claim"),
        pytest.param(a_task("x", None, created_at=SINCE + 99), {}, True, id="younger"),
        pytest.param(a_task("x", None, created_at=SINCE - 1), {}, False, id="older"),
        pytest.param(a_task("x", None, created_at=None), {}, True, id="of unknown age"),
        pytest.param(a_task("x", None, "another", created_at=SINCE), {}, False, id="of another model"),
        pytest.param(a_task("x", None, None, created_at=SINCE), {}, True, id="of unknown model"),
        pytest.param(
            a_task("x", None, "another", created_at=SINCE), {"model": "ep-2026-x"}, True, id="asked for an endpoint"
        ),
        pytest.param(a_task("x", OURS, created_at=SINCE), {}, False, id="ours"),
    ],
)
async def test_unmarked_task_bars_absence(
    lister: Lister, task: ListedTask, wanted: dict[str, Any], unmarked: bool
) -> None:
    lister.harness.fake.plan("list_page", a_page(a_task("cgt-1"), task))
    await lister.ask("a", **{"since": SINCE} | wanted)
    assert (await lister.answers("a"))[0].unmarked is unmarked


async def test_each_job_gets_its_task(lister: Lister) -> None:
    tasks = [a_task(f"cgt-{n}", f"{n:016x}-{n:032x}") for n in range(3)]
    first = await lister.ask_held("first")
    lister.harness.fake.plan("list_page", a_page(*tasks, a_task("unmarked", None, "another")))
    for n in range(4):
        model = "another" if n == 3 else MODEL
        await lister.ask(str(n), attempt=n + 1, safety_identifier=f"{n:016x}-{n:032x}", model=model)
    first.release()
    answers = [(await lister.answers(str(n)))[0] for n in range(4)]
    assert [(t.attempt, t.task_id, t.unmarked) for t in answers] == [
        (1, "cgt-0", False),
        (2, "cgt-1", False),
        (3, "cgt-2", False),
        (4, None, True),
    ]


# --- requests that change nothing ------------------------------------------------------------------------------------


async def test_ended_job_does_not_block_others(lister: Lister) -> None:
    first = await lister.ask_held("first")
    lister.harness.fake.always("list_page", a_page())
    for name in ("a", "ended"):
        await lister.ask(name)
    # Several requests may come in one signal.
    await lister.start_job("c")
    await lister.start(SIGNAL_LISTING_REQUESTED, lister.request("never-was"), lister.request("c"))
    await lister.jobs["ended"].signal("end")
    await lister.jobs["ended"].result()
    first.release()
    for name in ("first", "a", "c"):
        await lister.answers(name)
    await lister.ask("later")
    await lister.answers("later")
    assert len(lister.harness.jobs) == 1, "it is still the same lister"


async def test_request_without_job_is_listed(lister: Lister) -> None:
    """The page notes whether identifiers are shown; that is the whole answer."""
    lister.harness.fake.plan("list_page", a_page(a_task("cgt-1")))
    await lister.ask(None)
    await lister.harness.fake.called("list_page")
    assert lister.handle is not None
    assert await lister.handle.scheduled("answer_jobs") == []


@pytest.mark.parametrize("odd", [[], [None], ["x"], [{}], [{"job_id": "x", "attempt": "one"}], [[1, 2]], [1, 2, 3]])
async def test_nonsense_is_ignored(lister: Lister, odd: list[Any]) -> None:
    lister.harness.fake.plan("list_page", a_page())
    await lister.start(SIGNAL_LISTING_REQUESTED, *odd)
    await lister.ask("a")
    await lister.answers("a")
    assert len(lister.pages) == 1


async def test_failed_list_is_retried_for_all_jobs(lister: Lister) -> None:
    lister.harness.fake.plan("list_page", ApplicationError("500"), a_page(*numbered(1)))
    await lister.ask("a")
    assert (await lister.answers("a"))[0].complete
    assert [call.tries for call in lister.harness.fake.of("list_page")] == [1, 2]


async def test_two_hundred_requests_share_pages(lister: Lister) -> None:
    async def slow(input: ListPageInput) -> Page:
        await asyncio.sleep(1)
        return a_page(*[a_task(f"cgt-{n}", f"{n:016x}-{n:032x}") for n in range(0, 200, 2)])

    lister.harness.fake.always("list_page", slow)
    for n in range(200):
        await lister.start_job(str(n))
    await asyncio.gather(*(lister.ask(str(n), safety_identifier=f"{n:016x}-{n:032x}") for n in range(200)))
    for n in range(200):
        (answer,) = await lister.answers(str(n), seconds=60)
        assert answer.task_id == (f"cgt-{n}" if n % 2 == 0 else None)
    assert len(lister.pages) < 15


async def test_many_answers_are_sent_in_parts(unsandboxed: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "ANSWERS_AT_ONCE", 5)
    async with run_lister(unsandboxed) as lister:
        first = await lister.ask_held("first")
        unsandboxed.fake.plan("list_page", a_page())
        for n in range(24):
            await lister.ask(str(n))
        first.release()
        for n in range(24):
            await lister.answers(str(n))
    assert len(await unsandboxed.jobs[0].scheduled("answer_jobs")) == 1 + 5


async def test_idle_lister_ends_and_restarts(unsandboxed: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "LISTER_IDLE", timedelta(seconds=1))
    unsandboxed.fake.always("list_page", a_page())
    async with run_lister(unsandboxed) as lister:
        for turn in (1, 2):
            await lister.ask("a")
            await lister.answers("a", turn)
            assert lister.handle is not None
            await asyncio.wait_for(lister.handle.result(), 15)
            assert (await lister.handle.describe()).status is WorkflowExecutionStatus.COMPLETED
        assert len(unsandboxed.jobs) == 2


async def test_many_carried_requests_are_answered(harness: Harness) -> None:
    """What a run begins with is no reason for the next one to take over."""
    async with run_lister(harness) as lister:
        harness.fake.always("list_page", a_page())
        requests = (lister.request(None, attempt, model="m" * 150) for attempt in range(5_000))
        await lister.start(requested=tuple(requests))
        await harness.fake.called("list_page")
        assert lister.handle is not None
        assert (await lister.handle.describe()).run_id == lister.handle.first_execution_run_id


def test_carried_requests_fit_into_an_argument() -> None:
    longest = ListingRequest(
        job_id="seedance-" + "0" * 64,
        attempt=9_999,
        safety_identifier=OURS,
        model="ep-20260101000000-abcdef",
        service_tier="default",
        since=LONG_AGO,
    )
    requested = tuple(longest.model_copy(update={"attempt": attempt}) for attempt in range(10_000))
    carried = ListTasks(ListerInput(route="route", requested=requested))._carried()
    assert len(carried) == policies.MOST_WAITING
    assert len(ListerInput(route="route", requested=carried).model_dump_json()) < 2 * 1024**2


async def test_requests_are_carried_into_new_run(renewing: Harness) -> None:
    async with run_lister(renewing) as lister:
        first = await lister.ask_held("a")
        renewing.fake.always("list_page", a_page())
        for n in range(SUGGESTED_FROM + 5):
            await lister.ask(f"late-{n % 3}", attempt=n // 3)
        first.release()
        await lister.answers("a")
        for n in range(3):
            assert len(await lister.answers(f"late-{n}", 15)) == 15
        assert len(lister.pages) == 2
        last = (await renewing.jobs[0].events())[-1]
        assert last.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW


async def test_worker_without_cache_lists(idle: Harness) -> None:
    idle.cached = 0
    await idle.start_workers()
    idle.fake.always("list_page", a_page(*numbered(1)))
    async with run_lister(idle) as lister:
        for turn in (1, 2, 3):
            await lister.ask("a")
            began: list[datetime] = [answer.began_at for answer in await lister.answers("a", turn)]
            assert began == sorted(set(began))


async def test_requests_outlast_outage_of_list(unsandboxed: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "LIST_WITHIN", timedelta(seconds=2))
    monkeypatch.setattr(policies, "MOST_EVENTS", 60)
    unsandboxed.fake.always("list_page", ApplicationError("503", type="ProviderUnavailable"))
    async with run_lister(unsandboxed) as lister:
        for attempt in range(1, 41):
            await lister.ask("a", attempt=attempt)

        async def is_renewed() -> bool:
            last = (await unsandboxed.jobs[0].events())[-1]
            return last.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW

        await until(is_renewed, "a new run takes over while LIST is down")
        unsandboxed.fake.always("list_page", a_page())

        async def all_are_answered() -> bool:
            answers = await lister.jobs["a"].query("answers", result_type=list[Listing])
            return {answer.attempt for answer in answers if not answer.problem} == set(range(1, 41))

        await until(all_are_answered, "every request is answered")


async def test_failing_list_is_told_to_later_requests(unsandboxed: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "LIST_WITHIN", timedelta(seconds=7))
    unsandboxed.fake.always("list_page", ApplicationError("HTTP 502 from a gateway", type="ProviderUnavailable"))
    async with run_lister(unsandboxed) as lister:
        await lister.ask("a")
        await unsandboxed.fake.called("list_page")
        await lister.ask("b")
        await lister.answers("a")
        (told,) = await lister.answers("b", seconds=2)
        assert "HTTP 502 from a gateway" in told.problem, "not only by the next listing that fails"
        unsandboxed.fake.always("list_page", a_page())
        await lister.answers("b", 2)


async def test_failing_list_is_told_once(unsandboxed: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "LIST_WITHIN", timedelta(seconds=2))
    before = now()
    unsandboxed.fake.always("list_page", ApplicationError("HTTP 502 from a gateway", type="ProviderUnavailable"))
    async with run_lister(unsandboxed) as lister:
        await lister.ask("a")
        (told,) = await lister.answers("a")
        assert "HTTP 502 from a gateway" in told.problem
        assert (told.complete, told.task_id) == (False, None)
        assert before - timedelta(seconds=1) < told.began_at < now()
        # Who asks later is told, too; and the first is not told again.
        await lister.ask("b")
        await lister.answers("b")
        unsandboxed.fake.always("list_page", a_page())
        assert [answer.problem for answer in await lister.answers("a", 2)][1:] == [""]
        assert [answer.complete for answer in await lister.answers("b", 2)] == [False, True]
