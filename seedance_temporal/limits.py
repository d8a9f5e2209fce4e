"""The limits on spending, by the settings, and what they say of the price of one request.

The limits of users and the budgets need the bucket: see ``ledger/spending.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings

Period = Literal["day", "month"]


class Refusal(NamedTuple):
    """Why a request may not be paid for; ``code`` is that of the job's error.

    Attributes:
        until: When the budget that is used up begins anew; None where waiting does not help, or a user's limit refuses.
    """

    code: str
    message: str
    until: datetime | None = None


class Budget(NamedTuple):
    """The most that may be spent in a UTC day or month, in USD.

    Attributes:
        payer: ``account:<route>`` or ``label:<name>=<value>``.
        setting: Where it is set.
    """

    payer: str
    period: Period
    usd: float
    setting: str

    def __str__(self) -> str:
        kind, _, name = self.payer.partition(":")
        return f"the {self.period}'s budget of the {kind} {name}"

    def ends(self, now: datetime) -> datetime:
        """Return when the period ends that a time is in."""
        today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        if self.period == "day":
            return today + timedelta(days=1)
        return (today.replace(day=28) + timedelta(days=4)).replace(day=1)


class BudgetUse(NamedTuple):
    """How much of a budget is used, in USD, and when the budget begins anew."""

    budget: Budget
    used: float
    until: datetime

    def __str__(self) -> str:
        when = "today" if self.budget.period == "day" else "this month"
        return f"{usd(self.used)} of {usd(self.budget.usd)} {when}: {self.budget}"


def payers_of(request: VideoRequest) -> tuple[str, ...]:
    """Return the account and the labels that a request counts for."""
    labels = (request.labels or {}).items()
    return (f"account:{request.route}", *(f"label:{name}={value}" for name, value in labels))


def budgets(settings: Settings) -> Iterator[Budget]:
    """Return all budgets that are set; those of the account for the route of the settings."""
    account = f"account:{settings.ark_route}"
    of_account: tuple[tuple[Period, float | None], ...] = (
        ("day", settings.seedance_max_usd_per_day),
        ("month", settings.seedance_max_usd_per_month),
    )
    for period, usd in of_account:
        if usd is not None:
            yield Budget(account, period, usd, f"SEEDANCE_MAX_USD_PER_{period.upper()}")
    for label, row in settings.seedance_label_budgets.items():
        of_label: tuple[tuple[Period, float | None], ...] = (("day", row.usd_per_day), ("month", row.usd_per_month))
        for period, usd in of_label:
            if usd is not None:
                yield Budget(f"label:{label}", period, usd, f"SEEDANCE_LABEL_BUDGETS ({label}, usd_per_{period})")


def budgets_of(request: VideoRequest, settings: Settings) -> list[Budget]:
    """Return the budgets that a request counts for."""
    payers = payers_of(request)
    return [budget for budget in budgets(settings) if budget.payer in payers]


def refusal_by_price(request: VideoRequest, settings: Settings) -> Refusal | None:
    """Return why the price of a request is over the limits, or None if it is not."""
    estimated = settings.rules.estimate(request)
    limits = {
        "SEEDANCE_MAX_USD_PER_REQUEST": settings.seedance_max_usd_per_request,
        "SEEDANCE_MAX_USD_PER_USER_DAY": settings.seedance_max_usd_per_user_day,
        **{budget.setting: budget.usd for budget in budgets_of(request, settings)},
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
                + (
                    "Raise the limit: a final has the length of its draft."
                    if request.draft_of is not None
                    else "Ask for a shorter or smaller video, or raise the limit."
                ),
            )
    return None


def usd(amount: float) -> str:
    """Format an amount to a hundredth of a cent: two limits that differ must not read the same."""
    return f"{amount:.4f} USD"
