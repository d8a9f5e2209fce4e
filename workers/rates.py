"""The account's rates, shared out to the task queues whose activities use them up.

Temporal's server keeps the rate of a queue over all of its workers. After a pause it lets one second's worth through at
once, and then keeps the rate: docs/how-to/rates.md has the figures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from seedance_temporal.settings import Settings

# The provider's limits for an account.
GETS_PER_SECOND = 20.0
LISTS_PER_SECOND = 1.0
# A copy begins with a GET.
COPIES_PER_SECOND = 4.0
# For polls, however many creates a minute are set: each create of a final takes a GET of its draft, too.
LEAST_POLLS_PER_SECOND = 4.0
# A window of a minute must not hold a create of the next one, and those under way are not evenly late.
_MINUTE = 61.0


@dataclass(frozen=True)
class Rates:
    """Activities a second, by queue, over all workers of a route."""

    create: float
    create_4k: float
    get: float
    transfer: float
    list: float

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Share out the account's rates."""
        create = _within_minute(settings.seedance_creates_per_minute)
        create_4k = _within_minute(settings.seedance_creates_per_minute_4k)
        polls = GETS_PER_SECOND - COPIES_PER_SECOND - create - create_4k
        return cls(
            create=create,
            create_4k=create_4k,
            get=max(polls, LEAST_POLLS_PER_SECOND),
            transfer=COPIES_PER_SECOND,
            list=LISTS_PER_SECOND,
        )


def _within_minute(limit: float) -> float:
    """Return the rate at which a minute holds no more creates than the limit, the burst at its beginning included."""
    burst = math.ceil(limit / 60)
    return (limit + 1 - burst) / _MINUTE
