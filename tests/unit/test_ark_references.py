"""The local Ark's check of reference media: the limits of the documentation, each from both sides."""

from collections.abc import Callable
from fractions import Fraction
from functools import cache

import pytest

from dev.ark.errors import ArkError
from dev.ark.media import Clip, last_frame, last_frame_jpeg, video
from dev.ark.references import MediaUrl, check_media, fetch
from tests.support import media_files


@cache
def picture(width: int, height: int) -> tuple[str, bytes]:
    return "image_url", last_frame(Clip(width, height, 4, audio=False), "cgt-1")


@cache
def clip(width: int = 864, height: int = 496, seconds: int = 4) -> tuple[str, bytes]:
    return "video_url", video(Clip(width, height, seconds, audio=True), "cgt-1")


def other_clip(codec: str = "libx264", container: str = "mp4", fps: int = 24) -> tuple[str, bytes]:
    """Three seconds in another codec, container or rate."""
    return "video_url", media_files.clip(codec=codec, container=container, fps=Fraction(fps), frames=3 * fps)


def sound(seconds: float) -> tuple[str, bytes]:
    return "audio_url", media_files.sound(seconds)


# Made when they are needed, not when the tests are collected.
Contents = Callable[[], list[tuple[str, bytes]]]


@pytest.mark.parametrize(
    "contents",
    [
        lambda: [picture(300, 300), picture(750, 300), picture(300, 750)],
        lambda: [("image_url", last_frame_jpeg(Clip(864, 496, 4, audio=False), "cgt-1"))],
        lambda: [("image_url", b"\0\0\0\x18ftypheic....")],
        lambda: [clip(), clip(seconds=10)],
        lambda: [other_clip(container="mov"), other_clip(fps=60)],
        lambda: [sound(1.9), sound(12), clip(seconds=15)],
    ],
    ids=["sides", "JPEG", "HEIC", "seconds", "MOV and 60 fps", "each kind counts alone"],
)
def test_valid_references_are_accepted(contents: Contents) -> None:
    check_media(contents(), 15)


@pytest.mark.parametrize(
    ("contents", "problem"),
    [
        (lambda: [picture(298, 300)], "too small"),
        (lambda: [picture(760, 300)], "too wide"),
        (lambda: [picture(300, 760)], "too high"),
        (lambda: [("image_url", b"%PDF-1.7")], "format that is not supported"),
        (lambda: [("image_url", b"\x89PNG\r\n\x1a\n and no more")], "cannot be read"),
        (lambda: [clip(640, 480)], "too few or too many pixels"),
        (lambda: [clip(seconds=1)], "shorter than 2 seconds"),
        (lambda: [clip(seconds=8), clip(seconds=8)], "longer than 15 seconds"),
        (lambda: [other_clip(codec="mpeg4")], "codec that is not supported"),
        (lambda: [other_clip(container="matroska")], "neither MP4 nor MOV"),
        (lambda: [other_clip(fps=20)], "frames a second"),
        (lambda: [sound(1.5)], "shorter than 2 seconds"),
        (lambda: [sound(15.5)], "longer than 15 seconds"),
        (lambda: [("audio_url", clip()[1])], "neither WAV nor MP3"),
        (lambda: [("video_url", b"no video")], "cannot be read"),
    ],
)
def test_invalid_references_are_refused(contents: Contents, problem: str) -> None:
    with pytest.raises(ArkError, match=problem):
        check_media(contents(), 15)


def test_2_5_accepts_longer_videos() -> None:
    check_media([clip(seconds=15), clip(seconds=15)], 30)
    with pytest.raises(ArkError, match="longer than 30 seconds"):
        check_media([clip(seconds=15), clip(seconds=15), clip()], 30)


async def test_data_url_is_read_asset_is_not() -> None:
    assert await fetch([MediaUrl("image_url", "data:image/png;base64,AAAA"), MediaUrl("video_url", "asset://a")]) == [
        ("image_url", b"\0\0\0")
    ]
    with pytest.raises(ArkError, match="download"):
        await fetch([MediaUrl("image_url", "data:image/png;base64,A")])


async def test_too_large_file_is_refused() -> None:
    data = "AAAA" * (15 * 1024 * 1024 // 3)
    assert len((await fetch([MediaUrl("audio_url", f"data:audio/wav;base64,{data}")]))[0][1]) == 15 * 1024 * 1024
    with pytest.raises(ArkError, match="too large"):
        await fetch([MediaUrl("audio_url", f"data:audio/wav;base64,{data}AAAA")])
