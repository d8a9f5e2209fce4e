"""Local files of requests: read them with the request, and upload them to the bucket."""

from __future__ import annotations

import asyncio
import mimetypes
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from seedance_temporal.cli.output import err, plain
from seedance_temporal.cli.runtime import BucketRefused
from seedance_temporal.cli.safe_open import FileRefused, LocalFile, Place, read_file
from seedance_temporal.errors import InvalidRequest, InvalidSettings, Problem
from seedance_temporal.limits import refusal_by_price
from seedance_temporal.provider.models import KINDS, MEDIA, Kind
from seedance_temporal.reference_media import Medium, media_problems
from seedance_temporal.request import Reference, VideoRequest
from seedance_temporal.request_json import decode_json, read_request
from seedance_temporal.settings import Settings
from seedance_temporal.urls import redacted

if TYPE_CHECKING:
    from seedance_temporal.storage.bucket import Bucket

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")
# In the place of a URL that cannot be read: no other problem of it is reported.
UNREAD = "asset://unread"
_A = {"image": "a picture", "video": "a video", "audio": "a sound"}
# Copies on the disk at once, of up to 200 MB each. A probe needs memory and processors besides.
_PROBES = 2
_UPLOADS = 8


class Uploads:
    """Upload local files to the bucket, each content once.

    Args:
        bucket: The bucket; None where there are no files.
        files: The files by their provisional URL, from :class:`RequestReader`.
        progress: Shows the running uploads.
    """

    def __init__(self, bucket: Bucket | None, files: Mapping[str, LocalFile], progress: Progress) -> None:
        self._bucket = bucket
        self._files = files
        self._progress = progress
        self._copies = asyncio.Semaphore(_UPLOADS)
        self._uploads: dict[str, asyncio.Task[str]] = {}

    async def uploaded(self, request: VideoRequest) -> VideoRequest:
        """Upload the files of a request, and return the request with their URLs.

        Raises:
            BucketRefused: A file cannot be uploaded.
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
        """Return the object's URL. An object that exists is not uploaded again."""
        from seedance_temporal.storage.bucket import Checksums

        assert self._bucket is not None
        uri = f"gs://{self._bucket.name}/{file.name}"
        path = file.place.shown
        content_type = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        try:
            # An object is never changed: its name must always mean this content.
            async with self._copies, file.copied() as copy:
                local = await asyncio.to_thread(Checksums.of_file, copy)
                stored = await self._bucket.stat(file.name)
                if stored is None:
                    shown = self._progress.add_task(f"uploading {plain(path)}, {file.size / 1e6:.1f} MB", total=None)
                    stored = await self._bucket.upload(file.name, copy, content_type)
                    self._progress.remove_task(shown)
            # Another upload may have been faster.
            stored = stored or await self._bucket.stat(file.name)
        except FileRefused as error:
            raise BucketRefused(str(error)) from None
        except Exception as error:
            raise BucketRefused(f"{path} cannot be uploaded to {uri}: {redacted(str(error))}") from None
        if stored is None or (stored.size, stored.crc32c) != (local.size, local.crc32c):
            raise BucketRefused(f"{uri} exists with another content than {path}")
        return f"{uri}#{stored.generation}"


def spinner() -> Progress:
    """Return a display of running tasks; it is shown on a terminal only."""
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    return Progress(*columns, console=err, transient=True, disable=not err.is_terminal)


class RequestReader:
    """Read requests, and report all problems of one at once, as far as this machine can find them.

    Args:
        settings: Those of the command.
        allow_any_path: Whether local files may be outside of the folder of the request.

    Attributes:
        files: The local files of all requests that were read, by the provisional URL of each until it is uploaded.
    """

    def __init__(self, settings: Settings, *, allow_any_path: bool = False) -> None:
        self._settings = settings
        self._allow_any_path = allow_any_path
        self._known: dict[tuple[Place, Kind], LocalFile] = {}
        self._copies = asyncio.Semaphore(_PROBES)
        self._probes: dict[tuple[str, Kind], asyncio.Task[Medium]] = {}
        self._reading = asyncio.Lock()
        self.files: dict[str, LocalFile] = {}

    async def read(self, text: bytes, folder: Path | None) -> VideoRequest:
        """Read a request that may be sent, with its local files.

        Args:
            text: The document, as JSON.
            folder: The absolute path that paths are relative to, and must stay in; None: it comes from standard input,
                and names no local file, unless any path is allowed.

        Raises:
            InvalidRequest: Lists all problems.
            InvalidSettings: There is a local file, and no bucket for it.
        """
        async with self._reading:  # a file that several requests share is read once
            request, problems = await asyncio.to_thread(self.inspect, text, folder)
        media, unfit = await self.media_of(request)
        problems += unfit
        model = self._settings.rules.model_of(request.model)
        problems += media_problems(media.values(), model, request) if model is not None else []
        if problems:
            raise InvalidRequest(problems)
        return request

    def inspect(self, text: bytes, folder: Path | None) -> tuple[VideoRequest, list[Problem]]:
        """Read a request and its problems, for a caller that checks more.

        Its local files are read, and not decoded: :meth:`media_of` does that.

        A local file gets the hash of its content as asset_id, unless it has one: the same content is the same job,
        under any path, and however often it is uploaded.
        """
        data = decode_json(text)
        of_files = self._replace_paths(data, folder)
        request, problems = read_request(data, self._settings.rules)
        problems += of_files
        # The price of a request with other problems is not reported.
        if not problems and (refusal := refusal_by_price(request, self._settings)):
            problems.append(Problem(at="", problem=refusal.message))
        return request, problems

    async def media_of(self, request: VideoRequest) -> tuple[dict[int, Medium], list[Problem]]:
        """Probe the local files of a request as a worker does before it pays, each content once.

        Returns:
            Their media, by the index of the reference, and the problems of those that are not of its kind.
        """
        from seedance_temporal.media.probe import BadMedia

        async def probe(index: int, file: LocalFile, kind: Kind) -> Medium | Problem:
            key = file.sha256, kind
            if key not in self._probes:
                self._probes[key] = asyncio.create_task(self._probe(file, kind))
            try:
                return (await self._probes[key]).model_copy(update={"reference": index})
            except FileRefused as error:
                problem = str(error)
            except BadMedia as error:
                problem = f"{file.place.shown} {error}; give {_A[kind]} as {', '.join(MEDIA[kind].formats)}"
            return Problem(at=f"references[{index}].url", problem=problem)

        found = await asyncio.gather(
            *(
                probe(index, self.files[each.url], KINDS[each.role])
                for index, each in enumerate(request.references)
                if each.url in self.files and each.role in KINDS
            )
        )
        media = {each.reference: each for each in found if isinstance(each, Medium)}
        return media, [each for each in found if isinstance(each, Problem)]

    async def _probe(self, file: LocalFile, kind: Kind) -> Medium:
        from seedance_temporal.media.references import probe_reference

        async with self._copies, file.copied() as copy:
            return await probe_reference(0, kind, copy)

    def _replace_paths(self, data: Any, folder: Path | None) -> list[Problem]:
        """Replace each path by the provisional URL of its object. Return the problems of the files."""
        problems = []
        references = data.get("references") if isinstance(data, dict) else None
        for index, reference in enumerate(references if isinstance(references, list) else ()):
            url = reference.get("url") if isinstance(reference, dict) else None
            if not isinstance(url, str) or not url or (_SCHEME.match(url) and not url.lower().startswith("file:")):
                continue
            try:
                file = self._file(url, folder, KINDS.get(str(reference.get("role"))))
            except FileRefused as error:
                problems.append(Problem(at=f"references[{index}].url", problem=str(error)))
                file = None
            if file is None:
                reference["url"] = UNREAD
                continue
            # No object has this generation; the real one is known after the upload.
            reference["url"] = f"gs://{self._settings.seedance_bucket}/{file.name}#1"
            if reference.get("asset_id") is None:
                reference["asset_id"] = f"sha256:{file.sha256}"
            self.files[reference["url"]] = file
        return problems

    def _file(self, url: str, folder: Path | None, kind: Kind | None) -> LocalFile | None:
        """Return the file that a reference names, or None where its role is unknown."""
        if url.lower().startswith("file:"):
            raise FileRefused("is a file: URL; give the plain path, absolute or relative to the request")
        if self._settings.seedance_bucket is None:
            raise InvalidSettings("SEEDANCE_BUCKET is not set: the local files of a request go into that bucket")
        if folder is None and not self._allow_any_path:
            raise FileRefused(
                "is a local file, and the request comes from standard input, perhaps from somebody else. "
                "Put the request into a file beside it, or give --allow-any-path"
            )
        place = Place.find(url, folder or Path.cwd(), anywhere=self._allow_any_path)
        if kind is None:
            return None
        if (place, kind) not in self._known:
            size, sha256 = read_file(place, kind)
            suffix = Path(url).suffix.lower()
            name = f"{self._settings.seedance_prefix}/media/{sha256}{suffix if _SUFFIX.fullmatch(suffix) else ''}"
            self._known[place, kind] = LocalFile(place, size, sha256, name)
        return self._known[place, kind]


def folder_of(file: str) -> Path | None:
    """Return the folder that the paths in a request are relative to; None for standard input, which is in none."""
    return None if file == "-" else Path(file).absolute().parent
