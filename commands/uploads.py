"""Brings files of this machine into the bucket, for requests that refer to them."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from commands.bucket import BucketRefused
from commands.files import FileRefused, LocalFile
from commands.telling import err, plain
from seedance_temporal.request import Reference, VideoRequest
from seedance_temporal.urls import redacted

if TYPE_CHECKING:
    from activities.bucket import Bucket


# Copies on the disk at once, of up to 200 MB each.
_AT_ONCE = 8


class Uploads:
    """Brings local files into the bucket, each content once.

    Args:
        bucket: Where they go.
        files: By the URL that stands for each, from :class:`RequestReader`.
        progress: Shows what is under way.
    """

    def __init__(self, bucket: Bucket, files: Mapping[str, LocalFile], progress: Progress) -> None:
        self._bucket = bucket
        self._files = files
        self._progress = progress
        self._copies = asyncio.Semaphore(_AT_ONCE)
        self._uploads: dict[str, asyncio.Task[str]] = {}

    async def uploaded(self, request: VideoRequest) -> VideoRequest:
        """The request with its files in the bucket.

        Raises:
            BucketRefused: One cannot be brought there.
        """
        references = await asyncio.gather(*map(self._reference, request.references))
        return request.model_copy(update={"references": tuple(references)})

    async def _reference(self, reference: Reference) -> Reference:
        file = self._files.get(reference.url)
        if file is None:
            return reference
        if file.name not in self._uploads:
            self._uploads[file.name] = asyncio.create_task(self._upload(file))
        return reference.model_copy(update={"url": await self._uploads[file.name]})

    async def _upload(self, file: LocalFile) -> str:
        """The object's URL. What stands there already is not sent again."""
        from activities.bucket import Checksums

        uri = f"gs://{self._bucket.name}/{file.name}"
        path = file.place.shown
        try:
            # An object is never changed: under this name, no other content must ever stand.
            async with self._copies, file.copied() as copy:
                local = await asyncio.to_thread(Checksums.of_file, copy)
                stored = await self._bucket.stat(file.name)
                if stored is None:
                    shown = self._progress.add_task(f"uploading {plain(path)}, {file.size / 1e6:.1f} MB", total=None)
                    stored = await self._bucket.upload(file.name, copy, _content_type(file))
                    self._progress.remove_task(shown)
            # Somebody else can have been faster.
            stored = stored or await self._bucket.stat(file.name)
        except FileRefused as error:
            raise BucketRefused(str(error)) from None
        except Exception as error:
            raise BucketRefused(f"{path} cannot be uploaded to {uri}: {redacted(str(error))}") from None
        if stored is None or (stored.size, stored.crc32c) != (local.size, local.crc32c):
            raise BucketRefused(f"{uri} does not hold what {path} does")
        return f"{uri}#{stored.generation}"


def _content_type(file: LocalFile) -> str:
    return mimetypes.guess_type(file.name)[0] or "application/octet-stream"


def spinner() -> Progress:
    """Shows what is under way, where somebody looks."""
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    return Progress(*columns, console=err, transient=True, disable=not err.is_terminal)
