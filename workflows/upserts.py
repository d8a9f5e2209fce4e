"""Collect search attributes and memo, and write them once in a turn of the workflow.

A write is an event in the history, and an action on Temporal Cloud, however many values it has.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping
from typing import Any

from temporalio import workflow

# The limits of a keyword: in characters on SQL, in bytes of JSON on every server.
_LONGEST_KEYWORD = 255
_MOST_KEYWORD_BYTES = 2_000

Value = str | int | float | None


class Upserts:
    """The values that are to be written before the workflow waits next.

    Attributes:
        known: The names of the search attributes that the namespace has. Writing another would block the run for good.
    """

    def __init__(self) -> None:
        self.known: Collection[str] = ()
        self._attributes: dict[Any, Value] = {}
        self._memo: dict[str, Value] = {}
        self._written: dict[Any, Value] = {}

    def attributes(self, values: Mapping[Any, Value]) -> None:
        """Set search attributes; unset those that are None."""
        self._attributes |= values
        self._write_soon()

    def memo(self, values: Mapping[str, Value]) -> None:
        """Set values of the memo."""
        self._memo |= values
        self._write_soon()

    def write(self) -> None:
        """Write what has changed."""
        attributes = {key: value for key, value in self._changed(self._attributes).items() if key.name in self.known}
        memo = self._changed(self._memo)
        self._attributes, self._memo = {}, {}
        self._written |= attributes | memo
        if attributes:
            workflow.upsert_search_attributes(
                [
                    key.value_set(_fitting(value)) if value is not None else key.value_unset()
                    for key, value in attributes.items()
                ]
            )
        if memo:
            workflow.upsert_memo(memo)

    def _changed(self, values: Mapping[Any, Value]) -> dict[Any, Value]:
        return {key: value for key, value in values.items() if key not in self._written or self._written[key] != value}

    def _write_soon(self) -> None:
        # When the present asyncio task waits; what another one sets until then is written as well.
        asyncio.get_running_loop().call_soon(self.write)


def _fitting(value: str | int | float) -> str | int | float:
    """Cut a value to the limits of every visibility store: a longer one makes the server end the run.

    PostgreSQL has no JSON with a NUL: the run would not be listed any more.
    """
    if isinstance(value, str):
        value = value[:_LONGEST_KEYWORD].replace("\0", "\ufffd")
        while len(json.dumps(value)) > _MOST_KEYWORD_BYTES:
            value = value[:-1]
    return value
