"""Ask Temporal why an activity has not completed: a workflow learns nothing of failures that are retried."""

from __future__ import annotations

from temporalio import activity


@activity.defn
async def last_failure(activity_type: str) -> str | None:
    """Return the last failure of an activity of the caller's run that is retried; None where it has none.

    Args:
        activity_type: The name of the activity.
    """
    info = activity.info()
    assert info.workflow_id is not None
    run = activity.client().get_workflow_handle(info.workflow_id, run_id=info.workflow_run_id)
    described = (await run.describe()).raw_description
    for pending in described.pending_activities:
        if pending.activity_type.name == activity_type and pending.HasField("last_failure"):
            return pending.last_failure.message
    return None
