"""The paths that jobs can take, each a function that leads runs along it on a real server.

A path is recorded under the name of its function, once for each order in which SDKs deliver what arrives at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from tests.workflows.harness import Harness

Server = Literal["real", "renewing", "skipping"]
"""The dev server; the dev server that soon suggests to continue as new; the one whose clock jumps."""

Play = Callable[[Harness], Awaitable[object]]

PATHS: dict[str, Path] = {}
"""All paths by name, once :mod:`tests.replay.paths.every` is imported."""


@dataclass(frozen=True)
class Path:
    """A path.

    Attributes:
        name: Of its recorded file.
        play: Lead runs along it. Those that go on at its end are recorded as far as they have come.
        server: The server that it needs.
    """

    name: str
    play: Play
    server: Server = "real"


def add(name: str, play: Play, server: Server = "real") -> None:
    """Add a path.

    Raises:
        ValueError: There is one of that name.
    """
    if name in PATHS:
        raise ValueError(f"two paths are named {name}")
    PATHS[name] = Path(name, play, server)


def path(server: Server = "real") -> Callable[[Play], Play]:
    """Return a decorator that adds a path under the name of its function."""

    def register(play: Play) -> Play:
        add(play.__name__.replace("_", "-"), play, server)
        return play

    return register
