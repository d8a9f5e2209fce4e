"""Damaged media: an inspection ends in time, with plain properties, or with a finding about the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seedance_temporal.media.probe import BadMedia, probed
from tests.fuzz.size import examples
from tests.support.media_files import bottomless_video, clip, heif, padded_mp4, picture, png_bomb, sound, with_zeros

_SECONDS = 60.0
# Sound files, and files that once broke an inspection.
CORPUS: dict[str, Callable[[], bytes]] = {
    **{name: lambda name=name: picture(format_name=name) for name in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")},  # type: ignore[misc]
    "HEIF": lambda: heif(b"mif1"),
    "PNG bomb": lambda: png_bomb(50_000, 50_000),
    "MP4": clip,
    "MP4 with sound": lambda: clip(sound="aac"),
    "HEVC": lambda: clip(codec="libx265"),
    "MOV": lambda: clip(container="mov"),
    "unknown track": lambda: clip(sound="aac").replace(b"mp4a", b"apac").replace(b"esds", b"free"),
    "zeros behind a frame": lambda: with_zeros(clip(), 8, each_frame_is_cut=False),
    "padded MP4": lambda: padded_mp4(clip(), 200_000),
    "endless video": lambda: bottomless_video(1_000_000),
    "WAV": sound,
}
_NUMBERS = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\0\0\1")
# What is done to a file, where in it (in millionths), and with which bytes.
_EDITS = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "write", "insert", "remove", "cut"]),
        st.integers(0, 999_999),
        st.sampled_from(_NUMBERS) | st.binary(min_size=1, max_size=16),
    ),
    min_size=1,
    max_size=6,
)


def edited(content: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    for what, where, with_ in edits:
        at = len(content) * where // 1_000_000
        match what:
            case "write":
                content = content[:at] + with_ + content[at + len(with_) :]
            case "insert":
                content = content[:at] + with_ + content[at:]
            case "remove":
                content = content[:at] + content[at + len(with_) :]
            case _:
                content = content[:at]
    return content


@settings(max_examples=examples(12), suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from(sorted(CORPUS)),
    kind=st.sampled_from(["image", "video", "audio", "result"]),
    near_the_start=st.booleans(),
    edits=_EDITS,
)
async def test_damaged_media_are_findings(
    tmp_path: Path, name: str, kind: str, near_the_start: bool, edits: list[tuple[str, int, bytes]]
) -> None:
    content = CORPUS[name]()
    # Headers decide how the rest is read.
    start = min(len(content), 2_000) if near_the_start else len(content)
    file = tmp_path / "a.bin"
    file.write_bytes(edited(content[:start], edits) + content[start:])
    try:
        found = json.dumps(await probed(kind, file, _SECONDS), allow_nan=False)
    except BadMedia as finding:
        found = str(finding)
    assert len(found) < 500
    assert found.isprintable()
    assert "longer than" not in found, "it was not judged in time"
