"""The price of the provider's tokens.

Prices change, and contracts differ: :data:`PRICES` is the provider's list, which ``SEEDANCE_PRICES`` overrides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Price(NamedTuple):
    """USD per million tokens; None where it is not known."""

    plain: float | None
    with_reference_video: float | None


PriceTable = Mapping[str, Mapping[str, Price]]
"""By model id and resolution."""

# Section "pixels and tokens" of the provider's task API documentation, official. The price of 4k with a reference
# video is not documented.
PRICES: PriceTable = {
    "dreamina-seedance-2-0-260128": {
        "480p": Price(7.0, 4.3),
        "720p": Price(7.0, 4.3),
        "1080p": Price(7.7, 4.7),
        "4k": Price(4.0, None),
    },
    "dreamina-seedance-2-0-fast-260128": {"480p": Price(5.6, 3.3), "720p": Price(5.6, 3.3)},
    "dreamina-seedance-2-0-mini-260615": {"480p": Price(3.5, 2.1), "720p": Price(3.5, 2.1)},
}
"""List prices of BytePlus. Those of 2.5, of 1.5 pro and of Volcengine are not known here."""


def price_table(overrides: Mapping[str, Mapping[str, Sequence[float | None]]]) -> PriceTable:
    """Return the list prices with some replaced or added.

    Args:
        overrides: By model id and resolution, the fields of a :class:`Price`.
    """
    table = {model: dict(by_resolution) for model, by_resolution in PRICES.items()}
    for model, by_resolution in overrides.items():
        table.setdefault(model, {}).update({resolution: Price(*pair) for resolution, pair in by_resolution.items()})
    return table


@dataclass(frozen=True)
class Estimate:
    """The most that a request should cost, in tokens and by the price table; None where that is not known."""

    tokens: int | None
    usd: float | None


def cost_usd(
    model: str, resolution: str, has_reference_video: bool, tokens: int, prices: PriceTable = PRICES
) -> float | None:
    """Return the price of tokens in USD, or None where it is not known.

    Args:
        model: The model id, not that of an endpoint.
        resolution: Of the video.
        has_reference_video: With one, there are more tokens, and each is cheaper.
        tokens: Counted by the provider, or estimated.
        prices: From :func:`price_table`.
    """
    price = prices.get(model, {}).get(resolution, Price(None, None))
    per_million = price.with_reference_video if has_reference_video else price.plain
    if per_million is None:
        return None
    try:
        return round(tokens * per_million / 1_000_000, 6)
    except OverflowError:  # more tokens than a float can hold
        return None
