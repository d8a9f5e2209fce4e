"""Read all objects of one job from the bucket, damaged and old ones included, as evidence for an audit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeVar

from pydantic import BaseModel, ValidationError

from seedance_temporal.identity import ObjectNames, hash_of_job
from seedance_temporal.ledger.facts import End, Facts, Outcome, Provenance
from seedance_temporal.ledger.record import Record, result_of_record
from seedance_temporal.ledger.store import by_attempt, end_kinds, read_attempt
from seedance_temporal.storage.bucket import Bucket, StoredObject

_M = TypeVar("_M", bound=BaseModel)


@dataclass(frozen=True)
class TimelinePart:
    """A part of a job's timeline, in the object that ends it.

    Attributes:
        name: The object's name.
        object: Its kind.
        writer: The activity that wrote it from the timeline in its input; None where its input held none.
        at: When it was written.
    """

    name: str
    object: Literal["record", "end", "outcome"]
    attempt: int
    writer: str | None
    provenance: Provenance
    at: datetime


@dataclass
class BucketEvidence:
    """All objects of a job.

    Attributes:
        objects: All objects, by name.
        contents: The content of those that are JSON, by name.
        damaged: The reason an object cannot be read, by name. Its content counts as missing.
        ends, late: By the objects' names.
    """

    names: ObjectNames
    objects: dict[str, StoredObject]
    contents: dict[str, bytes]
    damaged: dict[str, str] = field(default_factory=dict)
    record: Record | None = None
    ends: dict[str, End] = field(default_factory=dict)
    late: dict[str, Outcome] = field(default_factory=dict)
    facts: Facts = field(default_factory=lambda: Facts(None, ()))

    @property
    def parts(self) -> list[TimelinePart]:
        """The parts of the job's timeline, the oldest first."""
        found = []
        for attempt in self.facts.attempts:
            if (outcome := attempt.outcome) is not None:
                name = self.names.attempt(attempt.number, "outcome")
                # One that was not sent holds no timeline: there can be hundreds in a row.
                writer = "create_task" if outcome.source == "create" and outcome.kind != "not_sent" else None
                found.append(TimelinePart(name, "outcome", attempt.number, writer, outcome, outcome.at))
        for name, end in self.ends.items():
            writer = "resolve_attempt" if end.source == "operator" else "write_end"
            found.append(TimelinePart(name, "end", end.error.attempt or 0, writer, end, end.at))
        if (record := self.record) is not None and (stored_at := record.stored_at) is not None:
            of = record.objects
            beside = (one for one in (of.video, of.last_frame, of.task) if one is not None)
            ledger = (*of.ledger, *of.verified, *beside)
            run = {"namespace": record.namespace, "run_id": record.run_id}
            by = Provenance(timeline=record.timeline, ledger=ledger, **run)
            found.append(TimelinePart(self.names.record, "record", record.attempt, "store_video", by, stored_at))
        return sorted(found, key=lambda part: part.at)

    def read(self, name: str, model: type[_M], /) -> _M | None:
        """Read an object as a model; return None where it is missing or damaged."""
        if name not in self.contents:
            return None
        try:
            return model.model_validate_json(self.contents[name])
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            at = ".".join(map(str, problem["loc"]))
            self.damaged[name] = f"{at}: {problem['msg']}" if at else problem["msg"]
            return None

    def read_all(self, names: Iterable[str], model: type[_M]) -> dict[str, _M]:
        """Read objects as models, by name. Leave out those that are missing or damaged."""
        return {name: found for name in names if (found := self.read(name, model)) is not None}


async def read_bucket_evidence(bucket: Bucket, prefix: str, job_id: str) -> BucketEvidence:
    """Read all objects of a job, except its media. A damaged object is noted, and does not stop the others."""
    names = ObjectNames(prefix, hash_of_job(job_id))
    objects = {stored.name: stored for stored in await bucket.list(names.root)}
    documents = [name for name in objects if name.endswith(".json")]
    contents = zip(documents, await asyncio.gather(*map(bucket.read, documents)), strict=True)
    evidence = BucketEvidence(names, objects, {name: content for name, content in contents if content is not None})
    attempts = []
    for number, of in by_attempt(names, objects.values()).items():
        attempts.append(read_attempt(number, of, evidence.read))
        evidence.ends |= evidence.read_all((of[kind].name for kind in end_kinds(of)), End)
        evidence.late |= evidence.read_all((of[kind].name for kind in of if kind.startswith("late-")), Outcome)
    evidence.record = record = evidence.read(names.record, Record)
    evidence.facts = Facts(
        record=result_of_record(record, bucket.name, names.record) if record is not None else None,
        attempts=tuple(attempts),
        stored_at=record.stored_at if record is not None else None,
    )
    return evidence
