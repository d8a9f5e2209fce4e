"""Whole jobs whose provider lies, on the model's server: nothing blocks them, costs twice, or carries a secret on."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seedance_temporal.identity import callback_token
from tests.fuzz.jobs import HOUR, newest, texts_of, until_the_end
from tests.fuzz.lies import FIELD_LIES, LIES, SECRETS, Liar, Lie
from tests.fuzz.size import examples, quiet
from tests.model.promises import Promises
from tests.model.run import simulated
from tests.model.script import Move, Script
from tests.model.world import World
from tests.support.jobs import SECRET

# Of an activation with its commands: results of activities, attributes, summaries.
_MOST_BYTES_OF_A_STEP = 200_000
# The server's limit, beyond which it terminates a run.
_MOST_BYTES_OF_AN_ATTRIBUTE = 2_048
_FATES = st.sampled_from(["created", "created", "created", "lost_after", "no_id", "429_now"])
_ENDS = st.sampled_from(["succeeded", "succeeded", "failed"])


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    yield from quiet()


class LiedTo(Promises):
    """What must hold of a job whose provider lies."""

    def look(self, world: World) -> None:
        self._check_bound(world)
        for run in (run for server in world.servers for run in server.runs):
            for activation, commands in run.hosted.history:
                size = activation.ByteSize() + sum(command.ByteSize() for command in commands)
                assert size < _MOST_BYTES_OF_A_STEP, f"a step of {size} bytes"
            for name, value in run.attributes.items():
                assert len(value.data) <= _MOST_BYTES_OF_AN_ATTRIBUTE, f"{name} has {len(value.data)} bytes"


def through(lies: tuple[Lie, ...], fate: str, end: str) -> World:
    """Run a job to its end: an hour and a half of lies after its task's end, and the truth after them."""
    cancels = any(lie.call == "DELETE one" for lie in lies)
    moves: tuple[Move, ...] = (
        *(("creates", fate), ("submit", 0), ("pass", 30), ("task", 0, "running"), ("pass", 200)),
        *((("cancel", 0, "signal"),) if cancels else ()),
        *(("task", 0, end), ("pass", 1.5 * HOUR)),
    )
    # The product's jitter.
    random.seed(0)
    with simulated() as loop:
        world = World(Script(moves), loop, LiedTo().look)
        world.provider.alter = liar = Liar(lies)
        try:
            for move in moves:
                world.do(move)
            _check_progress(world, liar)
            world.provider.alter = lambda _, response: response
            until_the_end(world)
            _check_end(world, liar, end)
        except Exception as error:
            raise AssertionError(f"{str(error)[:3000] or repr(error)}\n\nthrough({lies}, {fate!r}, {end!r})") from error
        finally:
            world.close()
    return world


def _check_progress(world: World, liar: Liar) -> None:
    run = newest(world)
    state = world.state(run)
    assert not run.open or liar.decides or liar.hides, f"only details are wrong, and the job waits: {state}"
    # Who is told that a task goes on has nothing to say.
    is_deceived = liar.decides and state.phase in {"queued", "running"}
    assert not run.open or state.attention is not None or is_deceived, f"nothing is said for an hour: {state}"


def _check_end(world: World, liar: Liar, end: str) -> None:
    error = world.error_of(newest(world))
    if not liar.decides and end == "succeeded":
        assert error is None, f"only details were wrong, and the job ended: {error}"
        assert sum(bool(post.tasks) for post in world.provider.posts) == 1, f"paid again: {world.provider.posts}"
    tokens = {callback_token(SECRET, world.job_id, attempt) for attempt in (1, 2, 3)}
    for where, text in texts_of(world):
        found = [secret for secret in (*SECRETS, *tokens) if secret in text]
        assert not found, f"{found} in {where}: {text[:2000]}"


@settings(max_examples=examples(15), suppress_health_check=list(HealthCheck))
@given(FIELD_LIES, _FATES)
def test_wrong_details_lose_no_video(lies: tuple[Lie, ...], fate: str) -> None:
    through(lies, fate, "succeeded")


@settings(max_examples=examples(15), suppress_health_check=list(HealthCheck))
@given(LIES, _FATES, _ENDS)
def test_lies_block_no_job(lies: tuple[Lie, ...], fate: str, end: str) -> None:
    through(lies, fate, end)
