"""Run a command: connect to Temporal and the bucket, follow a job, and end with the exit code."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec

import typer
from rich.live import Live

from seedance_temporal.cli.live import LiveJob
from seedance_temporal.cli.output import OTHER, REFUSED, SHOW, err, plain, print_json, status_line
from seedance_temporal.client import VideoJobs
from seedance_temporal.errors import (
    AmbiguousJobId,
    EncryptionKeyMissing,
    InvalidJobId,
    InvalidRequest,
    InvalidSettings,
    Problem,
    SeedanceError,
    UnknownJob,
    WorkerUnavailable,
)
from seedance_temporal.handle import VideoJob
from seedance_temporal.identity import id_prefix_from
from seedance_temporal.job import JobState
from seedance_temporal.settings import Settings
from seedance_temporal.temporal_ui import COMMAND
from seedance_temporal.urls import printable, redacted

if TYPE_CHECKING:
    from seedance_temporal.storage.bucket import GoogleBucket

# Under these the job continues by itself: an operator should act, and `wait` need not stop.
_WAITS_ON = {"second_task", "video_at_risk"}


class BucketRefused(SeedanceError):
    """The bucket cannot be reached, or refuses a call."""


class JobNotFound(SeedanceError):
    """Neither Temporal nor the bucket has the job, as far as they could be read."""


_P = ParamSpec("_P")


def command(function: Callable[_P, Coroutine[Any, Any, int]]) -> Callable[_P, NoReturn]:
    """Make a command of a coroutine function: run it, and end with its exit code, or with that of its error."""

    @wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> NoReturn:
        as_json = bool(kwargs.get("as_json"))
        prepare_streams()
        try:
            code = _code(function(*args, **kwargs), as_json)
            sys.stdout.flush()
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            code = unwritten(error)
        raise typer.Exit(code)

    return run


def _code(command: Coroutine[Any, Any, int], as_json: bool) -> int:
    """Run a command; return its exit code, or print its error and return that of the error."""
    try:
        return asyncio.run(_finished(command, as_json))
    except InvalidRequest as error:
        problems = [problem.model_dump() for problem in error.problems]
        lines = ["Refused; nothing was spent.", *map(str, error.problems)]
        return _fail(REFUSED, {"code": "invalid_request", "problems": problems}, lines, as_json)
    except SeedanceError as error:
        name = _ERROR_CODES.get(type(error), "temporal")
        code = REFUSED if isinstance(error, InvalidSettings | InvalidJobId) else OTHER
        return _fail(code, error_document(name, str(error)), [str(error)], as_json)


# The errors of a file that takes no more: of a reader that has gone, of a disk that is full, or over a quota.
UNWRITABLE = {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def prepare_streams() -> None:
    """Have characters escaped that the encoding of the output lacks. A stream that is closed takes everything."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - until the process ends
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def unwritten(error: OSError) -> int:
    """Say that output was lost, unless its reader has gone; let the interpreter not write the rest once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if error.errno != errno.EPIPE:
        with suppress(OSError):
            err.print(
                f"[red]The output cannot be written: {error.strerror}.[/] What was submitted goes on: {COMMAND} list"
            )
    return OTHER


async def _finished(command: Coroutine[Any, Any, int], as_json: bool) -> int:
    """Await a command, and return its exit code. After Ctrl-C, end the process as soon as the command has ended."""
    task = asyncio.create_task(_code_of(command))
    interrupted = asyncio.Event()
    with suppress(ValueError, RuntimeError):  # only the main thread gets signals
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted.set)
    stop = asyncio.create_task(interrupted.wait())
    await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
    while not task.done():
        # A cancel that meets an answer can get lost in `wait_for` of Python 3.11: it is repeated.
        task.cancel()
        await asyncio.wait({task}, timeout=1)
    stop.cancel()
    # A call to Temporal that was cut off lives on for a moment in a thread of the SDK. An interpreter that ends
    # meanwhile can wait for that thread, and it for the interpreter, for ever (seen in one Ctrl-C of four).
    await asyncio.sleep(0.2)
    if interrupted.is_set():
        message = "Stopped by Ctrl-C."
        code = _fail(OTHER, error_document("interrupted", message), [message], as_json)
        sys.stdout.flush()
        sys.stderr.flush()
        # The interpreter's own end would wait for threads: one that reads what is typed, or one of the SDK.
        os._exit(code)
    return task.result()


async def _code_of(command: Coroutine[Any, Any, int]) -> int:
    """Await a command. Where the reader of its output has gone, as `head` does, rich ends it by SystemExit."""
    try:
        return await command
    except SystemExit as end:
        return int(end.code or 0)


_ERROR_CODES: dict[type[SeedanceError], str] = {
    InvalidSettings: "invalid_settings",
    InvalidJobId: "invalid_job_id",
    AmbiguousJobId: "ambiguous_job_id",
    UnknownJob: "unknown_job",
    JobNotFound: "unknown_job",
    WorkerUnavailable: "no_worker",
    BucketRefused: "bucket",
    EncryptionKeyMissing: "encryption_key",
}


def error_document(code: str, message: str) -> dict[str, Any]:
    absent = dict.fromkeys(("class", "task_id", "attempt", "resubmit_could_help"))
    return {"code": code, "message": message} | absent


def _fail(code: int, document: dict[str, Any], lines: list[str], as_json: bool) -> int:
    for line in lines:
        err.print(f"[red]{plain(line)}[/]")
    if as_json:
        print_json({"error": document})
    return code


async def agree(question: str, done: str) -> None:
    """Ask on the terminal; raise InvalidRequest where nobody agrees."""
    if not sys.stdin.isatty():
        raise InvalidRequest([Problem(at="--yes", problem="is needed where there is no terminal to ask on")])
    # In a thread, so that Ctrl-C is noticed.
    if not await asyncio.to_thread(typer.confirm, printable(question), err=True):
        raise InvalidRequest([Problem(at="", problem=f"nothing was {done}")])


async def find_job(job: str) -> VideoJob:
    """Find the job that a command's argument means.

    Raises:
        InvalidJobId: It cannot be a job id, which is checked before Temporal is asked; or several ids begin with it.
        UnknownJob: No job's id begins with it.
    """
    id_prefix_from(job)
    return await (await VideoJobs.connect()).find(job)


async def follow(job: VideoJob, *, until_attention: bool = True) -> JobState:
    """Follow a job to its end, and return its last state. Print every change on stderr, and draw it on a terminal.

    Args:
        job: The job.
        until_attention: Whether to stop where the job needs an operator.
    """
    started = time.monotonic()
    printed = ""
    live = LiveJob()
    with job_goes_on(job.id), Live(live, console=err, transient=True):
        async for state in job.follow():
            live.job = state
            line = status_line(state)
            if line != printed:
                err.print(f"{time.monotonic() - started:6.0f} s  {line}")
                printed = line
            if until_attention and must_stop(state):
                break
    return state


def must_stop(job: JobState) -> bool:
    """Return whether a job continues only after an operator has acted."""
    return job.attention is not None and job.attention not in _WAITS_ON


@contextmanager
def job_goes_on(job_id: str) -> Iterator[None]:
    """Print, where an error ends the block, that the job goes on and which command shows it."""
    try:
        yield
    except (asyncio.CancelledError, SeedanceError):
        err.print(f"This does not stop the job: it continues if it was started. To see it: {SHOW} {job_id}")
        raise


async def read(file: str) -> bytes:
    """Read a file, or stdin, in a thread: Ctrl-C is noticed meanwhile."""
    try:
        from_file = typer.get_binary_stream("stdin").read if file == "-" else Path(file).read_bytes
        return await asyncio.to_thread(from_file)
    except OSError as error:
        raise InvalidRequest([Problem(at="FILE", problem=f"{file} cannot be read: {error.strerror}")]) from None
    except RuntimeError:
        raise InvalidRequest([Problem(at="FILE", problem="standard input is closed")]) from None


# The storage library would try for two minutes.
_BUCKET_SECONDS = 15.0


async def open_bucket(settings: Settings) -> GoogleBucket:
    """Open the bucket of the settings, and check that it answers.

    Raises:
        BucketRefused: There are no credentials, or the bucket does not answer.
    """
    from seedance_temporal.storage.bucket import GoogleBucket

    assert settings.seedance_bucket is not None
    try:
        bucket = GoogleBucket(settings.seedance_bucket)
        await bucket.check(seconds=_BUCKET_SECONDS)
    except Exception as error:
        raise BucketRefused(f"The bucket {settings.seedance_bucket} cannot be used: {redacted(str(error))}") from None
    return bucket
