"""What a file is, by its content alone: a reference, or a video that came as a result.

Whoever wrote the file may mean harm, and what reads it is large and written in C. So it runs as a process of its own
(``python -m activities.probe KIND FILE``), without secrets in its environment, with a limit on its memory, and can be
ended. It prints one JSON object.
"""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import pillow_heif
from av.audio.stream import AudioStream
from av.container import InputContainer
from PIL import Image, UnidentifiedImageError

from activities.media import BadMedia, probe_video

# The largest picture that is decoded has 36 million pixels; a decoder needs a few times their bytes.
_MEMORY_BYTES = 3 * 1024**3
_LARGEST_SIDE = 6000
_START_BYTES = 64
# What Pillow may try. Everything else it knows stays untouched: some of it starts other programs.
_PICTURES = {
    "JPEG": "jpeg",
    "PNG": "png",
    "WEBP": "webp",
    "BMP": "bmp",
    "TIFF": "tiff",
    "GIF": "gif",
    "HEIF": "heif",
}
# What an MP4 or MOV can begin with: old MOVs say nothing of their type.
_FIRST_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"})
_HEIF_BRANDS = {b"heic": "heic", b"heix": "heic", b"mif1": "heif", b"heif": "heif"}


@dataclass(frozen=True)
class Probe:
    """What a file turned out to be. Attributes as in :class:`seedance_temporal.media.Medium`."""

    format: str
    width: int | None = None
    height: int | None = None
    seconds: float | None = None
    fps: float | None = None
    codecs: tuple[str, ...] = ()


def probe(kind: str, path: Path) -> Probe:
    """Looks into a file. What is too large to be a reference is not decoded.

    Args:
        kind: ``image``, ``video`` or ``audio`` of a reference; ``result``: a video that the provider made, which need
            not be what it would take.
        path: The file.

    Raises:
        BadMedia: It is no such file, or cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(_START_BYTES)
    if not start:
        raise BadMedia("is empty")
    return {"image": _picture, "video": _video, "audio": _sound, "result": _result}[kind](path, start)


def _picture(path: Path, start: bytes) -> Probe:
    brand = start[8:12] if start[4:8] == b"ftyp" else None
    if brand is not None and brand not in _HEIF_BRANDS:
        raise BadMedia("is no picture that the provider takes")
    # The size is looked at before anything is decoded, so there is no need for a limit of Pillow's own.
    Image.MAX_IMAGE_PIXELS = None
    pillow_heif.register_heif_opener()
    try:
        with Image.open(path, formats=tuple(_PICTURES)) as picture:
            width, height = picture.size
            if max(width, height) <= _LARGEST_SIDE:
                picture.load()
            # Several pictures in one file, as telephones write them; the first is a JPEG like any other.
            format_name = _PICTURES["JPEG" if picture.format == "MPO" else picture.format or ""]
    except UnidentifiedImageError:
        raise BadMedia("is no picture that the provider takes") from None
    except Exception:  # Pillow's decoders raise whatever they come across, and quote the file
        raise BadMedia("cannot be decoded as a picture, or is cut off") from None
    return Probe(_HEIF_BRANDS[brand] if brand is not None else format_name, width, height)


def _video(path: Path, start: bytes) -> Probe:
    if start[4:8] not in _FIRST_BOXES or (start[4:8] == b"ftyp" and start[8:11] in {b"3gp", b"3g2"}):
        raise BadMedia("is neither MP4 nor MOV")
    video = probe_video(path)
    is_mov = start[4:8] != b"ftyp" or start[8:12] == b"qt  "  # before MP4 there was no such box
    seconds = video.seconds if video.seconds is not None or not video.fps else video.frames / video.fps
    if seconds is None or video.fps is None:
        raise BadMedia("does not say how long it is")
    return Probe(
        "mov" if is_mov else "mp4",
        video.width,
        video.height,
        round(seconds, 3),
        round(video.fps, 3),
        video.codecs,
    )


def _result(path: Path, start: bytes) -> Probe:
    found = probe_video(path)
    return Probe("mp4", found.width, found.height, found.seconds, found.fps, found.codecs)


def _sound(path: Path, start: bytes) -> Probe:
    if start.startswith(b"RIFF") and start[8:12] == b"WAVE":
        format_name = "wav"
    elif start.startswith(b"ID3") or (start[0] == 0xFF and start[1:2] >= b"\xe0"):
        format_name = "mp3"
    else:
        raise BadMedia("is neither WAV nor MP3")
    try:
        # No other format is tried: some would open further files and addresses.
        with av.open(str(path), format=format_name, metadata_errors="replace") as container:
            return _listened(container, format_name)
    except av.FFmpegError as error:
        raise BadMedia(f"is not a readable {format_name.upper()}: {error.strerror}") from None


def _listened(container: InputContainer, format_name: str) -> Probe:
    if not container.streams.audio:
        raise BadMedia("holds no sound")
    stream: AudioStream = container.streams.audio[0]
    # Counted, because an MP3 says its length only by its bit rate, and a header can say anything.
    seconds = sum(
        float(packet.duration * packet.time_base)
        for packet in container.demux(stream)
        if packet.size and packet.duration and packet.time_base
    )
    container.seek(0)
    if next(container.decode(stream), None) is None:
        raise BadMedia("holds no sound that can be decoded")
    return Probe(format_name, seconds=round(seconds, 3), codecs=(stream.codec.canonical_name,))


def main() -> None:
    """Looks into the file that the command line names, and prints what it is, or why it is refused."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":  # elsewhere the limit is not kept
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, hard))
    try:
        answer = asdict(probe(sys.argv[1], Path(sys.argv[2])))
    except (BadMedia, MemoryError) as error:
        answer = {"refused": str(error) or "needs more memory than a reference may"}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
