"""What files are by their content, and each limit of reference media from both sides: with real files."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from dev.ark.errors import ArkError
from dev.ark.references import check_media
from seedance_temporal.media import probe as probe_module
from seedance_temporal.media.probe import BadMedia, Probe, Unreadable, probe, probed
from seedance_temporal.provider.known_models import KNOWN
from seedance_temporal.provider.models import Kind, Model
from seedance_temporal.reference_media import Medium, media_problems, media_warnings
from seedance_temporal.request import VideoRequest
from tests.support.media_files import FPS, clip, heif, picture, png_bomb, sound, with_zeros

ROOT = Path(__file__).parents[2]
MB = 1024 * 1024
# Made when a test needs it, not when the tests are collected.
File = Callable[[], bytes]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.txt"  # the name says nothing


def found(path: Path, kind: Kind, content: bytes, reference: int = 0) -> Medium:
    path.write_bytes(content)
    size, sha256 = len(content), "0" * 64
    return Medium(reference=reference, kind=kind, size=size, sha256=sha256, **vars(probe(kind, path)))


def local_ark_accepts(kind: Kind, content: bytes) -> bool:
    """Whether the local provider, which shares no code with the worker, decides the same."""
    try:
        check_media([(f"{kind}_url", content)], longest=15)
    except ArkError:
        return False
    return True


SEEDANCE_2_0, SEEDANCE_2_5 = KNOWN["dreamina-seedance-2-0-260128"], KNOWN["dreamina-seedance-2-5-260628"]


def problems(media: list[Medium], model: Model = SEEDANCE_2_0, **fields: Any) -> list[str]:
    request = VideoRequest(user_id="user-42", route=model.route, model=model.id, **fields)
    return [f"{problem.at} {problem.problem}" for problem in media_problems(media, model, request)]


@pytest.mark.parametrize(
    ("lengths", "problem"),
    [
        ([3.9], None),
        ([2.5, 4.0], None),
        ([2.5, 3.0], "references holds no reference_video longer than 3.00 s; an edit needs one of 4 s or more"),
        ([2.5, None], None),
    ],
)
def test_shortest_video_of_an_edit(lengths: list[float | None], problem: str | None) -> None:
    media = [
        Medium(reference=at, kind="video", format="mp4", size=9, sha256="", seconds=seconds)
        for at, seconds in enumerate(lengths)
        if seconds is not None
    ]
    videos = [{"role": "reference_video", "url": "asset://v"} for _ in lengths]
    found = problems(media, SEEDANCE_2_5, references=videos, omni_reference_task_type="edit")
    assert found == ([] if problem is None else [problem])
    assert problems(media, SEEDANCE_2_5, references=videos) == []


# What a file is


@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        ("image", lambda: picture(format_name="JPEG"), Probe("jpeg", 640, 480)),
        ("image", lambda: picture(format_name="MPO"), Probe("jpeg", 640, 480)),
        ("image", lambda: picture(format_name="PNG"), Probe("png", 640, 480)),
        ("image", lambda: picture(format_name="WEBP"), Probe("webp", 640, 480)),
        ("image", lambda: picture(format_name="BMP"), Probe("bmp", 640, 480)),
        ("image", lambda: picture(format_name="TIFF"), Probe("tiff", 640, 480)),
        ("image", lambda: picture(format_name="GIF"), Probe("gif", 640, 480)),
        ("image", lambda: picture(format_name="HEIF"), Probe("heic", 640, 480)),
        ("image", lambda: heif(b"mif1"), Probe("heif", 640, 480)),
        ("video", lambda: clip(), Probe("mp4", 864, 496, 3.0, 25.0, ("h264",), 75)),
        ("video", lambda: clip(sound="aac"), Probe("mp4", 864, 496, 3.0, 25.0, ("h264", "aac"), 75)),
        ("video", lambda: clip(codec="libx265", sound="mp3"), Probe("mp4", 864, 496, 3.0, 25.0, ("hevc", "mp3"), 75)),
        ("video", lambda: clip(container="mov"), Probe("mov", 864, 496, 3.0, 25.0, ("h264",), 75)),
        ("audio", lambda: sound(), Probe("wav", seconds=3.0, codecs=("pcm_s16le",))),
    ],
)
def test_content_decides_the_format(path: Path, kind: Kind, content: File, expected: Probe) -> None:
    path.write_bytes(content())
    assert probe(kind, path) == expected
    assert problems([found(path, kind, content())]) == []


def test_track_of_unknown_codec_is_left_out(path: Path) -> None:
    """Players leave out such a track, too, as telephones write them."""
    odd = clip(sound="aac").replace(b"mp4a", b"apac").replace(b"esds", b"free")
    path.write_bytes(odd)
    assert probe("video", path) == Probe("mp4", 864, 496, 3.0, 25.0, ("h264",), 75)
    assert local_ark_accepts("video", odd)


def test_video_of_unknown_codec_is_unreadable(path: Path) -> None:
    path.write_bytes(clip().replace(b"avc1", b"zzz1"))
    with pytest.raises(Unreadable, match="not known here"):
        probe("result", path)


@pytest.mark.parametrize("part", ["icc_profile", "xmp"])
def test_picture_with_large_profile_is_read(path: Path, part: str) -> None:
    """A megabyte is Pillow's own limit for each; cameras and editors write more."""
    whole = io.BytesIO()
    info = PngImagePlugin.PngInfo()
    if part == "xmp":
        info.add_itxt("XML:com.adobe.xmp", " " * 3_000_000, zip=True)
    more = {"icc_profile": bytes(3_000_000)} if part == "icc_profile" else {}
    Image.new("RGB", (640, 480)).save(whole, "PNG", pnginfo=info, **more)
    path.write_bytes(whole.getvalue())
    assert probe("image", path) == Probe("png", 640, 480)
    assert local_ark_accepts("image", whole.getvalue())


@pytest.mark.parametrize("zeros", [8, 5_000])
def test_zeros_behind_a_frame_are_padding(path: Path, zeros: int) -> None:
    path.write_bytes(with_zeros(clip(), zeros, each_frame_is_cut=False))
    assert probe("video", path) == Probe("mp4", 864, 496, 3.0, 25.0, ("h264",), 75)


def test_zeros_in_place_of_a_frames_end_are_a_hole(path: Path) -> None:
    path.write_bytes(with_zeros(clip(), 40, each_frame_is_cut=True))
    with pytest.raises(BadMedia, match="overwritten with zeros"):
        probe("video", path)


@pytest.mark.parametrize(
    "fails",
    ["raise AttributeError('s3cret')", "raise RecursionError", "import os; os.abort()", "import sys; sys.exit(3)"],
)
async def test_failing_decoder_is_a_finding_about_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    child = path.with_name("probe.py")
    child.write_text(f"import seedance_temporal.media.probe as p\ndef probe(*_): {fails}\np.probe = probe\np.main()\n")
    monkeypatch.setattr(probe_module, "__file__", str(child))
    path.write_bytes(clip())
    with pytest.raises(Unreadable, match=r"cannot be read: (a|the) decoder") as raised:
        await probed("result", path, 60)
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("name", [b"VideoHandler", b"Lavf"])
def test_metadata_without_utf8_is_accepted(path: Path, name: bytes) -> None:
    content = clip().replace(name, b"\xff\xfe" + name[2:])
    assert content != clip()
    path.write_bytes(content)
    assert probe("video", path) == Probe("mp4", 864, 496, 3.0, 25.0, ("h264",), 75)


def test_mp3_is_as_long_as_its_frames(path: Path) -> None:
    medium = found(path, "audio", sound(3, "mp3", "mp3"))
    assert (medium.format, medium.codecs) == ("mp3", ("mp3",))
    assert medium.seconds == pytest.approx(3, abs=0.1)
    half = found(path, "audio", sound(6, "mp3", "mp3")[: len(sound(6, "mp3", "mp3")) // 2])
    assert half.seconds == pytest.approx(3, abs=0.2)


@pytest.mark.parametrize(
    ("kind", "content", "reason"),
    [
        ("image", lambda: b"", "is empty"),
        ("video", lambda: b"", "is empty"),
        ("audio", lambda: b"", "is empty"),
        ("image", lambda: picture(format_name="TGA"), "no picture that the provider takes"),
        ("image", lambda: picture(format_name="PPM"), "no picture that the provider takes"),
        ("image", lambda: picture(format_name="AVIF"), "no picture that the provider takes"),
        ("image", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 640 480\n", "no picture that the provider"),
        ("image", lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="640" height="480"/>', "no picture"),
        ("image", lambda: clip(), "no picture that the provider takes"),
        ("image", lambda: picture(format_name="PNG")[:-40], "cut off"),
        ("image", lambda: picture(format_name="JPEG")[:-400], "cut off"),
        ("image", lambda: picture(format_name="HEIF")[:-40], "cut off"),
        ("video", lambda: b"this is a text under another name\n" * 100, "neither MP4 nor MOV"),
        ("video", lambda: b"<html>Not found</html>", "neither MP4 nor MOV"),
        ("video", lambda: picture(), "neither MP4 nor MOV"),
        ("video", lambda: sound(), "neither MP4 nor MOV"),
        ("video", lambda: sound(3, "mp4", "aac"), "no video stream"),
        ("video", lambda: clip()[:-100], "cut off"),
        ("video", lambda: clip()[: len(clip()) // 2], "cut off|not a readable MP4"),
        ("video", lambda: clip()[:8] + b"isom" + bytes(500), "not a readable MP4|cut off"),
        ("video", lambda: clip(container="matroska"), "neither MP4 nor MOV"),
        ("video", lambda: clip(container="avi"), "neither MP4 nor MOV"),
        ("video", lambda: clip(container="3gp"), "neither MP4 nor MOV"),
        ("audio", lambda: clip(sound="aac"), "neither WAV nor MP3"),
        ("audio", lambda: sound(3, "ogg", "flac"), "neither WAV nor MP3"),
        ("audio", lambda: sound(3, "flac", "flac"), "neither WAV nor MP3"),
        ("audio", lambda: sound(3, "mp4", "aac"), "neither WAV nor MP3"),
        ("audio", lambda: b"RIFF\x00\x00\x00\x00WAVE" + bytes(100), "not a readable WAV|no sound"),
        ("audio", lambda: b"ID3" + b"no sound " * 300, "not a readable MP3|no sound"),
        ("audio", lambda: b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1/inside.mp3\n", "neither WAV nor MP3"),
    ],
)
def test_other_or_cut_file_is_refused(path: Path, kind: Kind, content: File, reason: str) -> None:
    path.write_bytes(content())
    with pytest.raises(BadMedia, match=reason):
        probe(kind, path)


def test_bomb_is_refused_by_its_header(path: Path) -> None:
    """It would take 7.5 GB to decode, more than the process may have: then nothing would be known of its size."""
    path.write_bytes(png_bomb(50_000, 50_000))
    assert path.stat().st_size < 10_000
    command = [sys.executable, "-m", "seedance_temporal.media.probe", "image", str(path)]
    answer = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
    assert (answer["format"], answer["width"], answer["height"]) == ("png", 50_000, 50_000)
    (problem,) = problems([found(path, "image", png_bomb(50_000, 50_000))])
    assert problem == "references[0] is 50000x50000 pixels large; each side must have 300 to 6000"


def test_file_over_memory_limit_is_refused(path: Path) -> None:
    """The same bomb, had its header been believed to be harmless."""
    path.write_bytes(png_bomb(50_000, 50_000))
    command = [sys.executable, "-c", "import seedance_temporal.media.probe as p; p._LARGEST_SIDE = 60_000; p.main()"]
    answer = json.loads(
        subprocess.run([*command, "image", str(path)], cwd=ROOT, capture_output=True, check=True).stdout
    )
    assert "cannot be decoded" in answer["refused"]


# The limits, just inside and just outside


@pytest.mark.parametrize(
    ("kind", "content", "problem"),
    [
        ("image", lambda: picture(300, 300), None),
        ("image", lambda: picture(299, 300), "each side must have 300 to 6000"),
        ("image", lambda: picture(300, 299), "each side must have 300 to 6000"),
        ("image", lambda: picture(6000, 2400), None),
        ("image", lambda: picture(6001, 2401), "each side must have 300 to 6000"),
        ("image", lambda: picture(2401, 6001), "each side must have 300 to 6000"),
        ("image", lambda: picture(400, 1000), None),
        ("image", lambda: picture(399, 1000), "width by height must be 0.4 to 2.5"),
        ("image", lambda: picture(1000, 400), None),
        ("image", lambda: picture(1001, 400), "width by height must be 0.4 to 2.5"),
        ("video", lambda: clip(664, 614), None),  # 407,696
        ("video", lambda: clip(664, 612), "together they must be 407696 to 8295044"),
        ("video", lambda: clip(2494, 3326), None),  # 8,295,044
        ("video", lambda: clip(2494, 3328), "together they must be 407696 to 8295044"),
        ("video", lambda: clip(640, 1600), None),
        ("video", lambda: clip(638, 1600), "width by height must be 0.4 to 2.5"),
        ("video", lambda: clip(1600, 640), None),
        ("video", lambda: clip(1602, 640), "width by height must be 0.4 to 2.5"),
        ("video", lambda: clip(frames=48, fps=Fraction(24)), None),
        ("video", lambda: clip(frames=48, fps=Fraction(24_000, 1001)), None),
        ("video", lambda: clip(frames=48, fps=Fraction(237, 10)), "has 23.7 frames a second; 24 to 60"),
        ("video", lambda: clip(frames=121, fps=Fraction(60_100, 1000)), None),
        ("video", lambda: clip(frames=120, fps=Fraction(60)), None),
        ("video", lambda: clip(frames=122, fps=Fraction(61)), "has 61 frames a second; 24 to 60"),
        ("video", lambda: clip(codec="libx265"), None),
        ("video", lambda: clip(codec="mpeg4"), "is encoded in mpeg4; the provider takes h264, hevc, aac, mp3"),
        ("video", lambda: clip(codec="libvpx-vp9"), "is encoded in vp9"),
        ("video", lambda: clip(sound="mp3"), None),
        ("video", lambda: clip(sound="ac3"), "is encoded in ac3"),
        ("video", lambda: clip(frames=45), None),  # 1.8 s: 2 s with 0.2 s of tolerance
        ("video", lambda: clip(frames=44), "is 1.76 s long; Seedance 2.0 takes 2 to 15 s"),
        ("video", lambda: clip(frames=380), None),  # 15.2 s
        ("video", lambda: clip(frames=381), "is 15.24 s long; Seedance 2.0 takes 2 to 15 s"),
        ("audio", lambda: sound(1.8), None),
        ("audio", lambda: sound(1.79), "is 1.79 s long; Seedance 2.0 takes 2 to 15 s"),
        ("audio", lambda: sound(15.2), None),
        ("audio", lambda: sound(15.21), "is 15.21 s long; Seedance 2.0 takes 2 to 15 s"),
    ],
)
def test_limit_from_both_sides(path: Path, kind: Kind, content: File, problem: str | None) -> None:
    said = problems([found(path, kind, content())])
    assert (said == []) is local_ark_accepts(kind, content())
    if problem is None:
        assert said == []
    else:
        assert len(said) == 1
        assert problem in said[0]


@pytest.mark.parametrize(("side", "allowed"), [(300, True), (298, False), (6000, True), (6002, False)])
def test_sides_of_a_video(side: int, allowed: bool) -> None:
    """Such a video is too narrow as well, so that no file shows this limit alone."""
    medium = Medium(reference=0, kind="video", format="mp4", size=9, sha256="", width=side, height=1500)
    assert any("each side" in said for said in problems([medium])) is not allowed


@pytest.mark.parametrize(
    ("model", "frames", "allowed"), [(SEEDANCE_2_5, 755, True), (SEEDANCE_2_5, 756, False), (SEEDANCE_2_0, 755, False)]
)
def test_longest_video_of_2_5(path: Path, model: Model, frames: int, allowed: bool) -> None:
    assert (problems([found(path, "video", clip(frames=frames))], model) == []) is allowed


@pytest.mark.parametrize(
    ("model", "lengths", "problem"),
    [
        (SEEDANCE_2_0, [7.6, 7.6], None),
        (SEEDANCE_2_0, [7.6, 7.64], "references holds 15.24 s of {} in all; Seedance 2.0 takes 15 s"),
        (SEEDANCE_2_5, [15.0, 15.2], None),
        (SEEDANCE_2_5, [15.0, 15.24], "references holds 30.24 s of {} in all; Seedance 2.5 takes 30 s"),
    ],
)
def test_total_of_each_kind(path: Path, model: Model, lengths: list[float], problem: str | None) -> None:
    videos = [found(path, "video", clip(frames=round(seconds * FPS)), at) for at, seconds in enumerate(lengths)]
    sounds = [found(path, "audio", sound(seconds), at + 2) for at, seconds in enumerate(lengths)]
    for kind, media in (("video", videos), ("audio", sounds)):
        assert problems(media, model) == ([] if problem is None else [problem.format(kind)])
    if problem is None:
        assert problems([*videos, *sounds], model) == [], "the kinds are not added up"


@pytest.mark.parametrize(("kind", "most"), [("image", 30 * MB - 1), ("video", 200 * MB), ("audio", 15 * MB)])
def test_size_of_each_kind(kind: Kind, most: int) -> None:
    form = {"image": "png", "video": "mp4", "audio": "wav"}[kind]
    medium = Medium(reference=3, kind=kind, format=form, size=most, sha256="")
    assert problems([medium]) == []
    larger = medium.model_copy(update={"size": most + 1})
    assert problems([larger]) == [f"references[3] has {most + 1} bytes; {most} are allowed"]


def test_size_over_old_limit_is_warned_of() -> None:
    medium = Medium(reference=1, kind="video", format="mp4", size=50 * MB, sha256="")
    assert media_warnings([medium]) == []
    (warning,) = media_warnings([medium.model_copy(update={"size": 50 * MB + 1})])
    assert warning.startswith("references[1] has 52428801 bytes.")
