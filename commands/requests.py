"""Requests as people write them for the command line: a reference may be a file on this machine.

Such a file goes into the project's bucket, once, under the SHA-256 of its content, and the job refers to it there.
"""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from commands.telling import err
from seedance_temporal import catalogue
from seedance_temporal.errors import InvalidRequest, InvalidSettings, Problem, SeedanceError
from seedance_temporal.limits import refusal_by_price
from seedance_temporal.models import MEDIA, Kind
from seedance_temporal.request import Reference, VideoRequest
from seedance_temporal.settings import Settings
from seedance_temporal.urls import redacted

if TYPE_CHECKING:
    from activities.bucket import Bucket, GoogleBucket

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")
# Stands for a reference that cannot be looked at, so that nothing else is said about its URL.
UNREAD = "asset://unread"
# The library itself would try for two minutes.
_BUCKET_SECONDS = 15.0


class BucketRefused(SeedanceError):
    """The bucket that local files go to cannot be reached, or refuses them."""


@dataclass(frozen=True)
class LocalFile:
    """A file that a request refers to. ``name`` is the object that it becomes."""

    path: Path
    size: int
    sha256: str
    name: str


class RequestReader:
    """Reads requests, and says everything that is wrong with one at once, as far as it shows on this machine.

    Attributes:
        files: The local files of all requests that were read, by the URL that stands for each until it is uploaded.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: dict[tuple[Path, Kind | None], LocalFile] = {}
        self.files: dict[str, LocalFile] = {}

    def read(self, text: bytes, folder: Path) -> VideoRequest:
        """A request that may be sent.

        Args:
            text: The document, as JSON.
            folder: What paths are relative to.

        Raises:
            InvalidRequest: Lists everything that is wrong.
            InvalidSettings: There is a local file, and no bucket for it.
        """
        request, problems = self.look(text, folder)
        if problems:
            raise InvalidRequest(problems)
        return request

    def look(self, text: bytes, folder: Path) -> tuple[VideoRequest, list[Problem]]:
        """As :meth:`read`, for a caller who has more to check: a request, and what is wrong with it.

        A local file has its content's hash as asset_id, unless it was given one: the same content is the same job,
        wherever it stands and however often it is uploaded.
        """
        data = catalogue.decode_json(text)
        of_files = self._replace_paths(data, folder)
        endpoints = self._settings.seedance_endpoints
        request, problems = catalogue.read_request(
            data, insecure_hosts=self._settings.seedance_insecure_hosts, endpoints=endpoints
        )
        problems += of_files
        estimated = catalogue.estimate(request, self._settings.prices, endpoints=endpoints)
        # What is wrong otherwise has no price worth a word.
        if not problems and (refusal := refusal_by_price(estimated, self._settings)):
            problems.append(Problem(at="", problem=refusal.message))
        return request, problems

    def local_files(self, request: VideoRequest) -> dict[int, LocalFile]:
        """Which references of a request are local files, counted from 0."""
        return {i: self.files[one.url] for i, one in enumerate(request.references) if one.url in self.files}

    def _replace_paths(self, data: Any, folder: Path) -> list[Problem]:
        """Puts the URL of the object to be in the place of each path; what is wrong with the files."""
        problems = []
        references = data.get("references") if isinstance(data, dict) else None
        for index, reference in enumerate(references if isinstance(references, list) else ()):
            url = reference.get("url") if isinstance(reference, dict) else None
            if not isinstance(url, str) or not url or (_SCHEME.match(url) and not url.lower().startswith("file:")):
                continue
            try:
                file = self._file(url, folder, reference.get("role"))
            except _Unreadable as error:
                problems.append(Problem(at=f"references[{index}].url", problem=str(error)))
                reference["url"] = UNREAD
                continue
            # No object has this generation; the real one is known when it stands in the bucket.
            reference["url"] = f"gs://{self._settings.seedance_bucket}/{file.name}#1"
            if reference.get("asset_id") is None:
                reference["asset_id"] = f"sha256:{file.sha256}"
            self.files[reference["url"]] = file
        return problems

    def _file(self, url: str, folder: Path, role: object) -> LocalFile:
        if url.lower().startswith("file:"):
            raise _Unreadable("is a file: URL; give the plain path, absolute or relative to the request")
        if self._settings.seedance_bucket is None:
            raise InvalidSettings("SEEDANCE_BUCKET is not set: the local files of a request go into that bucket")
        path, kind = folder / url, catalogue.KINDS.get(str(role))
        if (path, kind) not in self._known:
            self._known[path, kind] = self._read_file(path, kind)
        return self._known[path, kind]

    def _read_file(self, path: Path, kind: Kind | None) -> LocalFile:
        try:
            if path.is_dir():
                raise _Unreadable(f"{str(path)!r} is a directory")
            size = path.stat().st_size
            if size == 0:
                raise _Unreadable(f"{str(path)!r} is empty")
            if kind is not None and size > MEDIA[kind].max_bytes:
                raise _Unreadable(f"{str(path)!r} has {size} bytes; {MEDIA[kind].max_bytes} are allowed")
            sha256 = _sha256(path)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise _Unreadable(f"the file {str(path)!r} cannot be read: {why}") from None
        suffix = path.suffix.lower() if _SUFFIX.fullmatch(path.suffix.lower()) else ""
        return LocalFile(path, size, sha256, f"{self._settings.seedance_prefix}/media/{sha256}{suffix}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Unreadable(Exception):
    pass


class Uploads:
    """Brings local files into the bucket, each content once.

    Args:
        bucket: From :func:`open_bucket`.
        files: By the URL that stands for each, from :class:`RequestReader`.
        progress: Shows what is under way.
    """

    def __init__(self, bucket: Bucket, files: Mapping[str, LocalFile], progress: Progress) -> None:
        self._bucket = bucket
        self._files = files
        self._progress = progress
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
        try:
            local = await asyncio.to_thread(Checksums.of_file, file.path)
            # An object is never changed: under this name, no other content must ever stand.
            if await asyncio.to_thread(_sha256, file.path) != file.sha256:
                raise BucketRefused(f"{file.path} was changed since it was read; try again")
            stored = await self._bucket.stat(file.name)
            if stored is None:
                content_type = mimetypes.guess_type(file.path.name)[0] or "application/octet-stream"
                shown = self._progress.add_task(f"uploading {file.path.name}, {file.size / 1e6:.1f} MB", total=None)
                stored = await self._bucket.upload(file.name, file.path, content_type)
                self._progress.remove_task(shown)
            # Somebody else can have been faster.
            stored = stored or await self._bucket.stat(file.name)
        except BucketRefused:
            raise
        except Exception as error:
            raise BucketRefused(f"{file.path} cannot be uploaded to {uri}: {redacted(str(error))}") from None
        if stored is None or (stored.size, stored.crc32c) != (local.size, local.crc32c):
            raise BucketRefused(f"{uri} does not hold what {file.path} does")
        return f"{uri}#{stored.generation}"


def spinner() -> Progress:
    """Shows what is under way, where somebody looks."""
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    return Progress(*columns, console=err, transient=True, disable=not err.is_terminal)


def folder_of(file: str) -> Path:
    """What the paths in a request file are relative to; those of standard input, to where the command runs."""
    return Path.cwd() if file == "-" else Path(file).absolute().parent


async def open_bucket(settings: Settings) -> GoogleBucket:
    """The bucket of the settings, after it has answered.

    Raises:
        BucketRefused: There are no credentials, or it does not answer.
    """
    from activities.bucket import GoogleBucket

    assert settings.seedance_bucket is not None
    try:
        bucket = GoogleBucket(settings.seedance_bucket)
        await bucket.check(seconds=_BUCKET_SECONDS)
    except Exception as error:
        raise BucketRefused(f"The bucket {settings.seedance_bucket} cannot be used: {redacted(str(error))}") from None
    return bucket
