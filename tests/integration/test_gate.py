"""Reports to a gate, rates of queues, and what a pause looks like before any worker has read it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from activities.gate import CreateRateInput, GateActivities, ReportCreateInput
from dev.ark.control import ArkControl
from seedance_temporal import VideoJobs
from seedance_temporal.contract import Queues
from seedance_temporal.errors import InvalidRequest
from seedance_temporal.gate import hold_of, is_held, set_rate
from seedance_temporal.gate_contract import GateReport, gate_id
from tests.support.command_line import run_command
from tests.support.jobs import a_client, in_activity, some_settings
from tests.support.polling import until

QUEUES = Queues("byteplus")
CLOSED = ReportCreateInput(queue=QUEUES.create, report=GateReport(job_id="seedance-a", answer="closed", why="no"))


def activities_of(ark: ArkControl, **settings: Any) -> GateActivities:
    known = some_settings(ark, **settings)
    return GateActivities(a_client(ark, *known.secrets), known)


async def end_gate(temporal: Client, queue: str = QUEUES.create) -> None:
    await temporal.get_workflow_handle(gate_id(queue)).terminate()
    await set_rate(temporal, queue, None)


async def test_refusal_is_reported_until_queue_is_held(ark: ArkControl, temporal: Client) -> None:
    activities = activities_of(ark, seedance_probe_seconds=7)
    reporting = asyncio.create_task(in_activity(activities.report_create, CLOSED, client=temporal))
    await asyncio.sleep(0.5)
    assert not reporting.done(), "it waits for the gate"
    await set_rate(temporal, QUEUES.create, 0)
    assert await reporting is True
    history = await temporal.get_workflow_handle(gate_id(QUEUES.create)).fetch_history()
    (signal,) = [
        event.workflow_execution_signaled_event_attributes
        for event in history.events
        if event.HasField("workflow_execution_signaled_event_attributes")
    ]
    (report,) = await temporal.data_converter.decode(signal.input.payloads, [GateReport])
    assert (report.why, report.probe_seconds) == ("no", 7)
    await end_gate(temporal)


async def test_report_ends_with_its_gate(ark: ArkControl, temporal: Client) -> None:
    reporting = asyncio.create_task(in_activity(activities_of(ark).report_create, CLOSED, client=temporal))
    await asyncio.sleep(0.5)
    await end_gate(temporal)
    assert await reporting is False


async def test_success_starts_no_gate(ark: ArkControl, temporal: Client) -> None:
    report = GateReport(job_id="seedance-a", answer="opened")
    opened = ReportCreateInput(queue=QUEUES.create_4k, report=report)
    gate = temporal.get_workflow_handle(gate_id(QUEUES.create_4k))
    assert await in_activity(activities_of(ark).report_create, opened, client=temporal) is False
    with pytest.raises(RPCError, match="not found"):
        await gate.describe()
    closed = ReportCreateInput(queue=QUEUES.create_4k, report=CLOSED.report)
    await set_rate(temporal, QUEUES.create_4k, 0)
    assert await in_activity(activities_of(ark).report_create, closed, client=temporal) is True
    await in_activity(activities_of(ark).report_create, opened, client=temporal)

    async def signalled() -> bool:
        events = (await gate.fetch_history()).events
        return sum(event.HasField("workflow_execution_signaled_event_attributes") for event in events) == 2

    await until(signalled, "a gate that runs gets both reports")
    await end_gate(temporal, QUEUES.create_4k)


async def test_rate_is_a_share_of_the_settings(ark: ArkControl, temporal: Client) -> None:
    activities = activities_of(ark, seedance_creates_per_minute=60)
    for share, held in ((0.0, True), (0.5, False), (None, False)):
        input = CreateRateInput(queue=QUEUES.create, share=share)
        await in_activity(activities.set_create_rate, input, client=temporal)
        assert await is_held(temporal, QUEUES.create) is held
    assert await hold_of(temporal, QUEUES.create) is None


class Refusing:
    """A client of a server that lets nobody set rates."""

    namespace = identity = "default"

    def __init__(self, status: RPCStatusCode) -> None:
        self.workflow_service = self
        self._status = status

    async def update_task_queue_config(self, *_: Any, **__: Any) -> None:
        raise RPCError("not for you", self._status, b"")


async def test_forbidden_rate_is_final(ark: ArkControl) -> None:
    refusing: Any = Refusing(RPCStatusCode.PERMISSION_DENIED)
    input = CreateRateInput(queue=QUEUES.create, share=0.0)
    with pytest.raises(ApplicationError, match="does not let this worker set the rate") as refused:
        await in_activity(activities_of(ark).set_create_rate, input, client=refusing)
    assert refused.value.non_retryable
    busy: Any = Refusing(RPCStatusCode.UNAVAILABLE)
    with pytest.raises(RPCError):
        await in_activity(activities_of(ark).set_create_rate, input, client=busy)


@pytest.mark.parametrize(("valid", "accepted"), [(True, True), (False, False)])
async def test_key_is_tried_by_free_call(ark: ArkControl, valid: bool, accepted: bool) -> None:
    await ark.set_key_valid("byteplus", valid)
    try:
        assert await in_activity(activities_of(ark).is_key_accepted) is accepted
    finally:
        await ark.set_key_valid("byteplus", True)


async def test_pause_holds_before_a_worker_has_read_it(temporal: Client) -> None:
    jobs = VideoJobs(temporal, settings=some_settings())
    await jobs.pause("byteplus", why="a test")
    holds = await jobs.held("byteplus")
    assert [(hold.queue, hold.kind, hold.why) for hold in holds] == [
        (QUEUES.create, "paused", "a test"),
        (QUEUES.create_4k, "paused", "a test"),
    ]
    assert str(holds[0]).endswith(": a test.")
    await jobs.pause("byteplus")
    assert {hold.why for hold in await jobs.held("byteplus")} == {"a test"}
    for queue in QUEUES.creates:
        await end_gate(temporal, queue)
    assert await jobs.held("byteplus") == ()


async def test_pause_is_shown_where_no_job_is_open(temporal: Client) -> None:
    queues = Queues("volcengine")
    await VideoJobs(temporal, settings=some_settings()).pause("volcengine", why="weekend")
    try:
        for command in (("list", "--user", "nobody"), ("watch", "--once", "--user", "nobody")):
            said = await run_command(temporal, *command)
            assert f"Creates of {queues.create} are paused since" in said.out
            assert "weekend" in said.out
    finally:
        for queue in queues.creates:
            await end_gate(temporal, queue)


async def test_pause_of_unknown_route_is_refused(temporal: Client) -> None:
    with pytest.raises(InvalidRequest, match="there is no route 'byteplu'"):
        await VideoJobs(temporal, settings=some_settings()).pause("byteplu")


@pytest.mark.parametrize("why", ["a\x1b[2J", "\udcff", "x" * 501], ids=["control", "half", "long"])
async def test_pause_with_unusable_reason_is_refused(temporal: Client, why: str) -> None:
    with pytest.raises(InvalidRequest, match="why: must be printable, and have 500 characters at most"):
        await VideoJobs(temporal, settings=some_settings()).pause("byteplus", why=why)
    assert not await is_held(temporal, QUEUES.create)


@pytest.mark.parametrize("why", ["왜" * 1000, "\udcff" * 1001], ids=["long", "half"])
async def test_rate_is_set_for_any_reason(temporal: Client, why: str) -> None:
    """A gate whose rate cannot be set would hold its queue for good: it hears no unpause meanwhile."""
    await set_rate(temporal, QUEUES.create, 0, why)
    hold = await until(lambda: hold_of(temporal, QUEUES.create), "the queue is held")
    assert 900 < len(hold.why.encode()) <= 1000
    await set_rate(temporal, QUEUES.create, None)
