"""Rows of models from settings: a new model, or a changed end or limit, needs no release of this project."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from seedance_temporal.provider.known_models import KNOWN
from seedance_temporal.provider.models import ENDPOINT, OPTIONAL, RATIOS, Kind, Model, Price

UsdOrCny = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
PricePair = tuple[UsdOrCny | None, UsdOrCny | None]


def _printable(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("must be a text that can be printed")
    return text


_Name = Annotated[str, Field(max_length=100), AfterValidator(_printable)]
_Resolution = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,4}[pk]$")]
_MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_Seconds = Annotated[int, Field(ge=1, le=3600)]
_Count = Annotated[int, Field(ge=0, le=1000)]
_Side = Annotated[int, Field(ge=1, le=100_000)]
_MOST_ROWS = 200


class ModelRow(BaseModel):
    """One row: a known model's, with what is given in place of it.

    Attributes:
        like: A model id of this release, or of the rows; a row for a known id is like that one by default.
        shortest, longest: Seconds of a video.
        fields: All optional fields that it takes.
        prices: A million tokens without and with a reference video, in the currency of the route, by resolution.
        sizes: Width and height, by resolution and ratio.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    like: str | None = None
    route: Literal["byteplus", "volcengine"] | None = None
    name: _Name | None = None
    resolutions: Annotated[list[_Resolution], Field(min_length=1, max_length=20)] | None = None
    shortest: _Seconds | None = None
    longest: _Seconds | None = None
    references: dict[Literal["image", "video", "audio"], _Count] | None = None
    reference_seconds: Annotated[int, Field(ge=0, le=3600)] | None = None
    lone_audio: bool | None = None
    fields: list[str] | None = None
    service_tiers: list[Literal["default", "flex"]] | None = None
    adaptive_scenes: list[Literal["first_frame", "first_and_last_frame", "references"]] | None = None
    adaptive_task_types: list[Literal["reference", "edit", "extend"]] | None = None
    sizes: dict[str, dict[str, Annotated[list[_Side], Field(min_length=2, max_length=2)]]] | None = None
    prices: dict[str, Annotated[list[UsdOrCny | None], Field(min_length=2, max_length=2)]] | None = None
    ends: Annotated[date, Field(strict=False)] | None = None
    successor: Annotated[str, Field(pattern=rf"^{_MODEL_ID.pattern}$")] | None = None
    needs: Annotated[str, Field(max_length=200), AfterValidator(_printable)] | None = None

    @model_validator(mode="after")
    def _of_known_words(self) -> Self:
        if unknown := set(self.fields or ()) - set(OPTIONAL):
            raise ValueError(f"fields: {sorted(unknown)[0]!r} is none; there are {', '.join(OPTIONAL)}")
        ratios = {ratio for sizes in (self.sizes or {}).values() for ratio in sizes}
        if unknown := ratios - set(RATIOS[:-1]):
            raise ValueError(f"sizes: {sorted(unknown)[0]!r} is no ratio; there are {', '.join(RATIOS[:-1])}")
        return self

    def applied_to(self, like: Model, model_id: str) -> Model:
        """Return the model of this row.

        Raises:
            ValueError: Its parts do not fit together.
        """
        shortest = like.durations[0] if self.shortest is None else self.shortest
        longest = like.durations[-1] if self.longest is None else self.longest
        if longest < shortest:
            raise ValueError(f"longest is {longest} s, and shortest {shortest} s")
        route = self.route or like.route
        # These are of one model on one route. A price that is not known is better than that of another model.
        not_shared: dict[str, Any] = {"name": model_id, "ends": None, "successor": "", "needs": "", "prices": {}}
        own: dict[str, Any] = {} if (model_id, route) == (like.id, like.route) else not_shared
        given = self.model_dump(
            exclude_none=True, exclude={"like", "route", "shortest", "longest", "fields", "prices", "sizes"}
        )
        if self.references:
            given["references"] = dict.fromkeys(get_args(Kind), 0) | self.references
        given |= {name: frozenset(given[name]) for name in ("adaptive_scenes", "adaptive_task_types") if name in given}
        given |= {name: tuple(given[name]) for name in ("resolutions", "service_tiers") if name in given}
        own |= {"id": model_id, "route": route, "durations": range(shortest, longest + 1)}
        model = replace(like, **(own | given))
        prices = {name: Price(*pair) for name, pair in (self.prices or {}).items()}
        sizes = {name: {r: (w, h) for r, (w, h) in by.items()} for name, by in (self.sizes or {}).items()}
        for name in (*prices, *sizes):
            if name not in model.resolutions:
                raise ValueError(f"there is no resolution {name!r}; it has {', '.join(model.resolutions)}")
        optional = model.optional if self.fields is None else frozenset(self.fields)
        if "service_tier" in optional and not model.service_tiers:
            raise ValueError("fields has service_tier, and service_tiers names none")
        return replace(model, optional=optional, prices={**model.prices, **prices}, sizes={**model.sizes, **sizes})


def models_with(rows: Mapping[str, ModelRow]) -> Mapping[str, Model]:
    """Return the known models, with rows changed and added.

    Args:
        rows: By model id, in the order of the settings: a row can be like one before it.

    Raises:
        ValueError: A row names what is not there, or does not fit together.
    """
    if len(rows) > _MOST_ROWS:
        raise ValueError(f"has {len(rows)} rows; {_MOST_ROWS} are the most")
    models = dict(KNOWN)
    for model_id, row in rows.items():
        like = row.like if row.like is not None else model_id
        if not _MODEL_ID.fullmatch(model_id):
            raise ValueError(f"{model_id!r} is no model id: it has letters, digits, dots, dashes and underlines alone")
        if ENDPOINT.fullmatch(model_id):
            raise ValueError(f"{model_id!r} is an endpoint: SEEDANCE_ENDPOINTS names its model")
        if like not in models:
            raise ValueError(f"{model_id}: {_unlike(row.like)} {', '.join(models)}")
        try:
            models[model_id] = row.applied_to(models[like], model_id)
        except ValueError as error:
            raise ValueError(f"{model_id}: {error}") from None
    return models


def _unlike(like: str | None) -> str:
    if like is None:
        return "is not known, so it needs a model that it is like:"
    return f"there is no model {like!r} that it could be like; there are"
