"""JSON objects that carry the SHA-256 of their own content.

A reader can so detect a change in any object, also in a job's last one, which no later object could vouch for.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from seedance_temporal.storage.bucket import as_json

SEAL = "sha256"


def sealed(value: dict[str, Any]) -> bytes:
    """Encode a value, with a last field that holds the SHA-256 of the value without it."""
    return as_json(value | {SEAL: hashlib.sha256(as_json(value)).hexdigest()})


def is_sealed(content: bytes) -> bool:
    """Return whether an object carries a checksum, right or wrong."""
    return f'"{SEAL}": '.encode() in content


class _Damaged(ValueError):
    """The content is JSON, and was changed."""


def opened(content: bytes) -> dict[str, Any]:
    """Decode a value and check it; an object of an older worker may carry no checksum.

    Raises:
        ValueError: The content was changed. The message is the end of a sentence: "the object …".
    """
    try:
        value = json.loads(content)
        if not isinstance(value, dict):
            raise _Damaged("is no JSON object")
        seal = value.pop(SEAL, None)
        if seal is None and as_json(value) != content:
            raise _Damaged("is not written as this project writes JSON")
        if seal is not None and sealed(value) != content:
            raise _Damaged("does not match the SHA-256 that it carries")
    except _Damaged:
        raise
    except (ValueError, RecursionError) as error:  # The latter by a thousand brackets, in reading or in writing.
        raise ValueError(f"is not JSON ({error})") from None
    return value
