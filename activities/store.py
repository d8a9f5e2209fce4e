"""Copies a finished video into the bucket, and writes the record that commits the job.

Everything is created once and never overwritten, so the activity can be repeated, and run twice at once: whatever
stands in the bucket is not fetched again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.ark import Ark, ArkError
from activities.bucket import Bucket, Checksums, StoredObject, as_json
from activities.heartbeat import heartbeats
from activities.ledger import written_by
from activities.media import BadMedia, picture_type, probe_video
from activities.outbound import DownloadFailed, PublicTransport, download, outbound_client
from activities.record import Record, RecordedObject, RecordedObjects, result_of_record
from activities.seal import sealed
from seedance_temporal import catalogue
from seedance_temporal.identity import ObjectNames, hash_of_job
from seedance_temporal.job import TimelineEntry, VideoResult
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings
from seedance_temporal.task import SUCCEEDED, Task, parse_task
from seedance_temporal.urls import redacted

# A video that is safe must not stay without its record for want of a picture: from this try on it does without.
_TRIES_FOR_THE_LAST_FRAME = 5
# A result URL can be opened 100 times in its life, and the activity is tried some 75 times in it: a broken download
# goes on within the first tries only.
_RESUMES = 4
_TRIES_WITH_RESUMES = 5
_PICTURES = {"png": "image/png", "jpg": "image/jpeg"}

Transport = Callable[[], httpx.AsyncBaseTransport]


class StoreOrder(BaseModel):
    """Which video to store.

    Attributes:
        attempt: The attempt that the task came of.
        warnings: What the job was warned of, in sentences.
        timeline: The job's story so far, for the record.
    """

    model_config = ConfigDict(frozen=True)

    job_id: str
    request: VideoRequest
    attempt: int
    task_id: str
    warnings: tuple[str, ...] = ()
    timeline: tuple[TimelineEntry, ...] = ()

    def failed(self, kind: str, reason: str) -> ApplicationError:
        """An error in a sentence that names job and task, and holds no signature of a URL."""
        return ApplicationError(f"{self.job_id}: task {self.task_id}: {redacted(reason)}", type=kind)


class StoreActivities:
    """Stores videos.

    Args:
        bucket: Where they go.
        ark: Shows the task, and with it a URL that is fresh.
        settings: Prefix, limits, and the hosts that need not be public.
        transport: Makes the transport of each download; only public addresses are reached by default.
    """

    def __init__(self, bucket: Bucket, ark: Ark, settings: Settings, transport: Transport | None = None) -> None:
        self._bucket = bucket
        self._ark = ark
        self._settings = settings
        self._transport = transport or (lambda: PublicTransport(settings.seedance_insecure_hosts))

    @activity.defn
    async def store_video(self, order: StoreOrder) -> VideoResult:
        """Stores the video of a task that has succeeded, and writes the record; or returns what the record says.

        To be repeated until the result URL is dead.

        Raises:
            ApplicationError: ``ProviderUnavailable``: the task cannot be looked at. ``NotReady``: there is nothing to
                download yet. ``DownloadFailed``. ``BadVideo``: what came is no whole MP4. ``ObjectConflict``: the
                bucket holds something else under the name. ``TaskGone``: the provider knows no such task.
                ``StoreFailed``: anything else, such as an unreachable bucket.
        """
        names = ObjectNames(self._settings.seedance_prefix, hash_of_job(order.job_id))
        try:
            standing = await self._bucket.read(names.record)
            if standing is not None:
                return result_of_record(standing, self._bucket.name, names.record)
            with TemporaryDirectory(prefix="seedance-") as directory:
                progress = _Progress()
                async with heartbeats(progress.shown):
                    copy = _Copy(self._bucket, self._settings, self._transport, order, names, Path(directory), progress)
                    return await copy.run(self._ark)
        except ApplicationError:
            raise
        except Exception as error:
            # The texts of other libraries are full of URLs.
            raise order.failed("StoreFailed", f"storing its video broke: {error!r}") from None


@dataclass
class _Progress:
    """What the copy is at. ``done`` and ``total`` are bytes."""

    step: str = "looking"
    done: int = 0
    total: int | None = None

    def begin(self, step: str, total: int | None = None) -> None:
        self.step, self.done, self.total = step, 0, total
        activity.heartbeat(self.shown())

    def move(self, done: int, total: int | None) -> None:
        self.done, self.total = done, total

    def shown(self) -> dict[str, Any]:
        return {"step": self.step, "bytes": self.done, "of": self.total}


@dataclass
class _Copy:
    """One execution: what it works on, and what stands in the bucket of this task already."""

    bucket: Bucket
    settings: Settings
    transport: Transport
    order: StoreOrder
    names: ObjectNames
    directory: Path
    progress: _Progress
    standing: dict[str, StoredObject] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    async def run(self, ark: Ark) -> VideoResult:
        self.standing = {stored.name: stored for stored in await self.bucket.list(self._name(""))}
        payload = await self._payload(ark)
        task = parse_task(payload)
        if task.status != SUCCEEDED:
            raise self.order.failed("NotReady", f"it is {task.status}, so there is no video to store")
        video = await self._video(task, payload)
        last_frame = await self._last_frame(task) if self.order.request.return_last_frame else None
        return await self._commit(task, video, last_frame)

    def _name(self, file: str) -> str:
        return self.names.of_task(self.order.task_id, file)

    def _standing_video(self) -> StoredObject | None:
        """The video, where it was uploaded before. It was verified then, and the bucket refuses half an upload."""
        stored = self.standing.get(self._name("output.mp4"))
        return stored if stored is not None and stored.size else None

    async def _payload(self, ark: Ark) -> dict[str, Any]:
        try:
            payload = await ark.get(self.order.task_id)
        except (ArkError, httpx.HTTPError) as error:
            raise self.order.failed("ProviderUnavailable", f"the provider does not show it: {error!r}") from None
        if payload is None and self._standing_video() is not None:
            # The video outlived its task; what the provider said of it stands beside it.
            stored = await self.bucket.read(self._name("task.json"))
            payload = json.loads(stored) if stored is not None else None
        if payload is None:
            raise self.order.failed("TaskGone", "the provider knows no such task, and the bucket holds no video of it")
        return payload

    async def _video(self, task: Task, payload: dict[str, Any]) -> StoredObject:
        stored = self._standing_video()
        if stored is not None:
            return stored
        path = await self._fetch_video(task)
        await self.bucket.create(self._name("task.json"), as_json(_without_signatures(payload)))
        return await self._upload(path, "output.mp4", "video/mp4")

    async def _fetch_video(self, task: Task) -> Path:
        url = task.content.video_url if task.content is not None else None
        if url is None:
            raise self.order.failed("NotReady", "it succeeded, but shows no URL of its video")
        try:
            path = await self._download(url, "video")
        except DownloadFailed as error:
            not_yet = error.status == httpx.codes.BAD_REQUEST and "video_not_ready" in error.answer
            raise self.order.failed(
                "NotReady" if not_yet else "DownloadFailed", f"its video could not be downloaded: {error}"
            ) from None
        self.progress.begin("verifying the video")
        try:
            await asyncio.to_thread(probe_video, path)
        except BadMedia as error:
            raise self.order.failed("BadVideo", f"what was downloaded as its video {error}") from None
        return path

    async def _last_frame(self, task: Task) -> StoredObject | None:
        for kind in _PICTURES:
            if self._name(f"last_frame.{kind}") in self.standing:
                return self.standing[self._name(f"last_frame.{kind}")]
        url = task.content.last_frame_url if task.content is not None else None
        if url is None:
            self.warnings.append("The last frame was asked for, and the provider gave none.")
            return None
        try:
            path = await self._download(url, "last frame")
            kind = await asyncio.to_thread(picture_type, path)
        except (DownloadFailed, BadMedia) as error:
            reason = f"its last frame could not be stored: {error}"
            if activity.info().attempt < _TRIES_FOR_THE_LAST_FRAME:
                raise self.order.failed("DownloadFailed", reason) from None
            self.warnings.append(f"The last frame was asked for; {reason}")
            return None
        return await self._upload(path, f"last_frame.{kind}", _PICTURES[kind])

    async def _download(self, url: str, what: str) -> Path:
        self.progress.begin(f"downloading the {what}")
        path = self.directory / what
        async with outbound_client(self.transport()) as client:
            await download(
                client,
                url,
                path,
                max_bytes=self.settings.seedance_max_video_bytes,
                seconds=self.settings.seedance_download_seconds,
                resumes=_RESUMES if activity.info().attempt <= _TRIES_WITH_RESUMES else 0,
                progress=self.progress.move,
            )
        return path

    async def _upload(self, path: Path, file: str, content_type: str) -> StoredObject:
        """Uploads a file, and compares what the bucket holds then, whoever has put it there."""
        local = await asyncio.to_thread(Checksums.of_file, path)
        self.progress.begin(f"uploading {file}", local.size)
        name = self._name(file)
        stored = await self.bucket.upload(name, path, content_type) or await self.bucket.stat(name)
        if stored is None or (stored.size, stored.crc32c) != (local.size, local.crc32c):
            holds = f"{stored.size} bytes with CRC32C {stored.crc32c}" if stored is not None else "nothing"
            raise self.order.failed(
                "ObjectConflict",
                f"gs://{self.bucket.name}/{name} should hold {local.size} bytes with CRC32C {local.crc32c}, and holds "
                f"{holds}. Nothing was overwritten. Look at the object, and move it away if it is not this video.",
            )
        return stored

    async def _commit(self, task: Task, video: StoredObject, last_frame: StoredObject | None) -> VideoResult:
        """Writes the record. The first one that was written stands, and is the job's result."""
        self.progress.begin("writing the record")
        payload = await self.bucket.stat(self._name("task.json"))
        objects = RecordedObjects(
            video=RecordedObject.of(video),
            last_frame=RecordedObject.of(last_frame) if last_frame is not None else None,
            task=RecordedObject.of(payload) if payload is not None else None,
            ledger=tuple(RecordedObject.of(stored) for stored in await self.bucket.list(self.names.ledger)),
        )
        claim = await self.bucket.read(self.names.attempt(self.order.attempt, "claim"))
        references = json.loads(claim).get("media", []) if claim is not None else []
        content = sealed(self._record(task, objects, references).model_dump(mode="json"))
        if not await self.bucket.create(self.names.record, content):
            # Ours, whose answer was lost, or somebody else's.
            content = await self.bucket.read(self.names.record) or content
        return result_of_record(content, self.bucket.name, self.names.record)

    def _record(self, task: Task, objects: RecordedObjects, references: list[dict[str, Any]]) -> Record:
        request = self.order.request
        prices, endpoints = self.settings.prices, self.settings.seedance_endpoints
        estimated = catalogue.estimate(request, prices, endpoints=endpoints)
        return Record(
            job_id=self.order.job_id,
            request_hash=self.names.request_hash,
            **written_by(),
            attempt=self.order.attempt,
            task_id=self.order.task_id,
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
            cost_usd=catalogue.cost_of(request, task, prices, endpoints=endpoints),
            request=request.model_dump(mode="json", exclude_none=True),
            rights=request.rights.model_dump(mode="json"),
            references=references,
            timeline=[entry.model_dump(mode="json") for entry in self.order.timeline],
            objects=objects,
            warnings=[*self.order.warnings, *self.warnings],
            stored_at=datetime.now(UTC),
        )


def _without_signatures(value: Any) -> Any:
    """A payload without the queries of its URLs: whoever reads them could fetch the video."""
    if isinstance(value, dict):
        return {name: _without_signatures(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_without_signatures(part) for part in value]
    return redacted(value) if isinstance(value, str) else value
