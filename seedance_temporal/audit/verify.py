"""Whether the objects of a job are what was written: by their content, by each other, and by Temporal's histories.

Each object is read from end to end and compared with what the bucket says of it, with the seal that it carries, and
with what the objects that were written after it recorded of it. What it says is compared with the job's id, and with
what the others say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from pathlib import PurePosixPath

from pydantic import ValidationError

from activities.create import CreateResult
from seedance_temporal.audit.bucket_evidence import BucketEvidence, Story
from seedance_temporal.audit.build import TemporalEvidence
from seedance_temporal.audit.document import Finding
from seedance_temporal.audit.temporal_evidence import Order
from seedance_temporal.identity import request_hash
from seedance_temporal.job import JobError, VideoResult
from seedance_temporal.ledger.checksummed_json import is_sealed, opened
from seedance_temporal.ledger.decisions import decide
from seedance_temporal.ledger.facts import Attempt, Claim, End, Outcome, ResubmitGrant
from seedance_temporal.ledger.record import Record, RecordedObject
from seedance_temporal.ledger.store import ACCEPTED_WITHOUT_ID, RESUBMIT_GRANT, by_attempt
from seedance_temporal.ledger.task_files import Verified, is_verified_object, read_verified
from seedance_temporal.request import VideoRequest
from seedance_temporal.storage.bucket import Bucket, Checksums, StoredObject

# Ends and records are written at once: one that the bucket made much later than it says was put there by others.
_WRITTEN_WITHIN = timedelta(hours=1)
_FIELDS: dict[str, Collection[str]] = {
    "claim": Claim.model_fields,
    "outcome": Outcome.model_fields,
    "late": Outcome.model_fields,
    "end": End.model_fields,
    RESUBMIT_GRANT: ResubmitGrant.model_fields,
    ACCEPTED_WITHOUT_ID: {"at", "message"},
}

_Problems = Iterator[tuple[str, str]]
"""Names of objects, each with what is wrong with it."""


async def verify(bucket: Bucket, evidence: BucketEvidence, told: TemporalEvidence | None) -> tuple[Finding, ...]:
    """One finding for each object that stands, or should stand, in the order of their names.

    Args:
        bucket: Where they stand.
        evidence: What was read of them.
        told: What Temporal tells, as long as it does.
    """
    problems: dict[str, list[str]] = {name: [] for name in evidence.objects}
    for name, stored in evidence.objects.items():
        problems[name] += _content(stored, await bucket.checksums(name))
    checks = [_shapes(evidence), _witnesses(evidence), _attempts(evidence), _record(evidence), _beside(evidence)]
    checks += [_gaps(evidence, told), _times(evidence)]
    if told is not None:
        checks.append(_histories(evidence, told))
    for name, problem in (found for check in checks for found in check):
        problems.setdefault(name, []).append(problem)
    return tuple(Finding(name=name, problems=tuple(problems[name])) for name in sorted(problems))


def _content(stored: StoredObject, read: Checksums | None) -> Iterator[str]:
    if read is None:
        yield "it is listed, and cannot be read"
    elif (read.size, read.crc32c) != (stored.size, stored.crc32c) or stored.md5 not in {None, read.md5}:
        yield (
            f"its content has {read.size} bytes, CRC32C {read.crc32c} and MD5 {read.md5}, where the bucket says "
            f"{stored.size} bytes, {stored.crc32c} and {stored.md5}"
        )


def _shapes(evidence: BucketEvidence) -> _Problems:
    """Whether our own objects carry their seals, and are what their names say."""
    ours: dict[str, Collection[str]] = (
        {evidence.names.record: Record.model_fields} if evidence.names.record in evidence.contents else {}
    )
    for objects in by_attempt(evidence.names, evidence.objects.values()).values():
        ours |= {stored.name: _FIELDS.get(kind.partition("-")[0], {}) for kind, stored in objects.items()}
    for name, fields in ours.items():
        if name in evidence.damaged:
            yield name, f"it cannot be read ({evidence.damaged[name]})"
            continue
        try:
            value = opened(evidence.contents.get(name, b""))
        except ValueError as error:
            yield name, f"it {error}"
            continue
        # The name of the seal can be damaged as well; no version without seals wrote a field that is not known today.
        if not is_sealed(evidence.contents[name]) and fields and (unknown := value.keys() - fields):
            yield name, f"it carries no seal, but fields that are not known: {', '.join(sorted(unknown))}"


def _witnesses(evidence: BucketEvidence) -> _Problems:
    """Whether each object is the one that those after it saw."""
    witnesses = [(story.name, story.ledger) for story in evidence.stories]
    witnesses += [(name, late.ledger) for name, late in evidence.late.items()]
    seen: dict[RecordedObject, list[str]] = {}
    for witness, recorded in ((witness, one) for witness, ledger in witnesses for one in ledger):
        seen.setdefault(recorded, []).append(PurePosixPath(witness).name)
    for recorded, by in seen.items():
        stored = evidence.objects.get(recorded.name)
        if stored is None:
            yield recorded.name, f"it is missing; {', '.join(by)} recorded it"
        elif RecordedObject.of(stored).model_copy(update={} if recorded.md5 else {"md5": None}) != recorded:
            yield (
                recorded.name,
                f"it was replaced: {', '.join(by)} recorded {_described(recorded)}; "
                f"it is {_described(RecordedObject.of(stored))}",
            )


def _described(one: RecordedObject) -> str:
    return f"generation {one.generation} with {one.size} bytes, CRC32C {one.crc32c} and MD5 {one.md5}"


def _attempts(evidence: BucketEvidence) -> _Problems:
    """Whether the facts of all attempts belong to this job, and lead from one to the next."""
    names, attempts = evidence.names, evidence.facts.attempts
    newest = max((attempt.number for attempt in attempts), default=0)
    for number in range(1, newest + 1):
        attempt = evidence.facts.attempt(number) or Attempt(number)
        yield from _of_attempt(evidence, attempt)
        if number < newest and not attempt.settled and names.attempt(number, "claim") in evidence.objects:
            lacks = "outcome" if attempt.outcome is None else "end" if attempt.error is None else "again"
            name = names.attempt(number, lacks)
            if name not in evidence.damaged:
                yield name, f"it is missing; attempt {number + 1} was claimed after it"


def _of_attempt(evidence: BucketEvidence, attempt: Attempt) -> _Problems:
    number, claim, outcome = attempt.number, attempt.claim, attempt.outcome
    name = evidence.names.attempt(number, "claim")
    if name not in evidence.objects:
        yield (
            name,
            f"it is missing; nothing is sent without one, and what came of attempt {number} or of a later one stands",
        )
    if claim is not None:
        job_id = f"seedance-{evidence.names.request_hash}"
        if request_hash(claim.request) != evidence.names.request_hash:
            yield name, "its request is not the one that the job id is the hash of"
        if (claim.job_id, claim.attempt) != (job_id, number):
            yield name, f"it is a claim of {claim.job_id}, attempt {claim.attempt}"
    if outcome is not None and (outcome.kind == "created") != (outcome.task_id is not None):
        yield evidence.names.attempt(number, "outcome"), f"it says {outcome.kind}, and names task {outcome.task_id}"
    for end_name, end in evidence.ends.items():
        if not end_name.startswith(evidence.names.attempt(number, "end").removesuffix(".json")):
            continue
        if end.error.attempt != number:
            yield end_name, f"it names attempt {end.error.attempt}"
        if attempt.tasks and end.error.task_id not in {None, *attempt.tasks}:
            yield end_name, f"no outcome names its task {end.error.task_id}"


def _record(evidence: BucketEvidence) -> _Problems:
    """Whether the record, and what stands beside the video, are of this job and of an attempt of it."""
    names, record = evidence.names, evidence.record
    if record is None:
        return
    attempt = evidence.facts.attempt(record.attempt)
    if (record.job_id, record.request_hash) != (f"seedance-{names.request_hash}", names.request_hash):
        yield names.record, f"it is the record of {record.job_id}"
    if _hash_of(record) not in {None, names.request_hash}:
        yield names.record, "its request is not the one that the job id is the hash of"
    if attempt is None or record.task_id not in attempt.tasks:
        yield names.record, f"its task {record.task_id} is none of attempt {record.attempt}"
    if record.objects.video.name != names.of_task(record.task_id, "output.mp4"):
        yield names.record, f"its video is {record.objects.video.name}, which is not of its task"


def _beside(evidence: BucketEvidence) -> _Problems:
    """Whether videos and pictures equal what was verified, and the record names the payload."""
    verified: dict[str, list[Verified]] = {}
    for name in filter(is_verified_object, evidence.objects):
        try:
            found = read_verified(evidence.names, name, evidence.contents.get(name, b""))
        except ValueError as error:
            yield name, f"it {error}"
        else:
            verified.setdefault(evidence.names.of_task(found.task_id, found.file), []).append(found)
    if (record := evidence.record) is not None:
        of = record.objects
        task = evidence.names.of_task(record.task_id, "task.json")
        if of.task is None and task in evidence.objects:
            yield task, "the record does not name it: it was damaged, or about another task"
        # A record of a version that wrote down nothing of this names no such objects.
        for media in (of.video, of.last_frame) if of.verified else ():
            if media is not None:
                verified.setdefault(media.name, [])
    for name, contents in verified.items():
        if name in evidence.objects and not any(one.equals(evidence.objects[name]) for one in contents):
            yield name, "it equals no content that was verified"


def _hash_of(record: Record) -> str | None:
    """The hash of a record's request; None where no version today can read it."""
    try:
        return request_hash(VideoRequest.model_validate(record.request))
    except ValidationError:
        return None


def _gaps(evidence: BucketEvidence, told: TemporalEvidence | None) -> _Problems:
    """Whether the object that ends the job is missing."""
    look = decide(evidence.facts)
    if look.next in {"stored", "ended"} or evidence.names.record in evidence.damaged:
        return
    job = told.job if told is not None else None
    if job is not None and job.result is not None:
        yield evidence.names.record, "it is missing; the run in Temporal stored the video"
    elif job is not None and job.error is not None and job.error.attempt is not None:
        kind = "end" if job.error.task_id is not None else "outcome"
        yield (
            evidence.names.attempt(job.error.attempt, kind),
            f"it is missing; the run in Temporal ended: {job.error.code}",
        )
    elif job is None or job.error is not None:
        if any(PurePosixPath(name).name == "output.mp4" for name in evidence.objects):
            yield evidence.names.record, "it is missing; a video stands there"
        elif look.next in {"adopt", "recover"}:
            kind = "end" if look.next == "adopt" else "outcome"
            yield (
                evidence.names.attempt(look.attempt, kind),
                "it is missing, and no run is under way: it was removed, or the run was ended from outside. "
                "Submitting the request again goes on from here, without paying twice",
            )


def _times(evidence: BucketEvidence) -> _Problems:
    for story in evidence.stories:
        made: datetime = evidence.objects[story.name].created_at
        if story.object != "outcome" and abs(made - story.at) > _WRITTEN_WITHIN:
            yield (
                story.name,
                f"it says that it was written at {story.at.isoformat()}, and the bucket made it at {made.isoformat()}",
            )


def _histories(evidence: BucketEvidence, told: TemporalEvidence) -> _Problems:
    """Whether the histories of the runs that wrote the objects say the same."""
    for story in evidence.stories:
        order = told.order_of(story)
        if order is None:
            continue
        if order.timeline != story.timeline:
            yield story.name, "the history of the run that wrote it tells another story"
        for name in _others_than_returned(evidence, story, order):
            yield name, "the history of the run that wrote it has another one"


def _others_than_returned(evidence: BucketEvidence, story: Story, order: Order) -> Iterator[str]:
    """The objects that are not what the activity that wrote them returned."""
    if order.answer is None:
        return
    attempt = evidence.facts.attempt(story.attempt)
    if order.activity == "store_video" and VideoResult.model_validate(order.answer) != evidence.facts.record:
        yield story.name
    if (
        order.activity == "write_end"
        and JobError.model_validate(order.answer["error"]) != evidence.ends[story.name].error
    ):
        yield story.name
    if order.activity == "create_task" and attempt is not None and attempt.outcome is not None:
        returned = CreateResult.model_validate(order.answer)
        outcome = returned.outcome
        if outcome is not None and outcome.kind != "accepted_without_id" and outcome != attempt.outcome:
            yield story.name
        if attempt.claim is not None and returned.claim != attempt.claim:
            yield evidence.names.attempt(story.attempt, "claim")
