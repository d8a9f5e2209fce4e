"""Prices in the currencies of the routes: BytePlus bills USD, Volcengine CNY. Nothing is converted here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from seedance_temporal.provider.models import CURRENCIES, Model, Price


@dataclass(frozen=True)
class Cost:
    """An amount in the currency that was, or will be, billed; the other one is None, and both where it is not known."""

    usd: float | None = None
    cny: float | None = None

    def __str__(self) -> str:
        """Write it to a hundredth of a cent: two amounts that differ must not read the same. Empty where unknown."""
        if self.usd is not None:
            return f"{self.usd:.4f} USD"
        return f"{self.cny:.4f} CNY" if self.cny is not None else ""

    def rounded(self) -> str:
        """Write it to a hundredth of its currency."""
        if self.usd is not None:
            return f"{self.usd:.2f} USD"
        return f"{self.cny:.2f} CNY" if self.cny is not None else ""


UNKNOWN = Cost()


class _Costed(Protocol):
    @property
    def cost_usd(self) -> float | None: ...
    @property
    def cost_cny(self) -> float | None: ...


class _Estimated(Protocol):
    @property
    def estimated_usd(self) -> float | None: ...
    @property
    def estimated_cny(self) -> float | None: ...


def cost_in(shape: _Costed) -> Cost:
    """Return the cost that a shape holds."""
    return Cost(shape.cost_usd, shape.cost_cny)


def estimate_in(shape: _Estimated) -> Cost:
    """Return the most that was expected, by a shape that holds it."""
    return Cost(shape.estimated_usd, shape.estimated_cny)


@dataclass(frozen=True)
class Estimate:
    """What a request should cost, by formula and price table; None where that is not known.

    Attributes:
        tokens, usd, cny: The most that one attempt should cost.
        least_tokens, least_usd, least_cny: The least, where its video succeeds.
    """

    tokens: int | None = None
    usd: float | None = None
    cny: float | None = None
    least_tokens: int | None = None
    least_usd: float | None = None
    least_cny: float | None = None

    @property
    def most(self) -> Cost:
        return Cost(self.usd, self.cny)

    @property
    def least(self) -> Cost:
        return Cost(self.least_usd, self.least_cny)


def cost(model: Model, resolution: str, has_reference_video: bool, tokens: int) -> Cost:
    """Price tokens.

    Args:
        model: With its prices.
        resolution: Of the video.
        has_reference_video: With one, there are more tokens, and each is cheaper.
        tokens: Counted by the provider, or estimated.
    """
    price = model.prices.get(resolution, Price(None, None))
    per_million = price.with_reference_video if has_reference_video else price.plain
    if per_million is None:
        return UNKNOWN
    try:
        amount = round(tokens * per_million / 1_000_000, 6)
    except OverflowError:  # more tokens than a float can hold
        return UNKNOWN
    return Cost(usd=amount) if CURRENCIES[model.route] == "USD" else Cost(cny=amount)
