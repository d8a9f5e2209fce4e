"""The identity of a request: canonical JSON, request hash, job id, object names and callback token.

``docs/reference/request-hash.md`` describes the rules for other languages; a change of them needs a new ``v``.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata
from base64 import b64decode
from dataclasses import dataclass
from typing import Any

import rfc8785

from seedance_temporal.errors import InvalidJobId
from seedance_temporal.provider.task import quoted_id
from seedance_temporal.request import VideoRequest

HASH_VERSION = 1
_SAFETY_IDENTIFIER = re.compile(r"[0-9a-f]{16}-[0-9a-f]{32}")
_PREFIX = "seedance-"
_JOB_ID = re.compile(rf"{_PREFIX}([0-9a-f]{{64}})")
_JOB_ID_PREFIX = re.compile(rf"{_PREFIX}[0-9a-f]{{6,64}}")
# Exactly these code points: languages differ in their white space, and so would the hashes.
_WHITE_SPACE = re.compile("[\u0009-\u000d\u0020\u00a0\u3000]+")
# None of these changes the video or its price.
_NOT_PART_OF_THE_IDENTITY = {"rights", "priority", "execution_expires_after", "labels"}


def canonical_json(request: VideoRequest) -> bytes:
    """Return the bytes that are hashed: JSON by RFC 8785, with defaults, without absent fields."""
    fields: dict[str, Any] = request.model_dump(exclude=_NOT_PART_OF_THE_IDENTITY, exclude_none=True)
    fields["v"] = HASH_VERSION
    fields["references"] = [
        reference.model_dump(exclude={"asset_id" if reference.asset_id is None else "url"})
        for reference in request.references
    ]
    if request.prompt is not None:
        fields["prompt"] = _WHITE_SPACE.sub(" ", unicodedata.normalize("NFC", request.prompt)).strip(" ")
    return rfc8785.dumps(fields)


def request_hash(request: VideoRequest) -> str:
    """Return the SHA-256 of the canonical JSON, as 64 lowercase hex digits."""
    return hashlib.sha256(canonical_json(request)).hexdigest()


def job_id_of(request: VideoRequest) -> str:
    """Return the job id, which is the workflow id: ``seedance-<request hash>``."""
    return f"{_PREFIX}{request_hash(request)}"


def hash_of_job(job_id: str) -> str:
    """Return the request hash in a job id; raise InvalidJobId for any other text."""
    match = _JOB_ID.fullmatch(job_id)
    if match is None:
        raise InvalidJobId(f"not a job id: {job_id!r} (expected seedance- and 64 hex digits)")
    return match[1]


def is_job_id(text: str) -> bool:
    return _JOB_ID.fullmatch(text) is not None


def job_id_from(text: str) -> str:
    """Return the job id of a text: a job id, or a request hash; raise InvalidJobId for any other."""
    job_id = text if text.startswith(_PREFIX) else f"{_PREFIX}{text}"
    if _JOB_ID.fullmatch(job_id) is None:
        raise InvalidJobId(f"not a job id: {text!r} (expected seedance- and 64 hex digits, or the digits alone)")
    return job_id


def id_prefix_from(text: str) -> str:
    """Return the prefix of a job id for a text: the beginning of a job id, or of a request hash.

    Raises InvalidJobId for any other, and for fewer than 6 hex digits.
    """
    prefix = text if text.startswith(_PREFIX) else f"{_PREFIX}{text}"
    if _JOB_ID_PREFIX.fullmatch(prefix) is None:
        raise InvalidJobId(
            f"not a job: {text!r} (expected a job id, a request hash, or at least 6 hex digits of its beginning)"
        )
    return prefix


@dataclass(frozen=True)
class ObjectNames:
    """The names of all objects of one job in the bucket."""

    prefix: str
    request_hash: str

    @property
    def root(self) -> str:
        """The common start of all names of this job, with the closing slash."""
        return f"{self.prefix}/{self.request_hash}/"

    @property
    def record(self) -> str:
        return f"{self.root}record.json"

    @property
    def ledger(self) -> str:
        """The common start of all objects of the attempt ledger, with the closing slash."""
        return f"{self.root}attempts/"

    def attempt(self, attempt: int, kind: str) -> str:
        """Name an object of an attempt: ``claim``, ``outcome``, ``taken``, ``late-<task id>``, ``end`` or ``again``."""
        return f"{self.ledger}{attempt:04d}.{kind}.json"

    def late(self, attempt: int, task_id: str) -> str:
        return self.attempt(attempt, f"late-{quoted_id(task_id)}")

    def end_of_task(self, attempt: int, task_id: str) -> str:
        """Name the end of a task that was found after its attempt was given up."""
        return self.attempt(attempt, f"end-{quoted_id(task_id)}")

    def of_task(self, task_id: str, file: str) -> str:
        """Name an object beside the video, such as ``output.mp4`` or ``task.json``."""
        return f"{self.root}{quoted_id(task_id)}/{file}"

    def verified(self, task_id: str, crc32c: str) -> str:
        """Name the object that proves that a content was verified before its upload.

        Raises:
            ValueError: The content's checksum is not base64.
        """
        return self.of_task(task_id, f"verified-{b64decode(crc32c, validate=True).hex()}.json")


def limits_folder(prefix: str, day: str) -> str:
    """Return the common start of the names of a day's log of spending, such as of ``2026-11-22``."""
    return f"{prefix}/limits/{day}/"


def user_hash(user_id: str) -> str:
    """Return a user's pseudonym, for the provider's tasks and Temporal: 16 hex digits of the SHA-256.

    It is no secret: a guess of the user id can be verified by it.
    """
    return hashlib.sha256(user_id.encode()).hexdigest()[:16]


def key_fingerprint(api_key: str) -> str:
    """Return the public name of an API key: 8 hex digits of its SHA-256."""
    return hashlib.sha256(api_key.encode()).hexdigest()[:8]


def safety_identifier(user_id: str, nonce: str) -> str:
    """Return the identifier that the provider repeats in GET and LIST, and that proves that a task is ours.

    The first half is the same for all tasks of a user, as the provider asks for; the second is the claim's nonce, of 32
    hex digits.
    """
    return f"{user_hash(user_id)}-{nonce}"


def is_safety_identifier(text: str) -> bool:
    """Return whether a text has the form of our identifiers. One in a listing proves that LIST shows identifiers."""
    return _SAFETY_IDENTIFIER.fullmatch(text) is not None


def is_of_another_user(text: str, user_id: str) -> bool:
    """Return whether a text is an identifier of ours that was made for another user."""
    return is_safety_identifier(text) and not text.startswith(user_hash(user_id))


def callback_token(secret: str, job_id: str, attempt: int) -> str:
    """Return the secret part of a callback URL: lowercase hex HMAC-SHA256 of ``job_id:attempt``."""
    return hmac.new(secret.encode(), f"{job_id}:{attempt}".encode(), hashlib.sha256).hexdigest()


def callback_url(base_url: str, secret: str, job_id: str, attempt: int) -> str:
    """Return the callback URL for one attempt of a job."""
    token = callback_token(secret, job_id, attempt)
    return f"{base_url.rstrip('/')}/callbacks/{job_id}/{attempt}/{token}"
