"""The models as data: the fields, references and sizes of each. ``checks.py`` checks requests by them.

Every row is from the provider's task API documentation, "create a video generation task". A comment names the table
of a value, and its source:

    O  official: the provider's own pages, or its own SDKs
    M  several independent sources agree
    T  one third party says so

Where official sources contradict each other, the value is allowed with a warning. An undocumented value is refused
where it could cost money, and a comment here says so. A new model is a new row in :data:`MODELS`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["image", "video", "audio"]
Scene = Literal["text_to_video", "first_frame", "first_and_last_frame", "references", "unknown"]

ROUTES = ("byteplus", "volcengine")
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
PIXELS: Mapping[str, Mapping[str, tuple[int, int]]] = {
    resolution: dict(zip(_SIZED, sizes, strict=True)) for resolution, sizes in _SIZES.items()
}
"""Width and height in pixels, by resolution and ratio. Table "pixels", O; its 480p is of 2.0 and 1.5 pro alone."""

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

MAX_PROMPT = 32_000
"""Characters. "Prompt length": no hard limit is documented; this is one client's cap, T."""

ADVISED_PROMPT_WORDS = 1_000
"""English words. "Prompt length": a recommendation, O."""

SHORTEST_REFERENCE_SECONDS = 2
"""Of each reference video and sound. Table "reference media", O; the most is the model's."""

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


@dataclass(frozen=True)
class Model:
    """What one model allows.

    Attributes:
        ids: The model id, by route.
        durations: Seconds; -1 is always allowed.
        references: The most references of each kind; empty where there is no references scene.
        reference_seconds: The most seconds of one reference video or sound, and of all of a kind together.
        lone_audio: Whether a ``reference_audio`` can do without a picture or video beside it.
        adaptive_scenes: The scenes that take no ``ratio`` but ``adaptive``.
        adaptive_task_types: The same, by ``omni_reference_task_type``.
        optional: The fields of :data:`OPTIONAL` that may be given.
        contradicted: Fields that one official source allows and another one does not: allowed, and warned of.
        languages: Documented languages of the prompt; empty where the documentation leaves none out that we can tell.
        unsized: Resolutions whose pixels are not documented.
    """

    name: str
    ids: Mapping[str, str]
    resolutions: tuple[str, ...]
    durations: range
    references: Mapping[Kind, int]
    reference_seconds: int
    lone_audio: bool
    optional: frozenset[str]
    adaptive_scenes: frozenset[Scene] = frozenset()
    adaptive_task_types: frozenset[str] = frozenset()
    service_tiers: tuple[str, ...] = ()
    contradicted: frozenset[str] = frozenset()
    languages: tuple[str, ...] = ()
    unsized: frozenset[str] = frozenset()


def _seedance_2_0(name: str, suffix: str, *resolutions: str) -> Model:
    """One of the 2.0 family, which differs in names and resolutions alone."""
    return Model(
        name=name,
        # Table "families", O; that a route takes its own prefix alone, M.
        ids={"byteplus": f"dreamina-seedance-{suffix}", "volcengine": f"doubao-seedance-{suffix}"},
        # Table "body": `resolution`, `duration`, O.
        resolutions=resolutions,
        durations=range(4, 16),
        # Table "scenes", O. Seconds: table "reference media", O.
        references={"image": 9, "video": 3, "audio": 3},
        reference_seconds=15,
        lone_audio=False,
        # Table "body", O. `service_tier` is not to be sent: an explicit `default` was refused, too.
        optional=frozenset({"priority", "execution_expires_after", "web_search"}),
        contradicted=frozenset({"execution_expires_after"}),
        # "Prompt length and languages", O.
        languages=("Chinese", "English", "Spanish", "Indonesian", "Portuguese", "Japanese"),
    )


SEEDANCE_2_0 = _seedance_2_0("Seedance 2.0", "2-0-260128", "480p", "720p", "1080p", "4k")
SEEDANCE_2_0_FAST = _seedance_2_0("Seedance 2.0 fast", "2-0-fast-260128", "480p", "720p")
SEEDANCE_2_0_MINI = _seedance_2_0("Seedance 2.0 mini", "2-0-mini-260615", "480p", "720p")
SEEDANCE_2_5 = Model(
    name="Seedance 2.5",
    # Table "families", O.
    ids={"byteplus": "dreamina-seedance-2-5-260628", "volcengine": "doubao-seedance-2-5-260628"},
    # Table "body": `resolution`, `duration`, O.
    resolutions=("480p", "720p", "1080p"),
    durations=range(4, 31),
    # Table "scenes", O. That audio needs something beside it is said of 2.0 alone. Seconds: "reference media", O.
    references={"image": 30, "video": 10, "audio": 10},
    reference_seconds=30,
    lone_audio=True,
    # Table "body": "only adaptive for first frame, edit, extend", O. First and last frame is a scene of its own, which
    # this does not name.
    adaptive_scenes=frozenset({"first_frame"}),
    adaptive_task_types=WORKS_ON_REFERENCES,
    # Table "body", O. No `seed`, no `camera_fixed`.
    optional=frozenset(OPTIONAL) - {"seed", "camera_fixed"},
    service_tiers=("default",),
    # Korean is among its languages, O; the only one that could be told from the letters of a prompt.
    languages=(),
    # Table "pixels": its 480p is of 2.0 and 1.5 pro.
    unsized=frozenset({"480p"}),
)
SEEDANCE_1_5_PRO = Model(
    name="Seedance 1.5 pro",
    # Table "families", O; without a prefix on BytePlus.
    ids={"byteplus": "seedance-1-5-pro-251215", "volcengine": "doubao-seedance-1-5-pro-251215"},
    # Table "body": `resolution`, `duration`, O.
    resolutions=("480p", "720p", "1080p"),
    durations=range(4, 13),
    # Table "scenes" gives numbers for 2.0 and 2.5 alone: not documented for 1.5 pro, and so refused. Text, first frame,
    # and first and last frame are not told apart by model there, O.
    references={},
    reference_seconds=0,
    lone_audio=False,
    # Table "body", O. No `priority`, no `tools`; of the newest fields `draft` only.
    optional=frozenset({"seed", "camera_fixed", "service_tier", "execution_expires_after", "draft"}),
    service_tiers=("default", "flex"),
    # Not documented, and so nothing to warn of.
    languages=(),
)
MODELS = (SEEDANCE_2_0, SEEDANCE_2_0_FAST, SEEDANCE_2_0_MINI, SEEDANCE_2_5, SEEDANCE_1_5_PRO)
