"""The whole workflow against scripts that hypothesis writes: ``tests/model`` and docs/internals/model.md.

``make model`` runs more of them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.model.campaign import Search
from tests.model.run import run_script
from tests.model.situations import SITUATIONS

SMOKE_SEED, SMOKE_EXAMPLES = 11, 60
FULL_SEEDS, FULL_EXAMPLES = range(1_000, 1_008), 100


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Silence what fails on purpose."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", SITUATIONS)
def test_situation_keeps_promises(name: str) -> None:
    run_script(SITUATIONS[name])


@pytest.mark.timeout(600)
def test_scripts_keep_promises() -> None:
    search = Search()
    search.batch(SMOKE_SEED, SMOKE_EXAMPLES)
    assert search.seen["end: completed"] > SMOKE_EXAMPLES / 4


@pytest.mark.faults
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", FULL_SEEDS)
def test_more_scripts_keep_promises(seed: int) -> None:
    Search().batch(seed, FULL_EXAMPLES)
