"""Read the provider's answers: bounded in size, as plain JSON, and cleared of secrets.

All code behind this module may store and log an answer: it holds no odd numbers, half characters or endless texts.
"""

from __future__ import annotations

import asyncio
import json
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import httpx

from seedance_temporal.identity import is_safety_identifier
from seedance_temporal.paced import is_padded
from seedance_temporal.provider.task import LONGEST_TASK_ID, MOST, Task, TaskContent, TaskError, Usage, is_task_id
from seedance_temporal.urls import redacted

MOST_BYTES = 512 * 1024
MOST_BYTES_OF_LIST = 4 * 1024 * 1024
# Parsing a longer answer takes a noticeable time.
_SHORT = 100 * 1024
# A task has some 25 fields, of two values at most.
_MOST_FIELDS = 500
_MOST_VALUES_OF_A_FIELD = 200
_DEEPEST = 20
# A page of 500 tasks has some thousand objects and lists, and a few ten thousand texts. Each takes many times its
# bytes, and the parser lets no other thread run.
_MOST_OBJECTS = 20_000
_MOST_QUOTES = 400_000
_LONGEST_TEXT = 16 * 1024
_NEEDED = (*TaskContent.model_fields, *Usage.model_fields, *TaskError.model_fields)
_T = TypeVar("_T")
_PLAIN = frozenset({"", "identity"})


@dataclass(frozen=True)
class Answer:
    """An answer that was read.

    Attributes:
        content: None where it is longer than allowed, or its encoding is not known.
        json: The content as JSON, or None where it is not JSON. Numbers that not every language can hold are null.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes | None
    json: Any = None

    @property
    def succeeded(self) -> bool:
        return httpx.codes.is_success(self.status)


async def read_answer(response: httpx.Response, most_bytes: int = MOST_BYTES) -> Answer:
    """Read an answer with its body, up to a length.

    Raises:
        httpx.HTTPError: The connection broke.
    """
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    content = bytearray()
    # The library decodes without a bound.
    async for piece in response.aiter_bytes() if encoding in _PLAIN else response.aiter_raw():
        content += piece
        if len(content) > most_bytes or is_padded(response, len(content)):
            return Answer(response.status_code, response.headers, None)
    decoded = _decoded(bytes(content), encoding, most_bytes)
    if decoded is None:
        return Answer(response.status_code, response.headers, None)
    parsed = await aside(decoded, lambda: _parsed(decoded))
    return Answer(response.status_code, response.headers, decoded, parsed)


async def aside(content: bytes, call: Callable[[], _T]) -> _T:
    """Call a function over an answer's content; over a long one in a thread, where it does not hold up others."""
    return call() if len(content) <= _SHORT else await asyncio.to_thread(call)


def _parsed(content: bytes) -> Any:
    if content.count(b"{") + content.count(b"[") > _MOST_OBJECTS or content.count(b'"') > _MOST_QUOTES:
        return None
    try:
        return json.loads(content, parse_int=_int, parse_float=_float, parse_constant=lambda name: None)
    except (ValueError, RecursionError):
        return None


def _decoded(content: bytes, encoding: str, most_bytes: int) -> bytes | None:
    if encoding in _PLAIN:
        return content
    if encoding not in {"gzip", "x-gzip"}:
        return None
    unzip = zlib.decompressobj(wbits=31)
    try:
        decoded = unzip.decompress(content, most_bytes)
    except zlib.error:
        return None
    return decoded if unzip.eof else None


def _int(digits: str) -> int | None:
    # Python reads no more than 4,300 digits.
    number = int(digits) if len(digits) <= len(str(-MOST)) else MOST + 1
    return number if abs(number) <= MOST else None


def _float(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


def is_usable_id(task_id: str, secrets: tuple[str, ...]) -> bool:
    """Return whether an id can be that of a task, and holds no secret: ids are logged and stored."""
    return is_task_id(task_id) and redacted(task_id, secrets) == task_id


def cleared_task(payload: dict[str, Any], secrets: tuple[str, ...]) -> dict[str, Any]:
    """Return a task's payload without secrets. The URLs in its ``content`` stay whole, for the download.

    The task id stays as it is where it can be used, and is cleared and cut otherwise.
    """
    names = dict.fromkeys([*(name for name in Task.model_fields if name in payload), *islice(payload, _MOST_FIELDS)])
    cleared: dict[str, Any] = {
        redacted(name, secrets, _LONGEST_TEXT): _Clearing(secrets, urls_stay=name == "content").of(payload[name])
        for name in names
    }
    task_id = payload.get("id")
    # The identifier proves whose task it is, and must stay whole, also where it contains a secret by chance.
    identifier = payload.get("safety_identifier")
    if isinstance(identifier, str) and is_safety_identifier(identifier):
        cleared["safety_identifier"] = identifier
    if isinstance(task_id, str):
        cleared["id"] = task_id if is_usable_id(task_id, secrets) else redacted(task_id, secrets, LONGEST_TASK_ID)
    return cleared


@dataclass
class _Clearing:
    """Clear one field of secrets. Values beyond the bounds are left out."""

    secrets: tuple[str, ...]
    urls_stay: bool
    left: int = _MOST_VALUES_OF_A_FIELD

    def of(self, value: Any, depth: int = 0) -> Any:
        self.left -= 1
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict) and depth < _DEEPEST:
            # Known fields first: the others may use up the bound.
            names = [name for name in dict.fromkeys([*_NEEDED, *value]) if name in value]
            return {self._text(name): self.of(value[name], depth + 1) for name in names if self.left > 0}
        if isinstance(value, list) and depth < _DEEPEST:
            return [self.of(part, depth + 1) for part in value if self.left > 0]
        return None if isinstance(value, dict | list) else value

    def _text(self, text: str) -> str:
        is_url = text.startswith(("https://", "http://")) and text.isprintable() and len(text) <= _LONGEST_TEXT
        return text if self.urls_stay and is_url else redacted(text, self.secrets, _LONGEST_TEXT)
