"""The limits of the price of one request, by the request and the settings alone.

The limits of a user's day need the bucket: see ``ledger/daily_quota.py``.
"""

from __future__ import annotations

from typing import NamedTuple

from seedance_temporal.provider.prices import Estimate
from seedance_temporal.settings import Settings


class Refusal(NamedTuple):
    """Why a request may not be paid for; ``code`` is that of the job's error."""

    code: str
    message: str


def refusal_by_price(estimated: Estimate, settings: Settings) -> Refusal | None:
    """Return why the price of a request is over the limits, or None if it is not."""
    limits = {
        "SEEDANCE_MAX_USD_PER_REQUEST": settings.seedance_max_usd_per_request,
        "SEEDANCE_MAX_USD_PER_USER_DAY": settings.seedance_max_usd_per_user_day,
    }
    names = [name for name, limit in limits.items() if limit is not None]
    can_cost = settings.in_usd(estimated.most)
    if names and estimated.cny is not None and can_cost is None:
        return Refusal(
            "rate_unknown",
            f"It is billed in CNY, and {' and '.join(names)} cannot be kept without a rate: set SEEDANCE_CNY_PER_USD.",
        )
    if names and can_cost is None:
        return Refusal(
            "price_unknown",
            f"What it costs is not known beforehand, and {' and '.join(names)} cannot be kept without it. "
            "SEEDANCE_PRICES sets the price of a model, SEEDANCE_ENDPOINTS the model behind an inference endpoint, and "
            "the sizes of a row of SEEDANCE_MODELS the pixels of a resolution.",
        )
    for name, limit in limits.items():
        if limit is not None and can_cost is not None and can_cost > limit:
            return Refusal(
                "over_limit",
                f"It can cost up to {usd(can_cost)} by estimate; {name} allows {usd(limit)}. "
                "Ask for a shorter or smaller video, or raise the limit: a final has the length of its draft.",
            )
    return None


def usd(amount: float) -> str:
    """Format an amount to a hundredth of a cent: two limits that differ must not read the same."""
    return f"{amount:.4f} USD"
