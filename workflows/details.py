"""What a run tells its reader in the Temporal UI, beside the timeline: its current details, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from seedance_temporal.job import JobError, JobState, Phase
    from seedance_temporal.markdown import code, money, plain, table

_AT_WORK: Mapping[Phase, str] = {
    "checking": "**Checking.** The ledger is asked what is known of this request.",
    "waiting": "**Waiting.** Nothing is created yet, and nothing is billed; the create is sent again by itself.",
    "creating": "**Creating.** The request is sent to the provider, once.",
    "recovering": "**Recovering.** It is not known whether the provider took the create, so the task is looked for. "
    "Nothing is sent meanwhile, and nothing is paid for twice.",
    "queued": "**Queued.** The provider has taken the task, and not begun it.",
    "running": "**Running.** The provider is making the video.",
    "storing": "**Storing.** The video is made, and paid for; it is being copied to the bucket.",
}
_STORED = "**Stored.** The video is in the bucket, verified, and on record."
_COMMAND = "python starter.py"


def details(
    state: JobState, *, awaited: str | None, folder: str | None, billed: tuple[float | None, int | None]
) -> str:
    """The current details of a run.

    Args:
        state: The job as it is now.
        awaited: What is waited for until ``state.look_again_at``; None where something is being done.
        folder: ``gs://…/``, the start of the names of all objects of the job; None where it is not known yet.
        billed: USD and tokens, as far as they are known.
    """
    rows = {
        "phase": state.phase,
        "task": _task(state),
        "provider says": plain(state.provider_status or ""),
        "awaited": f"{awaited} at {_time(state.look_again_at)}" if awaited and state.look_again_at else "",
        "cost": _cost(state, money(*billed)),
        **_objects(state, folder),
        **{f"warning {number}": plain(warning) for number, warning in enumerate(state.warnings, 1)},
    }
    return "\n\n".join(
        [
            *_needed(state),
            _headline(state),
            *(_another_attempt(state.job_id, state.error) if state.error is not None else []),
            table(rows),
            "The whole story:",
            code(f"{_COMMAND} show {state.job_id}"),
        ]
    )


def size(count: int) -> str:
    """Bytes, for people."""
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"


def _needed(state: JobState) -> list[str]:
    """What a person has to settle. Each line of the advice that is a command is shown as one."""
    if state.attention is None:
        return []
    lines = (state.advice or "").splitlines()
    return [
        f"**Needs a person: {plain(state.attention)}.**",
        *(code(line) if line.startswith(_COMMAND) else plain(line) for line in lines),
    ]


def _headline(state: JobState) -> str:
    if state.error is not None:
        return f"**No video: {state.phase} ({state.error.failure_class}).** {plain(state.error.message)}"
    return _STORED if state.result is not None else _AT_WORK[state.phase]


def _another_attempt(job_id: str, error: JobError) -> list[str]:
    if not error.resubmit_could_help or error.attempt is None:
        return []
    consent = " --accept-second-charge" if error.failure_class == "lost" else ""
    return [
        "Another attempt could help, and is paid for anew:",
        code(f"{_COMMAND} resubmit {job_id} --attempt {error.attempt}{consent}"),
    ]


def _task(state: JobState) -> str:
    words = [plain(state.task_id)] if state.task_id else []
    return ", ".join(words + ([f"attempt {state.attempt}"] if state.attempt else []))


def _cost(state: JobState, billed: str) -> str:
    expected = money(state.estimated_usd, state.estimated_tokens)
    if billed:
        return f"{billed} (expected: at most {expected})" if expected else billed
    open_still = state.result is None and state.error is None
    return f"at most {expected}, if it succeeds" if expected and open_still else ""


def _objects(state: JobState, folder: str | None) -> dict[str, str]:
    if state.result is None:
        return {"ledger": plain(f"{folder}attempts/")} if folder else {}
    result = state.result
    return {
        "video": f"{plain(result.video_uri)}, {size(result.size)}",
        "last frame": plain(result.last_frame_uri or ""),
        "record": plain(result.record_uri),
    }


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
