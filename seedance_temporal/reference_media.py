"""The properties of reference media, and the checks of them by the model's limits. It needs no network and no file."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from pydantic import BaseModel

from seedance_temporal.errors import Problem
from seedance_temporal.provider.models import (
    FPS_TOLERANCE,
    MEDIA,
    REFERENCE_TOLERANCE_SECONDS,
    SHORTEST_EDIT_SECONDS,
    SHORTEST_REFERENCE_SECONDS,
    Kind,
    MediaLimits,
    Model,
)
from seedance_temporal.request import Reference, VideoRequest


class Medium(BaseModel, frozen=True):
    """The properties of a reference's content. They are stored in history and record, and so without its URL.

    Attributes:
        reference: The index of the reference in the request, counted from 0.
        format: Such as ``jpeg``, ``mp4`` or ``wav``.
        size: Bytes.
        sha256: The hash of the content, as 64 lowercase hex digits.
        width, height: Pixels, of pictures and videos.
        seconds: The length of videos and sounds.
        fps: Frames a second, of videos.
        codecs: Those of a video's pictures and sound, or of a sound.
    """

    reference: int
    kind: Kind
    format: str
    size: int
    sha256: str
    width: int | None = None
    height: int | None = None
    seconds: float | None = None
    fps: float | None = None
    codecs: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Describe the medium in a few words."""
        parts = [self.format]
        if self.width is not None:
            parts.append(f"{self.width}x{self.height}")
        if self.seconds is not None:
            parts.append(f"{self.seconds:.1f} s")
        if self.fps is not None:
            parts.append(f"{self.fps:g} fps")
        return " ".join([*parts, *self.codecs, f"{self.size} bytes"])


def is_readable(reference: Reference) -> bool:
    """Return whether a reference can be downloaded: the provider's own ``asset://`` media cannot."""
    return not reference.url.startswith("asset://")


def media_problems(media: Collection[Medium], model: Model, request: VideoRequest) -> list[Problem]:
    """List all problems of the reference media that could be read, by the limits of the request's model."""
    problems = [
        Problem(at=f"references[{medium.reference}]", problem=problem)
        for medium in media
        for problem in (*_limit_problems(medium, MEDIA[medium.kind]), *_length_problems(medium, model))
    ]
    return [*problems, *_total_problems(media, model), *_edit_problems(media, request)]


def media_warnings(media: Collection[Medium]) -> list[str]:
    """Return warnings of reference media that are allowed, and that the provider may still refuse."""
    return [
        f"references[{medium.reference}] has {medium.size} bytes. The provider's newest pages allow that, and older "
        f"ones no more than {advised}."
        for medium in media
        if (advised := MEDIA[medium.kind].advised_bytes) is not None and medium.size > advised
    ]


def _limit_problems(medium: Medium, limits: MediaLimits) -> Iterator[str]:
    if medium.format not in limits.formats:
        yield f"is {medium.format}; the provider takes {', '.join(limits.formats)}"
    if medium.size > limits.max_bytes:
        yield f"has {medium.size} bytes; {limits.max_bytes} are allowed"
    if limits.codecs is not None and (unknown := [codec for codec in medium.codecs if codec not in limits.codecs]):
        yield f"is encoded in {', '.join(unknown)}; the provider takes {', '.join(limits.codecs)}"
    if medium.width is not None and medium.height is not None:
        size = f"{medium.width}x{medium.height}"
        if limits.side and not all(_within(side, limits.side) for side in (medium.width, medium.height)):
            yield f"is {size} pixels large; each side must have {_range(limits.side)}"
        if limits.ratio and not _within(medium.width / medium.height, limits.ratio):
            yield f"is {size} pixels large; width by height must be {_range(limits.ratio)}"
        if limits.pixels and not _within(medium.width * medium.height, limits.pixels):
            yield f"is {size} pixels large; together they must be {_range(limits.pixels)}"
    if limits.fps and medium.fps is not None:
        least, most = limits.fps
        if not _within(medium.fps, (least - FPS_TOLERANCE, most + FPS_TOLERANCE)):
            yield f"has {medium.fps:g} frames a second; {_range(limits.fps)} are allowed"


def _length_problems(medium: Medium, model: Model) -> Iterator[str]:
    if medium.seconds is None:
        return
    allowed = (SHORTEST_REFERENCE_SECONDS, model.reference_seconds)
    least, most = allowed[0] - REFERENCE_TOLERANCE_SECONDS, allowed[1] + REFERENCE_TOLERANCE_SECONDS
    if not _within(medium.seconds, (least, most)):
        yield f"is {medium.seconds:.2f} s long; {model.name} takes {_range(allowed)} s"


def _total_problems(media: Collection[Medium], model: Model) -> Iterator[Problem]:
    kinds: tuple[Kind, ...] = ("video", "audio")
    for kind in kinds:
        lengths = [medium.seconds for medium in media if medium.kind == kind and medium.seconds is not None]
        # A thousandth is the rounding of the sum.
        if len(lengths) > 1 and round(sum(lengths), 3) > model.reference_seconds + REFERENCE_TOLERANCE_SECONDS:
            yield Problem(
                at="references",
                problem=f"holds {sum(lengths):.2f} s of {kind} in all; {model.name} takes {model.reference_seconds} s",
            )


def _edit_problems(media: Collection[Medium], request: VideoRequest) -> Iterator[Problem]:
    if request.omni_reference_task_type != "edit":
        return
    videos = [reference for reference in request.references if reference.role == "reference_video"]
    lengths = [medium.seconds for medium in media if medium.kind == "video" and medium.seconds is not None]
    if len(lengths) == len(videos) and lengths and max(lengths) < SHORTEST_EDIT_SECONDS - REFERENCE_TOLERANCE_SECONDS:
        needed = f"an edit needs one of {SHORTEST_EDIT_SECONDS} s or more"
        yield Problem(at="references", problem=f"holds no reference_video longer than {max(lengths):.2f} s; {needed}")


def _within(value: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= value <= limits[1]


def _range(limits: tuple[float, float]) -> str:
    return f"{limits[0]} to {limits[1]}"
