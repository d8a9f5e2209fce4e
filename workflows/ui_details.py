"""Write the current details of a run, which Temporal's UI shows, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from seedance_temporal.job import JobState
    from seedance_temporal.provider.billing import is_billed
    from seedance_temporal.provider.prices import cost_in, estimate_in
    from seedance_temporal.temporal_ui import COMMAND, money, plain, rows, with_command

_AT_WORK: Mapping[str, str] = {
    "checking": "**Checking.** The ledger of this request is read, and its references are checked.",
    "waiting": "**Waiting.** The create was not accepted, and is not billed; it is sent again by itself.",
    "creating": "**Creating.** The request is sent to the provider, once.",
    "recovering": "**Recovering.** It is not known whether the provider accepted the create, so the job searches for "
    "the task. Nothing is sent meanwhile, and nothing is paid for twice.",
    "queued": "**Queued.** The provider has accepted the task, and not begun it. Nothing has to be done.",
    "running": "**Running.** The provider is making the video. Nothing has to be done.",
    "storing": "**Storing.** The video is made and paid for, and is copied to the bucket. Nothing has to be done.",
}
_STORED = "**Stored.** The video is in the bucket, verified, and on record."


def details(state: JobState, *, awaited: str | None, folder: str | None) -> str:
    """Return the current details of a run.

    Args:
        awaited: The cause of a wait until ``continues_at``; None where the run does not wait.
        folder: ``gs://…/``, the start of the names of all objects of the job; None where it is not known yet.
    """
    detail = state.detail
    assert detail is not None
    facts = {
        "phase": state.phase,
        "task": plain(state.task_id or ""),
        "attempt": str(state.attempt or ""),
        "provider says": plain(detail.provider_status or ""),
        "awaited": f"{awaited} at {detail.continues_at:%Y-%m-%d %H:%M:%S} UTC" if awaited else "",
        "expected": f"{state.expected_at:%Y-%m-%d %H:%M:%S} UTC, an estimate" if state.expected_at else "",
        "cost": _cost(state),
        **_objects(state, folder),
        **{f"warning {number}": plain(warning) for number, warning in enumerate(detail.warnings, 1)},
        "audit": f"`{COMMAND} audit {state.job_id}`",
    }
    return "\n\n".join([*_needed(state.attention, detail.advice), _headline(state), rows(facts)])


def _size(count: int) -> str:
    """Write a number of bytes for people."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _needed(attention: str | None, advice: str | None) -> list[str]:
    """Return the Attention, and the ways to settle it."""
    if attention is None:
        return []
    headline_advice, *ways = (advice or "").splitlines()
    headline = f"**Needs an operator: {plain(attention)}.** {with_command(headline_advice)}"
    return [headline, "\n".join(f"- {with_command(way)}" for way in ways)] if ways else [headline]


def _headline(state: JobState) -> str:
    if state.error is not None:
        return f"**No video: {state.phase} ({state.error.failure_class}).** {with_command(state.error.message)}"
    if state.detail is not None and state.detail.waits_for is not None:
        return f"**Waiting.** Nothing was sent. {plain(state.detail.waits_for)}"
    return _STORED if state.result is not None else _AT_WORK[state.phase]


def _cost(state: JobState) -> str:
    billed, expected = money(cost_in(state), state.tokens), money(estimate_in(state), state.estimated_tokens)
    if state.error is not None and is_billed(state.phase) is False:
        return f"nothing is billed for attempt {state.attempt}" if state.attempt else "nothing for this run"
    if state.error is None and state.result is None:
        return f"at most {expected}, if it succeeds" if expected else ""
    return f"{billed or 'not known here'} (expected: at most {expected})" if expected else billed


def _objects(state: JobState, folder: str | None) -> dict[str, str]:
    if state.result is None:
        return {"ledger": plain(f"{folder}attempts/")} if folder else {}
    result = state.result
    return {
        "video": f"{plain(result.video_uri)}, {_size(result.size)}",
        "last frame": plain(result.last_frame_uri or ""),
        "record": plain(result.record_uri),
    }
