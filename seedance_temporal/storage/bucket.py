"""The bucket: the only module that imports google-cloud-storage.

Objects are created once and never changed, so that the roles "create" and "view" are enough, and a retention policy
does no harm.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial, wraps
from pathlib import Path
from typing import Any, BinaryIO, Concatenate, ParamSpec, Protocol, TypeVar

import google_crc32c
from google.api_core.exceptions import GoogleAPICallError, NotFound, PreconditionFailed, RequestRangeNotSatisfiable
from google.auth.credentials import Signing
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY
from requests import RequestException
from requests.adapters import HTTPAdapter

from seedance_temporal.errors import InvalidSettings
from seedance_temporal.provider.checks import gs_object
from seedance_temporal.storage.signing import CannotSign, signing
from seedance_temporal.urls import redacted

_P = ParamSpec("_P")
_T = TypeVar("_T")
# Above this size the library uploads in parts; each part is held in memory.
# Of objects that are read whole: those of the ledger, the record, and the like.
_MOST_READ_BYTES = 16 * 1024 * 1024
_CHUNK_BYTES = 8 * 1024 * 1024
# Uploads are slow and must not keep the ledger waiting for a thread.
_THREADS = 32
_REQUEST_SECONDS = 30.0
_LONGEST_REASON = 500
# The key of an object's custom metadata.
_KIND = "kind"


class BucketError(Exception):
    """A call to the bucket failed. The message is bounded, and holds no signature of a URL."""


@dataclass(frozen=True)
class StoredObject:
    """The metadata of an object. Checksums are base64, as Google Cloud Storage gives them.

    Attributes:
        kind: What its writer said of its content; None where nothing was said, or its metadata changed since.
    """

    name: str
    generation: int
    size: int
    crc32c: str
    md5: str | None
    created_at: datetime
    kind: str | None = None


@dataclass(frozen=True)
class Checksums:
    """The size in bytes and the checksums of a content, base64 as in :class:`StoredObject`."""

    size: int
    crc32c: str
    md5: str

    @classmethod
    def of_file(cls, path: Path) -> Checksums:
        """Read a file from end to end, in constant memory."""
        with path.open("rb") as file:
            return cls.of(file)

    @classmethod
    def of(cls, file: BinaryIO) -> Checksums:
        """Read an open file to its end, in constant memory."""
        size, crc32c, md5 = 0, 0, hashlib.md5(usedforsecurity=False)
        while piece := file.read(_CHUNK_BYTES):
            size += len(piece)
            crc32c = google_crc32c.extend(crc32c, piece)
            md5.update(piece)
        return cls(size, base64.b64encode(crc32c.to_bytes(4, "big")).decode(), base64.b64encode(md5.digest()).decode())


class Bucket(Protocol):
    """A bucket, as the activities use it. A method raises where it has no result; each call may be repeated."""

    @property
    def name(self) -> str: ...

    async def list(self, prefix: str) -> list[StoredObject]:
        """Return all objects whose name starts with a prefix, ordered by name; strongly consistent."""

    async def read(self, name: str) -> bytes | None:
        """Return the content of a small object, or None where there is no object."""

    async def stat(self, name: str) -> StoredObject | None:
        """Return the metadata of an object, or None where there is no object."""

    async def checksums(self, name: str) -> Checksums | None:
        """Read an object to its end in constant memory. Return its checksums, or None where there is no object."""

    async def create(self, name: str, content: bytes, *, kind: str | None = None, seconds: float = 60) -> bool:
        """Create a JSON object; return False where the object exists.

        It can be our own: the library repeats a write whose answer was lost.

        Args:
            kind: What a listing is to say of the content.
            seconds: Total time, the library's own repetitions included.
        """

    async def upload(self, name: str, path: Path, content_type: str) -> StoredObject | None:
        """Upload a file where there is no object yet. Return its metadata, or None where the object exists."""

    async def signed_url(self, bucket: str, name: str, generation: int, lifetime: timedelta) -> str:
        """Sign a URL that lets anybody read one generation of an object, in any bucket that the credentials reach.

        Raises:
            CannotSign: The credentials cannot sign.
        """

    async def signing_problem(self) -> str | None:
        """Return why no URL can be signed and how to fix that, or None where one can."""


def _in_thread(
    call: Callable[Concatenate[GoogleBucket, _P], _T],
) -> Callable[Concatenate[GoogleBucket, _P], Coroutine[Any, Any, _T]]:
    """Run a method in one of the bucket's threads."""

    @wraps(call)
    async def run(bucket: GoogleBucket, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            threads = bucket._threads
            return await asyncio.get_running_loop().run_in_executor(threads, partial(call, bucket, *args, **kwargs))
        except (GoogleAPICallError, RequestException) as error:
            # These errors quote whole answers and addresses, and would take them into a run's history.
            raise BucketError(f"{type(error).__name__}: {redacted(str(error), limit=_LONGEST_REASON)}") from None

    return run


class GoogleBucket:
    """A Google Cloud Storage bucket, or one of a server that speaks its API (``STORAGE_EMULATOR_HOST``).

    Args:
        name: Without ``gs://``.
        client: With the credentials of the environment by default.
        signer: Signs URLs; by default the client's credentials do, where they can.

    Raises:
        InvalidSettings: The environment has no credentials.
    """

    def __init__(self, name: str, client: storage.Client | None = None, signer: Signing | None = None) -> None:
        try:
            # Some credentials name no project, and nothing in here needs one.
            self._client = client or storage.Client(project=None)
        except DefaultCredentialsError as error:
            raise InvalidSettings(str(error)) from None
        except Exception as error:  # a file of another kind, or a folder: the library's own errors of many types
            raise InvalidSettings(
                f"Google's credentials cannot be read ({type(error).__name__}): check GOOGLE_APPLICATION_CREDENTIALS"
            ) from None
        # The library keeps ten connections, and would close every other one after each call.
        for scheme in ("https://", "http://"):
            self._client._http.mount(scheme, HTTPAdapter(pool_maxsize=_THREADS))
        self._bucket = self._client.bucket(name)
        self._signer = signer
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="bucket")

    @property
    def name(self) -> str:
        return str(self._bucket.name)

    @_in_thread
    def list(self, prefix: str) -> list[StoredObject]:
        blobs = self._client.list_blobs(self._bucket, prefix=prefix, timeout=_REQUEST_SECONDS)
        return sorted((_stored(blob) for blob in blobs), key=lambda stored: stored.name)

    @_in_thread
    def read(self, name: str) -> bytes | None:
        try:
            # The content of a longer one is cut, and so none of ours.
            return bytes(self._bucket.blob(name).download_as_bytes(end=_MOST_READ_BYTES, timeout=_REQUEST_SECONDS))
        except RequestRangeNotSatisfiable:
            return b""  # an empty object has no first byte
        except NotFound as error:
            self._require_absence(name, error)
            return None

    @_in_thread
    def stat(self, name: str) -> StoredObject | None:
        blob = self._blob(name)
        return None if blob is None else _stored(blob)

    @_in_thread
    def checksums(self, name: str) -> Checksums | None:
        blob = self._blob(name)
        if blob is None:
            return None
        with blob.open("rb", chunk_size=_CHUNK_BYTES, timeout=_REQUEST_SECONDS) as file:
            return Checksums.of(file)

    def _blob(self, name: str) -> storage.Blob | None:
        blob = self._bucket.blob(name)
        try:
            blob.reload(timeout=_REQUEST_SECONDS)
        except NotFound as error:
            self._require_absence(name, error)
            return None
        return blob

    def _require_absence(self, name: str, error: NotFound) -> None:
        """Raise a 404 again where a listing does not show that the object is missing.

        A bucket that does not exist, and a gateway that has lost its way, answer a question for an object with 404 too.
        """
        found = self._client.list_blobs(self._bucket, prefix=name, max_results=1, timeout=_REQUEST_SECONDS)
        if any(blob.name == name for blob in found):
            raise error

    @_in_thread
    def create(self, name: str, content: bytes, *, kind: str | None = None, seconds: float = 60) -> bool:
        blob = self._bucket.blob(name)
        if kind is not None:
            blob.metadata = {_KIND: kind}
        try:
            blob.upload_from_string(
                content,
                content_type="application/json",
                if_generation_match=0,
                checksum="crc32c",
                timeout=min(seconds, _REQUEST_SECONDS),
                retry=DEFAULT_RETRY.with_timeout(seconds),
            )
        except PreconditionFailed:
            return False
        return True

    @_in_thread
    def upload(self, name: str, path: Path, content_type: str) -> StoredObject | None:
        blob = self._bucket.blob(name, chunk_size=_CHUNK_BYTES)
        try:
            blob.upload_from_filename(
                str(path),
                content_type=content_type,
                if_generation_match=0,
                checksum="crc32c",
                timeout=_REQUEST_SECONDS,
                retry=DEFAULT_RETRY,
            )
        except PreconditionFailed:
            return None
        return _stored(blob)

    @_in_thread
    def signed_url(self, bucket: str, name: str, generation: int, lifetime: timedelta) -> str:
        signer = self._signer = self._signer or signing(self._client._credentials)
        blob = self._client.bucket(bucket).blob(name)
        try:
            return str(
                blob.generate_signed_url(version="v4", expiration=lifetime, generation=generation, credentials=signer)
            )
        except TransportError as error:
            if "PERMISSION_DENIED" not in str(error):
                raise
            raise CannotSign(
                f"{signer.signer_email} may not sign: its user needs the role Service Account Token Creator on it "
                "(an attached account on itself), and the project the IAM Service Account Credentials API"
            ) from None

    async def signing_problem(self) -> str | None:
        try:
            await self.signed_url(self.name, "nothing", 1, timedelta(minutes=1))
        except (CannotSign, GoogleAuthError) as error:
            return str(error)
        return None

    @_in_thread
    def check(self, *, seconds: float = 60) -> None:
        """Raise where no object can be listed in a total time, the library's repetitions included. Write nothing."""
        retry, timeout = DEFAULT_RETRY.with_timeout(seconds), min(seconds, _REQUEST_SECONDS)
        next(iter(self._client.list_blobs(self._bucket, max_results=1, timeout=timeout, retry=retry)), None)


async def readable_url(bucket: Bucket | None, url: str, lifetime: timedelta) -> str:
    """Return a URL by which anybody can read a reference: sign that of a private object.

    Raises:
        CannotSign: The credentials cannot sign.
    """
    private = gs_object(url)
    if private is None:
        return url
    assert bucket is not None, "there is a private reference and no bucket"
    return await bucket.signed_url(private.bucket, private.name, private.generation, lifetime)


def _stored(blob: Any) -> StoredObject:
    # Metadata can be changed without a new object, and is then of a later metageneration: only the writer's counts.
    metadata = blob.metadata if blob.metageneration == 1 else None
    return StoredObject(
        name=blob.name,
        generation=int(blob.generation),
        size=int(blob.size),
        crc32c=blob.crc32c,
        md5=blob.md5_hash,
        created_at=blob.time_created,
        kind=(metadata or {}).get(_KIND),
    )


def as_json(value: Any) -> bytes:
    """Return an object's content: JSON that is readable in the bucket's browser."""
    return json.dumps(value, indent=2, ensure_ascii=False).encode()
