"""Run a script, and check the promises."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import activities.store
from tests.model.clock import JumpingLoop, clocks_of
from tests.model.promises import Promises
from tests.model.script import Script
from tests.model.world import World


def run_script(script: Script) -> Counter[str]:
    """Run a script to its end; return what was seen, by kind.

    Raises:
        AssertionError: A promise was broken; the script is part of the message.
    """
    promises = Promises()
    # The product's jitter: hypothesis fixes it as well, and a script that it printed must repeat what it did.
    random.seed(0)
    with simulated() as loop:
        world = World(script, loop, promises.look)
        try:
            for move in script.moves:
                world.do(move)
                promises.seen[f"move: {move[0]}"] += 1
            promises.end(world)
        except Exception as error:
            raise AssertionError(f"{str(error) or repr(error)}\n\n{script}") from error
        finally:
            world.close()
    return promises.seen


@contextmanager
def simulated() -> Iterator[JumpingLoop]:
    """Provide a loop in simulated time, in which no process decodes videos."""

    async def probed(*_: Any) -> dict[str, object]:
        return {}

    loop = JumpingLoop()
    real = vars(activities.store)["probed"]
    vars(activities.store)["probed"] = probed
    try:
        with clocks_of(loop):
            yield loop
    finally:
        vars(activities.store)["probed"] = real
        loop.close()
