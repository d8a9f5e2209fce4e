"""Copy a finished video into the bucket, and write the record that commits the job.

Everything is created once and never overwritten, so the activity can be repeated, and run twice at once. Before the
upload, the checksums of a verified file are written to the bucket; an object counts only if it equals them. Such a
video is not downloaded again, and with the provider's payload beside it, its record needs no provider.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from pydantic import ValidationError
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.counted import count_stored
from activities.heartbeat import CopyProgress, heartbeats
from seedance_temporal.data_converter import message_of
from seedance_temporal.events import Timeline
from seedance_temporal.identity import ObjectNames, hash_of_job
from seedance_temporal.job import Shape, VideoResult
from seedance_temporal.ledger.checksummed_json import opened, sealed
from seedance_temporal.ledger.record import Record, RecordedObject, RecordedObjects, payload_json, result_of_record
from seedance_temporal.ledger.settling import settle
from seedance_temporal.ledger.store import Ledger, written_by
from seedance_temporal.ledger.task_files import OtherContent, TaskFiles
from seedance_temporal.ledger.task_times import TaskTimes
from seedance_temporal.media.probe import BadMedia, Unreadable, picture_type, probed
from seedance_temporal.media.public_http import DownloadFailed, PublicTransport, download
from seedance_temporal.media.temporary import temporary_directory
from seedance_temporal.provider.ark import Ark
from seedance_temporal.provider.task import SUCCEEDED, Task, parse_task
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings
from seedance_temporal.storage.bucket import Bucket, Checksums, StoredObject
from seedance_temporal.urls import redacted

# After this many tries, store without the last frame.
_TRIES_FOR_THE_LAST_FRAME = 5
# After this many tries, some four minutes, store without the task's payload; a copy has ten minutes at least.
_TRIES_FOR_THE_TASK = 8
# A result URL can be opened 100 times in its life, and the activity is tried some 75 times in it: a broken download
# goes on within the first tries only.
_RESUMES = 4
_TRIES_WITH_RESUMES = 5
_VIDEO = "output.mp4"
_TASK = "task.json"
# A file that cannot be judged is downloaded again first; after this many tries it is stored, with a warning.
_TRIES_FOR_DOUBT = 3
# Reading the largest video from end to end takes some seconds; a file that takes this long is hostile.
_PROBE_SECONDS = 300.0
# A slow picture must not use up the time of its video.
_LAST_FRAME_SECONDS = 60.0
_LONGEST_REASON = 500
_PICTURES = {"last_frame.png": "image/png", "last_frame.jpg": "image/jpeg"}

Transport = Callable[[], httpx.AsyncBaseTransport]


class StoreInput(Shape):
    """The video to store.

    Attributes:
        attempt: The attempt of the task.
        warnings: The job's warnings, in sentences.
        timeline: The job's events so far, for the record.
    """

    job_id: str
    request: VideoRequest
    attempt: int
    task_id: str
    warnings: tuple[str, ...] = ()
    timeline: Timeline = ()

    def failed(self, kind: str, reason: str, *, non_retryable: bool = False) -> ApplicationError:
        """Build an error that names job and task, and holds no signature of a URL."""
        message = f"{self.job_id}: task {self.task_id}: {redacted(reason)}"
        return ApplicationError(message, type=kind, non_retryable=non_retryable)


class _Failed(Exception):
    """A failure that can be retried; ``kind`` becomes the type of the error in Temporal."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(redacted(reason))
        self.kind = kind


class StoreActivities:
    """Store videos.

    Args:
        transport: Makes the transport of each download; by default, only public addresses are
            reached, or the proxy that the environment names.
    """

    def __init__(self, bucket: Bucket, ark: Ark, settings: Settings, transport: Transport | None = None) -> None:
        self._bucket = bucket
        self._ark = ark
        self._settings = settings
        self._times = TaskTimes(bucket, settings.seedance_prefix)
        self._transport = transport or (lambda: PublicTransport(settings.seedance_insecure_hosts, proxied=True))

    @activity.defn
    async def store_video(self, input: StoreInput) -> VideoResult:
        """Store the video of a task that has succeeded, and write the record; return the result of the first record.

        To be repeated until the result URL is dead.

        Raises:
            ApplicationError: ``ProviderUnavailable``: GET gives no usable answer. ``NotReady``: there is nothing to
                download yet. ``DownloadFailed``. ``BadVideo``: the download is no whole MP4. ``TaskGone``: the provider
                knows no such task. ``StoreFailed``: anything else, such as an unreachable bucket. ``ObjectConflict``,
                which is not retryable: another object has the name of the video, or of the record, and an operator has
                to move it away.
        """
        names = ObjectNames(self._settings.seedance_prefix, hash_of_job(input.job_id))
        try:
            existing = await self._bucket.read(names.record)
            if existing is not None:
                await self._settle(input)
                return _result(existing, self._bucket.name, names.record)
            with temporary_directory() as directory:
                progress = CopyProgress()
                async with heartbeats(progress.shown):
                    files = TaskFiles(self._bucket, names, input.task_id)
                    copy = _Copy(
                        files, self._ark, self._settings, self._times, self._transport, input, directory, progress
                    )
                    video = await copy.run()
                await self._settle(input)
                return video
        except _Failed as failure:
            raise input.failed(failure.kind, str(failure)) from None
        except OtherContent as other:
            raise input.failed("ObjectConflict", str(other), non_retryable=True) from None
        except Exception as error:
            # The texts of other libraries are full of URLs.
            raise input.failed("StoreFailed", f"its video could not be stored: {error!r}") from None

    async def _settle(self, input: StoreInput) -> None:
        """Say what the video has cost, for budgets."""
        await settle(Ledger(self._bucket, self._settings.seedance_prefix), input.job_id, self._settings)

    @activity.defn
    async def why_not_stored(self) -> str | None:
        """Return the last failure of the copy in the caller's run, while it is retried: only the server knows it."""
        info = activity.info()
        assert info.workflow_id is not None
        run = activity.client().get_workflow_handle(info.workflow_id, run_id=info.workflow_run_id)
        for pending in (await run.describe()).raw_description.pending_activities:
            if pending.activity_type.name == "store_video" and pending.HasField("last_failure"):
                return await message_of(pending.last_failure, activity.client().data_converter)
        return None


@dataclass
class _Copy:
    """One execution of the activity. ``payload``: the task, once the provider has shown that it succeeded."""

    files: TaskFiles
    ark: Ark
    settings: Settings
    times: TaskTimes
    transport: Transport
    input: StoreInput
    directory: Path
    progress: CopyProgress
    payload: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)

    async def run(self) -> VideoResult:
        await self.files.read()
        self.files.refuse_unverified(_VIDEO)
        video = self.files.find_verified(_VIDEO)
        if video is None:
            task, video = await self._copy_video()
        else:
            task = await self._stored_task() or await self._task_without_payload()
        last_frame = await self._last_frame(task) if self.input.request.return_last_frame else None
        result = await self._commit(task, video, last_frame)
        count_stored(self.input.request, task, result, self.settings)
        await self.times.note(self.input.request, task)
        return result

    # The task at the provider

    async def _get_task_once(self) -> Task:
        """GET the task, once in an execution."""
        if self.payload is None:
            try:
                payload = await self.ark.get(self.input.task_id)
            except Exception as error:  # A verified video needs no answer, so no answer may fail the copy.
                raise _Failed("ProviderUnavailable", f"the provider does not show it: {error!r}") from None
            if payload is None:
                raise _Failed("TaskGone", "the provider knows no such task")
            self._require_success(payload)
            self.payload = payload
        return self._require_success(self.payload)

    def _require_success(self, payload: Any) -> Task:
        """Parse a payload as the input's task, which must have succeeded."""
        try:
            task = parse_task(payload)
        except ValueError as error:
            raise _Failed("NotReady", str(error)) from None
        if task.id != self.input.task_id:
            raise _Failed("NotReady", f"the payload is about task {task.id}")
        if task.status != SUCCEEDED:
            raise _Failed("NotReady", f"it is {task.status}, so there is no video to store")
        return task

    async def _stored_task(self) -> Task | None:
        """Read the task from ``task.json``; None if that is missing, damaged, or about another task."""
        content = await self.files.bucket.read(self.files.name(_TASK))
        try:
            return self._require_success(json.loads(content)) if content is not None else None
        except (ValueError, RecursionError, _Failed):
            return None

    async def _task_without_payload(self) -> Task:
        """GET the task of a verified video without a readable ``task.json``; after some tries, go on without it."""
        try:
            task = await self._get_task_once()
        except _Failed as failure:
            if activity.info().attempt < _TRIES_FOR_THE_TASK:
                raise
            self.warnings.append(f"The provider's data of the task, such as its tokens, are lost: {failure}")
            # A video is verified only after its task has succeeded.
            return Task(id=self.input.task_id, status=SUCCEEDED)
        await self._write_payload()
        return task

    async def _write_payload(self) -> None:
        await self.files.bucket.create(self.files.name(_TASK), payload_json(self.payload, self.settings.secrets))

    # Copying

    async def _copy_video(self) -> tuple[Task, StoredObject]:
        try:
            task = await self._get_task_once()
            path = await self._fetch_video(task)
        except _Failed as failure:
            if self.files.get(_VIDEO) is None:
                raise
            unknown = f"{self.files.uri(_VIDEO)} exists, but no readable object says that it was verified."
            raise _Failed(failure.kind, " ".join([f"{failure}. {unknown}", *self.files.warnings])) from None
        return task, await self._upload(path, _VIDEO, "video/mp4")

    async def _fetch_video(self, task: Task) -> Path:
        url = task.content.video_url if task.content is not None else None
        if url is None:
            raise _Failed("NotReady", "it succeeded, but shows no URL of its video")
        # First, so that its tokens are known where the video is never copied.
        await self._write_payload()
        try:
            path = await self._download(url, "video", self.settings.seedance_download_seconds)
        except DownloadFailed as error:
            not_yet = error.status == httpx.codes.BAD_REQUEST and "video_not_ready" in error.answer
            kind = "NotReady" if not_yet else "DownloadFailed"
            raise _Failed(kind, f"its video could not be downloaded: {error}") from None
        self.progress.begin("verifying the video")
        try:
            await probed("result", path, _PROBE_SECONDS)
        except BadMedia as error:
            if not isinstance(error, Unreadable) or activity.info().attempt < _TRIES_FOR_DOUBT:
                raise _Failed("BadVideo", f"the file that was downloaded as its video {error}") from None
            self.warnings.append(f"The video was stored as it was downloaded, and not verified: it {error}.")
        return path

    async def _last_frame(self, task: Task) -> StoredObject | None:
        """Find or copy the last frame; after some tries, go on without it, with a warning.

        A conflict is retryable here and ends in the same warning: a verified video must not wait for its record until
        an operator moves a picture away.
        """
        try:
            for file in _PICTURES:
                if (stored := self.files.find_verified(file)) is not None:
                    return stored
            for file in _PICTURES:
                self.files.refuse_unverified(file)
            return await self._copy_last_frame(task)
        except Exception as failure:  # a verified video never waits for a picture
            known = isinstance(failure, _Failed | OtherContent)
            cause = str(failure) if known else redacted(repr(failure), limit=_LONGEST_REASON)
            reason = f"its last frame could not be stored: {cause}"
            if activity.info().attempt < _TRIES_FOR_THE_LAST_FRAME:
                kind = failure.kind if isinstance(failure, _Failed) else "ObjectConflict" if known else "StoreFailed"
                raise _Failed(kind, reason) from None
            self.warnings.append(f"The last frame was asked for; {reason}")
            return None

    async def _copy_last_frame(self, stored: Task) -> StoredObject | None:
        task = await self._get_task_once()
        url = task.content.last_frame_url if task.content is not None else None
        if url is None and stored.content is not None and stored.content.last_frame_url is not None:
            raise _Failed("NotReady", "the task no longer shows its URL")
        if url is None:
            self.warnings.append("The last frame was asked for, and the provider gave none.")
            return None
        try:
            path = await self._download(url, "last frame", _LAST_FRAME_SECONDS)
            file = f"last_frame.{await asyncio.to_thread(picture_type, path)}"
        except (DownloadFailed, BadMedia) as error:
            raise _Failed("DownloadFailed", str(error)) from None
        return await self._upload(path, file, _PICTURES[file])

    async def _download(self, url: str, name: str, seconds: float) -> Path:
        self.progress.begin(f"downloading the {name}")
        path = self.directory / name
        await download(
            self.transport(),
            url,
            path,
            max_bytes=self.settings.seedance_max_video_bytes,
            seconds=seconds,
            resumes=_RESUMES if activity.info().attempt <= _TRIES_WITH_RESUMES else 0,
            progress=self.progress.move,
        )
        return path

    async def _upload(self, path: Path, file: str, content_type: str) -> StoredObject:
        content = await asyncio.to_thread(Checksums.of_file, path)
        self.progress.begin(f"uploading {file}", content.size)
        stored = await self.files.put(path, file, content, content_type)
        if stored is None:
            raise _Failed("StoreFailed", f"{self.files.uri(file)} was removed during its upload")
        return stored

    # The record

    async def _commit(self, task: Task, video: StoredObject, last_frame: StoredObject | None) -> VideoResult:
        """Write the record; return the result of the first record that was written."""
        self.progress.begin("writing the record")
        await self.files.read()
        payload = self.files.get(_TASK)
        if payload is not None and await self._stored_task() is None:
            self.warnings.append(
                f"{self.files.uri(_TASK)} does not hold the provider's data of this task. It was left there."
            )
            payload = None
        self.warnings += self.files.warnings
        references = await self._references()
        objects = RecordedObjects(
            video=RecordedObject.of(video),
            last_frame=RecordedObject.of(last_frame) if last_frame is not None else None,
            task=RecordedObject.of(payload) if payload is not None else None,
            verified=tuple(RecordedObject.of(self.files.objects[name]) for name in self.files.verified),
            ledger=tuple(RecordedObject.of(stored) for stored in await self.files.bucket.list(self.files.names.ledger)),
        )
        content = sealed(self._record(task, objects, references).model_dump(mode="json"))
        if not await self.files.bucket.create(self.files.names.record, content):
            # It may be our own write, whose answer was lost, or another run's.
            content = await self.files.bucket.read(self.files.names.record) or content
        return _result(content, self.files.bucket.name, self.files.names.record)

    async def _references(self) -> list[dict[str, Any]]:
        """Read the properties of the reference media from the claim; a damaged claim gives none, and a warning."""
        name = self.files.names.attempt(self.input.attempt, "claim")
        try:
            media = opened(await self.files.bucket.read(name) or b"{}").get("media")
        except ValueError as error:
            self.warnings.append(
                f"gs://{self.files.bucket.name}/{name} {error}: the record does not describe the references."
            )
            return []
        return [medium for medium in media if isinstance(medium, dict)] if isinstance(media, list) else []

    def _record(self, task: Task, objects: RecordedObjects, references: list[dict[str, Any]]) -> Record:
        return Record.of_task(
            self.input.request,
            task,
            self.settings.rules,
            job_id=self.input.job_id,
            request_hash=self.files.names.request_hash,
            attempt=self.input.attempt,
            references=references,
            timeline=self.input.timeline,
            objects=objects,
            warnings=[*self.input.warnings, *self.warnings],
            **written_by(),
        )


def _result(content: bytes, bucket: str, name: str) -> VideoResult:
    try:
        return result_of_record(Record.model_validate_json(content), bucket, name)
    except ValidationError:
        reason = f"gs://{bucket}/{name} is no record. Nothing was overwritten. Inspect the object, and move it away."
        raise OtherContent(reason) from None
