"""Requests as people write them for the command line: a reference may be a file on this machine.

Such a file goes into the project's bucket, once, under the SHA-256 of its content, and the job refers to it there.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedance_temporal import catalogue
from seedance_temporal.errors import InvalidRequest, InvalidSettings, Problem
from seedance_temporal.limits import refusal_by_price
from seedance_temporal.models import MEDIA, Kind
from seedance_temporal.parsing import decode_json, read_request
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")
# Stands for a reference that cannot be looked at, so that nothing else is said about its URL.
UNREAD = "asset://unread"


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
        data = decode_json(text)
        of_files = self._replace_paths(data, folder)
        endpoints = self._settings.seedance_endpoints
        request, problems = read_request(
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
            sha256 = sha256_of(path)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise _Unreadable(f"the file {str(path)!r} cannot be read: {why}") from None
        suffix = path.suffix.lower() if _SUFFIX.fullmatch(path.suffix.lower()) else ""
        return LocalFile(path, size, sha256, f"{self._settings.seedance_prefix}/media/{sha256}{suffix}")


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Unreadable(Exception):
    pass


def folder_of(file: str) -> Path:
    """What the paths in a request file are relative to; those of standard input, to where the command runs."""
    return Path.cwd() if file == "-" else Path(file).absolute().parent
