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


def opened(content: bytes) -> dict[str, Any]:
    """Decode a value and check it; an object of an older worker may carry no checksum.

    Raises:
        ValueError: The content was changed. The message is the end of a sentence: "the object …".
    """
    try:
        value = json.loads(content)
        seal = value.pop(SEAL, None) if isinstance(value, dict) else None
        rewritten = as_json(value) if seal is None else sealed(value)
    except (ValueError, RecursionError) as error:  # The latter by a thousand brackets, in reading or in writing.
        raise ValueError(f"is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError("is no JSON object")
    if seal is None and rewritten != content:
        raise ValueError("is not written as this project writes JSON")
    if rewritten != content:
        raise ValueError("does not match the SHA-256 that it carries")
    return value
