"""Lies: what a gateway, a newer version, or somebody hostile could make of an answer of the provider."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from hypothesis import strategies as st

from tests.support.jobs import KEY, SECRET

SIGNATURE = "5ec4e7bad5ec4e7bad"
# No history, object or screen may hold these, also where an answer quotes them.
SECRETS = (KEY, SECRET, SIGNATURE)
_QUOTING = (KEY, json.dumps(f"Bearer {KEY}"), SECRET, f"https://cdn.example.com/v.mp4?X-Tos-Signature={SIGNATURE}")
# Fields whose truth decides what a job does: a lie there may end it.
_DECIDING = frozenset({"id", "status", "error", "safety_identifier", "items", "total"})

Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Long:
    """A long text or list, which prints as this."""

    of: Any
    times: int

    def value(self) -> Any:
        return (self.of if isinstance(self.of, str) else [self.of]) * self.times


@dataclass(frozen=True)
class Deep:
    """Lists in each other, which print as this."""

    levels: int

    def value(self) -> Any:
        value: Any = []
        for _ in range(self.levels):
            value = [value]
        return value


TEXTS: tuple[Any, ...] = (
    *("", " ", "\ud800", "\0", "a\r\nb: c", "\x1b[2J\x1b]0;x\x07", "=1+1", "[a](https://a.example)", "../../x", "."),
    *(
        Long("x", 20_000),
        Long("😀", 3_000),
        Long("http://", 2_000),
        *_QUOTING,
        *(f"an error near {q}" for q in _QUOTING),
    ),
)
WORDS: tuple[Any, ...] = ("completed", "SUCCEEDED", "success", "processing", "in_queue", "failure", "cancelled", "gone")
NUMBERS: tuple[Any, ...] = (-1, 0, 0.5, 2**31, 2**53 + 1, 10**30, -(10**30), float("nan"), float("inf"), 1e300)
OTHERS: tuple[Any, ...] = (None, True, False, {}, [], {"a": {"b": KEY}}, Long(0, 5_000), Deep(500), Long({}, 300))
ODD = st.sampled_from([*TEXTS, *NUMBERS, *OTHERS, *WORDS])


@dataclass(frozen=True)
class Lie:
    """A change of each answer to one kind of call.

    Attributes:
        call: As :mod:`tests.model.provider` names it: ``POST``, ``GET``, ``GET one`` or ``DELETE one``.
        what: ``value``, ``missing`` or ``more`` change one place in the JSON; ``status`` and ``body`` the whole answer.
        where: Which place, counted through all places of the answer.
        odd: The value, the HTTP status, or the body.
    """

    call: str
    what: str
    where: int
    odd: Any

    @property
    def is_total(self) -> bool:
        return self.what in {"status", "body"}

    def told(self, payload: Any) -> tuple[Any, Place]:
        """Return the JSON with the change, and the place of the change."""
        places = list(_places(payload))
        place = places[self.where % len(places)]
        if not place:
            return ({"more": _value(self.odd)} | payload if isinstance(payload, dict) else payload), ("more",)
        copy = json.loads(json.dumps(payload))
        parent = copy
        for step in place[:-1]:
            parent = parent[step]
        if self.what == "missing":
            del parent[place[-1]]
        elif self.what == "more" and isinstance(parent, dict):
            parent["more"] = _value(self.odd)
            place = (*place[:-1], "more")
        else:
            parent[place[-1]] = _value(self.odd)
        return copy, place


CALLS = ("POST", "GET", "GET one", "GET one", "GET one", "DELETE one")
_FIELDS = st.builds(
    Lie,
    call=st.sampled_from(CALLS[1:]),
    what=st.sampled_from(["value", "value", "value", "missing", "more"]),
    where=st.integers(0, 40),
    odd=ODD,
)
_STATUSES = st.sampled_from([200, 201, 204, 301, 400, 401, 403, 404, 409, 418, 429, 500, 502, 503, 504])
_BODIES = st.sampled_from(
    ["", "{", "null", "[]", '"x"', "<p>Maintenance</p>", '{"error": "x"}', KEY, Long("[", 100_000)]
)
_WHOLE = st.builds(
    Lie, call=st.sampled_from(CALLS), what=st.just("status"), where=st.just(0), odd=_STATUSES
) | st.builds(Lie, call=st.sampled_from(CALLS), what=st.just("body"), where=st.just(0), odd=_BODIES)
FIELD_LIES = st.lists(_FIELDS, min_size=1, max_size=5).map(tuple)
LIES = st.lists(_FIELDS | _WHOLE, min_size=1, max_size=5).map(tuple)


@dataclass
class Liar:
    """Tells lies in place of a provider's answers.

    Attributes:
        told: How many answers were changed.
        decides: Whether one of them could change what a job does.
        hides: Whether one of them could hide the video.
    """

    lies: tuple[Lie, ...]
    told: int = 0
    decides: bool = False
    hides: bool = False

    def __call__(self, call: str, response: httpx.Response) -> httpx.Response:
        for lie in self.lies:
            if lie.call == call:
                response = self._tell(lie, response)
        return response

    def _tell(self, lie: Lie, response: httpx.Response) -> httpx.Response:
        status, content = response.status_code, response.content
        if lie.what == "status":
            status, self.decides = lie.odd, True
        elif lie.what == "body":
            content, self.decides = str(_value(lie.odd)).encode(), True
        elif content:
            try:
                payload = json.loads(content)
            except ValueError:
                return response
            if not isinstance(payload, dict):
                return response
            payload, place = lie.told(payload)
            self.decides = self.decides or _decides(place)
            self.hides = self.hides or "content" in place
            content = json.dumps(payload).encode()
        self.told += 1
        return httpx.Response(status, content=content)


def _decides(place: Place) -> bool:
    whole_item = len(place) == 2 and place[0] == "items"
    return whole_item or place[-1] in _DECIDING or "error" in place


def _places(value: Any, at: Place = ()) -> Iterator[Place]:
    yield at
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _places(inner, (*at, name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _places(inner, (*at, number))


def _value(odd: Any) -> Any:
    return odd.value() if isinstance(odd, Long | Deep) else odd
