"""Brings files of this machine into the bucket, for requests that refer to them."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from seedance_temporal.cli.output import err, plain
from seedance_temporal.cli.runtime import BucketRefused
from seedance_temporal.cli.safe_open import FileRefused, LocalFile
from seedance_temporal.request import Reference, VideoRequest
from seedance_temporal.urls import redacted

if TYPE_CHECKING:
    from seedance_temporal.storage.bucket import Bucket


import re
from pathlib import Path
from typing import Any

from seedance_temporal.cli.safe_open import Looks, Place, read_file
from seedance_temporal.errors import InvalidRequest, InvalidSettings, Problem
from seedance_temporal.limits import refusal_by_price
from seedance_temporal.provider.models import KINDS, Kind
from seedance_temporal.reference_media import Medium, media_problems
from seedance_temporal.request_json import decode_json, read_request
from seedance_temporal.settings import Settings

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
        from seedance_temporal.storage.bucket import Checksums

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


_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")
# Stands for a reference that cannot be looked at, so that nothing else is said about its URL.
UNREAD = "asset://unread"


class RequestReader:
    """Reads requests, and says everything that is wrong with one at once, as far as it shows on this machine.

    Args:
        settings: Those of the command.
        allow_any_path: Whether local files may be outside of the folder of the request.

    Attributes:
        files: The local files of all requests that were read, by the URL that stands for each until it is uploaded.
    """

    def __init__(self, settings: Settings, *, allow_any_path: bool = False) -> None:
        self._settings = settings
        self._allow_any_path = allow_any_path
        self._known: dict[tuple[Place, Kind], LocalFile] = {}
        self._looks = Looks(settings)
        self._reading = asyncio.Lock()
        self.files: dict[str, LocalFile] = {}

    async def read(self, text: bytes, folder: Path) -> VideoRequest:
        """Read a request that may be sent, and look into its local files.

        Args:
            text: The document, as JSON.
            folder: What paths are relative to, and stay in; an absolute path.

        Raises:
            InvalidRequest: Lists everything that is wrong.
            InvalidSettings: There is a local file, and no bucket for it.
        """
        async with self._reading:  # a file that several requests share is read once
            request, problems = await asyncio.to_thread(self.look, text, folder)
        media, unfit = await self.media_of(request)
        problems += unfit
        model = self._settings.rules.model_of(request.model)
        problems += media_problems(media.values(), model) if model is not None else []
        if problems:
            raise InvalidRequest(problems)
        return request

    def look(self, text: bytes, folder: Path) -> tuple[VideoRequest, list[Problem]]:
        """Read a request for a caller who has more to check, and say what is wrong with it.

        Its local files are read, but not looked into: that is :meth:`media_of`.

        A local file has its content's hash as asset_id, unless it was given one: the same content is the same job,
        wherever it stands and however often it is uploaded.
        """
        data = decode_json(text)
        of_files = self._replace_paths(data, folder)
        request, problems = read_request(data, self._settings.rules)
        problems += of_files
        estimated = self._settings.rules.estimate(request)
        # What is wrong otherwise has no price worth a word.
        if not problems and (refusal := refusal_by_price(estimated, self._settings)):
            problems.append(Problem(at="", problem=refusal.message))
        return request, problems

    async def media_of(self, request: VideoRequest) -> tuple[dict[int, Medium], list[Problem]]:
        """Look into the local files of a request as a worker does, each in a process of its own.

        Returns:
            What they are, by the index of the reference, and what is wrong with those that are not of its kind.
        """

        async def look_into(index: int, file: LocalFile, kind: Kind) -> Medium | Problem:
            try:
                return await self._looks.look_into(file, index, kind)
            except FileRefused as error:
                return Problem(at=f"references[{index}].url", problem=str(error))

        found = await asyncio.gather(
            *(
                look_into(index, self.files[each.url], KINDS[each.role])
                for index, each in enumerate(request.references)
                if each.url in self.files and each.role in KINDS
            )
        )
        media = {each.reference: each for each in found if isinstance(each, Medium)}
        return media, [each for each in found if isinstance(each, Problem)]

    def _replace_paths(self, data: Any, folder: Path) -> list[Problem]:
        """Puts the URL of the object to be in the place of each path; what is wrong with the files."""
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
            # No object has this generation; the real one is known when it stands in the bucket.
            reference["url"] = f"gs://{self._settings.seedance_bucket}/{file.name}#1"
            if reference.get("asset_id") is None:
                reference["asset_id"] = f"sha256:{file.sha256}"
            self.files[reference["url"]] = file
        return problems

    def _file(self, url: str, folder: Path, kind: Kind | None) -> LocalFile | None:
        """The file that a reference names; None where its role does not say what it should be."""
        if url.lower().startswith("file:"):
            raise FileRefused("is a file: URL; give the plain path, absolute or relative to the request")
        if self._settings.seedance_bucket is None:
            raise InvalidSettings("SEEDANCE_BUCKET is not set: the local files of a request go into that bucket")
        place = Place.find(url, folder, anywhere=self._allow_any_path)
        if kind is None:
            return None
        if (place, kind) not in self._known:
            size, sha256 = read_file(place, kind)
            suffix = Path(url).suffix.lower()
            name = f"{self._settings.seedance_prefix}/media/{sha256}{suffix if _SUFFIX.fullmatch(suffix) else ''}"
            self._known[place, kind] = LocalFile(place, size, sha256, name)
        return self._known[place, kind]


def folder_of(file: str) -> Path:
    """What the paths in a request file are relative to; those of standard input, to where the command runs."""
    return Path.cwd() if file == "-" else Path(file).absolute().parent
