"""What the bucket holds of one job, read as a whole: for audits, which must read damaged and old objects as well."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from seedance_temporal.identity import ObjectNames, hash_of_job
from seedance_temporal.job import TimelineEntry
from seedance_temporal.ledger.facts import Attempt, Claim, End, Facts, Outcome, Provenance, ResubmitGrant
from seedance_temporal.ledger.record import Record, RecordedObject, result_of_record
from seedance_temporal.ledger.store import ACCEPTED_WITHOUT_ID, RESUBMIT_GRANT, by_attempt, end_kinds, late_tasks
from seedance_temporal.storage.bucket import Bucket, StoredObject

_M = TypeVar("_M", bound=BaseModel)


@dataclass(frozen=True)
class Story:
    """A part of a job's story, with the object that ends it: what that is, and which run wrote it when.

    Attributes:
        writer: The activity that wrote it, from a story that it was handed; None where it was handed none.
        ledger: The objects that stood when it was written.
    """

    name: str
    object: Literal["record", "end", "outcome"]
    attempt: int
    writer: str | None
    namespace: str
    run_id: str
    at: datetime
    timeline: tuple[TimelineEntry, ...]
    ledger: tuple[RecordedObject, ...]


@dataclass
class BucketEvidence:
    """What the bucket holds of a job.

    Attributes:
        bucket: The bucket's name.
        objects: All of them, by name.
        contents: Those that are JSON.
        damaged: Why an object cannot be read, by name. What it says counts as missing.
        ends, late: By the objects' names.
    """

    bucket: str
    names: ObjectNames
    objects: dict[str, StoredObject]
    contents: dict[str, bytes]
    damaged: dict[str, str] = field(default_factory=dict)
    record: Record | None = None
    ends: dict[str, End] = field(default_factory=dict)
    late: dict[str, Outcome] = field(default_factory=dict)
    facts: Facts = field(default_factory=lambda: Facts(None, ()))

    @property
    def stories(self) -> list[Story]:
        """The parts of the job's story, the oldest first."""
        found = []
        for attempt in self.facts.attempts:
            if (outcome := attempt.outcome) is not None:
                name = self.names.attempt(attempt.number, "outcome")
                writer = "create_task" if outcome.how == "create" else None
                found.append(_story(name, "outcome", attempt.number, writer, outcome, outcome.at))
        for name, end in self.ends.items():
            writer = "resolve_attempt" if end.how == "operator" else "write_end"
            found.append(_story(name, "end", end.error.attempt or 0, writer, end, end.at))
        if (record := self.record) is not None and (stored_at := record.stored_at) is not None:
            run = record.namespace, record.run_id
            of = record.objects
            beside = (one for one in (of.video, of.last_frame, of.task) if one is not None)
            ledger = (*of.ledger, *of.verified, *beside)
            told = _timeline(record.timeline)
            found.append(
                Story(self.names.record, "record", record.attempt, "store_video", *run, stored_at, told, ledger)
            )
        return sorted(found, key=lambda story: story.at)

    def read(self, name: str, model: type[_M]) -> _M | None:
        """An object as what it should be; None where it is not there, or damaged."""
        if name not in self.contents:
            return None
        try:
            return model.model_validate_json(self.contents[name])
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            self.damaged[name] = ": ".join(
                part for part in (".".join(map(str, problem["loc"])), problem["msg"]) if part
            )
            return None


async def read_bucket_evidence(bucket: Bucket, prefix: str, job_id: str) -> BucketEvidence:
    """Reads all objects of a job, but for its media. What is damaged is noted, and stops nothing."""
    names = ObjectNames(prefix, hash_of_job(job_id))
    objects = {stored.name: stored for stored in await bucket.list(names.root)}
    documents = [name for name in objects if name.endswith(".json")]
    contents = zip(documents, await asyncio.gather(*map(bucket.read, documents)), strict=True)
    evidence = BucketEvidence(
        bucket.name, names, objects, {name: content for name, content in contents if content is not None}
    )
    evidence.record = evidence.read(names.record, Record)
    attempts = [_attempt(evidence, number, of) for number, of in by_attempt(names, objects.values()).items()]
    result = None
    if evidence.record is not None:
        result = result_of_record(evidence.contents[names.record], bucket.name, names.record)
    evidence.facts = Facts(result, tuple(attempts))
    return evidence


def _story(
    name: str, kind: Literal["end", "outcome"], attempt: int, writer: str | None, witness: Provenance, at: datetime
) -> Story:
    return Story(name, kind, attempt, writer, witness.namespace, witness.run_id, at, witness.timeline, witness.ledger)


def _attempt(evidence: BucketEvidence, number: int, objects: Mapping[str, StoredObject]) -> Attempt:
    def fact(kind: str, model: type[_M]) -> _M | None:
        return evidence.read(objects[kind].name, model) if kind in objects else None

    ends = {objects[kind].name: end for kind in end_kinds(objects) if (end := fact(kind, End)) is not None}
    evidence.ends |= ends
    for kind, stored in objects.items():
        if kind.startswith("late-") and (late := fact(kind, Outcome)) is not None:
            evidence.late[stored.name] = late
    return Attempt(
        number=number,
        claim=fact("claim", Claim),
        claimed_at=objects["claim"].created_at if "claim" in objects else None,
        outcome=fact("outcome", Outcome),
        accepted_without_id=ACCEPTED_WITHOUT_ID in objects,
        late=late_tasks(objects),
        ends=tuple(ends.values()),
        resubmit_grant=fact(RESUBMIT_GRANT, ResubmitGrant),
    )


def _timeline(entries: Iterable[Mapping[str, Any]]) -> tuple[TimelineEntry, ...]:
    """A record's story. An entry of another shape, as another version may write it, is left out."""
    found = []
    for entry in entries:
        try:
            found.append(TimelineEntry.model_validate(entry))
        except ValidationError:
            continue
    return tuple(found)
