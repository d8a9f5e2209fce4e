"""The output of the commands: text, or one JSON document."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape

from seedance_temporal.events import sentence
from seedance_temporal.job import JobState
from seedance_temporal.provider.prices import cost_in, estimate_in
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings
from seedance_temporal.temporal_ui import COMMAND
from seedance_temporal.urls import printable

DONE, OTHER, REFUSED, NO_VIDEO, NEEDS_OPERATOR = range(5)
"""Exit codes."""
SHOW = f"{COMMAND} show"
_WIDE = 500

out = Console(emoji=False, highlight=False, soft_wrap=True)
err = Console(stderr=True, emoji=False, highlight=False, soft_wrap=True)


def plain(text: str) -> str:
    """Escape a text of others for a console: it is no markup, on one line, and holds no control characters."""
    return escape(printable(text))


def advised(advice: str) -> str:
    """Escape advice, whose lines the workflow makes."""
    return escape(printable(advice, keep="\n"))


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def exit_code(job: JobState) -> int:
    if job.result is not None:
        return DONE
    return NO_VIDEO if job.error is not None else NEEDS_OPERATOR


def document(job: JobState, **more: object) -> dict[str, Any]:
    """Return a job's JSON, with more fields."""
    return job.model_dump(mode="json", by_alias=True) | more


def print_json(document: object) -> None:
    print(json.dumps(document, indent=2))


def print_table(table: RenderableType) -> None:
    """Print a table. On a terminal, its cells are cut or folded to the width; elsewhere they are whole."""
    (out if out.is_terminal else Console(emoji=False, highlight=False, width=_WIDE)).print(table, soft_wrap=False)


def finish(job: JobState, as_json: bool, code: int, *, names_show: bool = True, **more: object) -> int:
    """Print a job as text, or as JSON with more fields. Return the exit code.

    Args:
        names_show: Whether the text of a job that needs attention names the command that shows more.
    """
    if as_json:
        print_json(document(job, **more))
    else:
        print_job(job, names_show)
    return code


def print_outlook(request: VideoRequest, settings: Settings, say: Console) -> None:
    estimate = settings.rules.estimate(request)
    if cost := estimate.most.rounded():
        say.print(f"Costs up to about {cost} ({estimate.tokens:,} tokens); nothing if it is paid already.")
    else:
        say.print("The price is not known beforehand.")
    for warning in settings.rules.warnings(request):
        say.print(f"[yellow]{plain(warning)}[/]")


def status_line(job: JobState) -> str:
    """Return a job's phase, task, last event and attention on one line."""
    words = [f"[bold]{job.phase}[/]"] + [plain(w) for w in (job.task_id,) if w]
    if job.detail is not None:
        if job.detail.timeline:
            last = job.detail.timeline[-1]
            words.append(plain(f"{sentence(last)} (by {last.source})"))
    elif not job.ended:
        words.append("no worker answers at the moment")
    if job.attention:
        words.append(f"[yellow]{job.attention}[/]")
    return "  ".join(words)


def print_job(job: JobState, names_show: bool) -> None:
    rows: dict[str, object] = {"job": job.job_id, "phase": job.phase, "task": job.task_id, "attempt": job.attempt}
    if job.result is not None:
        rows |= {
            "video": job.result.video_uri,
            "size": f"{job.result.size:,} bytes",
            "last frame": job.result.last_frame_uri,
            "record": job.result.record_uri,
            "tokens": job.result.usage.total_tokens if job.result.usage else None,
            "cost": str(cost_in(job.result)) or None,
        }
    if job.result is None and (estimate := str(estimate_in(job))):
        rows |= {"estimate": f"{estimate} at most ({job.estimated_tokens:,} tokens)"}
    if (detail := job.detail) is not None:
        due = f"{detail.continues_at:%Y-%m-%d %H:%M:%S}" if detail.continues_at else None
        expected = f"{job.expected_at:%Y-%m-%d %H:%M:%S}, an estimate" if job.expected_at else None
        labels = ", ".join(f"{name}={value}" for name, value in (detail.request.labels or {}).items())
        rows |= {"labels": labels or None, "waits for": detail.waits_for}
        rows |= {"provider": detail.provider_status, "continues": due, "expected": expected, "advice": detail.advice}
        rows |= {"warning" if at == 1 else f"warning {at}": text for at, text in enumerate(detail.warnings, 1)}
    if job.attention:
        rows |= {"attention": job.attention}
    if job.error is not None:
        rows |= {"error": f"{job.error.code} ({job.error.failure_class})", "message": job.error.message}
        if job.error.resubmit_could_help:
            rows |= {"resubmit": "another attempt could help, and would be paid for again"}
    if names_show and (job.attention or job.error is not None):
        rows |= {"more": f"{SHOW} {job.job_id}"}
    for name, value in rows.items():
        if value is not None:
            text = advised(str(value)) if name == "advice" else plain(str(value))
            out.print(f"[dim]{name:<10}[/] {text}")


def print_timeline(state: JobState) -> None:
    for event in state.detail.timeline if state.detail is not None else ():
        out.print(f"[dim]{event.at:%Y-%m-%d %H:%M:%S}  {event.source:<9}[/] {plain(sentence(event))}")
