"""How long a fuzz test takes: a moment in ``make test``, ten times that in each round of ``make fuzz``."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator


def examples(few: int) -> int:
    """Return how many examples a test draws, where ``make test`` draws a few."""
    return few * int(os.environ.get("FUZZ_TIMES", "1"))


def quiet() -> Iterator[None]:
    """Silence what fails on purpose; the body of a fixture."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
