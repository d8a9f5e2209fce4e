"""JSON objects that show by themselves whether they still are what was written.

Nothing that is written later can vouch for a job's last object. So each one carries the SHA-256 of its own content.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from seedance_temporal.storage.bucket import as_json

SEAL = "sha256"


def sealed(value: dict[str, Any]) -> bytes:
    """An object's content, with a last field that holds the SHA-256 of the content without it."""
    return as_json(value | {SEAL: hashlib.sha256(as_json(value)).hexdigest()})


def is_sealed(content: bytes) -> bool:
    """Whether an object carries a seal, right or wrong."""
    return f'"{SEAL}": '.encode() in content


class _Damaged(ValueError):
    """It is JSON, and not what was written."""


def opened(content: bytes) -> dict[str, Any]:
    """What was sealed. An object without a seal, as older workers wrote them, is taken as it is.

    Raises:
        ValueError: The content is not what was written; says how that shows.
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
