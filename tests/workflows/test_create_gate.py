"""The gate: it holds the creates of a queue, has one job probe, and opens again step by step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest
import pytest_asyncio
from temporalio import workflow
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowFailureError
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from seedance_temporal.contract import Queues
from seedance_temporal.gate import hold_of, is_held, pause, set_rate, unpause
from seedance_temporal.gate_contract import (
    GATE,
    MEMO_HOLD,
    SIGNAL_PAUSE,
    SIGNAL_PROBE,
    SIGNAL_REPORTED,
    SIGNAL_UNPAUSE,
    Closing,
    GateInput,
    GateReport,
    GateState,
    Hold,
    Pause,
    gate_id,
)
from tests.support.polling import until
from tests.workflows.conftest import SUGGESTED_FROM
from tests.workflows.fakes import Held, now
from tests.workflows.harness import Harness, Job
from workflows import policies

CONTINUED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW
# A timer takes a second at least.
SOON = 0.01
HOURS = 3600.0


@workflow.defn(name="ProbingJob")
class ProbingJob:
    """A job that counts how often the gate asked it to probe."""

    def __init__(self) -> None:
        self._asked = 0
        self._over = False

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: self._over)

    @workflow.signal(name=SIGNAL_PROBE)
    def probe(self) -> None:
        self._asked += 1

    @workflow.signal
    def end(self) -> None:
        self._over = True

    @workflow.query
    def asked(self) -> int:
        return self._asked


@dataclass
class Gate:
    """The gate of a route's creates, and jobs behind it."""

    harness: Harness
    handle: Job | None = None
    names: list[str] = field(default_factory=list)

    @property
    def queue(self) -> str:
        return Queues(self.harness.route).create

    def job_id(self, name: str) -> str:
        return f"seedance-{sha256(f'{self.harness.route}-{name}'.encode()).hexdigest()}"

    async def signal(self, signal: str, *args: Any, state: GateState | None = None) -> None:
        """Signal as the activity does: start the gate if there is none."""
        handle = await self.harness.client.start_workflow(
            GATE,
            GateInput(route=self.harness.route, queue=self.queue, state=state or GateState()),
            id=gate_id(self.queue),
            task_queue=Queues(self.harness.route).workflows,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            start_signal=signal,
            start_signal_args=args,
        )
        self.handle = Job(handle)
        if handle.first_execution_run_id not in {known.first_execution_run_id for known in self.harness.jobs}:
            self.harness.jobs.append(self.handle)

    async def report(self, name: str, answer: Any = "closed", *, seconds: float = SOON, **given: Any) -> None:
        """Report as a job; a refused one begins to wait, and can be asked to probe."""
        state = given.pop("state", None)
        if answer == "closed" and name not in self.names and name != "ended":
            self.names.append(name)
            await self.harness.client.start_workflow(
                "ProbingJob", id=self.job_id(name), task_queue=f"{self.harness.route}-jobs"
            )
        why = {"why": "AccountOverdueError: no"} if answer == "closed" else {}
        report = GateReport(job_id=self.job_id(name), answer=answer, probe_seconds=seconds, **why | given)
        await self.signal(SIGNAL_REPORTED, report, state=state)

    async def pause(self) -> None:
        await self.signal(SIGNAL_PAUSE, Pause(why="a test", by="an operator", since=now()))

    async def asked(self, name: str, times: int = 1) -> None:
        """Wait until a job was asked to probe so often, and no more often."""
        handle = self.harness.client.get_workflow_handle(self.job_id(name))
        seen: list[int] = []

        async def enough() -> bool:
            seen.append(await handle.query("asked"))
            return seen[-1] >= times

        await until(enough, f"{name} is asked to probe {times} times")
        assert seen[-1] == times

    async def hold(self, **expected: Any) -> Hold:
        """Return what the gate shows, as soon as it is as expected."""
        seen: list[Any] = []

        async def as_expected() -> bool:
            handle = self.harness.client.get_workflow_handle(gate_id(self.queue))
            seen[:] = [await (await handle.describe()).memo_value(MEMO_HOLD, None, type_hint=Hold)]
            return seen[0] is not None and all(getattr(seen[0], name) == value for name, value in expected.items())

        await until(as_expected, f"{expected}; last seen {seen}")
        hold: Hold = seen[0]
        return hold

    async def rates(self, *expected: tuple[str, float | None]) -> None:
        """Wait until these rates were set, of the queue and of its probes, in this order and no others."""
        await self.harness.fake.called("set_create_rate", len(expected))
        assert self.set == list(expected)

    @property
    def set(self) -> list[tuple[str, float | None]]:
        calls = [call.input for call in self.harness.fake.of("set_create_rate")]
        return [("create" if call.queue == self.queue else "probe", call.share) for call in calls]

    async def ends(self) -> None:
        assert self.handle is not None
        await self.handle.newest().result()


@asynccontextmanager
async def run_gate(harness: Harness) -> AsyncIterator[Gate]:
    harness.fake.always("set_create_rate", None)
    # It runs workflows of this module, which the sandbox cannot import.
    queue, runner = f"{harness.route}-jobs", UnsandboxedWorkflowRunner()
    async with Worker(harness.client, task_queue=queue, workflows=[ProbingJob], workflow_runner=runner):
        yield Gate(harness)


@pytest_asyncio.fixture(loop_scope="session")
async def gate(harness: Harness) -> AsyncIterator[Gate]:
    async with run_gate(harness) as gate:
        yield gate


CLOSED = [("create", 0.0), ("probe", None)]
RAMP = [("create", share) for share in policies.RAMP]
OPEN = [("create", None)]


async def test_refusal_holds_until_probe_succeeds(gate: Gate) -> None:
    await gate.report("a")
    await gate.asked("a")
    await gate.rates(*CLOSED)
    await gate.report("a", "opened")
    await gate.ends()
    await gate.rates(*CLOSED, *RAMP, *OPEN)


async def test_hold_says_why_and_when(gate: Gate) -> None:
    began = now()
    await gate.report("a", seconds=HOURS)
    hold = await gate.hold(kind="closed")
    assert (hold.why, hold.prober) == ("AccountOverdueError: no", gate.job_id("a"))
    assert began - timedelta(seconds=1) <= hold.since <= now() + timedelta(seconds=1)
    assert hold.probe_at == hold.since + timedelta(hours=1)
    assert gate.handle is not None
    assert "AccountOverdueError: no" in await gate.handle.current_details()


async def test_other_jobs_are_not_asked(gate: Gate) -> None:
    for name in ("a", "b", "c"):
        await gate.report(name)
    await gate.asked("a")
    await gate.asked("b", 0)
    await gate.report("a", "opened")
    await gate.ends()
    await gate.asked("b", 0)


async def test_refused_probe_doubles_pause_and_changes_job(gate: Gate) -> None:
    await gate.report("a")
    await gate.report("b")
    await gate.asked("a")
    await gate.report("a", seconds=HOURS)
    hold = await gate.hold(prober=gate.job_id("b"))
    assert hold.probe_at is not None
    assert timedelta(hours=1.9) < hold.probe_at - now() < timedelta(hours=2)


async def test_pause_between_probes_has_a_limit(gate: Gate) -> None:
    await gate.report("a", seconds=HOURS, state=GateState(refused=2_000))
    hold = await gate.hold(kind="closed")
    assert hold.probe_at == hold.since + timedelta(hours=policies.LONGEST_PROBE_PAUSE)


async def test_named_reset_is_waited_for(gate: Gate) -> None:
    at = datetime(2100, 1, 1, tzinfo=UTC)
    await gate.report("a", reset_at=at)
    assert (await gate.hold(kind="closed")).probe_at == at


async def test_later_report_does_not_postpone_probe(gate: Gate) -> None:
    await gate.report("a", seconds=HOURS)
    due = (await gate.hold(kind="closed")).probe_at
    await gate.report("b", seconds=HOURS, why="another")
    assert (await gate.hold(why="another")).probe_at == due


async def test_job_that_ended_is_passed_over(gate: Gate) -> None:
    await gate.report("ended", seconds=1)
    await gate.report("b", seconds=1)
    await gate.asked("b")


async def test_silent_job_is_passed_over(unsandboxed: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "PROBE_GRACE", timedelta(seconds=0.5))
    async with run_gate(unsandboxed) as gate:
        await gate.report("a", seconds=1)
        await gate.report("b", seconds=1)
        await gate.asked("b")


async def test_unclear_probe_is_passed_over(gate: Gate) -> None:
    await gate.report("a")
    await gate.report("b")
    await gate.asked("a")
    await gate.report("a", "unclear")
    await gate.asked("b")


async def test_success_of_another_ends_wait_for_probe(gate: Gate) -> None:
    await gate.report("a")
    await gate.report("b")
    await gate.asked("a")
    await gate.report("b", "opened")
    await gate.ends()
    await gate.rates(*CLOSED, *RAMP, *OPEN)


async def test_gate_without_jobs_opens_at_lowest_rate(gate: Gate) -> None:
    await gate.report("ended")
    await gate.ends()
    await gate.rates(*CLOSED, *RAMP, *OPEN)


async def test_refusal_in_ramp_closes_again(gate: Gate) -> None:
    await gate.report("a", seconds=1)
    await gate.asked("a")
    await gate.report("a", "opened")
    await gate.rates(*CLOSED, RAMP[0])
    assert (await gate.hold(kind="ramping")).prober is None
    await gate.report("b", seconds=HOURS)
    await gate.rates(*CLOSED, RAMP[0], CLOSED[0])
    assert (await gate.hold(kind="closed")).prober == gate.job_id("b")


async def test_signals_do_not_prolong_step(gate: Gate) -> None:
    await gate.report("a", seconds=1.5)
    await gate.asked("a")
    await gate.report("a", "opened", seconds=1.5)
    await gate.rates(*CLOSED, RAMP[0])
    for number in range(20):
        if len(gate.set) > len([*CLOSED, RAMP[0]]):
            break
        await gate.report(f"other-{number}", "opened")
        await asyncio.sleep(0.5)
    assert gate.set[:4] == [*CLOSED, *RAMP[:2]]


async def test_refusal_after_untried_opening_keeps_beginning(gate: Gate) -> None:
    await gate.report("ended", seconds=1)
    first = await gate.hold(kind="closed")
    await gate.hold(kind="ramping")
    await gate.report("b", seconds=HOURS)
    hold = await gate.hold(kind="closed")
    assert hold.since == first.since
    assert hold.probe_at is not None
    assert timedelta(hours=1.9) < hold.probe_at - now() < timedelta(hours=2)
    await gate.report("b", "opened", seconds=HOURS)
    await gate.hold(kind="ramping")
    await gate.report("c", seconds=HOURS)
    assert (await gate.hold(kind="closed")).since > first.since


async def test_few_jobs_are_remembered(gate: Gate) -> None:
    jobs = tuple(f"job-{number}" for number in range(policies.MOST_PROBERS))
    closing = Closing(why="before", since=now(), probe_at=now() + timedelta(hours=1))
    await gate.report("b", state=GateState(closing=closing, probers=jobs), why="one more")
    assert (await gate.hold(why="one more")).prober == "job-0"
    await gate.report("b", "opened")
    await gate.ends()


# Keys


async def test_refused_key_is_probed_by_free_call(gate: Gate) -> None:
    accepted = Held(True)
    gate.harness.fake.plan("is_key_accepted", False, ApplicationError("no answer"), False, accepted)
    await gate.report("a", attention="credentials")
    await accepted.reached.wait()
    await gate.asked("a", 0)
    accepted.release()
    await gate.asked("a")


async def test_unanswered_free_call_is_no_acceptance(gate: Gate) -> None:
    gate.harness.fake.plan("is_key_accepted", *[ApplicationError("no answer")] * 2)
    await gate.report("a", attention="credentials", seconds=1)
    await gate.harness.fake.called("is_key_accepted", 2)
    hold = await gate.hold(kind="closed")
    await gate.asked("a", 0)
    assert hold.kind == "closed"
    gate.harness.fake.always("is_key_accepted", True)
    await gate.asked("a")


async def test_success_while_key_is_tried_opens(gate: Gate) -> None:
    refused = Held(False)
    gate.harness.fake.plan("is_key_accepted", refused)
    await gate.report("a", attention="credentials")
    await refused.reached.wait()
    await gate.report("a", "opened")
    assert gate.handle is not None
    await gate.handle.current_details()  # the report has been taken in
    refused.release()
    await gate.ends()
    await gate.rates(*CLOSED, *RAMP, *OPEN)


# Pauses


async def test_pause_holds_creates_and_probes(gate: Gate) -> None:
    await gate.pause()
    await gate.rates(("create", 0.0), ("probe", 0.0))
    hold = await gate.hold(kind="paused")
    assert (hold.why, hold.by, hold.prober) == ("a test", "an operator", None)
    await gate.signal(SIGNAL_UNPAUSE)
    await gate.ends()
    await gate.rates(("create", 0.0), ("probe", 0.0), ("create", None), ("probe", None))


async def test_pause_outlasts_success_of_a_probe(gate: Gate) -> None:
    await gate.report("a")
    await gate.asked("a")
    await gate.pause()
    await gate.rates(*CLOSED, ("probe", 0.0))
    await gate.report("a", "opened")
    assert gate.handle is not None
    await gate.handle.current_details()  # the report has been taken in
    assert len(await gate.handle.scheduled("set_create_rate")) == 3, "no rate is set"
    await gate.hold(kind="paused")
    await gate.signal(SIGNAL_UNPAUSE)
    await gate.ends()
    await gate.rates(*CLOSED, ("probe", 0.0), RAMP[0], ("probe", None), *RAMP[1:], *OPEN)


async def test_pause_waits_for_rate_that_is_being_raised(gate: Gate) -> None:
    client = gate.harness.client
    go, reached = asyncio.Event(), asyncio.Event()

    async def set_late(input: Any) -> None:
        if input.share == policies.RAMP[0]:
            reached.set()
            await go.wait()
        await set_rate(client, input.queue, input.share and input.share * 3)

    gate.harness.fake.always("set_create_rate", set_late)
    await gate.report("a", seconds=SOON)
    await gate.asked("a")
    await gate.report("a", "opened")
    await reached.wait()
    pausing = asyncio.create_task(pause(client, gate.harness.route, "a test"))
    assert gate.handle is not None
    of_4k = Queues(gate.harness.route).create_4k
    await until(lambda: is_held(client, of_4k), "the other queue is paused, after this one")
    assert not pausing.done()
    go.set()
    await pausing
    assert await is_held(client, gate.queue)
    hold = await hold_of(client, gate.queue)
    assert hold is not None
    assert (hold.kind, hold.why) == ("paused", "a test")
    await unpause(client, gate.harness.route)
    await gate.ends()
    await client.get_workflow_handle(gate_id(of_4k)).result()


async def test_closed_gate_stays_closed_after_pause(gate: Gate) -> None:
    await gate.report("a", seconds=1)
    await gate.pause()
    await gate.hold(kind="paused")
    await gate.asked("a", 0)
    await gate.signal(SIGNAL_UNPAUSE)
    await gate.hold(kind="closed")
    await gate.asked("a")


async def test_unpause_of_open_gate_sets_rates_back(gate: Gate) -> None:
    await gate.signal(SIGNAL_UNPAUSE)
    await gate.ends()
    await gate.rates(("create", None), ("probe", None))


# Its life


async def test_nonsense_changes_nothing(gate: Gate) -> None:
    await gate.report("a", seconds=HOURS)
    shown = await gate.hold(kind="closed")
    await gate.signal(SIGNAL_REPORTED)
    await gate.signal(SIGNAL_REPORTED, {"answer": "opened"})
    assert gate.handle is not None
    await gate.handle.current_details()
    assert await gate.hold(kind="closed") == shown
    await gate.signal(SIGNAL_PAUSE, "nonsense")
    assert (await gate.hold(kind="paused")).why == ""


@pytest.mark.parametrize("job_id", ["", "x" * 2_000, "seedance-byteplus-create-gate"], ids=["empty", "long", "gate"])
async def test_report_of_no_job_is_ignored(gate: Gate, job_id: str) -> None:
    foreign = GateReport(job_id=job_id, answer="closed", why="foreign", probe_seconds=SOON)
    await gate.signal(SIGNAL_REPORTED, foreign)
    await gate.ends()
    await gate.report("a")
    await gate.signal(SIGNAL_REPORTED, foreign)
    await gate.asked("a")
    assert (await gate.hold(kind="closed")).why == "AccountOverdueError: no"


@pytest.mark.parametrize(
    "odd",
    [
        {"probe_seconds": 1e308},
        {"probe_seconds": -1.0},
        {"reset_at": "9999-12-31T23:59:59-23:00"},
        {"reset_at": "0001-01-01T00:00:00+23:00"},
        {"why": "x" * 1_600_000},
    ],
    ids=["huge", "negative", "late", "early", "long"],
)
async def test_report_of_odd_values_is_ignored(gate: Gate, odd: dict[str, Any]) -> None:
    await gate.signal(SIGNAL_REPORTED, {"job_id": gate.job_id("odd"), "answer": "closed"} | odd)
    await gate.ends()
    await gate.report("a", seconds=HOURS)
    assert (await gate.hold(kind="closed")).prober == gate.job_id("a")


async def test_gate_that_may_not_hold_fails(gate: Gate) -> None:
    gate.harness.fake.plan("set_create_rate", ApplicationError("no", type="RateNotAllowed", non_retryable=True))
    await gate.report("a")
    with pytest.raises(WorkflowFailureError):
        await gate.ends()


async def test_gate_that_may_no_longer_set_rates_tries_on(gate: Gate) -> None:
    forbidden = ApplicationError("not for you", type="RateNotAllowed", non_retryable=True)
    allowed = Held(None)
    gate.harness.fake.plan("set_create_rate", None, None, forbidden, forbidden, allowed)
    await gate.report("a")
    await gate.asked("a")
    await gate.report("a", "opened")
    await allowed.reached.wait()
    hold = await gate.hold(kind="ramping", problem="not for you")
    assert str(hold).endswith("step by step. not for you; this is tried again.")
    assert gate.handle is not None
    assert "not for you" in await gate.handle.current_details()
    allowed.release()
    await gate.ends()
    await gate.rates(*CLOSED, *[RAMP[0]] * 3, *RAMP[1:], *OPEN)


async def test_long_hold_continues_as_new(renewing: Harness) -> None:
    async with run_gate(renewing) as gate:
        await gate.report("a", seconds=HOURS)
        await gate.report("b", seconds=HOURS)
        shown = await gate.hold(kind="closed")
        for number in range(SUGGESTED_FROM):
            await gate.report("b", why=f"report {number}", seconds=HOURS)
        assert gate.handle is not None
        first = gate.handle

        async def continued() -> bool:
            return (await first.events())[-1].event_type == CONTINUED

        await until(continued, "the gate is continued as new")
        hold = await gate.hold(why=f"report {SUGGESTED_FROM - 1}")
        assert (hold.since, hold.prober, hold.probe_at) == (shown.since, shown.prober, shown.probe_at)
        await gate.report("a", "opened", seconds=HOURS)
        await gate.hold(kind="ramping")
        await gate.rates(*CLOSED, RAMP[0])


async def test_long_ramp_continues_as_new(renewing: Harness) -> None:
    began = now() - timedelta(hours=1)
    closing = Closing(why="before", since=began, probe_at=now())
    async with run_gate(renewing) as gate:
        await gate.report("a", "unclear", state=GateState(closing=closing, probe_seconds=HOURS))
        await gate.hold(kind="ramping")
        for _ in range(SUGGESTED_FROM):
            await gate.report("a", "unclear")
        assert gate.handle is not None
        first = gate.handle

        async def continued() -> bool:
            return (await first.events())[-1].event_type == CONTINUED

        await until(continued, "the gate is continued as new")
        await gate.report("b", seconds=HOURS)
        assert (await gate.hold(kind="closed")).since == began
        await gate.rates(*CLOSED, RAMP[0], CLOSED[0])
