"""Cases of the fault tests: a stack, and any number of namespaces on it, each with workers of its own.

Jobs in namespaces of their own can have their workers killed side by side. They share bucket and provider, as two
deployments of one account do.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError

from dev.process import Child, start
from dev.stack import ROOT, Stack, jobs_of, running_stack, start_temporal, temporal_client
from seedance_temporal import JobState, VideoJobs, VideoRequest
from seedance_temporal.identity import ObjectNames, job_id_of, request_hash
from tests.e2e.invariants import check_invariants
from tests.e2e.operator import new_namespace
from tests.e2e.requests import a_request, creates_of
from tests.support.polling import until

PATIENCE = 200.0
# With these, a lost create is noticed after 35 seconds, when its window is over.
SOON = {"SEEDANCE_CREATE_TIMEOUT_SECONDS": "5", "SEEDANCE_RECOVERY_SECONDS": "20"}
# No operator is faster; a job that settles itself until then needs none.
_REACTION_SECONDS = 5.0
# Short, so that a lost create is noticed soon; polling alone, because each namespace would need a relay of its own.
_SETTINGS = {
    "SEEDANCE_CALLBACK_URL": "",
    "SEEDANCE_POLL_FIRST_SECONDS": "2",
    "SEEDANCE_POLL_MAX_SECONDS": "3",
    "SEEDANCE_CREATE_TIMEOUT_SECONDS": "8",
    # Beyond the time after which a lost create is noticed, as it is with the defaults.
    "SEEDANCE_RECOVERY_SECONDS": "55",
}


@dataclass
class Harness:
    """A stack and its namespaces."""

    stack: Stack
    clients: list[Client] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def case(self, name: str, settings: dict[str, str] | None = None) -> AsyncIterator[Case]:
        """Yield a job in a namespace of its own, without a worker; those that the test starts end with it.

        Args:
            name: Of the case, for messages.
            settings: Variables of its workers.
        """
        client = await new_namespace(self.stack, f"faults-{uuid.uuid4().hex[:12]}")
        self.clients.append(client)
        marker = self.stack.folder / f"{name}-{client.namespace}.marker"
        case = Case(self, name, client, a_request(), marker, settings or {})
        try:
            yield case
        finally:
            await case.close()

    async def restart_temporal(self, between: Callable[[], Any] = lambda: None) -> None:
        """Kill the Temporal server as a crash would, and start it again on the same ports and database."""
        server = self.stack.children["temporal"]
        await server.kill()
        assert server.process.returncode == -signal.SIGKILL, "the fault did not happen"
        between()
        self.stack.children["temporal"] = await start_temporal(self.stack.ports, self.stack.folder)
        await temporal_client(self.stack.children["temporal"], self.stack.ports)

    async def check(self) -> None:
        """Assert the invariants, over all namespaces."""
        for _ in range(5):
            try:
                return await check_invariants(self.stack, self.clients)
            except RPCError as error:
                # A server that was killed knows its namespaces again only after a while, each for itself.
                if "Namespace" not in error.message:
                    raise
            await asyncio.sleep(5)
        return await check_invariants(self.stack, self.clients)


async def all_of(cases: Sequence[Awaitable[None]]) -> None:
    """Run cases side by side, each to its end.

    Raises:
        BaseExceptionGroup: The failures of all.
    """
    ended = await asyncio.gather(*cases, return_exceptions=True)
    wrong = [error for error in ended if isinstance(error, BaseException)]
    if wrong:
        raise BaseExceptionGroup(f"{len(wrong)} of {len(ended)} cases", wrong)


@contextlib.asynccontextmanager
async def started_harness(**settings: str) -> AsyncIterator[Harness]:
    """Run a stack without workers. The provider is fast, and allows several listers of one account."""
    async with running_stack(speed=60, workers=False, settings=settings) as stack:
        await stack.ark.configure(list_per_second=None, get_per_second=None, running_limit=100, create_per_minute=None)
        yield Harness(stack)


async def is_killed(process: asyncio.subprocess.Process) -> None:
    """Assert that a process ends by SIGKILL."""
    assert await asyncio.wait_for(process.wait(), 60) == -signal.SIGKILL, "the fault did not happen"


@dataclass
class Case:
    """One job, the worker that suffers a fault, and the facts about both."""

    harness: Harness
    name: str
    client: Client
    request: VideoRequest
    marker: Path
    settings: dict[str, str]
    children: list[Child] = field(default_factory=list)
    asked: bool = False

    @property
    def stack(self) -> Stack:
        return self.harness.stack

    @property
    def jobs(self) -> VideoJobs:
        return jobs_of(self.client)

    @property
    def job_id(self) -> str:
        return job_id_of(self.request)

    def _environment(self, changes: dict[str, str]) -> dict[str, str]:
        return (
            self.stack.environment
            | {"TEMPORAL_NAMESPACE": self.client.namespace, "ARK_API_KEY": "local-ark-key"}
            | {"ARK_BASE_URL": self.stack.ark.base_url("byteplus")}
            | _SETTINGS
            | self.settings
            | changes
        )

    async def start_worker(self, **changes: str) -> Child:
        """Start a worker as it is in production."""
        return await self._start([sys.executable, "worker.py"], changes)

    async def start_faulty(self, **faults: str) -> Child:
        """Start a worker that suffers faults; faults: ``FAULT_…`` without the prefix."""
        meant = {"MARKER": str(self.marker), "HASH": request_hash(self.request), "PROMPT": str(self.request.prompt)}
        changes = {f"FAULT_{name}": value for name, value in (meant | faults).items()}
        return await self._start([sys.executable, "-m", "tests.faults.worker"], changes)

    async def _start(self, command: list[str], changes: dict[str, str]) -> Child:
        name = f"worker-{self.client.namespace}-{len(self.children)}"
        child = await start(name, command, self._environment(changes), self.stack.folder, cwd=ROOT)
        self.stack.children[name] = child
        self.children.append(child)
        await child.until_log_says("serving route", PATIENCE)
        return child

    async def submit(self) -> None:
        await self.jobs.submit(self.request)

    async def submit_to_faulty(self, point: str, signal: str, **faults: str) -> asyncio.subprocess.Process:
        """Submit the job to a worker that sends itself a signal at a point, and return when it does."""
        worker = await self.start_faulty(POINT=point, SIGNAL=signal, **faults)
        await self.submit()
        await self.until_fired()
        return worker.process

    async def crash(self, point: str) -> None:
        """Submit the job to a worker that is killed at a point."""
        await is_killed(await self.submit_to_faulty(point, "SIGKILL"))

    async def until_fired(self, times: int = 1) -> None:
        """Wait for the lines in the marker file that show that the fault happened."""
        await until(lambda: len(self.fired) >= times, "the fault happens", PATIENCE)

    @property
    def fired(self) -> list[str]:
        return self.marker.read_text().splitlines() if self.marker.exists() else []

    async def until_timed_out(self) -> None:
        """Wait until Temporal has given an activity up, because its worker does not answer."""
        await until(self._has_timed_out, "an activity times out", PATIENCE, every=0.5)

    async def _has_timed_out(self) -> bool:
        handle = self.client.get_workflow_handle(self.job_id)
        run = await handle.describe()
        if any(pending.attempt > 1 for pending in run.raw_description.pending_activities):
            return True
        async for event in handle.fetch_history_events():
            if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT:
                return True
            started = event.activity_task_started_event_attributes
            if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED and started.attempt > 1:
                return True
        return run.status is not WorkflowExecutionStatus.RUNNING

    async def until_known(self) -> None:
        """Wait until a server that was killed has loaded the namespace again for good."""
        since = 0
        async with asyncio.timeout(PATIENCE):
            while since < 20:
                try:
                    await self.client.get_workflow_handle(self.job_id).describe()
                    since += 1
                except RPCError:
                    since = 0
                await asyncio.sleep(0.5)

    async def settle(self, seconds: float = PATIENCE) -> JobState:
        """Follow the job to its end. Where it needs an operator for a create's outcome, answer by the provider's own.

        Raises:
            AssertionError: It did not end, and has no Attention.
        """
        last: JobState | None = None
        try:
            async with asyncio.timeout(seconds):
                async for job in self.jobs.job(self.job_id).follow(every=0.5):
                    last = job
                    if job.detail is not None and job.attention == "unknown_create":
                        await asyncio.sleep(_REACTION_SECONDS)
                        now = await self.jobs.job(self.job_id).state()
                        if now.attention == "unknown_create" and now.attempt is not None:
                            await self._answer(now.attempt)
        except TimeoutError:
            raise AssertionError(f"{self.name}: the job does not come to an end: {last}") from None
        assert last is not None
        return last

    async def _answer(self, attempt: int) -> None:
        self.asked = True
        created = [entry.task_id for entry in await creates_of(self.stack, self.request) if entry.committed]
        for task_id in created:
            adopted = await self.jobs.job(self.job_id).resolve(attempt=attempt, action="adopt", task_id=task_id)
            if adopted.accepted:
                return
        await self.jobs.job(self.job_id).resolve(attempt=attempt, action="not_created")

    async def ledger(self) -> str:
        """Return the job's ledger objects, in short."""
        names = ObjectNames("seedance", request_hash(self.request))
        facts = []
        for stored in await self.stack.bucket.list(f"{names.root}attempts/"):
            number, kind = stored.name.rpartition("/")[2].removesuffix(".json").split(".", 1)
            if kind == "outcome":
                kind = json.loads(await self.stack.bucket.read(stored.name) or b"{}")["kind"]
            facts.append(f"{int(number)} {kind.split('-')[0]}")
        return ", ".join(facts)

    async def stored_once(self, job: JobState, *, paid: int = 1) -> dict[str, object]:
        """Assert that the job's video is stored and was paid for once; return its row of the table."""
        assert job.result is not None, f"{self.name}: {job.phase}: {job.error}"
        entries = await creates_of(self.stack, self.request)
        committed = [entry for entry in entries if entry.committed]
        assert len(committed) == paid, f"{self.name}: paid {len(committed)} times"
        assert job.result.task_id in {entry.task_id for entry in committed}
        return {
            "fired": self.fired[0] if self.fired else "no",
            "POSTs": len(entries),
            "paid": len(committed),
            "ledger": await self.ledger(),
            "end": f"{job.phase}, an operator was asked" if self.asked else job.phase,
        }

    async def close(self) -> None:
        """End the case's workers; thaw a frozen one for that."""
        for child in self.children:
            if child.process.returncode is None:
                os.kill(child.process.pid, signal.SIGCONT)
                await child.kill()
