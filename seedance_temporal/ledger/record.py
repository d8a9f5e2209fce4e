"""The record of a stored video: its request, cost and objects. Read it leniently: it is kept for years."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import Field

from seedance_temporal.events import Timeline
from seedance_temporal.job import Moment, Shape, VideoResult
from seedance_temporal.provider.rules import Rules
from seedance_temporal.provider.task import Task, Usage
from seedance_temporal.request import VideoRequest
from seedance_temporal.storage.bucket import StoredObject, as_json
from seedance_temporal.urls import redacted


class RecordedObject(Shape):
    """An object as the bucket showed it when the record was written. ``size`` is bytes; checksums are base64."""

    name: str
    generation: int
    size: int
    crc32c: str
    md5: str | None = None

    @classmethod
    def of(cls, stored: StoredObject) -> RecordedObject:
        return cls.model_validate(stored, from_attributes=True)


class RecordedObjects(Shape):
    """The objects of a job.

    Attributes:
        task: The provider's payload; None if it was damaged, which is one of the record's warnings.
        verified: The objects that say which contents were verified; empty in records of older versions.
        ledger: All objects of the attempt ledger.
    """

    video: RecordedObject
    last_frame: RecordedObject | None = None
    task: RecordedObject | None = None
    verified: tuple[RecordedObject, ...] = ()
    ledger: tuple[RecordedObject, ...] = ()


class Record(Shape):
    """Everything about a stored video.

    Fields that only readers and audits use, such as ``request``, have no shape here: a later change of that shape must
    not make an old record unreadable.

    Attributes:
        namespace, run_id: The Temporal run that stored the video; empty where an operator brought it as a file.
        attempt: The attempt of the task; the ledger holds the others.
        model: The model that made the video, also where the request names an endpoint.
        estimated_tokens, estimated_usd, estimated_cny: The most that was expected before the create, where known.
        cost_usd, cost_cny: The tokens that the provider counted, by the price table, in the currency of the route; None
            where unknown.
        references: The properties of the reference media, as far as they could be read before the create.
        warnings: The job's warnings, and what is missing, in sentences.
    """

    v: int = 1
    job_id: str = ""
    request_hash: str = ""
    namespace: str = ""
    run_id: str = ""
    attempt: int = 0
    task_id: str
    model: str = ""
    status: str = ""
    seed: int | None = None
    ratio: str | None = None
    resolution: str | None = None
    duration: int | float | None = None
    generate_audio: bool | None = None
    usage: Usage | None = None
    estimated_tokens: int | None = None
    estimated_usd: float | None = None
    estimated_cny: float | None = None
    cost_usd: float | None = None
    cost_cny: float | None = None
    request: dict[str, Any] = Field(default_factory=dict)
    rights: dict[str, Any] = Field(default_factory=dict)
    references: list[dict[str, Any]] = Field(default_factory=list)
    timeline: Timeline = ()
    objects: RecordedObjects
    warnings: list[str] = Field(default_factory=list)
    stored_at: Moment | None = None

    @classmethod
    def of_task(cls, request: VideoRequest, task: Task, rules: Rules, **others: Any) -> Record:
        """Return the record of a task that has succeeded. ``others``: the fields that neither request nor task have."""
        estimated, cost = rules.estimate(request), rules.cost_of(request, task)
        return cls(
            task_id=task.id,
            model=task.model or request.model,
            status=task.status,
            seed=task.seed,
            ratio=task.ratio,
            resolution=task.resolution,
            duration=task.duration,
            generate_audio=task.generate_audio,
            usage=task.usage,
            estimated_tokens=estimated.tokens,
            estimated_usd=estimated.usd,
            estimated_cny=estimated.cny,
            cost_usd=cost.usd,
            cost_cny=cost.cny,
            request=request.model_dump(mode="json", exclude_none=True),
            rights=request.rights.model_dump(mode="json"),
            stored_at=datetime.now(UTC),
            **others,
        )


def result_of_record(record: Record, bucket: str, name: str) -> VideoResult:
    """Return the result of a job, by its record, which is the object of a name in a bucket."""
    video, last_frame = record.objects.video, record.objects.last_frame
    return VideoResult(
        video_uri=f"gs://{bucket}/{video.name}",
        size=video.size,
        crc32c=video.crc32c,
        md5=video.md5,
        last_frame_uri=f"gs://{bucket}/{last_frame.name}" if last_frame is not None else None,
        record_uri=f"gs://{bucket}/{name}",
        task_id=record.task_id,
        usage=record.usage,
        seed=record.seed,
        ratio=record.ratio,
        resolution=record.resolution,
        duration=record.duration,
        generate_audio=record.generate_audio,
        cost_usd=record.cost_usd,
        cost_cny=record.cost_cny,
    )


def payload_json(payload: Any, secrets: tuple[str, ...]) -> bytes:
    """Encode ``task.json``: the provider's payload without secrets, and without the queries of URLs.

    A reader of the bucket could fetch the video with those queries.
    """
    return as_json(_without_signatures(payload, secrets))


def _without_signatures(value: Any, secrets: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {redacted(name, secrets): _without_signatures(part, secrets) for name, part in value.items()}
    if isinstance(value, list):
        return [_without_signatures(part, secrets) for part in value]
    return redacted(value, secrets) if isinstance(value, str) else value
