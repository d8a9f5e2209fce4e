"""The ``audit`` command: the timeline, attempts, charge and objects of a job, also after Temporal forgot it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from rich import box
from rich.table import Table
from typer import Option

from seedance_temporal.cli.options import JobArgument, JsonOption
from seedance_temporal.cli.output import DONE, OTHER, advised, out, plain, print_json, print_table
from seedance_temporal.cli.runtime import BucketRefused, JobNotFound, command, find_job, open_bucket
from seedance_temporal.client import VideoJobs
from seedance_temporal.errors import InvalidJobId, TemporalUnavailable, UnknownJob
from seedance_temporal.events import sentence
from seedance_temporal.identity import job_id_from
from seedance_temporal.provider.billing import Charge
from seedance_temporal.provider.prices import Cost, estimate_in
from seedance_temporal.settings import Settings
from seedance_temporal.urls import redacted

if TYPE_CHECKING:
    from seedance_temporal.audit.bucket_evidence import BucketEvidence
    from seedance_temporal.audit.document import Audit, AuditedAttempt, Step
    from seedance_temporal.audit.temporal_evidence import TemporalEvidence
    from seedance_temporal.storage.bucket import Bucket


@command
async def audit(
    job: JobArgument,
    verify: Annotated[bool, Option("--verify", help="Read every object, and compare it with the others.")] = False,
    history: Annotated[
        bool, Option("--history", help="Also show Temporal's own events, while Temporal keeps them.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Show a job: its timeline, its attempts, its cost, and its objects in the bucket."""
    from seedance_temporal.audit.build import audit_of
    from seedance_temporal.audit.verify import verify as findings

    try:
        job_id = job_id_from(job)
    except InvalidJobId:  # a prefix, for which Temporal must be asked
        job_id = (await find_job(job)).id
    missing: list[str] = []
    bucket, evidence = await _read_bucket(job_id, missing)
    temporal = await _read_temporal(job_id, evidence, missing)
    document = audit_of(job_id, evidence, temporal, missing)
    if document is None:
        if missing:
            raise JobNotFound(f"No job {job_id} was found. {' '.join(missing)}")
        raise JobNotFound(f"Neither Temporal nor the bucket has a job {job_id}: nothing was ever paid for it.")
    changes: dict[str, Any] = {}
    if verify:
        if bucket is None or evidence is None:
            raise BucketRefused(f"Nothing can be verified. {missing[0]}")
        changes["verification"] = await findings(bucket, evidence, temporal)
    if history:
        changes["history"] = tuple(run.shown for run in temporal.runs) if temporal is not None else ()
    document = document.model_copy(update=changes)
    if as_json:
        print_json(document.model_dump(mode="json", by_alias=True))
    else:
        _print(document)
    return OTHER if any(finding.problems for finding in document.verification or ()) else DONE


# Reading


async def _read_bucket(job_id: str, missing: list[str]) -> tuple[Bucket | None, BucketEvidence | None]:
    from seedance_temporal.audit.bucket_evidence import read_bucket_evidence

    settings = Settings.from_environment()
    lost = "the ledger and the objects are not shown"
    if settings.seedance_bucket is None:
        missing.append(f"SEEDANCE_BUCKET is not set: {lost}.")
        return None, None
    try:
        bucket = await open_bucket(settings)
        return bucket, await read_bucket_evidence(bucket, settings.seedance_prefix, job_id)
    except BucketRefused as error:
        missing.append(f"{error} So {lost}.")
    except Exception as error:  # the library has many
        missing.append(f"The bucket {settings.seedance_bucket} could not be read ({redacted(str(error))}): {lost}.")
    return None, None


async def _read_temporal(job_id: str, evidence: BucketEvidence | None, missing: list[str]) -> TemporalEvidence | None:
    from seedance_temporal.audit.temporal_evidence import TemporalEvidence, read_runs

    try:
        jobs = await VideoJobs.connect()
        client = jobs.client
        state = await jobs.job(job_id).state()
        parts = evidence.parts if evidence is not None else []
        named = {part.provenance.run_id for part in parts if part.provenance.namespace == client.namespace}
        return TemporalEvidence(client.namespace, state, await read_runs(client, job_id, named))
    except UnknownJob:
        return None
    except TemporalUnavailable as error:
        missing.append(f"Temporal could not be read, and may have more. {error}")
        return None


# Printing


def _print(audit: Audit) -> None:
    out.print(f"[bold]{plain(audit.job_id)}[/]")
    out.print(plain(_headline(audit)))
    out.print(f"[dim]{_SOURCES[audit.source]}[/]")
    for gap in audit.missing:
        out.print(f"[yellow]{plain(gap)}[/]")
    if audit.attention is not None:
        out.print(f"[yellow]Needs an operator: {audit.attention}.[/] {advised(audit.advice or '')}".rstrip())
    for title, table in _tables(audit):
        if table.row_count:
            out.print(f"\n[bold]{title}[/]")
            print_table(table)
    for finding in audit.verification or ():
        name = plain(_short(audit, finding.name))
        if not finding.problems:
            out.print(f"[green]ok[/]     {name}")
        for problem in finding.problems:
            out.print(f"[red]WRONG[/]  {name}: {plain(problem)}")


_SOURCES: Mapping[str, str] = {
    "temporal": "The timeline is from Temporal's history.",
    "record": "The timeline is from the job's record, not from Temporal's history.",
    "end": "The timeline is from the job's end in the ledger, not from Temporal's history.",
    "outcome": "The timeline is from the newest outcome in the ledger, not from Temporal's history.",
    "ledger": "The timeline is from the ledger's facts alone, not from Temporal's history.",
}


def _headline(audit: Audit) -> str:
    """Say how the job ended, or its phase, and its cost."""
    after = f", {_span(audit.seconds)} after its submission" if audit.seconds is not None else ""
    cost = f"{_paid(audit.charge)}."
    if audit.result is not None:
        return f"Stored{after}. {cost}"
    if audit.error is not None:
        return f"Ended without a video ({audit.phase}, {audit.error.code}){after}. {cost} {audit.error.message}"
    return f"Not ended. The phase is {audit.phase or 'not known'}. {cost}"


def _paid(charge: Charge) -> str:
    if charge.billed is False:
        return "Nothing is billed"
    known = _money(charge.tokens, Cost(charge.usd, charge.cny))
    expected = _money(charge.estimated_tokens, estimate_in(charge))
    paid = f"Billed: {known or 'amount not known'}" if charge.billed else "The charge is not known yet"
    return paid + (f" (expected: at most {expected})" if expected else "")


def _money(tokens: int | None, cost: Cost) -> str:
    return ", ".join(filter(None, [f"{tokens:,} tokens" if tokens is not None else "", str(cost)]))


def _tables(audit: Audit) -> Iterator[tuple[str, Table]]:
    steps = (_step(audit, step) for step in audit.timeline)
    title = f"Timeline: polls {audit.polls}, callbacks {audit.callbacks}"
    yield title, _table(["when (UTC)", "after", "by", "event"], steps, right="after")
    columns = ["attempt", "claimed (UTC)", "outcome", "task", "create, task, copy", "expected", "paid", "then"]
    yield "Attempts", _table(columns, map(_attempt, audit.attempts))
    objects = (
        (_short(audit, each.name), f"{each.size:,}", str(each.generation), each.crc32c, each.md5 or "")
        for each in audit.objects
    )
    yield "Objects", _table(["name", "bytes", "generation", "CRC32C", "MD5"], objects, right="bytes")
    yield "Request", _table(["", ""], _fields(audit))
    columns = ["event", "when (UTC)", "type", "summary"]
    for run in audit.history or ():
        events = ((str(event.id), _when(event.at), event.type, event.summary) for event in run.events)
        yield f"Run {run.run_id}, {run.status}", _table(columns, events, right="event")


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]], right: str | None = None) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column == right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(plain, row))
    return table


def _step(audit: Audit, step: Step) -> tuple[str, ...]:
    shown = step.model_copy(update={"detail": _short(audit, step.detail or "")})
    return _when(step.at), f"+{step.after:.1f} s", step.source, sentence(shown)


def _attempt(one: AuditedAttempt) -> tuple[str, ...]:
    charge = one.charge
    known = f"{one.outcome}, by {one.known_by}" if one.known_by else one.outcome
    took = ", ".join(map(_span, (one.create_seconds, one.task_seconds, one.copy_seconds)))
    expected = _money(charge.estimated_tokens, estimate_in(charge))
    paid = _money(charge.tokens, Cost(charge.usd, charge.cny)) if charge.billed else _BILLED[charge.billed]
    then = [one.error.code] if one.error is not None else []
    then += [f"again, by the {one.asked_again_by}"] if one.asked_again_by else []
    tasks = ", ".join(one.task_ids)
    return str(one.attempt), _when(one.claimed_at), known, tasks, took, expected, paid, "; ".join(then)


_BILLED = {False: "nothing", None: "not known"}


def _fields(audit: Audit) -> Iterator[tuple[str, str]]:
    for name, value in {**audit.request, "rights": audit.rights or "nothing was declared"}.items():
        if value != []:
            yield name, _compact(value)
    yield from (("found", _compact(medium)) for medium in audit.media)
    yield from (("warning", warning) for warning in audit.warnings)


def _short(audit: Audit, name: str) -> str:
    """Cut an object's name to the part below the job's own folder."""
    return name.rpartition(f"{audit.request_hash}/")[2]


def _compact(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_compact(part)}" for name, part in value.items())
    if isinstance(value, list):
        return "; ".join(map(_compact, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _when(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}" if at is not None else ""


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
