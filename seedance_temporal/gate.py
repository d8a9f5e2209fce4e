"""Hold the creates of a route by the rate of their queues, and say why they are held.

A rate that is set through Temporal's API wins over that of the workers, and outlives them. The gate, a workflow, sets
it back; docs/explanation/decisions/0010-creates-wait-in-their-queue.md says why.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import RateLimit, TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest, UpdateTaskQueueConfigRequest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.common import Priority, WorkflowIDConflictPolicy
from temporalio.service import RPCError

from seedance_temporal.connection import is_unknown_workflow
from seedance_temporal.contract import Queues
from seedance_temporal.gate_contract import (
    GATE,
    MEMO_HOLD,
    SIGNAL_PAUSE,
    SIGNAL_UNPAUSE,
    GateInput,
    Hold,
    Pause,
    gate_id,
    probe_queue,
)

# A gate that has a worker takes in a pause within a second, or when it has set the rate that it is about to set.
_PAUSE_READ_WITHIN = timedelta(seconds=5)
_PAUSE_READ_EVERY_SECONDS = 0.1
_ACTIVITIES = TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY
# The server refuses a longer reason, for as long as it is asked; the gate's memo has all of it.
_MOST_REASON_BYTES = 1000


async def set_rate(client: Client, queue: str, per_second: float | None, why: str = "") -> None:
    """Set the rate of a queue of activities; None gives it back to the workers' own. Of a long reason, keep the start.

    Raises:
        RPCError: Temporal does not answer, or does not allow it.
    """
    request = UpdateTaskQueueConfigRequest(
        namespace=client.namespace, identity=client.identity, task_queue=queue, task_queue_type=_ACTIVITIES
    )
    reason = why.encode(errors="replace")[:_MOST_REASON_BYTES].decode(errors="ignore")
    request.update_queue_rate_limit.reason = reason
    if per_second is not None:
        request.update_queue_rate_limit.rate_limit.CopyFrom(RateLimit(requests_per_second=per_second))
    await client.workflow_service.update_task_queue_config(request, retry=True)


async def is_held(client: Client, queue: str) -> bool:
    """Return whether the rate of a queue is 0.

    Raises:
        RPCError: Temporal does not answer.
    """
    limit = await _limit(client, queue)
    return bool(limit.HasField("rate_limit") and limit.rate_limit.requests_per_second == 0)


async def hold_of(client: Client, queue: str) -> Hold | None:
    """Return why a queue of creates is held or slowed down; None where it is open.

    Raises:
        RPCError: Temporal does not answer.
    """
    limit = await _limit(client, queue)
    if not limit.HasField("rate_limit"):
        return None
    hold = await _hold_of_gate(client, queue)
    if hold is not None or limit.rate_limit.requests_per_second > 0:
        return hold
    # No worker has read the pause yet, its gate was ended, or an operator has set the rate by hand.
    set_by = limit.metadata
    since = set_by.update_time.ToDatetime(UTC)
    return Hold(queue=queue, kind="paused", why=set_by.reason, since=since, by=set_by.update_identity)


async def pause(client: Client, route: str, why: str) -> None:
    """Hold the creates of a route until they are unpaused.

    A pause of a route that is paused already keeps its reason, unless it is given another one. It takes up to 5
    seconds where no worker takes in the pause: the gate then does when one runs.

    Raises:
        RPCError: Temporal does not answer, or does not allow it.
    """
    if not why:
        holds = [await hold_of(client, queue) for queue in Queues(route).creates]
        why = next((hold.why for hold in holds if hold is not None and hold.kind == "paused"), "")
    begun = Pause(why=why, by=client.identity, since=datetime.now(UTC))
    for queue in Queues(route).creates:
        # By the caller, at once: while no worker runs the gate, its start would race with that of the creates.
        for held in (queue, probe_queue(queue)):
            await set_rate(client, held, 0, why)
        await signal_gate(client, route, queue, SIGNAL_PAUSE, begun)
    await asyncio.gather(*(_hold_again(client, queue, begun) for queue in Queues(route).creates))


async def _hold_again(client: Client, queue: str, pause: Pause) -> None:
    """Hold a queue once more when its gate has taken in the pause: before that, it can still have raised the rate."""
    end = datetime.now(UTC) + _PAUSE_READ_WITHIN
    while datetime.now(UTC) < end:
        hold = await _hold_of_gate(client, queue)
        if hold is not None and (hold.kind, hold.since) == ("paused", pause.since):
            for held in (queue, probe_queue(queue)):
                await set_rate(client, held, 0, pause.why)
            return
        await asyncio.sleep(_PAUSE_READ_EVERY_SECONDS)


async def unpause(client: Client, route: str) -> None:
    """End a pause. What the provider has closed stays held.

    Raises:
        RPCError: Temporal does not answer.
    """
    for queue in Queues(route).creates:
        await signal_gate(client, route, queue, SIGNAL_UNPAUSE)


async def signal_gate(client: Client, route: str, queue: str, signal: str, *args: Any) -> WorkflowHandle[Any, None]:
    """Signal the gate of a queue, and return its run; start it where none runs.

    Raises:
        RPCError: Temporal does not answer.
    """
    return await client.start_workflow(
        GATE,
        GateInput(route=route, queue=queue),
        id=gate_id(queue),
        task_queue=Queues(route).workflows,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        start_signal=signal,
        start_signal_args=args,
        # Before the jobs that wait for a worker: each of them may be about to be refused.
        priority=Priority(priority_key=1),
        static_summary=f"holds the creates of {queue}",
    )


async def _limit(client: Client, queue: str) -> Any:
    """Return the rate limit in the configuration of a queue; without one, it is empty."""
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=queue),
        task_queue_type=_ACTIVITIES,
        report_config=True,
    )
    answer = await client.workflow_service.describe_task_queue(request, retry=True)
    return answer.config.queue_rate_limit


async def _hold_of_gate(client: Client, queue: str) -> Hold | None:
    try:
        gate = await client.get_workflow_handle(gate_id(queue)).describe()
    except RPCError as error:
        if not is_unknown_workflow(error):
            raise
        return None
    if gate.status is not WorkflowExecutionStatus.RUNNING:
        return None
    optional: Any = Hold | None
    hold: Hold | None = await gate.memo_value(MEMO_HOLD, default=None, type_hint=optional)
    return hold
