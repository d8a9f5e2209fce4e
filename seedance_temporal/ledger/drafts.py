"""The draft of a final: its task, as the provider must still have it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from seedance_temporal.identity import is_job_id, is_of_another_user
from seedance_temporal.ledger.facts import Facts
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.provider.ark import Ark
from seedance_temporal.provider.rules import Rules
from seedance_temporal.provider.task import PROVIDER_FORGETS_AFTER, SUCCEEDED, parse_task
from seedance_temporal.request import VideoRequest

_OWN_DRAFTS = "Submit its final with the user_id of the draft."


class NoDraft(Exception):
    """No final can be made of this draft. The message says why, and what to do."""


async def draft_task(request: VideoRequest, draft_of: str, ledger: Ledger, ark: Ark, rules: Rules) -> str:
    """Return the id of the draft's task.

    Args:
        request: The final.
        draft_of: The draft's job or task id.

    Raises:
        NoDraft: There is no such draft, it has no video, or the provider has forgotten it.
        ArkError, httpx.HTTPError, LedgerDamaged, OSError: Nobody can tell at the moment.
    """
    if is_job_id(draft_of):
        draft_of = _task_of_job(await ledger.read(draft_of), draft_of, request.user_id)
    payload = await ark.get(draft_of)
    if payload is None:
        raise NoDraft(
            f"The provider does not know the draft {draft_of}: it keeps drafts for 7 days, and shows a key those of "
            "its project alone. Make the draft again, or ask for the video without one."
        )
    task = parse_task(payload)
    if is_of_another_user(task.safety_identifier or "", request.user_id):
        raise NoDraft(f"The draft {draft_of} is another user's. {_OWN_DRAFTS}")
    if task.draft is not True:
        raise NoDraft(f"The task {draft_of} is no draft. Name one that was made with draft: true.")
    if task.status != SUCCEEDED:
        raise NoDraft(f"The draft {draft_of} has no video: it is {task.status}. Submit its final once it is stored.")
    model, made_by = rules.model_of(request.model), rules.model_of(task.model or request.model)
    if model is not None and made_by is not None and made_by.id != model.id:
        raise NoDraft(f"The draft {draft_of} was made by {task.model}, and a final has the model of its draft.")
    made_at = datetime.fromtimestamp(task.created_at, UTC) if task.created_at is not None else None
    if made_at is not None and datetime.now(UTC) - made_at > PROVIDER_FORGETS_AFTER - timedelta(minutes=5):
        raise NoDraft(f"The draft {draft_of} is over 7 days old, and then no final can be made of it. Make it again.")
    return draft_of


def _task_of_job(facts: Facts, job_id: str, user_id: str) -> str:
    if any(attempt.claim is not None and attempt.claim.request.user_id != user_id for attempt in facts.attempts):
        raise NoDraft(f"The draft {job_id} is another user's. {_OWN_DRAFTS}")
    if facts.record is None:
        raise NoDraft(f"The draft {job_id} has no video. Submit its final once it is stored.")
    return facts.record.task_id
