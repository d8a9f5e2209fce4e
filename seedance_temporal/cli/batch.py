"""``batch``: many requests from one file. Running it again goes on where it stopped, and pays for nothing twice."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from seedance_temporal.cli.local_files import RequestReader, Uploads, folder_of, spinner
from seedance_temporal.cli.output import DONE, err, exit_code, out, plain, print_json
from seedance_temporal.cli.runtime import WAITS_ON, AnyPathOption, JsonOption, open_bucket, read, run, video_jobs
from seedance_temporal.client import VideoJobs
from seedance_temporal.errors import InvalidRequest, Problem, SeedanceError
from seedance_temporal.identity import hash_of_job, job_id_of
from seedance_temporal.job import Phase
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings

_AT_ONCE = 20
# How old the result file may get while work goes on.
_WRITE_SECONDS = 1.0
# Between two looks at a job that is waited for; its end is seen at once.
_FOLLOW_SECONDS = 10.0
_MOST_WARNINGS = 10


@dataclass
class _Line:
    """A line of the file, and what became of it.

    Attributes:
        number: Counted from 1, blank lines included.
        problems: Why it is no request that may be sent.
        same_as: The first line that asks for the same job, if that is another one.
        phase: As it was last seen; None while the job was not submitted.
        ended: With ``--wait``: the exit code that the job's end stands for.
    """

    number: int
    request: VideoRequest | None = None
    job_id: str = ""
    problems: tuple[Problem, ...] = ()
    same_as: _Line | None = None
    phase: Phase | None = None
    existing: bool | None = None
    ended: int = DONE

    def result(self) -> dict[str, Any]:
        """Its line of the result file."""
        if self.request is None:
            problems = [problem.model_dump() for problem in self.problems]
            return {"line": self.number, "error": {"code": "invalid_request", "problems": problems}}
        result = {"line": self.number, "job_id": self.job_id, "request_hash": hash_of_job(self.job_id)}
        if self.same_as is None:
            return result | {"phase": self.phase, "existing": self.existing}
        existing = None if self.same_as.phase is None else True
        return result | {"phase": self.same_as.phase, "existing": existing, "same_as": self.same_as.number}


def batch(
    file: Annotated[str, typer.Argument(metavar="FILE.jsonl", help="One request a line; blank lines are skipped.")],
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Submit the good lines, where others are wrong.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before it is paid for.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Follow all jobs to their end.")] = False,
    results: Annotated[
        Path | None, typer.Option("--results", metavar="PATH", help="Where the results go; FILE.results.jsonl.")
    ] = None,
    allow_any_path: AnyPathOption = False,
    as_json: JsonOption = False,
) -> None:
    """Submit one request a line. All lines are checked before the first is submitted."""

    results_path = results or Path(file).with_suffix(".results.jsonl")
    if results_path.resolve() == Path(file).resolve():
        raise typer.BadParameter("the results cannot go into the file of the requests")

    async def story() -> int:
        settings = Settings.from_environment()
        reader = RequestReader(settings, allow_any_path=allow_any_path)
        with spinner() as progress:
            progress.add_task("looking at the requests and their files", total=None)
            lines = await _read_lines(read(file), folder_of(file), reader)
        work = _Batch(lines, results_path, settings)
        work.refuse_invalid(skip=skip_invalid)
        say = err if as_json else out
        for sentence in work.outlook():
            say.print(sentence)
        if not yes:
            await _ask()
        bucket = await open_bucket(settings) if reader.files else None
        jobs = await video_jobs()
        with work.recorded(), _bar() as bar:
            await work.submit(jobs, Uploads(bucket, reader.files, bar) if bucket is not None else None, bar)
            if wait:
                await work.follow(jobs, bar)
        if as_json:
            print_json(work.summary())
        else:
            for sentence in work.outcome():
                out.print(sentence)
        return max(line.ended for line in work.jobs)

    run(story(), as_json)


class _Batch:
    """The lines of a file, and their way to jobs.

    Attributes:
        jobs: The first line of each job.
    """

    def __init__(self, lines: list[_Line], results: Path, settings: Settings) -> None:
        self._lines = lines
        self._results = results
        self._settings = settings
        self._invalid = [line for line in lines if line.request is None]
        self._repeated = [line for line in lines if line.same_as is not None]
        self.jobs = [line for line in lines if line.request is not None and line.same_as is None]

    def refuse_invalid(self, *, skip: bool) -> None:
        """Refuses the whole file for one bad line, unless those are to be skipped; they are told in any case.

        Raises:
            InvalidRequest: Lists everything that is wrong, line by line.
        """
        problems = [
            Problem(at=f"line {line.number}" + (f": {problem.at}" if problem.at else ""), problem=problem.problem)
            for line in self._invalid
            for problem in line.problems
        ]
        if not self.jobs:
            raise InvalidRequest(problems or [Problem(at="FILE", problem="holds no request")])
        if problems and not skip:
            raise InvalidRequest(problems)
        for problem in problems:
            err.print(f"[yellow]skipped {plain(f'{problem.at}: {problem.problem}')}[/]")

    def outlook(self) -> Iterator[str]:
        """What is about to be asked for, for people."""
        total, unpriced = self._estimated()
        jobs = _counted(len(self.jobs), "job")
        yield f"{jobs}, at most about {total:.2f} USD together, unless they are paid already."
        if unpriced:
            yield f"Not counted in that, because the price is not known: {_counted(unpriced, 'job')}."
        if self._repeated:
            yield f"Asked for by an earlier line already, and so the same job: {_counted(len(self._repeated), 'line')}."
        if self._invalid:
            yield f"Wrong, and skipped: {_counted(len(self._invalid), 'line')}."
        rules = self._settings.rules
        warnings = Counter(text for one in self._requests() for text in rules.warnings(one))
        for text, count in warnings.most_common(_MOST_WARNINGS):
            yield f"[yellow]{_counted(count, 'job')}: {plain(text)}[/]"
        if len(warnings) > _MOST_WARNINGS:
            yield "[yellow]There are warnings of other kinds; `check` tells them of one request.[/]"

    def outcome(self) -> Iterator[str]:
        """What came of it, for people."""
        counts = self.summary()
        yield f"Submitted: {_counted(len(self.jobs), 'job')}, {counts['new']} new, {counts['existing']} known already."
        yield f"{', '.join(f'{count} {phase}' for phase, count in counts['phases'].items())}."
        yield f"Each line's job stands in {plain(str(self._results))}."

    def summary(self) -> dict[str, Any]:
        total, unpriced = self._estimated()
        return {
            "results": str(self._results),
            "lines": len(self._lines),
            "jobs": len(self.jobs),
            "new": sum(line.existing is False for line in self.jobs),
            "existing": sum(line.existing is True for line in self.jobs),
            "repeated": len(self._repeated),
            "invalid": len(self._invalid),
            "estimated_usd": round(total, 6),
            "unpriced": unpriced,
            "phases": Counter(line.phase for line in self.jobs),
        }

    def _requests(self) -> Iterator[VideoRequest]:
        return (line.request for line in self.jobs if line.request is not None)

    def _estimated(self) -> tuple[float, int]:
        """USD in all, and how many requests of unknown price are not counted in that."""
        estimates = [self._settings.rules.estimate(one).usd for one in self._requests()]
        return sum(usd for usd in estimates if usd is not None), estimates.count(None)

    async def submit(self, jobs: VideoJobs, uploads: Uploads | None, bar: Progress) -> None:
        """Submits all jobs, a few at once. What stops it leaves those that were submitted as they are."""
        shown = bar.add_task("submitting", total=len(self.jobs))

        async def submit(line: _Line) -> None:
            assert line.request is not None
            request = line.request if uploads is None else await uploads.uploaded(line.request)
            job = await jobs.submit(request)
            assert job.submitted is not None
            line.phase, line.existing = job.submitted.phase, job.existing
            bar.advance(shown)

        try:
            await _side_by_side(submit, self.jobs)
        except (asyncio.CancelledError, SeedanceError):
            done = sum(line.phase is not None for line in self.jobs)
            err.print(
                f"{done} of {len(self.jobs)} jobs are known to be submitted, and go on. The same command again submits "
                "the rest; nothing is paid for twice."
            )
            raise

    async def follow(self, jobs: VideoJobs, bar: Progress) -> None:
        """Follows all jobs to their end, or to where they need a person."""
        shown = bar.add_task("ended", total=len(self.jobs))

        async def follow(line: _Line) -> None:
            async for job in jobs.job(line.job_id).follow(every=_FOLLOW_SECONDS):
                line.phase = job.phase
                if job.attention and job.attention not in WAITS_ON:
                    break
            line.ended = exit_code(job)
            bar.advance(shown)

        try:
            await _side_by_side(follow, self.jobs)
        except (asyncio.CancelledError, SeedanceError):
            err.print("The jobs are not affected by this, and go on. The same command again looks at them once more.")
            raise

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Keeps the result file up to date for as long as the block runs, however that ends.

        Raises:
            InvalidRequest: It cannot be written; nothing was submitted.
        """
        try:
            self._write()
        except OSError as error:
            problem = f"{self._results} cannot be written: {error.strerror}"
            raise InvalidRequest([Problem(at="--results", problem=problem)]) from None

        async def keep() -> None:
            while True:
                await asyncio.sleep(_WRITE_SECONDS)
                self._write()

        keeping = asyncio.create_task(keep())
        try:
            yield
        finally:
            keeping.cancel()
            self._write()

    def _write(self) -> None:
        """Writes the whole file anew beside the old one, and puts it in its place: there is never half of one."""
        new = self._results.with_name(f".{self._results.name}.new")
        # A link of this name in somebody's folder must not be written through.
        new.unlink(missing_ok=True)
        with new.open("x", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(line.result())}\n" for line in self._lines)
        new.replace(self._results)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


async def _read_lines(text: bytes, folder: Path, reader: RequestReader) -> list[_Line]:
    rows = [(number, row) for number, row in enumerate(text.split(b"\n"), 1) if row.strip()]
    lines = await asyncio.gather(*(_read_line(number, row, folder, reader) for number, row in rows))
    first: dict[str, _Line] = {}
    for line in lines:
        if line.request is not None:
            line.same_as = first.get(line.job_id)
            first.setdefault(line.job_id, line)
    return lines


async def _read_line(number: int, row: bytes, folder: Path, reader: RequestReader) -> _Line:
    try:
        request = await reader.read(row, folder)
    except InvalidRequest as error:
        return _Line(number, problems=error.problems)
    return _Line(number, request, job_id_of(request))


async def _side_by_side(work: Callable[[_Line], Awaitable[None]], lines: Iterable[_Line]) -> None:
    """Works on lines in their order, a few at once; the first error ends it."""
    left = iter(lines)

    async def worker() -> None:
        for line in left:
            await work(line)

    workers = [asyncio.create_task(worker()) for _ in range(_AT_ONCE)]
    try:
        await asyncio.gather(*workers)
    finally:
        for each in workers:
            each.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def _ask() -> None:
    """Asks whether it may be paid for.

    Raises:
        InvalidRequest: It may not, or nobody is there to say so.
    """
    if not sys.stdin.isatty():
        raise InvalidRequest([Problem(at="--yes", problem="is needed where there is no terminal to ask on")])
    # In a thread, so that Ctrl-C is heard.
    if not await asyncio.to_thread(typer.confirm, "Submit them?", err=True):
        raise InvalidRequest([Problem(at="", problem="nothing was submitted")])


def _bar() -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=err, disable=not err.is_terminal)
