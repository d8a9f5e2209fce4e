"""What is known of a model, and the limits that all models share. ``known_models.py`` has a row for each model.

Every value is from the provider's task API documentation, "create a video generation task". A comment names the table
of a value, and its source:

    O  official: the provider's own pages, or its own SDKs
    M  several independent sources agree
    T  one third party says so

Where official sources contradict each other, the value is allowed with a warning. An undocumented value is refused
where it could cost money, and a comment here says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Literal, NamedTuple

Kind = Literal["image", "video", "audio"]
Scene = Literal["text_to_video", "first_frame", "first_and_last_frame", "references", "draft", "unknown"]

Currency = Literal["USD", "CNY"]

ROUTES = ("byteplus", "volcengine")
CURRENCIES: Mapping[str, Currency] = {"byteplus": "USD", "volcengine": "CNY"}
"""The currency that each route bills. Section "pixels and tokens", O."""

KINDS: Mapping[str, Kind] = {
    "first_frame": "image",
    "last_frame": "image",
    "reference_image": "image",
    "reference_video": "video",
    "reference_audio": "audio",
}
"""The kind of media of a reference, by its role. Table "content", O."""

FRAMES = frozenset({"first_frame", "last_frame"})
MODEL_CHOOSES = -1
"""The ``duration`` that leaves the length to the model. Table "body", O."""

_SIZED = ("16:9", "4:3", "1:1", "3:4", "9:16", "21:9")
_SIZES = {
    "480p": ((864, 496), (752, 560), (640, 640), (560, 752), (496, 864), (992, 432)),
    "720p": ((1280, 720), (1112, 834), (960, 960), (834, 1112), (720, 1280), (1470, 630)),
    "1080p": ((1920, 1080), (1664, 1248), (1440, 1440), (1248, 1664), (1080, 1920), (2206, 946)),
    "4k": ((3840, 2160), (3326, 2494), (2880, 2880), (2494, 3326), (2160, 3840), (4398, 1886)),
}
Sizes = Mapping[str, Mapping[str, tuple[int, int]]]
"""Width and height in pixels, by resolution and ratio."""

PIXELS: dict[str, dict[str, tuple[int, int]]] = {
    resolution: dict(zip(_SIZED, sizes, strict=True)) for resolution, sizes in _SIZES.items()
}
"""Table "pixels", O. Its 480p is of 2.0 and 1.5 pro alone, its 4k of 2.0."""

RATIOS = (*_SIZED, "adaptive")
"""Table "body", O."""

OPTIONAL = (
    "seed",
    "camera_fixed",
    "service_tier",
    "priority",
    "execution_expires_after",
    "draft",
    "output_format",
    "omni_reference_task_type",
    "web_search",
)
"""Fields that are sent only when given, and refused where the model does not support them. Table "body", O."""

DECIDED_BY_DRAFT = (
    *("prompt", "references", "ratio", "duration", "generate_audio"),
    *("seed", "camera_fixed", "draft", "output_format", "omni_reference_task_type", "web_search"),
)
"""Fields that the final of a draft takes from it. Section "create: body", M; of the last ones I."""

BOUNDS: Mapping[str, tuple[int, int]] = {
    "seed": (-1, 2**31 - 1),
    "priority": (0, 9),
    "execution_expires_after": (3_600, 259_200),
}
"""The least and the most of a number, where the model takes the field. Table "body", O."""

CHOICES: Mapping[str, tuple[str, ...]] = {
    "output_format": ("mp4", "mov"),
    "omni_reference_task_type": ("auto", "reference", "edit", "extend"),
}
"""The values of a text, where the model takes the field. Table "body", O."""

WORKS_ON_REFERENCES = frozenset({"edit", "extend"})
"""The task types that change their references, and need one."""

DRAFT_RESOLUTION = "480p"
"""The one resolution of drafts. Section "create: body", M."""

FINAL_RESOLUTION = "1080p"
"""The one resolution of a draft's final. Section "create: body", M."""

SHORTEST_EDIT_SECONDS = 4
"""Of the longest reference video of an edit. Section "create: body", O."""

MAX_PROMPT = 32_000
"""Characters. "Prompt length": no hard limit is documented; this is one client's cap, T."""

ADVISED_PROMPT_WORDS = 1_000
"""English words. "Prompt length": a recommendation, O."""

SHORTEST_REFERENCE_SECONDS = 2
"""Of each reference video and sound. Table "reference media", O; the most is the model's."""

WARNED_DAYS = 60
"""So many days before a model ends, requests for it are warned of: the provider announces it as early."""

FPS = 24
"""Frames of a second of a result. Section "pixels and tokens", O."""

REFERENCE_TOLERANCE_SECONDS = 0.2
# Of the provider's 24 frames a second; a film has 23.976.
FPS_TOLERANCE = 0.2
"""The most that a length may differ. Table "reference media": "about"."""

ENDPOINT = re.compile(r"ep-[A-Za-z0-9-]{1,128}")
"""An inference endpoint, valid on either route. Section "routes and models", O; its letters are not documented."""

_MEGABYTE = 1024 * 1024  # whether it is 10^6 is not documented, and the larger one is allowed


@dataclass(frozen=True)
class MediaLimits:
    """The limits of a reference of one kind, both ends included. None: not documented.

    Attributes:
        formats: By content.
        advised_bytes: The most that older pages of the provider allow: more is warned of.
        ratio: Width by height.
        side, pixels: Pixels of width, and of height; their product.
        fps: Frames a second, with ``FPS_TOLERANCE``.
        codecs: Of its pictures and of its sound.
    """

    formats: tuple[str, ...]
    max_bytes: int
    advised_bytes: int | None = None
    ratio: tuple[float, float] | None = None
    side: tuple[int, int] | None = None
    pixels: tuple[int, int] | None = None
    fps: tuple[int, int] | None = None
    codecs: tuple[str, ...] | None = None


MEDIA: Mapping[Kind, MediaLimits] = {
    "image": MediaLimits(
        formats=("jpeg", "png", "webp", "bmp", "tiff", "gif", "heic", "heif"),
        max_bytes=30 * _MEGABYTE - 1,  # "under 30 MB"
        ratio=(0.4, 2.5),
        side=(300, 6000),
    ),
    "video": MediaLimits(
        formats=("mp4", "mov"),
        max_bytes=200 * _MEGABYTE,
        advised_bytes=50 * _MEGABYTE,
        ratio=(0.4, 2.5),
        side=(300, 6000),
        pixels=(407_696, 8_295_044),
        fps=(24, 60),
        codecs=("h264", "hevc", "aac", "mp3"),
    ),
    "audio": MediaLimits(formats=("wav", "mp3"), max_bytes=15 * _MEGABYTE),
}
"""Table "reference media", O; the same for all models, but for the seconds, which are with the model."""


class Price(NamedTuple):
    """The price of a million tokens, in the currency of the route; None where it is not known."""

    plain: float | None
    with_reference_video: float | None


@dataclass(frozen=True)
class Model:
    """What one model allows, on one route.

    Attributes:
        id: The model id.
        name: The same for a model of both routes.
        durations: Seconds; -1 is always allowed.
        references: The most references of each kind; empty where there is no references scene.
        reference_seconds: The most seconds of one reference video or sound, and of all of a kind together.
        lone_audio: Whether a ``reference_audio`` can do without a picture or video beside it.
        adaptive_scenes: The scenes that take no ``ratio`` but ``adaptive``.
        adaptive_task_types: The same, by ``omni_reference_task_type``.
        optional: The fields of :data:`OPTIONAL` that may be given.
        doubtful: Fields of which sources differ whether the model takes them: allowed, and warned of.
        languages: Documented languages of the prompt; empty where the documentation leaves none out that we can tell.
        sizes: Of the resolutions whose pixels are documented.
        prices: By resolution, as far as they are known.
        ends: The day, in UTC, from which on the provider refuses the model.
        successor: The model id that the provider names for the time after; without ``ends``, the day is not known.
        needs: What an account needs before it may use the model, as the end of a sentence.
    """

    id: str
    route: str
    name: str
    resolutions: tuple[str, ...]
    durations: range
    references: Mapping[Kind, int]
    reference_seconds: int
    lone_audio: bool
    optional: frozenset[str]
    adaptive_scenes: frozenset[Scene] = frozenset()
    adaptive_task_types: frozenset[str] = frozenset()
    service_tiers: tuple[str, ...] = ()
    doubtful: frozenset[str] = frozenset()
    languages: tuple[str, ...] = ()
    sizes: Sizes = field(default_factory=lambda: PIXELS)
    prices: Mapping[str, Price] = field(default_factory=dict)
    ends: date | None = None
    successor: str = ""
    needs: str = ""
