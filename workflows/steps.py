"""Activity calls that are repeated until they succeed: with patience, and not in silence."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, RetryState
from temporalio.types import MethodAsyncSingleParam, ParamType, ReturnType, SelfType

with workflow.unsafe.imports_passed_through():
    from workflows import messages, policies
    from workflows.progress import Progress


async def insist(
    progress: Progress,
    activity: MethodAsyncSingleParam[SelfType, ParamType, ReturnType],
    argument: ParamType,
    *,
    task_queue: str,
    start_to_close_timeout: timedelta,
    retry_policy: RetryPolicy,
    summary: str,
) -> ReturnType:
    """Execute an activity until it succeeds. Where it keeps failing, say so by an Attention, and go on.

    Temporal repeats an activity without a word to its workflow. So each scheduling ends after
    :data:`policies.PATIENCE` with the last failure, and the next one begins at once.

    Args:
        progress: Shows the Attention.
        activity: One that may be repeated, because it pays for nothing.
        argument: Its argument.
        task_queue: Where its workers are.
        start_to_close_timeout: For one try.
        retry_policy: Without a limit of tries.
        summary: What the step does, for people.

    Raises:
        ActivityError: It failed in a way that cannot pass.
    """
    since = workflow.now()
    while True:
        try:
            answer = await workflow.execute_activity_method(
                activity,
                argument,
                task_queue=task_queue,
                schedule_to_close_timeout=policies.PATIENCE,
                start_to_close_timeout=start_to_close_timeout,
                retry_policy=retry_policy,
                summary=summary,
            )
        except ActivityError as error:
            if error.retry_state is not RetryState.TIMEOUT:
                raise
            # Without a failure, no worker was there to try: that is not the step's fault, and is over now.
            if (reason := messages.last_failure(error)) is not None:
                progress.need(messages.failing_part(reason), messages.advice_on_step(summary, since, reason))
            continue
        progress.settle("storage", "provider")
        return answer
