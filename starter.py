"""The command line: ``python starter.py COMMAND``.

People get text; ``--json`` gives one JSON document on stdout, and everything else on stderr. Exit codes: 0 done,
1 anything else, 2 usage or refused before anything was spent, 3 ended without a video, 4 it needs a person.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from seedance_temporal import catalogue
from seedance_temporal.client import VideoJobs, connect
from seedance_temporal.errors import (
    InvalidRequest,
    InvalidSettings,
    NoWorkerAnswered,
    Problem,
    SeedanceError,
    UnknownJob,
)
from seedance_temporal.identity import hash_of_job, job_id_of
from seedance_temporal.job import Job, JobState, Resolve, Submitted
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings

DONE, OTHER, REFUSED, NO_VIDEO, NEEDS_A_PERSON = range(5)
# The job goes on by itself under these: they need a person, but `wait` need not stop.
WAITS_ON = {"second_task", "video_at_risk"}
SHOW = "python starter.py show"

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The job id: seedance- and 64 hex digits.")]


@app.command()
def submit(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="The request as JSON; - reads standard input.")],
    wait: Annotated[bool, typer.Option("--wait", help="Follow the job to its end.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Start the job of a request, or find the one that the same request has already."""

    async def story() -> int:
        settings = Settings.from_environment()
        hosts, endpoints = settings.seedance_insecure_hosts, settings.seedance_endpoints
        request = catalogue.parse_request_json(_read(file), insecure_hosts=hosts, endpoints=endpoints)
        say = err if as_json else out
        _print_outlook(request, settings, say)
        jobs = VideoJobs(await connect(), insecure_hosts=hosts, endpoints=endpoints)
        with _job_goes_on(job_id_of(request)):
            submitted = await jobs.submit(request)
        say.print(f"{submitted.job_id}  {'known already' if submitted.existing else 'new'}, {submitted.phase}")
        if not wait:
            return _finish(submitted, as_json, DONE)
        job = await _follow(jobs, submitted.job_id)
        ended = Submitted(**_fields(job), existing=submitted.existing)
        return _finish(ended, as_json, _exit_code(job))

    _run(story(), as_json)


@app.command()
def show(job: JobArgument, as_json: JsonOption = False) -> None:
    """A job as it is now."""

    async def story() -> int:
        jobs = await _jobs(job)
        seen = await jobs.get(job)
        state = seen if isinstance(seen, JobState) else None
        if state is None and not _has_ended(seen):
            err.print(
                "[yellow]No worker answers for this job[/]: this is what Temporal itself knows. Nothing is lost, and "
                "the job goes on when a worker of its route is back."
            )
        if not as_json:
            if _has_ended(seen):
                with suppress(NoWorkerAnswered):
                    state = await jobs.state(job)
            _print_story(state)
        return _finish(seen, as_json, DONE)

    _run(story(), as_json)


@app.command()
def wait(job: JobArgument, as_json: JsonOption = False) -> None:
    """Follow a job to its end, or until it needs a person."""

    async def story() -> int:
        seen = await _follow(await _jobs(job), job)
        return _finish(seen, as_json, _exit_code(seen))

    _run(story(), as_json)


@app.command("list")
def list_jobs(
    user: Annotated[str | None, typer.Option(help="Only this user's jobs.")] = None,
    phase: Annotated[str | None, typer.Option(help="Only jobs in this phase, such as running.")] = None,
    attention: Annotated[str | None, typer.Option(help="Only jobs with this Attention, such as account.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """Jobs as Temporal's visibility store shows them, newest first; --json gives a list."""

    async def story() -> int:
        found = await (await _jobs()).list(user=user, phase=phase, attention=attention, limit=limit)
        if as_json:
            _print_json([_document(job) for job in found])
        for job in () if as_json else found:
            needs = f"  [yellow]{escape(job.attention)}[/]" if job.attention else ""
            out.print(f"{job.job_id}  {job.phase:<10}{needs}  {escape(job.task_id or '')}")
        return DONE

    _run(story(), as_json)


@app.command()
def cancel(job: JobArgument, as_json: JsonOption = False) -> None:
    """Ask for the end of a job. What the provider runs already is billed, and therefore still stored."""

    async def story() -> int:
        outcome = (await (await _jobs(job)).cancel(job)).outcome
        if as_json:
            _print_json({"job_id": job, "outcome": outcome})
        else:
            out.print(_CANCEL_OUTCOMES[outcome])
        return DONE

    _run(story(), as_json)


_CANCEL_OUTCOMES = {
    "cancelled": "Cancelled.",
    "running_will_finish": "The provider runs it already, does not stop it, and bills it: the video will be stored.",
    "requested": f"The wish is noted; nobody has answered it yet. What came of it: {SHOW} JOB",
    "already_closed": "It had ended already: there is nothing to cancel.",
}


@app.command()
def resolve(
    job: JobArgument,
    attempt: Annotated[int, typer.Option(min=1, help="The attempt whose outcome is unknown.")],
    task_id: Annotated[str | None, typer.Option(help="The provider's task of this attempt: adopt it.")] = None,
    not_created: Annotated[bool, typer.Option("--not-created", help="The provider has no task of it.")] = False,
    lost: Annotated[bool, typer.Option("--lost", help="Nobody can tell any more.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Settle an attempt of which nobody knows whether the provider took it."""
    if (task_id is not None) + not_created + lost != 1:
        raise typer.BadParameter("say exactly one of --task-id, --not-created and --lost")

    async def story() -> int:
        action = "adopt" if task_id is not None else "not_created" if not_created else "lost"
        word = Resolve.model_validate({"attempt": attempt, "action": action, "task_id": task_id})
        answer = await (await _jobs(job)).resolve(job, word)
        if as_json:
            _print_json({"job_id": job, **answer.model_dump()})
        else:
            out.print(f"{'Accepted' if answer.accepted else 'Not accepted'}: {escape(answer.message)}")
        return DONE if answer.accepted else OTHER

    _run(story(), as_json)


@app.command()
def resubmit(
    job: JobArgument,
    attempt: Annotated[int, typer.Option(min=1, help="The attempt that ended without a video.")],
    accept_second_charge: Annotated[
        bool, typer.Option("--accept-second-charge", help="Needed after lost: the first one may have been billed.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Ask, and pay, for another attempt after one that ended without a video. Saying it twice changes nothing."""

    async def story() -> int:
        jobs = await _jobs(job)
        submitted = await jobs.resubmit(job, attempt=attempt, accept_second_charge=accept_second_charge)
        if not as_json and submitted.phase == "checking":
            out.print(f"A run was started that claims another attempt. What comes of it: {SHOW} {job}")
        return _finish(submitted, as_json, DONE)

    _run(story(), as_json)


# Reaching the job


async def _jobs(job_id: str | None = None) -> VideoJobs:
    """The client; a job id is looked at first, because a wrong one is known without Temporal."""
    if job_id is not None:
        try:
            hash_of_job(job_id)
        except ValueError as error:
            raise InvalidRequest([Problem(at="JOB", problem=str(error))]) from None
    settings = Settings.from_environment()
    return VideoJobs(
        await connect(), insecure_hosts=settings.seedance_insecure_hosts, endpoints=settings.seedance_endpoints
    )


async def _follow(jobs: VideoJobs, job_id: str) -> Job:
    """The job at its end, or where it needs a person; every change on the way is told on stderr."""
    started = time.monotonic()
    told = ""
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with (
        _job_goes_on(job_id),
        Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress,
    ):
        line = progress.add_task("asking")
        async for job in jobs.follow(job_id):
            news = _news(job)
            if news != told:
                err.print(f"{time.monotonic() - started:6.0f} s  {news}")
                progress.update(line, description=job.phase)
                told = news
            if job.attention and job.attention not in WAITS_ON:
                break
    return job


@contextmanager
def _job_goes_on(job_id: str) -> Iterator[None]:
    """Whatever stops us does not stop the job: say so, and how to look at it again."""
    try:
        yield
    except (asyncio.CancelledError, SeedanceError):
        err.print(f"The job is not affected by this, and goes on if it was started. To look at it: {SHOW} {job_id}")
        raise


def _read(file: str) -> bytes:
    try:
        return typer.get_binary_stream("stdin").read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise InvalidRequest([Problem(at="FILE", problem=f"{file} cannot be read: {error.strerror}")]) from None


# Telling it


def _run(story: Coroutine[Any, Any, int], as_json: bool) -> NoReturn:
    """Run a command's story, and end with its exit code, or with that of its error."""
    try:
        code = asyncio.run(_to_its_end(story))
    except InvalidRequest as error:
        problems = [problem.model_dump() for problem in error.problems]
        document: dict[str, Any] = {"code": "invalid_request", "problems": problems}
        lines = [f"{p.at}: {p.problem}" if p.at else p.problem for p in error.problems]
        code = _fail(REFUSED, document, ["Refused; nothing was spent.", *lines], as_json)
    except SeedanceError as error:
        name = _ERROR_CODES.get(type(error), "temporal")
        code = REFUSED if isinstance(error, InvalidSettings) else OTHER
        code = _fail(code, _error_document(name, str(error)), [str(error)], as_json)
    except KeyboardInterrupt:
        code = _fail(OTHER, _error_document("interrupted", "Stopped by Ctrl-C."), ["Stopped by Ctrl-C."], as_json)
        # Not through the interpreter's own end, which can wait for a thread of the SDK for ever, see below.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise typer.Exit(code)


async def _to_its_end(story: Coroutine[Any, Any, int]) -> int:
    """The story's exit code.

    Raises:
        KeyboardInterrupt: Ctrl-C ended it.
    """
    task = asyncio.create_task(story)
    interrupted = asyncio.Event()
    with suppress(ValueError, RuntimeError):  # only the main thread hears signals
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted.set)
    stop = asyncio.create_task(interrupted.wait())
    await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
    while not task.done():
        # A cancel that meets an answer can get lost in `wait_for` of Python 3.11: it is said until it is heard.
        task.cancel()
        await asyncio.wait({task}, timeout=1)
    stop.cancel()
    # A call to Temporal that was cut off lives on for a moment in a thread of the SDK. An interpreter that ends
    # meanwhile can wait for that thread, and it for the interpreter, for ever (seen in one Ctrl-C of four).
    await asyncio.sleep(0.2)
    if interrupted.is_set():
        raise KeyboardInterrupt
    return task.result()


_ERROR_CODES: dict[type[SeedanceError], str] = {
    InvalidSettings: "invalid_settings",
    UnknownJob: "unknown_job",
    NoWorkerAnswered: "no_worker",
}


def _error_document(code: str, message: str) -> dict[str, Any]:
    absent = dict.fromkeys(("class", "task_id", "attempt", "resubmit_could_help"))
    return {"code": code, "message": message} | absent


def _fail(code: int, document: dict[str, Any], lines: list[str], as_json: bool) -> int:
    for line in lines:
        err.print(f"[red]{escape(line)}[/]")
    if as_json:
        _print_json({"error": document})
    return code


def _has_ended(job: Job) -> bool:
    return job.result is not None or job.error is not None


def _exit_code(job: Job) -> int:
    if job.result is not None:
        return DONE
    return NO_VIDEO if job.error is not None else NEEDS_A_PERSON


def _fields(job: Job) -> dict[str, Any]:
    return {name: getattr(job, name) for name in Job.model_fields}


def _document(job: Job) -> dict[str, Any]:
    """A job's JSON, without what only a JobState knows."""
    return job.model_dump(mode="json", by_alias=True, include={*Job.model_fields, "existing"})


def _print_json(document: object) -> None:
    print(json.dumps(document, indent=2))


def _finish(job: Job, as_json: bool, code: int) -> int:
    """Print a job in the form that was asked for."""
    if as_json:
        _print_json(_document(job))
    else:
        _print_job(job)
    return code


def _print_outlook(request: VideoRequest, settings: Settings, say: Console) -> None:
    estimate = catalogue.estimate(request, settings.prices, endpoints=settings.seedance_endpoints)
    if estimate.usd is not None:
        say.print(
            f"Costs at most about {estimate.usd:.2f} USD ({estimate.tokens:,} tokens), unless it is paid already."
        )
    else:
        say.print("What it will cost cannot be told beforehand.")
    for warning in catalogue.warnings(request, endpoints=settings.seedance_endpoints):
        say.print(f"[yellow]{escape(warning)}[/]")


def _news(job: Job) -> str:
    words = [f"[bold]{job.phase}[/]"] + [escape(w) for w in (job.task_id,) if w]
    if isinstance(job, JobState):
        if job.timeline:
            last = job.timeline[-1]
            words.append(escape(f"{last.what} (learned by {last.how})"))
    elif not _has_ended(job):
        words.append("no worker answers at the moment")
    if job.attention:
        words.append(f"[yellow]{job.attention}[/]")
    return "  ".join(words)


def _print_job(job: Job) -> None:
    rows: dict[str, object] = {"job": job.job_id, "phase": job.phase, "task": job.task_id, "attempt": job.attempt}
    if job.result is not None:
        rows |= {
            "video": job.result.video_uri,
            "size": f"{job.result.size:,} bytes",
            "last frame": job.result.last_frame_uri,
            "record": job.result.record_uri,
            "tokens": job.result.usage.total_tokens if job.result.usage else None,
            "cost": None if job.result.cost_usd is None else f"{job.result.cost_usd:.4f} USD",
        }
    if isinstance(job, JobState):
        look = job.look_again_at.strftime("%Y-%m-%d %H:%M:%S") if job.look_again_at else None
        rows |= {"provider": job.provider_status, "next look": look, "advice": job.advice}
    if job.attention:
        rows |= {"attention": job.attention}
    if job.error is not None:
        rows |= {"error": f"{job.error.code} ({job.error.failure_class})", "why": job.error.message}
        if job.error.resubmit_could_help:
            rows |= {"another": "another attempt could help, and would be paid for anew"}
    if job.attention or job.error is not None:
        rows |= {"look": f"free of charge: {SHOW} {job.job_id}"}
    for name, value in rows.items():
        if value is not None:
            out.print(f"[dim]{name:<10}[/] {escape(str(value))}")


def _print_story(state: JobState | None) -> None:
    for entry in state.timeline if state is not None else ():
        often = f" ({entry.times} times)" if entry.times > 1 else ""
        note = f": {entry.note}" if entry.note else ""
        out.print(f"[dim]{entry.at:%Y-%m-%d %H:%M:%S}  {entry.how:<9}[/] {escape(entry.what + often + note)}")


if __name__ == "__main__":
    app()
