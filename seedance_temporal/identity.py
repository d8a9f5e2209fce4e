"""request → canonical JSON → request hash → job id, object names and callback token.

The rules are written down for other languages in ``docs/reference/request-hash.md``; changing them means a new ``v``.
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

from seedance_temporal.provider.task import quoted_id
from seedance_temporal.request import Reference, VideoRequest

HASH_VERSION = 1
_SAFETY_IDENTIFIER = re.compile(r"[0-9a-f]{16}-[0-9a-f]{32}")
_JOB_ID = re.compile(r"seedance-([0-9a-f]{64})")
# Exactly these code points: a language's own idea of white space would give other hashes elsewhere.
_WHITE_SPACE = re.compile("[\u0009-\u000d\u0020\u00a0\u3000]+")
# None of these changes the video, or what it costs.
_NOT_PART_OF_THE_IDENTITY = {"rights", "priority", "execution_expires_after"}


def canonical_json(request: VideoRequest) -> bytes:
    """The bytes that the request hash is taken of: RFC 8785, defaults filled in, what is absent left out."""
    fields: dict[str, Any] = request.model_dump(exclude=_NOT_PART_OF_THE_IDENTITY, exclude_none=True)
    fields["v"] = HASH_VERSION
    fields["references"] = [_canonical_reference(reference) for reference in request.references]
    if request.prompt is not None:
        fields["prompt"] = _WHITE_SPACE.sub(" ", unicodedata.normalize("NFC", request.prompt)).strip(" ")
    return rfc8785.dumps(fields)


def _canonical_reference(reference: Reference) -> dict[str, str]:
    if reference.asset_id is not None:
        return {"role": reference.role, "asset_id": reference.asset_id}
    return {"role": reference.role, "url": reference.url}


def request_hash(request: VideoRequest) -> str:
    """SHA-256 of the canonical JSON, as 64 lowercase hex digits."""
    return hashlib.sha256(canonical_json(request)).hexdigest()


def job_id_of(request: VideoRequest) -> str:
    """The job id, which is the workflow id: ``seedance-<request hash>``."""
    return f"seedance-{request_hash(request)}"


def hash_of_job(job_id: str) -> str:
    """The request hash in a job id.

    Raises:
        ValueError: It is not a job id.
    """
    match = _JOB_ID.fullmatch(job_id)
    if match is None:
        raise ValueError(f"not a job id: {job_id!r} (expected seedance- and 64 hex digits)")
    return match[1]


@dataclass(frozen=True)
class ObjectNames:
    """Where everything about one job stands in the bucket."""

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
        """A ledger object; kind is ``claim``, ``outcome``, ``taken``, ``late-<task id>``, ``end`` or ``again``."""
        return f"{self.ledger}{attempt:04d}.{kind}.json"

    def late(self, attempt: int, task_id: str) -> str:
        return self.attempt(attempt, f"late-{quoted_id(task_id)}")

    def end_of_task(self, attempt: int, task_id: str) -> str:
        """How a task ended that came to light after its attempt was given up."""
        return self.attempt(attempt, f"end-{quoted_id(task_id)}")

    def of_task(self, task_id: str, file: str) -> str:
        """An object beside the video, such as ``output.mp4`` or ``task.json``."""
        return f"{self.root}{quoted_id(task_id)}/{file}"

    def verified(self, task_id: str, crc32c: str) -> str:
        """Name the object that says that a content was verified before its upload.

        Args:
            task_id: The provider's task.
            crc32c: The content's checksum, base64.

        Raises:
            ValueError: The checksum is not base64.
        """
        return self.of_task(task_id, f"verified-{b64decode(crc32c, validate=True).hex()}.json")


def user_hash(user_id: str) -> str:
    """A user where no name may stand: 16 hex digits of the SHA-256, the same in the provider's tasks and in Temporal.

    Whoever can guess a user id can tell whether it is this one.
    """
    return hashlib.sha256(user_id.encode()).hexdigest()[:16]


def key_fingerprint(api_key: str) -> str:
    """The name of an API key where the key itself may not stand: 8 hex digits of its SHA-256."""
    return hashlib.sha256(api_key.encode()).hexdigest()[:8]


def safety_identifier(user_id: str, nonce: str) -> str:
    """What the provider echoes in GET and LIST, and what tells our tasks from all others.

    The first half is the same for all tasks of a user, as the provider means it to be; the second is the claim's
    nonce.

    Args:
        user_id: The end user.
        nonce: 32 hex digits, drawn for the claim.
    """
    return f"{user_hash(user_id)}-{nonce}"


def is_safety_identifier(text: str) -> bool:
    """Whether a text looks like an identifier of ours: one that LIST shows proves that it shows them."""
    return _SAFETY_IDENTIFIER.fullmatch(text) is not None


def callback_token(secret: str, job_id: str, attempt: int) -> str:
    """The part of a callback URL that nobody can guess: lowercase hex HMAC-SHA256 of ``job_id:attempt``."""
    return hmac.new(secret.encode(), f"{job_id}:{attempt}".encode(), hashlib.sha256).hexdigest()


def callback_url(base_url: str, secret: str, job_id: str, attempt: int) -> str:
    """The URL that the provider is asked to call for one attempt of one job."""
    token = callback_token(secret, job_id, attempt)
    return f"{base_url.rstrip('/')}/callbacks/{job_id}/{attempt}/{token}"
