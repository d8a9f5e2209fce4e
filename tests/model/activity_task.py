"""An activity as the server keeps it: tries, time-outs, retries, cancels, and how it ends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from temporalio.api.common.v1 import ActivityType
from temporalio.api.enums.v1 import RetryState, TimeoutType
from temporalio.api.failure.v1 import ActivityFailureInfo, CanceledFailureInfo, Failure, TimeoutFailureInfo
from temporalio.bridge.proto.activity_result import ActivityResolution, Cancellation, Success
from temporalio.bridge.proto.activity_result import Failure as ResolvedFailure
from temporalio.bridge.proto.workflow_activation import ResolveActivity, WorkflowActivationJob
from temporalio.bridge.proto.workflow_commands import ActivityCancellationType, ScheduleActivity
from temporalio.contrib.pydantic import pydantic_data_converter

if TYPE_CHECKING:
    from tests.model.executions import Execution
    from tests.model.server import Run, Server

# From being scheduled to its first line, on an idle worker.
_DISPATCH_SECONDS = 0.02
_HEARTBEATS_ANSWERED_AFTER = 5.0


@dataclass(eq=False)
class ActivityTask:
    """A scheduled activity of one run.

    Attributes:
        execution: Its execution by a worker that still counts: a later try, or a time-out, replaces it.
        closed: Whether the run has its outcome, or needs none any more.
    """

    server: Server
    run: Run
    command: ScheduleActivity
    scheduled_at: float
    attempt: int = 1
    execution: Execution | None = None
    ever_started: bool = False
    closed: bool = False
    last_failure: Failure | None = None
    _timers: list[asyncio.TimerHandle] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.command.activity_type

    @property
    def due(self) -> float | None:
        """When its time is over, its retries included."""
        if not self.command.HasField("schedule_to_close_timeout"):
            return None
        return self.scheduled_at + self.command.schedule_to_close_timeout.ToTimedelta().total_seconds()

    def schedule(self) -> None:
        """Hand it to a worker, soon; it may come back from a history that was reset."""
        self.scheduled_at = self.server.loop.time()
        if self.due is not None:
            self._later(self.due - self.scheduled_at, self._schedule_to_close)
        self._later(_DISPATCH_SECONDS, self._dispatch)

    def _later(self, seconds: float, call: Any, *args: Any) -> None:
        self._timers.append(self.server.loop.call_later(seconds, call, *args))

    def _dispatch(self) -> None:
        if self.closed:
            return
        if not self.server.serves(self):
            self._later(1.0, self._dispatch)
            return
        self.ever_started = True
        self.execution = self.server.executions.begin(self)
        # Without a limit of its own, a try has the time of the whole.
        if limit := self.command.start_to_close_timeout.ToTimedelta().total_seconds():
            self._later(limit, self._timed_out, self.execution, TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE)

    # How a try ends

    def succeeded(self, execution: Execution, result: Any) -> None:
        if self.closed or execution is not self.execution:
            return
        payloads = pydantic_data_converter.payload_converter.to_payloads([result])
        self._close(ActivityResolution(completed=Success(result=payloads[0])))

    def failed(self, execution: Execution, error: BaseException) -> None:
        if self.closed or execution is not self.execution:
            return
        failure = Failure()
        pydantic_data_converter.failure_converter.to_failure(error, pydantic_data_converter.payload_converter, failure)
        self._retry(failure)

    def worker_died(self, execution: Execution) -> None:
        """Notice the death of its worker: by a missing heartbeat, or else when the time of the try is over."""
        heartbeat = self.command.heartbeat_timeout.ToTimedelta().total_seconds()
        if heartbeat:
            self._later(heartbeat, self._timed_out, execution, TimeoutType.TIMEOUT_TYPE_HEARTBEAT)

    def _timed_out(self, execution: Execution, kind: TimeoutType.ValueType) -> None:
        if not self.closed and execution is self.execution:
            cause = self.last_failure
            self._retry(_timeout(kind, cause))

    def _schedule_to_close(self) -> None:
        if not self.closed:
            timeout = _timeout(TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE, self.last_failure)
            self._fail(timeout, RetryState.RETRY_STATE_TIMEOUT)

    def _retry(self, failure: Failure) -> None:
        """Try again, as the policy says; or close it with the failure."""
        policy, info = self.command.retry_policy, failure.application_failure_info
        self.execution = None
        final = failure.HasField("application_failure_info") and (
            info.non_retryable or info.type in policy.non_retryable_error_types
        )
        if final:
            return self._fail(failure, RetryState.RETRY_STATE_NON_RETRYABLE_FAILURE)
        if policy.maximum_attempts and self.attempt >= policy.maximum_attempts:
            return self._fail(failure, RetryState.RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED)
        pause = policy.initial_interval.ToTimedelta().total_seconds() or 1.0
        pause *= (policy.backoff_coefficient or 2.0) ** min(self.attempt - 1, 30)
        longest = policy.maximum_interval.ToTimedelta().total_seconds() or 100.0
        pause = min(pause, longest)
        if self.due is not None and self.server.loop.time() + pause >= self.due:
            return self._fail(failure, RetryState.RETRY_STATE_TIMEOUT)
        self.last_failure = failure
        self.attempt += 1
        self._later(pause, self._dispatch)
        return None

    # Cancels

    def cancel(self) -> WorkflowActivationJob | None:
        """Cancel it for its workflow. Return what the workflow learns of that at once, in the same workflow task."""
        running = self.execution is not None
        if self.command.cancellation_type == ActivityCancellationType.WAIT_CANCELLATION_COMPLETED:
            # A worker learns of a cancel only by its heartbeats.
            if not running:
                self._close(self._cancelled(started=False))
            return None
        resolution = self._cancelled(started=running)
        self.abandon()
        return self._job(resolution)

    def abandon(self) -> None:
        """Need no outcome any more. What runs goes on, unless its heartbeats tell it to stop."""
        self._closed()
        heartbeats = self.command.heartbeat_timeout.ToTimedelta()
        if self.execution is not None and heartbeats > timedelta(0):
            self.server.loop.call_later(_HEARTBEATS_ANSWERED_AFTER, self.execution.cancel)

    def _cancelled(self, *, started: bool) -> ActivityResolution:
        failure = self._failure("Activity cancelled", RetryState.RETRY_STATE_CANCEL_REQUESTED, started=started)
        failure.cause.CopyFrom(Failure(message="Activity cancelled", canceled_failure_info=CanceledFailureInfo()))
        return ActivityResolution(cancelled=Cancellation(failure=failure))

    # The end

    def _fail(self, cause: Failure, state: RetryState.ValueType) -> None:
        timed_out = cause.HasField("timeout_failure_info")
        failure = self._failure("Activity task timed out" if timed_out else "Activity task failed", state)
        failure.cause.CopyFrom(cause)
        self._close(ActivityResolution(failed=ResolvedFailure(failure=failure)))

    def _failure(self, message: str, state: RetryState.ValueType, *, started: bool | None = None) -> Failure:
        info = ActivityFailureInfo(
            scheduled_event_id=self.command.seq + 4,
            started_event_id=self.command.seq + 5 if (self.ever_started if started is None else started) else 0,
            identity="worker",
            activity_type=ActivityType(name=self.name),
            activity_id=self.command.activity_id,
            retry_state=state,
        )
        return Failure(message=message, activity_failure_info=info)

    def _close(self, resolution: ActivityResolution) -> None:
        self._closed()
        self.run.deliver(self._job(resolution))

    def _closed(self) -> None:
        self.closed = True
        for timer in self._timers:
            timer.cancel()
        self.run.activities.pop(self.command.seq, None)

    def _job(self, resolution: ActivityResolution) -> WorkflowActivationJob:
        return WorkflowActivationJob(resolve_activity=ResolveActivity(seq=self.command.seq, result=resolution))

    @property
    def started_time(self) -> datetime:
        return datetime.fromtimestamp(self.server.loop.now(), UTC)


def _timeout(kind: TimeoutType.ValueType, cause: Failure | None) -> Failure:
    failure = Failure(message="activity timeout", timeout_failure_info=TimeoutFailureInfo(timeout_type=kind))
    if cause is not None:
        failure.cause.CopyFrom(cause)
    return failure
