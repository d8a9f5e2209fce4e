"""Whether a file is a whole video, or a picture: real MP4s, made with PyAV, and what can become of them."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import pytest

from dev.ark.media import Clip, last_frame, video
from seedance_temporal.media.probe import BadMedia, Probe, picture_type, probe
from tests.support.media_files import sound

# Where an MP4 has its index: behind the frames, before them, or in pieces between them.
KINDS: dict[str, dict[str, str]] = {
    "index last": {},
    "index first": {"movflags": "faststart"},
    "in fragments": {"movflags": "frag_keyframe+empty_moov"},
}


@cache
def mp4(kind: str, has_sound: bool = True) -> bytes:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "v.mp4"
        with av.open(str(path), "w", format="mp4", options=KINDS[kind]) as container:
            pictures = container.add_stream("libx264", rate=24)
            pictures.width, pictures.height, pictures.pix_fmt = 320, 192, "yuv420p"
            audio = container.add_stream("aac", rate=44_100, layout="mono") if has_sound else None
            for n in range(24):
                picture = av.VideoFrame(320, 192, "yuv420p")
                for plane in picture.planes:
                    plane.update(bytes((n * 9 + at % 200) % 256 for at in range(plane.buffer_size)))
                picture.pts, picture.time_base = n, Fraction(1, 24)
                container.mux(pictures.encode(picture))
            container.mux(pictures.encode(None))
            if audio is not None:
                for n in range(43):
                    silence = av.AudioFrame("fltp", "mono", 1024)
                    silence.planes[0].update(bytes(silence.planes[0].buffer_size))
                    silence.sample_rate, silence.pts = 44_100, n * 1024
                    container.mux(audio.encode(silence))
                container.mux(audio.encode(None))
        return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "v.mp4"


@pytest.mark.parametrize("audio", [True, False], ids=["sound", "silent"])
@pytest.mark.parametrize("kind", KINDS)
def test_whole_video_is_described(path: Path, kind: str, audio: bool) -> None:
    path.write_bytes(mp4(kind, audio))
    codecs = ("h264", "aac") if audio else ("h264",)
    assert probe("result", path) == Probe("mp4", 320, 192, 1.0, 24.0, codecs, frames=24)


def test_video_is_as_long_as_a_player_shows_it(path: Path, tmp_path: Path) -> None:
    """Telephones cut a video by an edit list, and leave its frames in the file."""
    whole = tmp_path / "whole.mp4"
    whole.write_bytes(video(Clip(864, 496, 4, audio=False), "cgt-1"))
    options = {"avoid_negative_ts": "disabled", "use_editlist": "1"}
    with av.open(str(whole)) as source, av.open(str(path), "w", format="mp4", options=options) as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        assert stream.time_base is not None
        cut = int(Fraction(1) / stream.time_base)
        for packet in source.demux(stream):
            if packet.dts is not None and packet.pts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - cut, packet.dts - cut, copy
                target.mux(packet)
    found = probe("video", path)
    assert found.seconds == pytest.approx(3, abs=0.1)
    assert found.frames >= 4 * 24


def test_video_of_the_local_ark_is_described(path: Path) -> None:
    path.write_bytes(video(Clip(864, 496, 4, audio=True), "cgt-1"))
    codecs = ("h264", "aac")
    assert probe("result", path) == Probe("mp4", 864, 496, 97 / 24, 24.0, codecs, frames=97)


@pytest.mark.parametrize("behind", [b"A" * 40, b" " * 4096, b"\xff" * 12, bytes(4096), b"\0\0\xff\xffTRLR" + b"x" * 99])
@pytest.mark.parametrize("kind", KINDS)
def test_bytes_behind_a_video_are_fine(path: Path, kind: str, behind: bytes) -> None:
    """Cameras and servers add some, and players leave them out."""
    path.write_bytes(mp4(kind) + behind)
    assert probe("result", path).frames == 24


@pytest.mark.parametrize("left", [0.1, 0.5, 0.9, -100, -1])
@pytest.mark.parametrize("kind", KINDS)
def test_cut_video_is_refused(path: Path, kind: str, left: float) -> None:
    whole = mp4(kind)
    path.write_bytes(whole[: int(len(whole) * left) if left > 0 else int(left)])
    with pytest.raises(BadMedia):
        probe("result", path)


def ends_at(at: int) -> bytes:
    """A silent video up to a place among its frames. The last box says that it ends there, so the boxes fit."""
    whole = mp4("index first", has_sound=False)
    box = whole.rindex(b"mdat") - 4
    return whole[:box] + (at - box).to_bytes(4, "big") + whole[box + 4 : at]


def last_packet(path: Path) -> tuple[int, int]:
    path.write_bytes(mp4("index first", has_sound=False))
    with av.open(str(path)) as container:
        return max((packet.pos, packet.size) for packet in container.demux() if packet.pos is not None)


@pytest.mark.parametrize(("part", "reason"), [(0, "23 of the 24 frames"), (0.5, "not whole")])
def test_missing_frame_is_noticed_though_the_boxes_fit(path: Path, part: float, reason: str) -> None:
    at, size = last_packet(path)
    path.write_bytes(ends_at(at + int(size * part)))
    with pytest.raises(BadMedia, match=reason):
        probe("result", path)


@pytest.mark.parametrize(
    "whole", [mp4("index first"), video(Clip(864, 496, 4, audio=False), "cgt-1")], ids=["made here", "local"]
)
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_hole_is_noticed_at_the_right_length(path: Path, whole: bytes, part: float) -> None:
    """As a download that was set to its length first, and then filled in part."""
    left = int(len(whole) * part)
    path.write_bytes(whole[:left] + bytes(len(whole) - left))
    with pytest.raises(BadMedia):
        probe("result", path)


def without_frame() -> bytes:
    whole = mp4("in fragments", has_sound=False)
    return whole[: whole.index(b"moof") - 4]


def without_real_frames() -> bytes:
    whole = mp4("index first")
    at = whole.rindex(b"mdat") + 4
    return whole[:at] + b"\xff" * (len(whole) - at)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (without_frame(), "no frame"),
        (without_real_frames(), "not a readable MP4"),
        (sound(3, "mp4", "aac"), "no video stream"),
        (b"", "is empty"),
        (b"\n <!DOCTYPE html><html><body>Busy</body></html>", "page of text"),
        (b'<?xml version="1.0"?><Error/>', "page of text"),
        (b'{"error": {"code": "x"}}', "page of text"),
        (bytes(5000), "not a readable MP4"),
        (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1/inside.ts\n", "is "),
        (b"\x1aE\xdf\xa3" + bytes(100), "is "),
    ],
    ids=lambda value: value if isinstance(value, str) else "content",
)
def test_other_files_are_refused_with_reason(path: Path, content: bytes, reason: str) -> None:
    path.write_bytes(content)
    with pytest.raises(BadMedia, match=reason):
        probe("result", path)


def test_picture_type_comes_from_content(path: Path) -> None:
    png = last_frame(Clip(64, 64, 4, audio=False), "cgt-1")
    for content, kind in ((png, "png"), (b"\xff\xd8\xff\xe0\x00\x10JFIF", "jpg")):
        path.write_bytes(content)
        assert picture_type(path) == kind


@pytest.mark.parametrize("content", [b"", b"<html>", b"GIF89a", b"RIFF\0\0\0\0WEBP"])
def test_other_content_is_no_picture(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(BadMedia):
        picture_type(path)
