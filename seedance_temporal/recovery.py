"""Find every job of a bucket, and how far it is by its ledger alone: Temporal may have lost its runs.

A listing shows how most jobs have ended, so that the objects of the others alone are read. The bucket is listed in 256
parts, by the first two digits of the request hash: some side by side, and only the names of those are in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby, product
from typing import Literal

from seedance_temporal.identity import ObjectNames, is_job_id
from seedance_temporal.ledger.decisions import decide
from seedance_temporal.ledger.store import (
    ACCEPTED_WITHOUT_ID,
    END_OF_TASK,
    RESUBMIT_GRANT,
    Ledger,
    by_attempt,
    end_kinds,
)
from seedance_temporal.request import VideoRequest
from seedance_temporal.storage.bucket import Bucket, StoredObject

# The beginnings of all request hashes: a part of 100,000 jobs has about 400 of them.
ALL_PARTS = tuple("".join(digits) for digits in product("0123456789abcdef", repeat=2))
# As many as the bucket has threads.
_LISTINGS_AT_ONCE = 32
# A few small objects for each job.
_READS_AT_ONCE = 16

Progress = Literal["task_known", "create_unknown", "not_created", "stored", "ended"]
"""How far a job is: its task is known, and its video not stored; it is not known whether its create made a task; no
task is there or on its way, and nothing forbids another create; its video is stored; it ended without one."""

_PROGRESS: Mapping[str, Progress] = {
    "adopt": "task_known",
    "recover": "create_unknown",
    "claim": "not_created",
    "stored": "stored",
    "ended": "ended",
}


@dataclass(frozen=True)
class LedgerJob:
    """A job whose ledger was read.

    Attributes:
        attempt: The attempt that decides, or with ``not_created`` the newest one.
        task_id: The task to follow, or the one that was stored.
        request: As the newest claim holds it.
        claimed_at: When the newest attempt was claimed.
        may_be_billed: With ``not_created``: whether an attempt before is, or may be, billed.
    """

    job_id: str
    progress: Progress
    attempt: int
    task_id: str | None
    request: VideoRequest
    claimed_at: datetime
    may_be_billed: bool = False


@dataclass
class LedgerJobs:
    """The jobs of a bucket.

    Attributes:
        read: Those whose objects were read: all that are open, and some others.
        stored, ended: How many more are settled, by the listing.
        damaged: Why the ledger of a job cannot be read, in the words of an error, by job id.
    """

    read: list[LedgerJob] = field(default_factory=list)
    stored: int = 0
    ended: int = 0
    damaged: dict[str, str] = field(default_factory=dict)


async def read_jobs(
    bucket: Bucket,
    prefix: str,
    parts: Sequence[str] = ALL_PARTS,
    *,
    read_all: bool = False,
    since: datetime | None = None,
    advance: Callable[[], object] = lambda: None,
) -> LedgerJobs:
    """Read all jobs that have claimed an attempt.

    Args:
        bucket: With the ledger.
        prefix: Of all object names.
        parts: The beginnings of the request hashes to read; no two may overlap.
        read_all: Whether to read the objects of settled jobs as well.
        since: Leave out jobs whose newest attempt was claimed before it.
        advance: Called after each part.
    """
    ledger = Ledger(bucket, prefix)
    found = LedgerJobs()
    listings, reads = asyncio.Semaphore(_LISTINGS_AT_ONCE), asyncio.Semaphore(_READS_AT_ONCE)

    async def read_part(part: str) -> None:
        async with listings:
            jobs = _unsettled(await bucket.list(f"{prefix}/{part}"), prefix, found, read_all=read_all, since=since)
            await asyncio.gather(*map(read_job, jobs))
        advance()

    async def read_job(job_id: str) -> None:
        async with reads:
            try:
                found.read.append(await _read(ledger, job_id))
            except ValueError as error:
                found.damaged[job_id] = str(error)

    await asyncio.gather(*map(read_part, parts))
    found.read.sort(key=lambda job: job.claimed_at)
    return found


def _unsettled(
    listed: Iterable[StoredObject], prefix: str, found: LedgerJobs, *, read_all: bool, since: datetime | None
) -> list[str]:
    """Return the jobs whose objects must be read, and count the others."""
    jobs: list[str] = []
    for folder, objects in groupby(listed, lambda stored: stored.name.removeprefix(f"{prefix}/").partition("/")[0]):
        if not is_job_id(job_id := f"seedance-{folder}"):
            continue
        names, of = ObjectNames(prefix, folder), list(objects)
        attempts = by_attempt(names, of)
        if not attempts or (since is not None and _last_written(attempts) < since):
            continue
        is_stored = any(stored.name == names.record for stored in of)
        if read_all or not (is_stored or has_ended(attempts)):
            jobs.append(job_id)
        elif is_stored:
            found.stored += 1
        else:
            found.ended += 1
    return jobs


def _last_written(attempts: Mapping[int, Mapping[str, StoredObject]]) -> datetime:
    """Return when the newest attempt was claimed, by the listing."""
    newest = attempts[max(attempts)]
    return min(stored.created_at for stored in newest.values())


def has_ended(attempts: Mapping[int, Mapping[str, StoredObject]]) -> bool:
    """Return whether the listing of a job without a record shows that it has ended.

    Where it could mean anything else, such as with a task that came to light late, the answer is False.

    Args:
        attempts: By number, their objects by kind, of :func:`~seedance_temporal.ledger.store.by_attempt`.
    """
    newest = attempts[max(attempts)]
    return RESUBMIT_GRANT not in newest and all(_is_settled(of, is_newest=of is newest) for of in attempts.values())


def _is_settled(kinds: Mapping[str, StoredObject], *, is_newest: bool) -> bool:
    """Return whether the listing shows that an attempt has no task that could still get a video."""
    outcome = kinds.get("outcome")
    if outcome is None or "claim" not in kinds or ACCEPTED_WITHOUT_ID in kinds:
        return False
    if any(kind.startswith("late-") for kind in kinds):
        return False
    match outcome.kind:
        case "created":
            # An end from before the task was known, or one that names no task, gave the attempt up: the task is
            # followed all the same.
            return end_kinds(kinds) == ["end"] and _is_end_of_task(kinds["end"], since=outcome.created_at)
        case "refused":
            return end_kinds(kinds) == []
        case "not_sent" | "absent":
            return not is_newest and end_kinds(kinds) == []
    return False


def _is_end_of_task(end: StoredObject, *, since: datetime) -> bool:
    return end.kind == END_OF_TASK and end.created_at > since


async def _read(ledger: Ledger, job_id: str) -> LedgerJob:
    """Read a job's ledger.

    Raises:
        ValueError: It is damaged.
    """
    facts = await ledger.read(job_id)
    decision = decide(facts)
    newest = next((each for each in reversed(facts.attempts) if each.claim is not None), None)
    if newest is None or newest.claim is None or newest.claimed_at is None:
        raise ValueError(f"{ledger.folder(job_id)} has no claim that says what was requested")
    claim = newest.claim
    if claim.job_id != job_id:
        raise ValueError(f"{ledger.folder(job_id)} holds a claim of another job, {claim.job_id}")
    return LedgerJob(
        job_id=job_id,
        progress=_PROGRESS[decision.next],
        attempt=min(decision.attempt, facts.attempts[-1].number),
        task_id=decision.task_id,
        request=claim.request,
        claimed_at=newest.claimed_at,
        may_be_billed=decision.may_be_billed,
    )
