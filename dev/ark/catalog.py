"""The routes, models and picture sizes of the service."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Route = Literal["byteplus", "volcengine"]
ROUTES: tuple[Route, ...] = ("byteplus", "volcengine")

RATIOS = ("16:9", "4:3", "1:1", "3:4", "9:16", "21:9")

_SIZES: dict[str, tuple[tuple[int, int], ...]] = {
    "480p": ((864, 496), (752, 560), (640, 640), (560, 752), (496, 864), (992, 432)),
    "720p": ((1280, 720), (1112, 834), (960, 960), (834, 1112), (720, 1280), (1470, 630)),
    "1080p": ((1920, 1080), (1664, 1248), (1440, 1440), (1248, 1664), (1080, 1920), (2206, 946)),
    "4k": ((3840, 2160), (3326, 2494), (2880, 2880), (2494, 3326), (2160, 3840), (4398, 1886)),
}
# Its other sizes are not documented, and taken to be those of 2.0.
_480P_OF_2_5 = ((854, 480), *_SIZES["480p"][1:4], (480, 854), _SIZES["480p"][5])


def pixels(resolution: str, ratio: str) -> tuple[int, int]:
    """Return width and height of a video of this resolution and ratio, as most models have them."""
    return _SIZES[resolution][RATIOS.index(ratio)]


@dataclass(frozen=True)
class References:
    """The most references of each kind that a model takes."""

    images: int
    videos: int
    audios: int
    audio_alone: bool  # or does it need an image or a video beside it


@dataclass(frozen=True)
class Model:
    """The features of one model family."""

    family: str
    resolutions: tuple[str, ...]
    longest: int  # seconds; the shortest is 4 everywhere
    references: References | None
    fields: frozenset[str]  # the optional fields that not every family takes
    service_tiers: tuple[str, ...] = ()  # none: the field itself is refused
    own_sizes: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    ends: date | None = None  # refused from this day on

    def pixels(self, resolution: str, ratio: str) -> tuple[int, int]:
        """Return width and height of a video of this resolution and ratio. The ratio is not `adaptive`."""
        own = self.own_sizes.get(resolution)
        return own[RATIOS.index(ratio)] if own is not None else pixels(resolution, ratio)

    @property
    def plans_tasks(self) -> bool:
        """Whether it has task types: it makes out itself what its references are for, where nobody says it."""
        return "omni_reference_task_type" in self.fields


class NewModel(BaseModel):
    """A model by a switch: one like another, but for what is given."""

    model_config = ConfigDict(extra="forbid")

    like: str
    resolutions: tuple[str, ...] | None = None
    longest: int | None = None
    ends: date | None = None


_REFERENCES_2_0 = References(images=9, videos=3, audios=3, audio_alone=False)
_ONLY_2_5 = frozenset({"draft", "output_format", "omni_reference_task_type"})
_FIELDS_2_0 = frozenset({"priority", "tools"})

_2_0 = Model("2.0", ("480p", "720p", "1080p", "4k"), 15, _REFERENCES_2_0, _FIELDS_2_0)
_FAST = Model("2.0 fast", ("480p", "720p"), 15, _REFERENCES_2_0, _FIELDS_2_0)
_MINI = Model("2.0 mini", ("480p", "720p"), 15, _REFERENCES_2_0, _FIELDS_2_0)
_2_5 = Model(
    "2.5",
    ("480p", "720p", "1080p"),
    30,
    References(images=30, videos=10, audios=10, audio_alone=True),
    _FIELDS_2_0 | _ONLY_2_5,
    ("default",),
    {"480p": _480P_OF_2_5},
)
_PREMIUM = replace(_2_5, family="2.5 premium", resolutions=("4k",), fields=_2_5.fields - {"draft"})
_1_5_PRO = Model(
    "1.5 pro",
    ("480p", "720p", "1080p"),
    12,
    None,
    frozenset({"seed", "camera_fixed", "draft"}),
    ("default", "flex"),
)

# Fields that are known, and refused by the families that do not list them in `Model.fields`. `frames` is for
# the 1.0 models, which this server does not have.
SELECTIVE_FIELDS = frozenset({"priority", "tools", "seed", "camera_fixed", "frames"}) | _ONLY_2_5

_MODELS: dict[Route, dict[str, Model]] = {
    "byteplus": {
        "dreamina-seedance-2-0-260128": _2_0,
        "dreamina-seedance-2-0-fast-260128": _FAST,
        "dreamina-seedance-2-0-mini-260615": _MINI,
        "dreamina-seedance-2-5-260628": _2_5,
        "dreamina-seedance-2-5-premium-260915": _PREMIUM,
        "seedance-1-5-pro-251215": replace(_1_5_PRO, ends=date(2026, 11, 11)),
    },
    "volcengine": {
        "doubao-seedance-2-0-260128": _2_0,
        "doubao-seedance-2-0-fast-260128": _FAST,
        "doubao-seedance-2-0-mini-260615": _MINI,
        "doubao-seedance-2-5-260628": _2_5,
        "doubao-seedance-1-5-pro-251215": _1_5_PRO,
    },
}


def model_of(route: Route, model_id: str, new: Mapping[str, NewModel]) -> Model | None:
    """Return the model of an id on a route, or None.

    Args:
        route: of the request.
        model_id: as the request, or its endpoint, names it.
        new: models by a switch, which are on the route of the one that they are like.
    """
    added = new.get(model_id)
    if added is None:
        return _MODELS[route].get(model_id)
    like = _MODELS[route].get(added.like)
    given: dict[str, Any] = added.model_dump(exclude={"like"}, exclude_none=True)
    return None if like is None else replace(like, family=model_id, **given)


def default_model_id(route: Route) -> str:
    """Return the model behind an `ep-…` id that is not configured: the route's 2.0."""
    return next(iter(_MODELS[route]))
