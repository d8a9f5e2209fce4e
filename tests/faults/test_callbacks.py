"""Forged, late and repeated callbacks: no outcome changes, no workflow blocks, nothing is paid."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from dev.stack import CALLBACK_SECRET, HOST, Stack
from seedance_temporal.identity import callback_url, job_id_of
from tests.e2e.requests import a_faulty_request, a_request, creates_of, until, until_committed, until_created
from tests.faults.cases import PATIENCE, Harness
from tests.faults.report import AddRow

TITLE = "Callbacks"
pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


class Caller:
    """A sender who can reach the relay, and who may know the callback URL of a job."""

    def __init__(self, stack: Stack, job_id: str, task_id: str) -> None:
        self.stack, self.job_id, self.task_id = stack, job_id, task_id
        self._base = f"http://{HOST}:{stack.ports.relay}"
        self._http = httpx.AsyncClient(trust_env=False, timeout=30)

    def url(self, attempt: int = 1, job_id: str = "") -> str:
        return callback_url(self._base, CALLBACK_SECRET, job_id or self.job_id, attempt)

    async def post(self, url: str, body: Any) -> int:
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        return (await self._http.post(url, **content)).status_code

    async def send(self, *statuses: str, attempt: int = 1, job_id: str = "", task_id: str = "") -> list[int]:
        """Send callbacks to the right URL, and return the relay's answers."""
        url = self.url(attempt, job_id)
        return [await self.post(url, self.body(status, task_id)) for status in statuses]

    def body(self, status: str, task_id: str = "") -> dict[str, str]:
        return {"id": task_id or self.task_id, "status": status}


async def _forged(caller: Caller) -> list[int]:
    url = caller.url()
    wrong = [url[:-1] + ("0" if url[-1] != "0" else "1"), url.replace("/1/", "/2/"), url[:-20], url + "/", url.upper()]
    return [await caller.post(one, caller.body("succeeded")) for one in wrong]


async def _replayed(caller: Caller) -> list[int]:
    return await caller.send(*["running"] * 20)


async def _wrong_end(caller: Caller) -> list[int]:
    return await caller.send("succeeded", "failed", "expired", "cancelled")


async def _of_another_attempt(caller: Caller) -> list[int]:
    return [code for attempt in (2, 3, 9999) for code in await caller.send("failed", attempt=attempt)]


async def _of_another_job(caller: Caller) -> list[int]:
    """With a URL that is right for the other job, which exists, and a task that is not its own."""
    request = a_request()
    other = (await caller.stack.jobs.submit(request)).id
    answers = await caller.send("failed", "succeeded", job_id=other)
    answers += await caller.send("failed", task_id="cgt-of-other-job")
    theirs = await caller.stack.jobs.job(other).result()
    assert theirs.task_id != caller.task_id
    assert len(await creates_of(caller.stack, request)) == 1
    return answers


async def _reordered(caller: Caller) -> list[int]:
    return await caller.send("succeeded", "running", "queued", "running", "queued")


async def _a_thousand(caller: Caller) -> list[int]:
    async def some(worker: int) -> list[int]:
        statuses = ("running", "succeeded", "failed", "queued")
        return await caller.send(*(statuses[(worker + n) % 4] for n in range(50)))

    return [code for codes in await asyncio.gather(*map(some, range(20))) for code in codes]


async def _malformed(caller: Caller) -> list[int]:
    bodies: list[Any] = [b"", b"{", b"\xff\xfe", b"[" * 5000, [], None, 7, {}, {"id": 7, "status": "failed"}]
    bodies += [{"id": "x"}, {"id": "", "status": ""}, {"id": "x" * 300, "status": "failed"}, {"id": "x" * 70_000}]
    bodies += [{"id": "../../x?y#z", "status": "failed"}, {"id": "\x00\u202e'\"", "status": "\n" * 200}]
    return [await caller.post(caller.url(), body) for body in bodies]


KINDS: dict[str, Callable[[Caller], Awaitable[list[int]]]] = {
    "forged": _forged,
    "replayed": _replayed,
    "of a wrong end": _wrong_end,
    "of another attempt": _of_another_attempt,
    "of another job": _of_another_job,
    "reordered": _reordered,
    "a thousand of one": _a_thousand,
    "malformed": _malformed,
}


@pytest.mark.parametrize("kind", KINDS)
async def test_callbacks_change_no_running_job(served: Harness, report: AddRow, kind: str) -> None:
    stack = served.stack
    request, _ = await a_faulty_request(stack, "task", "stay_running")
    job_id = (await stack.jobs.submit(request)).id
    before = await until_created(stack, job_id)
    caller = Caller(stack, job_id, str(before.task_id))
    codes = await KINDS[kind](caller)
    if kind == "forged":
        assert set(codes) == {404}
    assert all(code < 500 for code in codes), "the relay accepts it, or refuses it"
    # A success that a callback named is copied at once, or would be: the provider says that there is none yet.
    await until(stack, job_id, lambda job: job.phase in {"queued", "running"})
    await stack.ark.release(before.task_id)
    async with asyncio.timeout(PATIENCE):
        result = await stack.jobs.job(job_id).result()
    assert result.task_id == before.task_id
    # Late ones: the run is closed.
    late = await KINDS[kind](caller)
    assert all(code < 500 for code in late)
    again = await stack.jobs.job(job_id).state()
    assert again.result == result
    assert len(await creates_of(stack, request)) == 1
    answers = ", ".join(f"{codes.count(code)}× {code}" for code in sorted(set(codes)))
    report(TITLE, {"callbacks": kind, "the relay answered": answers, "paid": 1, "end": again.phase})


async def test_early_callbacks_change_nothing(served: Harness, report: AddRow) -> None:
    """Before the create is answered: of its own task, which the job does not know yet, and of foreign ids."""
    stack = served.stack
    request, _ = await a_faulty_request(stack, "create", "slow", seconds=4)
    job_id = job_id_of(request)
    await stack.jobs.submit(request)
    task_id = await until_committed(stack, request)
    caller = Caller(stack, job_id, task_id)
    codes = await caller.send("running", "succeeded", "failed")
    for n in range(60):
        codes += await caller.send("succeeded", task_id=f"cgt-nobody-{n}")
    assert set(codes) == {200}
    state = await stack.jobs.job(job_id).state()
    assert state.detail is not None, "the workflow answers"
    async with asyncio.timeout(PATIENCE):
        result = await stack.jobs.job(job_id).result()
    assert result.task_id == task_id
    assert len(await creates_of(stack, request)) == 1
    report(TITLE, {"callbacks": "early", "the relay answered": f"{len(codes)}× 200", "paid": 1, "end": "stored"})


@pytest.mark.parametrize("mode", ["repeated", "reversed", "off"])
async def test_provider_callbacks_change_nothing(served: Harness, report: AddRow, mode: str) -> None:
    stack, request = served.stack, a_request()
    await stack.ark.configure(callbacks=mode)
    try:
        job_id = (await stack.jobs.submit(request)).id
        async with asyncio.timeout(PATIENCE):
            result = await stack.jobs.job(job_id).result()
    finally:
        await stack.ark.configure(callbacks="on")
    (entry,) = await creates_of(stack, request)
    assert entry.task_id == result.task_id
    report(TITLE, {"callbacks": f"by the provider: {mode}", "the relay answered": "-", "paid": 1, "end": "stored"})
