"""``batch``: many requests from one file. The same command again submits the rest, and pays for nothing twice."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress
from typer import Argument, Option

from seedance_temporal.cli.local_files import RequestReader, Uploads, folder_of, spinner
from seedance_temporal.cli.options import AnyPathOption, JsonOption
from seedance_temporal.cli.output import DONE, OTHER, counted, err, exit_code, out, plain, print_json
from seedance_temporal.cli.runtime import agree, command, must_stop, open_bucket, read
from seedance_temporal.cli.side_by_side import progress_bar, side_by_side
from seedance_temporal.client import VideoJobs
from seedance_temporal.errors import InvalidRequest, Problem, SeedanceError
from seedance_temporal.identity import hash_of_job, job_id_of
from seedance_temporal.provider.prices import UNKNOWN, Cost
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings

# The time between two writes of the result file.
_WRITE_SECONDS = 1.0
# The time between two polls of a job; its end is seen at once.
_FOLLOW_SECONDS = 10.0
_MOST_WARNINGS = 10


@dataclass
class _Line:
    """A line of the file, and its job.

    Attributes:
        number: Counted from 1, blank lines included.
        request: None where the line is invalid.
        same_as: An earlier line with the same job.
        phase: The last known phase; None before the job is submitted.
        existing: Whether the job existed before; None before it is submitted.
        ended: With ``--wait``: the exit code for the job's end.
    """

    number: int
    request: VideoRequest | None = None
    job_id: str = ""
    problems: tuple[Problem, ...] = ()
    same_as: _Line | None = None
    phase: str | None = None
    existing: bool | None = None
    ended: int = DONE

    def result(self) -> dict[str, Any]:
        """Return its line of the result file."""
        if self.request is None:
            problems = [problem.model_dump() for problem in self.problems]
            return {"line": self.number, "error": {"code": "invalid_request", "problems": problems}}
        result = {"line": self.number, "job_id": self.job_id, "request_hash": hash_of_job(self.job_id)}
        if self.same_as is None:
            return result | {"phase": self.phase, "existing": self.existing}
        first = self.same_as
        existing = None if first.phase is None else True
        return result | {"phase": first.phase, "existing": existing, "same_as": first.number}


@command
async def batch(
    file: Annotated[str, Argument(metavar="FILE.jsonl", help="One request a line; blank lines are skipped.")],
    skip_invalid: Annotated[
        bool, Option("--skip-invalid", help="Submit the valid lines where others are invalid.")
    ] = False,
    yes: Annotated[bool, Option("--yes", help="Submit without asking first.")] = False,
    wait: Annotated[bool, Option("--wait", help="Follow all jobs to their end.")] = False,
    results: Annotated[Path | None, Option("--results", metavar="PATH", help="The file for the results.")] = None,
    allow_any_path: AnyPathOption = False,
    as_json: JsonOption = False,
) -> int:
    """Submit one request a line. All lines are checked before the first is submitted."""
    results_file = _results_file(file, results)
    settings = Settings.from_environment()
    reader = RequestReader(settings, allow_any_path=allow_any_path)
    with spinner() as progress:
        progress.add_task("checking the requests and their files", total=None)
        lines = await _read_lines(await read(file), folder_of(file), reader)
    work = _Batch(lines, results_file, settings)
    work.refuse_invalid(skip=skip_invalid)
    console = err if as_json else out
    for sentence in work.outlook():
        console.print(sentence)
    if not yes:
        await agree("Submit them?", "submitted")
    bucket = await open_bucket(settings) if reader.files else None
    jobs = await VideoJobs.connect()
    with work.recorded(), progress_bar() as bar:
        await work.submit(jobs, Uploads(bucket, reader.files, bar), bar)
        if wait:
            await work.follow(jobs, bar)
    if as_json:
        print_json(work.summary())
    for sentence in () if as_json else work.outcome():
        out.print(sentence)
    return work.exit_code


def _results_file(file: str, results: Path | None) -> Path:
    try:
        chosen = results or Path(file).with_suffix(".results.jsonl")
        same = chosen.resolve() == Path(file).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links; a path without a name
        raise typer.BadParameter(f"{file} cannot be used: {error}") from None
    if chosen.exists() and not chosen.is_file():
        raise typer.BadParameter(f"{chosen} is no regular file; results would replace it")
    if same:
        raise typer.BadParameter("the results and the requests cannot be the same file")
    return chosen


class _Batch:
    """The lines of a file, and their jobs.

    Attributes:
        jobs: The first line of each job.
    """

    def __init__(self, lines: list[_Line], results: Path, settings: Settings) -> None:
        self._lines = lines
        self._results = results
        self._unwritten = False
        self._invalid = [line for line in lines if line.request is None]
        self._repeated = [line for line in lines if line.same_as is not None]
        self.jobs = [line for line in lines if line.request is not None and line.same_as is None]
        requests = [line.request for line in self.jobs if line.request is not None]
        estimates = [settings.rules.estimate(request).most for request in requests]
        self._most = Cost(sum(each.usd or 0 for each in estimates), sum(each.cny or 0 for each in estimates))
        self._unpriced = estimates.count(UNKNOWN)
        self._warnings = Counter(text for request in requests for text in settings.rules.warnings(request))

    @property
    def exit_code(self) -> int:
        """The highest of the jobs; of jobs that are well, another one where their ids could not be written."""
        return max(line.ended for line in self.jobs) or (OTHER if self._unwritten else DONE)

    def refuse_invalid(self, *, skip: bool) -> None:
        """Raise InvalidRequest with all problems, line by line; or print them, where invalid lines are skipped."""
        problems = [
            Problem(at=f"line {line.number}" + (f": {problem.at}" if problem.at else ""), problem=problem.problem)
            for line in self._invalid
            for problem in line.problems
        ]
        if not self.jobs or (problems and not skip):
            raise InvalidRequest(problems or [Problem(at="FILE", problem="holds no request")])
        for problem in problems:
            err.print(f"[yellow]skipped {plain(str(problem))}[/]")

    def outlook(self) -> Iterator[str]:
        """Describe the jobs and their price before they are submitted."""
        jobs = counted(len(self.jobs), "job")
        cny = f" and {self._most.cny:.2f} CNY" if self._most.cny else ""
        yield f"{jobs}, at most about {self._most.usd:.2f} USD{cny} together, unless they are paid already."
        if self._unpriced:
            yield f"Not counted, because the price is not known: {counted(self._unpriced, 'job')}."
        if self._repeated:
            yield f"The same job as an earlier line: {counted(len(self._repeated), 'line')}."
        if self._invalid:
            yield f"Invalid, and skipped: {counted(len(self._invalid), 'line')}."
        for text, count in self._warnings.most_common(_MOST_WARNINGS):
            yield f"[yellow]{counted(count, 'job')}: {plain(text)}[/]"
        if len(self._warnings) > _MOST_WARNINGS:
            yield "[yellow]There are warnings of other kinds; `check` shows those of one request.[/]"

    def outcome(self) -> Iterator[str]:
        """Describe the jobs after they were submitted."""
        counts = self.summary()
        yield f"Submitted: {counted(len(self.jobs), 'job')}, {counts['new']} new, {counts['existing']} existing."
        yield f"{', '.join(f'{count} {phase}' for phase, count in counts['phases'].items())}."
        if not self._unwritten:
            yield f"The job of each line is in {plain(str(self._results))}."

    def summary(self) -> dict[str, Any]:
        return {
            "results": None if self._unwritten else str(self._results),
            "lines": len(self._lines),
            "jobs": len(self.jobs),
            "new": sum(line.existing is False for line in self.jobs),
            "existing": sum(line.existing is True for line in self.jobs),
            "repeated": len(self._repeated),
            "invalid": len(self._invalid),
            "estimated_usd": round(self._most.usd or 0, 6),
            "estimated_cny": round(self._most.cny or 0, 6),
            "unpriced": self._unpriced,
            "phases": Counter(line.phase for line in self.jobs),
        }

    async def submit(self, jobs: VideoJobs, uploads: Uploads, bar: Progress) -> None:
        """Submit all jobs. Jobs that were submitted go on where an error stops this."""

        async def submit(line: _Line) -> None:
            assert line.request is not None
            job = await jobs.submit(await uploads.uploaded(line.request), batch=True)
            assert job.submitted is not None
            line.phase, line.existing = job.submitted.phase, job.existing

        try:
            await side_by_side("submitting", submit, self.jobs, bar)
        except (asyncio.CancelledError, SeedanceError):
            done = sum(line.phase is not None for line in self.jobs)
            err.print(
                f"{done} of {len(self.jobs)} jobs are known to be submitted, and go on. "
                "The same command again submits the rest; nothing is paid for twice."
            )
            raise

    async def follow(self, jobs: VideoJobs, bar: Progress) -> None:
        """Follow all jobs to their end, or until they need an operator."""

        async def follow(line: _Line) -> None:
            async for job in jobs.job(line.job_id).follow(every=_FOLLOW_SECONDS):
                line.phase = job.phase
                if must_stop(job):
                    break
            line.ended = exit_code(job)

        try:
            await side_by_side("ended", follow, self.jobs, bar)
        except (asyncio.CancelledError, SeedanceError):
            err.print("This does not stop the jobs. The same command again follows them.")
            raise

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Write the result file before the block, which must succeed, often while it runs, and at its end."""
        try:
            self._write()
        except OSError as error:
            problem = f"{self._results} cannot be written: {error.strerror}"
            raise InvalidRequest([Problem(at="--results", problem=problem)]) from None

        async def write_often() -> None:
            while True:
                await asyncio.sleep(_WRITE_SECONDS)
                with suppress(OSError):  # that of the end is reported
                    self._write()

        writing = asyncio.create_task(write_often())
        try:
            yield
        finally:
            writing.cancel()
            try:
                self._write()
            except OSError as error:
                self._unwritten = True
                err.print(
                    f"[red]{plain(str(self._results))} cannot be written: {error.strerror}.[/] The jobs go on, and the "
                    "same command finds them, with --results for another place; nothing is paid for twice."
                )

    def _write(self) -> None:
        """Write a new file beside the old one, and replace that: a reader never sees half of one."""
        new = self._results.with_name(f".{self._results.name}.new")
        # A link of this name must not be followed.
        new.unlink(missing_ok=True)
        with new.open("x", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(line.result())}\n" for line in self._lines)
        new.replace(self._results)


async def _read_lines(text: bytes, folder: Path | None, reader: RequestReader) -> list[_Line]:
    async def read_line(number: int, row: bytes) -> _Line:
        try:
            request = await reader.read(row, folder)
        except InvalidRequest as error:
            return _Line(number, problems=error.problems)
        return _Line(number, request, job_id_of(request))

    rows = enumerate(text.split(b"\n"), 1)
    lines = await asyncio.gather(*(read_line(number, row) for number, row in rows if row.strip()))
    first: dict[str, _Line] = {}
    for line in lines:
        if line.request is not None:
            line.same_as = first.get(line.job_id)
            first.setdefault(line.job_id, line)
    return lines
