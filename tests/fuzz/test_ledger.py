"""Every kind of object in the bucket, damaged as soon as it is there: the job says so or goes on, and is paid once.

An operator mends the object an hour and a half later; then the job ends as it would have without the damage.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import PurePosixPath

import pytest

from seedance_temporal.ledger.checksummed_json import SEAL, sealed
from tests.fuzz.jobs import HOUR, newest, until_the_end
from tests.fuzz.size import quiet
from tests.model.run import simulated
from tests.model.script import Move, Script
from tests.model.world import World

STORIES: dict[str, tuple[Move, ...]] = {
    "stored": (("submit", 0), ("pass", 30), ("task", 0, "running"), ("pass", 60), ("task", 0, "succeeded")),
    "polled": (("callbacks", "lost"), ("submit", 0), ("pass", 30), ("task", 0, "succeeded")),
    "not sent at first": (("creates", "429_now"), ("submit", 0), ("pass", 200), ("task", 0, "succeeded")),
    "found by LIST": (
        *(("callbacks", "lost"), ("creates", "lost_after"), ("submit", 0)),
        *(("pass", 900), ("task", 0, "succeeded")),
    ),
    "without an id": (("creates", "no_id"), ("submit", 0), ("pass", 900), ("task", 0, "succeeded")),
    "two tasks": (
        *(("creates", "two_tasks"), ("submit", 0), ("pass", 300)),
        *(("task", 0, "failed"), ("task", 1, "succeeded")),
    ),
    "resubmitted": (
        *(("submit", 0), ("pass", 30), ("task", 0, "failed"), ("pass", 400)),
        *(("resubmit", 0, False), ("pass", 30), ("task", 0, "succeeded")),
    ),
    "refused": (("creates", "refused"), ("submit", 0)),
    "cancelled": (("submit", 0), ("pass", 30), ("cancel", 0, "signal")),
}


def newer(content: bytes) -> bytes:
    """Return an object as a newer worker would write it, with one more field; other content as it is."""
    try:
        value = json.loads(content)
    except ValueError:
        return content
    more = {"since_2030": {"a": [1]}} | {name: each for name, each in value.items() if name != SEAL}
    return sealed(more) if SEAL in value else json.dumps(more).encode()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut": lambda content: content[: len(content) // 2],
    "garbage": lambda _: b"\x00\xff{]",
    "a list": lambda _: b"[]",
    "another object": lambda _: b"{}",
    "one letter changed": lambda content: content.replace(b"1", b"7", 1),
    "newer": newer,
}


class Damage:
    """Changes the first object of a kind, right after it was written. ``name``: of that object."""

    def __init__(self, world: World, kind: str, how: str) -> None:
        self._bucket, self._kind, self._how = world.bucket, kind, how
        self._whole = b""
        self.name: str | None = None
        world.bucket.after_write = self

    def __call__(self, name: str) -> None:
        if self.name is None and kind_of(name) == self._kind:
            self.name, self._whole = name, self._bucket.contents[name]
            self._put(name, DAMAGES[self._how](self._whole))

    def mend(self) -> None:
        if self.name is not None:
            self._put(self.name, self._whole)

    def _put(self, name: str, content: bytes) -> None:
        before = self._bucket.stored.pop(name)
        self._bucket._put(name, content, before.kind)
        self._bucket.stored[name] = replace(self._bucket.stored[name], created_at=before.created_at)


def kind_of(name: str) -> str:
    """Return the kind of an object, such as ``claim``; names hold hashes, days and task ids as well."""
    path = PurePosixPath(name)
    if "limits" in path.parts:
        return "quota"
    if "task-times" in path.parts:
        return "task time"
    kind = path.stem.rpartition(".")[2]
    return next((start for start in ("verified", "late", "end", "echo") if kind.startswith(f"{start}-")), kind)


def told(story: str, kind: str = "", how: str = "") -> tuple[list[str], str | None, int]:
    """Tell a story to its end, with a damage.

    Return the kinds of the objects that were written, how the job ended, and how many creates were paid.
    """
    # The product's jitter.
    random.seed(0)
    with simulated() as loop:
        world = World(Script(STORIES[story]), loop, lambda _: None, seedance_max_jobs_per_user_day=10)
        damage = Damage(world, kind, how)
        try:
            for move in (*STORIES[story], ("pass", 1.5 * HOUR)):
                world.do(move)
            run = newest(world)
            if run.open:
                state = world.state(run)
                assert kind, "the story does not end"
                assert how != "newer", f"an object of a newer worker stops a job: {state}"
                assert state.attention is not None, f"nothing is said of {damage.name}: {state}"
            damage.mend()
            world.do(("retry", 0))
            until_the_end(world)
            error = world.error_of(newest(world))
        except Exception as problem:
            raise AssertionError(f"{str(problem) or repr(problem)}\n\ntold({story!r}, {kind!r}, {how!r})") from problem
        finally:
            world.close()
    assert not kind or damage.name is not None, f"no object was a {kind}"
    kinds = dict.fromkeys(kind_of(name) for name in world.bucket.writes)
    ended = error.failure_class if error is not None else None
    return list(kinds), ended, sum(bool(post.tasks) for post in world.provider.posts)


undamaged = cache(told)


def cases() -> Iterator[tuple[str, str]]:
    """Return each kind of object, with a story in which it is written; in ``make fuzz``, with every such story."""
    met = set()
    for story in STORIES:
        for kind in undamaged(story)[0]:
            if kind not in met or "FUZZ_TIMES" in os.environ:
                met.add(kind)
                yield story, kind


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    yield from quiet()


def test_every_kind_of_object_is_written() -> None:
    facts = {"claim", "outcome", "taken", "late", "end", "again", "quota", "echo"}
    assert {kind for _, kind in cases()} == facts | {"record", "task", "output", "verified", "task time"}


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_object_costs_nothing_twice(how: str) -> None:
    problems = []
    for story, kind in cases():
        _, end, paid = undamaged(story)
        try:
            _, ended, paid_for = told(story, kind, how)
            assert paid_for <= max(paid, 1), f"paid {paid_for} times"
            # A refusal, a failure or a cancel that met a job too early is not repeated.
            assert ended == end or story in {"refused", "resubmitted", "cancelled"}, f"ended {ended}, and not {end}"
        except AssertionError as problem:
            problems.append(f"{story}, {kind}: {problem}")
    assert not problems, "\n\n".join(problems)
