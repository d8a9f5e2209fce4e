"""The estimate of a request's price, and the price of a task. Pure functions over a price table.

Prices change, and contracts differ: :data:`PRICES` is the provider's list, which ``SEEDANCE_PRICES`` overrides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from seedance_temporal.provider.models import KINDS, MODEL_CHOOSES, PIXELS
from seedance_temporal.provider.task import Task
from seedance_temporal.request import VideoRequest

if TYPE_CHECKING:
    from seedance_temporal.provider.rules import Rules


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
        overrides: By model id and resolution: USD per million tokens without and with a reference video, null where
            that is not known.
    """
    table = {model: dict(by_resolution) for model, by_resolution in PRICES.items()}
    for model, by_resolution in overrides.items():
        table.setdefault(model, {}).update({resolution: Price(*pair) for resolution, pair in by_resolution.items()})
    return table


@dataclass(frozen=True)
class Estimate:
    """The most that a request should cost; None where that is not known.

    Attributes:
        tokens: In the provider's tokens.
        usd: By the price table.
    """

    tokens: int | None
    usd: float | None


def estimate(request: VideoRequest, rules: Rules) -> Estimate:
    """Estimate the most that a request should cost.

    Where the provider chooses (``duration`` -1, ``ratio`` adaptive), the longest and the largest video is counted, and
    with a reference video, the most seconds that all of them may have. The formula was measured on 2.0 (section
    "pixels and tokens"), and is used for the other models too. Savings by ``draft`` or ``flex`` are not counted.
    """
    model = rules.model_of(request.model)
    seconds = request.duration
    if seconds == MODEL_CHOOSES and model is not None:
        seconds = model.durations[-1]
    sizes = PIXELS.get(request.resolution, {})
    if model is not None and request.resolution in model.unsized:
        sizes = {}
    if request.ratio != "adaptive":
        sizes = {ratio: size for ratio, size in sizes.items() if ratio == request.ratio}
    if not sizes or seconds < 1:
        return Estimate(tokens=None, usd=None)
    has_video = _has_reference_video(request)
    if has_video and model is not None:
        seconds += model.reference_seconds
    tokens = max(width * height for width, height in sizes.values()) * (24 * seconds + 1) // 1024
    usd = cost_usd(rules.behind(request.model), request.resolution, has_video, tokens, rules.prices)
    return Estimate(tokens=tokens, usd=usd)


def cost_usd(
    model: str, resolution: str, has_reference_video: bool, tokens: int, prices: PriceTable = PRICES
) -> float | None:
    """Return the price of tokens in USD, or None where it is not known.

    Args:
        model: The model id of the request.
        resolution: The resolution of the video.
        has_reference_video: With one, there are more tokens, and each is cheaper.
        tokens: The count of the provider, or of :func:`estimate`.
        prices: From :func:`price_table`.
    """
    price = prices.get(model, {}).get(resolution)
    if price is None:
        return None
    per_million = price.with_reference_video if has_reference_video else price.plain
    if per_million is None:
        return None
    try:
        return round(tokens * per_million / 1_000_000, 6)
    except OverflowError:  # more tokens than a float can hold
        return None


def cost_of(request: VideoRequest, task: Task, rules: Rules) -> float | None:
    """Return the price of a task in USD, by the provider's tokens, or None where tokens or price are not known.

    An inference endpoint is priced by the model behind it, which the task names.
    """
    if task.usage is None or task.usage.total_tokens is None:
        return None
    model = task.model or request.model
    resolution = task.resolution or request.resolution
    tokens = task.usage.total_tokens
    return cost_usd(rules.behind(model), resolution, _has_reference_video(request), tokens, rules.prices)


def _has_reference_video(request: VideoRequest) -> bool:
    return any(KINDS.get(reference.role) == "video" for reference in request.references)
