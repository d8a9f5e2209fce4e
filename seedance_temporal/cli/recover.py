"""``recover``: finish from the bucket what is paid for, where Temporal has lost its runs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from rich.progress import Progress
from typer import Argument, Option

from seedance_temporal.cli.options import JsonOption, SinceOption
from seedance_temporal.cli.output import DONE, OTHER, SHOW, counted, err, out, plain, print_json, print_table
from seedance_temporal.cli.recovery_table import PAID, Row, how_ended, table_of
from seedance_temporal.cli.runtime import BucketRefused, JobNotFound, agree, command, must_stop, open_bucket
from seedance_temporal.cli.side_by_side import progress_bar, side_by_side
from seedance_temporal.client import VideoJobs
from seedance_temporal.errors import AmbiguousJobId, InvalidRequest, SeedanceError, UnknownJob
from seedance_temporal.identity import id_prefix_from, job_id_of
from seedance_temporal.job import JobState
from seedance_temporal.provider.prices import UNKNOWN, Cost
from seedance_temporal.search_attributes import register_search_attributes
from seedance_temporal.settings import Settings
from seedance_temporal.temporal_ui import COMMAND
from seedance_temporal.urls import redacted

if TYPE_CHECKING:
    from seedance_temporal.recovery import LedgerJobs

_FOLLOW_SECONDS = 5.0


@command
async def recover(
    jobs: Annotated[
        list[str] | None,
        Argument(metavar="[JOB]...", help="Only these jobs, also where they have ended; all open ones by default."),
    ] = None,
    since: SinceOption = None,
    dry_run: Annotated[bool, Option("--dry-run", help="List the jobs, and start nothing.")] = False,
    wait: Annotated[bool, Option("--wait/--no-wait", help="Follow the jobs that are paid for to their end.")] = True,
    resubmit: Annotated[
        bool, Option("--resubmit", help="Submit the open jobs that have no task as well: each is paid for.")
    ] = False,
    yes: Annotated[bool, Option("--yes", help="Resubmit without asking first.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Finish by the bucket alone what is paid for and not stored, where Temporal lost its runs. Pays for nothing."""
    settings = Settings.from_environment("SEEDANCE_BUCKET")
    prefixes = [id_prefix_from(job) for job in jobs or ()]
    found, temporal = await _read_bucket(settings, prefixes, since), await VideoJobs.connect()
    work = _Recovery(temporal, found, settings, is_named=bool(jobs))
    console = err if as_json else out
    with progress_bar() as bar:
        await work.ask_temporal(bar)
    for sentence in work.plan(resubmit=resubmit):
        console.print(sentence)
    table = table_of(work.shown)
    if table.row_count and not as_json:
        print_table(table)
    if not dry_run:
        if resubmit and work.resubmitted and not yes:
            await agree(f"Submit {counted(len(work.resubmitted), 'job')} again, {work.price()}?", "started")
        with progress_bar() as bar:
            await work.start(bar)
            if resubmit:
                await work.resubmit(bar)
            if wait:
                await work.follow(bar)
        for sentence in work.outcome(waited=wait):
            console.print(sentence)
    if as_json:
        print_json(work.document() | {"dry_run": dry_run})
    return DONE if dry_run else work.exit_code


async def _read_bucket(settings: Settings, prefixes: Sequence[str], since: datetime | None) -> LedgerJobs:
    """Read all jobs, or those that are named.

    Raises:
        JobNotFound, AmbiguousJobId: No job begins so, or several do.
        BucketRefused: The bucket does not answer.
    """
    from seedance_temporal.recovery import ALL_PARTS, read_jobs

    bucket = await open_bucket(settings)
    # One that is given twice, or begins like another, must not be read twice.
    named = [each for each in dict.fromkeys(prefixes) if not any(each != of and each.startswith(of) for of in prefixes)]
    parts = [each.removeprefix("seedance-") for each in named] or ALL_PARTS
    try:
        with progress_bar() as bar:
            shown = bar.add_task("reading the bucket", total=len(parts))
            found = await read_jobs(
                bucket,
                settings.seedance_prefix,
                parts,
                read_all=bool(named),
                since=since,
                advance=lambda: bar.advance(shown),
            )
    except Exception as error:  # the library has many
        raise BucketRefused(f"The bucket {bucket.name} could not be read: {redacted(str(error))}") from None
    known = [*(job.job_id for job in found.read), *found.damaged]
    for prefix in prefixes:
        fitting = [each for each in known if each.startswith(prefix)]
        if not fitting:
            raise JobNotFound(f"The bucket has no claim of a job {prefix}: nothing was ever sent for it.")
        if len(fitting) > 1:
            raise AmbiguousJobId(prefix, fitting)
    return found


class _Recovery:
    """The jobs of a bucket, and what is done with them."""

    def __init__(self, jobs: VideoJobs, found: LedgerJobs, settings: Settings, *, is_named: bool) -> None:
        self._jobs = jobs
        self._rules = settings.rules
        # A job that was away for long has an Attention at once, and settles itself where it can: after two listings,
        # which are a sixth of the search's time apart.
        self._patience = settings.seedance_recovery_seconds / 2
        self._found = found
        self._is_named = is_named
        self._rows = [Row(job) for job in found.read]
        self._silent: set[str] = set()

    async def ask_temporal(self, bar: Progress) -> None:
        """Ask Temporal what it knows of the jobs that are open by the ledger, or named."""

        async def ask(row: Row) -> None:
            try:
                row.known = await self._jobs.job(row.job.job_id).state(detail=False)
            except UnknownJob:
                row.known = None

        wanted = [row for row in self._rows if self._is_named or row.is_open]
        await side_by_side("asking Temporal for its runs", ask, wanted, bar)

    @property
    def open(self) -> list[Row]:
        return [row for row in self._rows if row.is_open]

    @property
    def started(self) -> list[Row]:
        """The jobs that get a run that cannot create: the paid ones, and named ones that Temporal has to know again."""
        paid = [row for row in self.open if row.job.progress in PAID]
        lost = [row for row in self._rows if self._is_named and row.known is None and not row.is_open]
        return [row for row in [*paid, *lost] if not row.runs]

    @property
    def resubmitted(self) -> list[Row]:
        """The jobs that another paid create can go on with."""
        return [row for row in self.open if row.job.progress == "not_created" and not row.runs]

    @property
    def exit_code(self) -> int:
        """The highest of the jobs that were followed; another one where an object is damaged."""
        problems = any(row.problem for row in self._rows)
        return max((row.code for row in self._rows), default=DONE) or (
            OTHER if self._found.damaged or problems else DONE
        )

    def plan(self, *, resubmit: bool) -> Iterator[str]:
        """Describe the jobs, and what is done with them."""
        settled = Counter(row.job.progress for row in self._rows if not row.is_open)
        stored = self._found.stored + settled.pop("stored", 0)
        ended = self._found.ended + settled.total()
        jobs = counted(stored + ended + len(self.open), "job")
        yield f"{jobs} by the bucket: {stored:,} stored, {ended:,} ended without a video, {len(self.open):,} open."
        count = Counter(row.job.progress for row in self.open)
        if tasks := count["task_known"]:
            yield f"{counted(tasks, 'job')} with a task and no stored video: a run follows it, and stores its video."
        if unknown := count["create_unknown"]:
            yield (
                f"{counted(unknown, 'job')} with a create whose outcome is not known: a run searches for its task, and "
                "sends nothing."
            )
        if none := len(self.resubmitted):
            then = f"submitted again, {self.price()}" if resubmit else "nothing is sent, and nothing is paid for"
            yield f"{counted(none, 'job')} without a task: {then}."
        if running := sum(row.runs for row in self.open):
            yield f"{counted(running, 'job')} of the open ones with a run in Temporal, which is left alone."
        for job_id, problem in self._found.damaged.items():
            yield f"[red]Damaged: {job_id}.[/] {plain(problem)}. It is left alone: {COMMAND} audit {job_id} --verify"

    @property
    def shown(self) -> list[Row]:
        """The open jobs, and those that are named."""
        return self._rows if self._is_named else self.open

    def price(self) -> str:
        """Say what the creates of a resubmit cost."""
        estimates = [self._rules.estimate(row.job.request).most for row in self.resubmitted]
        most = Cost(sum(each.usd or 0 for each in estimates), sum(each.cny or 0 for each in estimates))
        unpriced = f", and {counted(estimates.count(UNKNOWN), 'job')} of unknown price" if UNKNOWN in estimates else ""
        cny = f" and {most.cny:.2f} CNY" if most.cny else ""
        return f"each for another paid create, at most about {most.usd:.2f} USD{cny} together{unpriced}"

    async def start(self, bar: Progress) -> None:
        """Start runs that cannot create. One that was started meanwhile by somebody else is left alone."""

        async def start(row: Row) -> None:
            row.action = "started" if await self._jobs.bring_back(row.job.job_id, row.job.request) else "left"

        if started := self.started:
            # Workers that outlived Temporal's database would use them, and their runs wait until they are there.
            await register_search_attributes(self._jobs.client)
            await self._guarded(side_by_side("starting runs that cannot create", start, started, bar))

    async def resubmit(self, bar: Progress) -> None:
        """Submit the requests of jobs without a task again."""

        async def submit(row: Row) -> None:
            if job_id_of(row.job.request) != row.job.job_id:
                row.problem = "its request has fields of a newer release: resubmit it with that one"
                return
            try:
                job = await self._jobs.submit(row.job.request)
            except InvalidRequest as error:
                row.problem = "; ".join(map(str, error.problems))
                return
            row.action = "resubmitted" if job.started else "left"

        await self._guarded(side_by_side("resubmitting", submit, self.resubmitted, bar))

    async def follow(self, bar: Progress) -> None:
        """Follow the jobs that are paid for, or may be, to their end, or while they need no operator for long."""

        async def follow(row: Row) -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(None) as patience:
                    async for state in self._jobs.job(row.job.job_id).follow(every=_FOLLOW_SECONDS):
                        row.state = state
                        self._warn_of_silence(state)
                        if not must_stop(state):
                            patience.reschedule(None)
                        elif patience.when() is None:
                            patience.reschedule(asyncio.get_running_loop().time() + self._patience)

        followed = [row for row in self._rows if row.is_followed]
        # A search takes minutes: it must not keep tasks from being shown.
        followed.sort(key=lambda row: row.job.progress == "create_unknown")
        await self._guarded(side_by_side("settled", follow, followed, bar))

    def _warn_of_silence(self, state: JobState) -> None:
        """Print once for each route that no worker answers."""
        if state.detail is None and not state.ended and state.route not in self._silent:
            self._silent.add(state.route)
            err.print(f"[yellow]No worker of route {plain(state.route)} answers so far: its jobs wait for one.[/]")

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (asyncio.CancelledError, SeedanceError):
            err.print(
                "Runs that were started go on. The same command again finishes the rest; it pays for nothing twice."
            )
            raise

    def outcome(self, *, waited: bool) -> Iterator[str]:
        """Describe what was done, and how the jobs ended that were followed."""
        actions = Counter(row.action for row in self._rows)
        done = [f"{actions[each]:,} {each}" for each in ("started", "resubmitted") if actions[each]]
        if done:
            yield f"Runs: {', '.join(done)}."
        for row in self._rows:
            if row.problem:
                yield f"[red]Not resubmitted: {row.job.job_id}.[/] {plain(row.problem)}"
        if not waited:
            if actions["started"] or actions["resubmitted"]:
                yield f"To follow them: {COMMAND} watch"
            return
        phases = Counter(how_ended(row.state) for row in self._rows if row.state is not None)
        if phases:
            yield f"{', '.join(f'{count:,} {phase}' for phase, count in sorted(phases.items()))}."
        for row in self._rows:
            if row.state is not None and row.code != DONE:
                why = row.state.error.summary if row.state.error is not None else row.state.attention or "goes on"
                yield f"{row.job.job_id}  {plain(row.state.phase)}  {plain(why)}  {SHOW} {row.job.job_id}"
        if any(row.state is not None and how_ended(row.state) == "without a task" for row in self._rows):
            yield f"Nothing was paid for those without a task. For another paid create: {COMMAND} recover --resubmit"

    def document(self) -> dict[str, Any]:
        """Return the JSON."""
        count = Counter(row.job.progress for row in self._rows if not row.is_open)
        stored = self._found.stored + count.pop("stored", 0)
        return {
            "stored": stored,
            "ended": self._found.ended + count.total(),
            "open": len(self.open),
            "damaged": self._found.damaged,
            "jobs": [row.document() for row in self.shown],
        }
