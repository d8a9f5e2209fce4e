"""The routes, models and picture sizes of the service."""

from dataclasses import dataclass
from typing import Literal

Route = Literal["byteplus", "volcengine"]
ROUTES: tuple[Route, ...] = ("byteplus", "volcengine")

Family = Literal["2.0", "2.0 fast", "2.0 mini", "2.5", "1.5 pro"]

RATIOS = ("16:9", "4:3", "1:1", "3:4", "9:16", "21:9")

_SIZES: dict[str, tuple[tuple[int, int], ...]] = {
    "480p": ((864, 496), (752, 560), (640, 640), (560, 752), (496, 864), (992, 432)),
    "720p": ((1280, 720), (1112, 834), (960, 960), (834, 1112), (720, 1280), (1470, 630)),
    "1080p": ((1920, 1080), (1664, 1248), (1440, 1440), (1248, 1664), (1080, 1920), (2206, 946)),
    "4k": ((3840, 2160), (3326, 2494), (2880, 2880), (2494, 3326), (2160, 3840), (4398, 1886)),
}


def pixels(resolution: str, ratio: str) -> tuple[int, int]:
    """Return width and height of a video of this resolution and ratio. The ratio is not `adaptive`."""
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

    family: Family
    resolutions: tuple[str, ...]
    longest: int  # seconds; the shortest is 4 everywhere
    references: References | None
    fields: frozenset[str]  # the optional fields that not every family takes
    service_tiers: tuple[str, ...] = ()  # none: the field itself is refused


_REFERENCES_2_0 = References(images=9, videos=3, audios=3, audio_alone=False)
_ONLY_2_5 = frozenset({"draft", "output_format", "omni_reference_task_type"})
_FIELDS_2_0 = frozenset({"priority", "tools"})

_MODELS = (
    Model("2.0", ("480p", "720p", "1080p", "4k"), 15, _REFERENCES_2_0, _FIELDS_2_0),
    Model("2.0 fast", ("480p", "720p"), 15, _REFERENCES_2_0, _FIELDS_2_0),
    Model("2.0 mini", ("480p", "720p"), 15, _REFERENCES_2_0, _FIELDS_2_0),
    Model(
        "2.5",
        ("480p", "720p", "1080p"),
        30,
        References(images=30, videos=10, audios=10, audio_alone=True),
        _FIELDS_2_0 | _ONLY_2_5,
        ("default",),
    ),
    Model(
        "1.5 pro",
        ("480p", "720p", "1080p"),
        12,
        None,
        frozenset({"seed", "camera_fixed", "draft"}),
        ("default", "flex"),
    ),
)
_BY_FAMILY = {model.family: model for model in _MODELS}

# Fields that are known, and refused by the families that do not list them in `Model.fields`. `frames` is for
# the 1.0 models, which this server does not have.
SELECTIVE_FIELDS = frozenset({"priority", "tools", "seed", "camera_fixed", "frames"}) | _ONLY_2_5

_IDS: dict[Route, dict[str, Family]] = {
    "byteplus": {
        "dreamina-seedance-2-0-260128": "2.0",
        "dreamina-seedance-2-0-fast-260128": "2.0 fast",
        "dreamina-seedance-2-0-mini-260615": "2.0 mini",
        "dreamina-seedance-2-5-260628": "2.5",
        "seedance-1-5-pro-251215": "1.5 pro",
    },
    "volcengine": {
        "doubao-seedance-2-0-260128": "2.0",
        "doubao-seedance-2-0-fast-260128": "2.0 fast",
        "doubao-seedance-2-0-mini-260615": "2.0 mini",
        "doubao-seedance-2-5-260628": "2.5",
        "doubao-seedance-1-5-pro-251215": "1.5 pro",
    },
}


def model_of(route: Route, model_id: str) -> Model | None:
    """Return the model of an id on a route, or None."""
    family = _IDS[route].get(model_id)
    return None if family is None else _BY_FAMILY[family]


def default_model_id(route: Route) -> str:
    """Return the model behind an `ep-…` id that is not configured: the route's 2.0."""
    return next(iter(_IDS[route]))
