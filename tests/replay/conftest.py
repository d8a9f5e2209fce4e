"""The recorded histories, and one replay of them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.replay import lines
from tests.replay.guard import unlike
from tests.replay.histories import ROOT, Recorded, recorded


@dataclass(frozen=True)
class Replayed:
    """A replay of all recorded histories: the explanations of those that failed, and the lines that ran."""

    explained: Sequence[str]
    seen: set[lines.Line]


@pytest.fixture(scope="session")
def records() -> list[Recorded]:
    return recorded()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def replayed(records: list[Recorded]) -> Replayed:
    seen = set[lines.Line]()
    with lines.noted(seen, ROOT / "workflows"):
        return Replayed(await unlike(records), seen)
