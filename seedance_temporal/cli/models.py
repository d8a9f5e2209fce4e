"""``models``: list the models that requests can name."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Annotated, Any

from typer import Option

from seedance_temporal.cli.options import JsonOption
from seedance_temporal.cli.options import route as read_route
from seedance_temporal.cli.output import DONE, out, plain, print_json
from seedance_temporal.cli.runtime import command
from seedance_temporal.provider.models import CURRENCIES, OPTIONAL, WARNED_DAYS, Model
from seedance_temporal.settings import Settings


@command
async def models(
    route: Annotated[
        str | None, Option("--route", metavar="ROUTE", parser=read_route, help="Only models of this route.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """List the models with their limits, prices and ends, as this release and SEEDANCE_MODELS know them."""
    settings = Settings.from_environment()
    rules = settings.rules
    known = [model for model in rules.models.values() if route in {None, model.route}]
    if as_json:
        print_json([_document(model) | {"from_settings": model.id in settings.seedance_models} for model in known])
        return DONE
    for model in known:
        out.print(f"[bold]{plain(model.id)}[/]  {plain(model.name)} on {model.route}")
        for name, value in _rows(model, rules.today()):
            out.print(f"    [dim]{name:<12}[/]{plain(value)}")
    return DONE


def _document(model: Model) -> dict[str, Any]:
    """Return a model by the names of SEEDANCE_MODELS, so that a row can be copied from it."""
    return {
        "id": model.id,
        "route": model.route,
        "name": model.name,
        "resolutions": list(model.resolutions),
        "shortest": model.durations[0],
        "longest": model.durations[-1],
        "references": dict(model.references),
        "reference_seconds": model.reference_seconds,
        "lone_audio": model.lone_audio,
        "fields": _fields(model),
        "service_tiers": list(model.service_tiers),
        "adaptive_scenes": sorted(model.adaptive_scenes),
        "adaptive_task_types": sorted(model.adaptive_task_types),
        "sizes": {resolution: model.sizes[resolution] for resolution in model.resolutions if resolution in model.sizes},
        "currency": CURRENCIES[model.route],
        "prices": {resolution: list(price) for resolution, price in model.prices.items()},
        "ends": model.ends.isoformat() if model.ends is not None else None,
        "successor": model.successor or None,
        "needs": model.needs or None,
    }


def _rows(model: Model, today: date) -> Iterator[tuple[str, str]]:
    yield "video", f"{', '.join(model.resolutions)}; {model.durations[0]} to {model.durations[-1]} seconds"
    most = ", ".join(f"{count} {kind}" for kind, count in model.references.items())
    seconds = f"; {model.reference_seconds} seconds of video, and of audio"
    yield "references", f"at most {most}{seconds}" if most else "a first and a last frame alone"
    yield "fields", ", ".join(_fields(model))
    prices = "; ".join(
        f"{resolution} {_price(price.plain)} ({_price(price.with_reference_video)})"
        for resolution, price in model.prices.items()
    )
    currency = CURRENCIES[model.route]
    unit = f" {currency} a million tokens (with a reference video)"
    yield "prices", f"{prices}{unit}" if prices else f"not known; SEEDANCE_PRICES sets them, in {currency}"
    if model.ends is not None or model.successor:
        yield "end", _end(model, today)
    if model.needs:
        yield "needs", model.needs


def _end(model: Model, today: date) -> str:
    successor = f"; use {model.successor}" if model.successor else ""
    if model.ends is None:
        return f"announced, for a day that is not known{successor}"
    if today >= model.ends:
        return f"ended on {model.ends}{successor}"
    days = (model.ends - today).days
    return f"on {model.ends}" + (f", in {days} days{successor}" if days <= WARNED_DAYS else successor)


def _price(amount: float | None) -> str:
    return "?" if amount is None else f"{amount:g}"


def _fields(model: Model) -> list[str]:
    return [field for field in OPTIONAL if field in model.optional]
