"""Verify the objects of a job: by their content, by each other, and by Temporal's histories.

Each object is read from end to end and compared with the bucket's checksums, with the checksum that it carries, and
with the objects that recorded it later. Its fields are compared with the job's id, and with those of other objects.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from datetime import timedelta
from itertools import chain
from pathlib import PurePosixPath

from pydantic import ValidationError

from seedance_temporal.audit.bucket_evidence import BucketEvidence, TimelinePart
from seedance_temporal.audit.document import Finding
from seedance_temporal.audit.temporal_evidence import ActivityCall, TemporalEvidence
from seedance_temporal.identity import request_hash
from seedance_temporal.job import JobError, VideoResult
from seedance_temporal.ledger.checksummed_json import is_sealed, opened
from seedance_temporal.ledger.decisions import decide, ending
from seedance_temporal.ledger.facts import Attempt, Claim, End, Outcome, ResubmitGrant
from seedance_temporal.ledger.record import Record, RecordedObject
from seedance_temporal.ledger.store import ACCEPTED_WITHOUT_ID, RESUBMIT_GRANT, by_attempt
from seedance_temporal.ledger.task_files import Verified, is_verified_object, read_verified
from seedance_temporal.request import VideoRequest
from seedance_temporal.storage.bucket import Bucket, Checksums, StoredObject

# Ends and records are written at once: an object that is much younger than it says was not written by a worker.
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
"""Names of objects, each with a problem."""


async def verify(bucket: Bucket, evidence: BucketEvidence, temporal: TemporalEvidence | None) -> tuple[Finding, ...]:
    """Return one finding for each object that exists, or is missing, in the order of their names.

    Args:
        bucket: The bucket that holds them.
        evidence: The evidence that was read from it.
        temporal: The evidence in Temporal; None where there is none any more.
    """
    problems: dict[str, list[str]] = {name: [] for name in evidence.objects}
    for name, stored in evidence.objects.items():
        problems[name] += _content(stored, await bucket.checksums(name))
    temporal = temporal or TemporalEvidence()
    checks = [_shapes(evidence), _recorded(evidence), _attempts(evidence), _record(evidence), _beside(evidence)]
    checks += [_missing_end(evidence, temporal), _writers(evidence, temporal)]
    for name, problem in chain.from_iterable(checks):
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
    """Check that each object carries its checksum, and has the fields of its kind."""
    ours: dict[str, Collection[str]] = {}
    if evidence.names.record in evidence.contents:
        ours[evidence.names.record] = Record.model_fields
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
        # The name of the checksum can be damaged as well; versions without checksums wrote no field unknown today.
        if not is_sealed(evidence.contents[name]) and fields and (unknown := value.keys() - fields):
            yield name, f"it carries no checksum, but fields that are not known: {', '.join(sorted(unknown))}"


def _recorded(evidence: BucketEvidence) -> _Problems:
    """Check that each object is the one that later objects recorded."""
    later = [(part.name, part.provenance) for part in evidence.parts] + list(evidence.late.items())
    seen: dict[RecordedObject, list[str]] = {}
    for name, provenance in later:
        for recorded in provenance.ledger:
            seen.setdefault(recorded, []).append(PurePosixPath(name).name)
    for recorded, by in seen.items():
        stored = evidence.objects.get(recorded.name)
        if stored is None:
            yield recorded.name, f"it is missing; {', '.join(by)} recorded it"
        elif RecordedObject.of(stored).model_copy(update={} if recorded.md5 else {"md5": None}) != recorded:
            was, now = _described(recorded), _described(stored)
            yield recorded.name, f"it was replaced: {', '.join(by)} recorded {was}; it is {now}"


def _described(one: RecordedObject | StoredObject) -> str:
    return f"generation {one.generation} with {one.size} bytes, CRC32C {one.crc32c} and MD5 {one.md5}"


def _attempts(evidence: BucketEvidence) -> _Problems:
    """Check that the objects of all attempts belong to this job, and to each other."""
    names, attempts = evidence.names, evidence.facts.attempts
    newest = max((attempt.number for attempt in attempts), default=0)
    for number in range(1, newest + 1):
        attempt = evidence.facts.attempt(number) or Attempt(number)
        yield from _of_attempt(evidence, attempt)
        if number < newest and not attempt.allows_another and names.attempt(number, "claim") in evidence.objects:
            lacks = "outcome" if attempt.outcome is None else "end" if attempt.error is None else "again"
            name = names.attempt(number, lacks)
            if name not in evidence.damaged:
                yield name, f"it is missing; attempt {number + 1} was claimed after it"


def _of_attempt(evidence: BucketEvidence, attempt: Attempt) -> _Problems:
    number, claim, outcome = attempt.number, attempt.claim, attempt.outcome
    name = evidence.names.attempt(number, "claim")
    if name not in evidence.objects:
        later = f"attempt {number} or a later one has other objects"
        yield name, f"it is missing; nothing is sent without one, and {later}"
    if claim is not None:
        job_id = f"seedance-{evidence.names.request_hash}"
        if _hash_of(claim.request) != evidence.names.request_hash:
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


def _hash_of(request: VideoRequest) -> str | None:
    """Return the request's hash; None where no program can have made one, as of a number that JSON does not hold."""
    with suppress(ValueError):
        return request_hash(request)
    return None


def _record(evidence: BucketEvidence) -> _Problems:
    """Check that the record belongs to this job, and to one of its attempts."""
    names, record = evidence.names, evidence.record
    if record is None:
        return
    if (record.job_id, record.request_hash) != (f"seedance-{names.request_hash}", names.request_hash):
        yield names.record, f"it is the record of {record.job_id}"
    with suppress(ValidationError):  # a request that this version cannot read
        if _hash_of(VideoRequest.model_validate(record.request)) != names.request_hash:
            yield names.record, "its request is not the one that the job id is the hash of"
    attempt = evidence.facts.attempt(record.attempt)
    if attempt is None or record.task_id not in attempt.tasks:
        yield names.record, f"its task {record.task_id} is none of attempt {record.attempt}"
    if record.objects.video.name != names.of_task(record.task_id, "output.mp4"):
        yield names.record, f"its video is {record.objects.video.name}, which is not of its task"


def _beside(evidence: BucketEvidence) -> _Problems:
    """Check that videos and last frames equal the verified content, and that the record names the payload."""
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
        # Records of older versions name no such objects.
        for media in (of.video, of.last_frame) if of.verified else ():
            if media is not None:
                verified.setdefault(media.name, [])
    for name, contents in verified.items():
        if name in evidence.objects and not any(one.equals(evidence.objects[name]) for one in contents):
            yield name, "it equals no content that was verified"


def _missing_end(evidence: BucketEvidence, temporal: TemporalEvidence) -> _Problems:
    """Check that the object that ends the job exists."""
    if ending(evidence.facts) is not None or evidence.names.record in evidence.damaged:
        return
    names, job = evidence.names, temporal.job
    if job is not None and job.result is not None:
        yield names.record, "it is missing; the run in Temporal stored the video"
    elif job is not None and job.error is not None and job.error.attempt is not None:
        kind = "end" if job.error.task_id is not None else "outcome"
        ended = f"the run in Temporal ended: {job.error.code}"
        yield names.attempt(job.error.attempt, kind), f"it is missing; {ended}"
    elif job is None or job.error is not None:
        decision = decide(evidence.facts)
        if any(PurePosixPath(name).name == "output.mp4" for name in evidence.objects):
            yield names.record, "it is missing; the video exists"
        elif decision.next in {"adopt", "recover"}:
            kind = "end" if decision.next == "adopt" else "outcome"
            yield (
                names.attempt(decision.attempt, kind),
                "it is missing, and no run is under way: it was removed, or the run was ended from outside. "
                "Submitting the request again continues from here, without paying twice",
            )


def _writers(evidence: BucketEvidence, temporal: TemporalEvidence) -> _Problems:
    """Check that records and ends were made when they say, and agree with the histories of the runs that wrote them."""
    for part in evidence.parts:
        made = evidence.objects[part.name].created_at
        if part.object != "outcome" and abs(made - part.at) > _WRITTEN_WITHIN:
            says = f"it says that it was written at {part.at.isoformat()}"
            yield part.name, f"{says}, and the bucket made it at {made.isoformat()}"
        call = temporal.call_for(part)
        if call is None:
            continue
        if call.timeline != part.provenance.timeline:
            yield part.name, "the history of the run that wrote it has another timeline"
        for name in _others_than_returned(evidence, part, call):
            yield name, "the history of the run that wrote it has another one"


def _others_than_returned(evidence: BucketEvidence, part: TimelinePart, call: ActivityCall) -> Iterator[str]:
    """Yield the names of objects that differ from the result of the activity that wrote them."""
    if call.result is None:
        return
    attempt = evidence.facts.attempt(part.attempt)
    if call.activity == "store_video" and VideoResult.model_validate(call.result) != evidence.facts.record:
        yield part.name
    if call.activity == "write_end" and JobError.model_validate(call.result["error"]) != evidence.ends[part.name].error:
        yield part.name
    if call.activity == "create_task" and attempt is not None and attempt.outcome is not None:
        outcome = call.created("outcome", Outcome)
        if outcome is not None and outcome.kind != "accepted_without_id":
            # The list of objects is in the bucket alone.
            listed = outcome.model_copy(update={"ledger": attempt.outcome.ledger})
            if listed != attempt.outcome:
                yield part.name
        if attempt.claim is not None and call.created("claim", Claim) != attempt.claim:
            yield evidence.names.attempt(part.attempt, "claim")
