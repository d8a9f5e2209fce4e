"""Find out what a file is by its content alone: a reference, or a video that the provider made.

The file may be hostile, and the decoders are large and written in C. So :func:`probed` runs this module in a process
of its own, without secrets in its environment, and bounds its memory and its time. The process prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import struct
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from os import SEEK_END
from pathlib import Path
from typing import BinaryIO, Literal

import av
import pillow_heif
from av.container import InputContainer
from av.stream import Stream
from av.video.stream import VideoStream
from PIL import Image, PngImagePlugin, UnidentifiedImageError

# The largest picture that is decoded has 36 million pixels; a decoder needs a few times their bytes.
_MEMORY_BYTES = 3 * 1024**3
_LARGEST_SIDE = 6000
_START_BYTES = 512
# The formats that Pillow may try. Others are left out: some of them start other programs.
_PICTURES = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "HEIF")
# The boxes that an MP4 or MOV can begin with: old MOVs do not state their type.
_FIRST_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"})
_HEIF_BRANDS = {b"heic": "heic", b"heix": "heic", b"mif1": "heif", b"heif": "heif"}
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
# Color profiles and descriptions of a PNG: Pillow's own limit, of a megabyte, is less than cameras write.
_LARGEST_TEXT = 64 * 1024 * 1024
# No frame of these codecs holds so many zeros in a row (they escape three already), but a hole in the file does.
# Some encoders fill up a part of a frame with zeros at its end.
_ESCAPING_CODECS = {"h264", "hevc"}
_HOLE = bytes(8)
_LENGTH_BYTES = 4
# As of 4k, with room.
_MOST_DECODED_PIXELS = 10_000_000
# The worker's other work goes first.
_NICENESS = 10
_BOX_HEADER = struct.Struct(">I4s")


class BadMedia(Exception):
    """The content is of another kind, or damaged. The message is the end of a sentence: "the file …"."""


class Unreadable(BadMedia):
    """The file cannot be judged: a decoder failed over it, or knows no such codec. A player may play it."""


@dataclass(frozen=True)
class Probe:
    """The properties of a file, as in :class:`seedance_temporal.reference_media.Medium`, and a video's frames."""

    format: str
    width: int | None = None
    height: int | None = None
    seconds: float | None = None
    fps: float | None = None
    codecs: tuple[str, ...] = ()
    frames: int = 0


def probe(kind: str, path: Path) -> Probe:
    """Read the properties of a file. A picture that is too large for a reference is not decoded.

    Args:
        kind: ``image``, ``video`` or ``audio`` of a reference; ``result``: a video that the provider made, for which
            the limits of references do not count.

    Raises:
        BadMedia: The file is of another kind, or cannot be read.
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
    # The size is checked before anything is decoded, so Pillow's own limit is not needed.
    Image.MAX_IMAGE_PIXELS = None
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = _LARGEST_TEXT
    pillow_heif.register_heif_opener()
    try:
        with Image.open(path, formats=_PICTURES) as picture:
            width, height = picture.size
            if max(width, height) <= _LARGEST_SIDE:
                picture.load()
            # Several pictures in one file, as telephones write them; the first is a JPEG like any other.
            format_name = "jpeg" if picture.format == "MPO" else str(picture.format).lower()
    except UnidentifiedImageError:
        raise BadMedia("is no picture that the provider takes") from None
    except Exception:  # Pillow's decoders raise errors of any type, which quote the file
        raise BadMedia("cannot be decoded as a picture, or is cut off") from None
    return Probe(_HEIF_BRANDS[brand] if brand is not None else format_name, width, height)


def _video(path: Path, start: bytes) -> Probe:
    if start[4:8] not in _FIRST_BOXES or (start[4:8] == b"ftyp" and start[8:11] in {b"3gp", b"3g2"}):
        raise BadMedia("is neither MP4 nor MOV")
    found = _result(path, start)
    is_mov = start[4:8] != b"ftyp" or start[8:12] == b"qt  "  # before MP4 there was no such box
    seconds = found.seconds if found.seconds is not None or not found.fps else found.frames / found.fps
    if seconds is None or found.fps is None:
        raise BadMedia("does not say how long it is")
    return replace(found, format="mov" if is_mov else "mp4", seconds=round(seconds, 3), fps=round(found.fps, 3))


def _result(path: Path, start: bytes) -> Probe:
    """Read an MP4 or MOV from end to end, and decode its first frame."""
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"<", b"{")):
        raise BadMedia("is not a video but a page of text")
    with path.open("rb") as file:
        _refuse_cut_boxes(file)
    try:
        # No other format is tried: some, such as playlists, would open further files and addresses. Edit lists hide
        # frames, and would spoil the count. A title that is not UTF-8 does no harm.
        options = {"ignore_editlist": "1"}
        with av.open(str(path), format="mov", options=options, metadata_errors="replace") as container:
            found, is_padded = _probe_video(container)
        # As long as a player shows it: telephones cut a video by such a list.
        with av.open(str(path), format="mov", metadata_errors="replace") as container:
            shown = container.streams.video[0]
            if found.seconds is not None and shown.duration and shown.time_base:
                found = replace(found, seconds=float(shown.duration * shown.time_base))
        # A larger one is over every limit, and to decode it takes a minute.
        pixels = (found.width or 0) * (found.height or 0)
        if is_padded and pixels <= _MOST_DECODED_PIXELS and not _is_whole(path):
            raise BadMedia("has a hole: the end of a frame in it is overwritten with zeros")
        return found
    except av.FFmpegError as error:
        raise BadMedia(f"is not a readable MP4: {error.strerror}") from None


def _is_whole(path: Path) -> bool:
    """Decode every frame of a video strictly; return whether each is whole."""
    with av.open(str(path), format="mov", options={"ignore_editlist": "1"}, metadata_errors="replace") as container:
        stream = container.streams.video[0]
        stream.codec_context.options = {"err_detect": "explode"}
        stream.thread_type = "AUTO"
        try:
            for _ in container.decode(stream):
                pass
        except av.FFmpegError:
            return False
    return True


# Those that MP4 and MOV have at the top.
_BOXES = frozenset(
    {
        *(b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"mfra", b"meta", b"meco", b"free", b"skip", b"wide", b"pnot"),
        *(b"udta", b"uuid", b"junk", b"pict", b"sidx", b"ssix", b"prft", b"pdin", b"emsg", b"idat", b"imda"),
    }
)


def _refuse_cut_boxes(file: BinaryIO) -> None:
    """Refuse an MP4 that is cut off: each box states its size, and the last one would end behind the file's end."""
    end = file.seek(0, SEEK_END)
    at = 0
    while at + _BOX_HEADER.size <= end:
        file.seek(at)
        size, kind = _BOX_HEADER.unpack(file.read(_BOX_HEADER.size))
        if kind not in _BOXES:  # Behind the last box cameras and servers add what is none; players leave it out.
            return
        if size == 1:  # The real size follows, in 64 bits.
            size = int.from_bytes(file.read(8), "big")
        if size < _BOX_HEADER.size:  # The last box, up to the end; or no box, which the demuxer refuses.
            return
        at += size
        if at > end:
            raise BadMedia(f"is cut off: it has {end} bytes, and its parts at least {at}")


def _probe_video(container: InputContainer) -> tuple[Probe, bool]:
    """Return the properties of a video, and whether a frame in it ends with zeros."""
    if not container.streams.video:
        raise BadMedia("holds no video stream")
    stream = container.streams.video[0]
    frames, is_padded = _count_frames(container, stream)
    if not _is_known(stream):
        raise Unreadable("is encoded in a way that is not known here")
    container.seek(0)
    first = next(container.decode(stream), None)
    if first is None:
        raise BadMedia("holds no frame that can be decoded")
    seconds = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
    fps = float(stream.average_rate) if stream.average_rate else None
    # Telephones write further tracks of their own, which players leave out.
    sounds = [each for each in container.streams.audio if _is_known(each)]
    codecs = tuple(each.codec.canonical_name for each in (stream, *sounds))
    return Probe("mp4", first.width, first.height, seconds, fps, codecs, frames), is_padded


def _is_known(stream: Stream) -> bool:
    """Return whether FFmpeg knows the codec of a stream."""
    return stream.codec_context is not None


def _count_frames(container: InputContainer, stream: VideoStream) -> tuple[int, bool]:
    """Count the frames that the file holds, and tell whether one ends with zeros. The index of a cut file lies."""
    found, is_padded = 0, False
    escapes = _is_known(stream) and stream.codec_context.name in _ESCAPING_CODECS
    for packet in container.demux():
        if packet.is_corrupt:
            raise BadMedia("is cut off: a frame in it is not whole")
        if packet.stream is stream and packet.size:
            if escapes and _HOLE in (content := bytes(packet)):
                if any(_HOLE in part.rstrip(b"\0") for part in _parts(content)):
                    raise BadMedia("has a hole: a frame in it is overwritten with zeros")
                is_padded = True
            found += 1
    if not found:
        raise BadMedia("holds no frame")
    if found < stream.frames:
        raise BadMedia(f"is cut off: it holds {found} of the {stream.frames} frames that it announces")
    return found, is_padded


def _parts(frame: bytes) -> Iterator[bytes]:
    """Yield the parts of a frame in an MP4, each of which has its length in front."""
    at = 0
    while at < len(frame):
        begins = at + _LENGTH_BYTES
        length = int.from_bytes(frame[at:begins], "big")
        if not length:
            # A hole over the end of one part, and over the beginning of the next one.
            yield frame[at:] + b"\1"
            return
        at = begins + length
        yield frame[begins:at]


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
            return _probe_sound(container, format_name)
    except av.FFmpegError as error:
        raise BadMedia(f"is not a readable {format_name.upper()}: {error.strerror}") from None


def _probe_sound(container: InputContainer, format_name: str) -> Probe:
    if not container.streams.audio:
        raise BadMedia("holds no sound")
    stream = container.streams.audio[0]
    # Counted: an MP3 states its length only by its bit rate, and a header can be wrong.
    seconds = sum(
        float(packet.duration * packet.time_base)
        for packet in container.demux(stream)
        if packet.size and packet.duration and packet.time_base
    )
    container.seek(0)
    if next(container.decode(stream), None) is None:
        raise BadMedia("holds no sound that can be decoded")
    return Probe(format_name, seconds=round(seconds, 3), codecs=(stream.codec.canonical_name,))


def picture_type(picture: Path) -> Literal["png", "jpg"]:
    """Return the format of a picture by its content, which is the file's extension as well.

    Raises:
        BadMedia: It is neither PNG nor JPEG.
    """
    with picture.open("rb") as file:
        start = file.read(_START_BYTES)
    if start.startswith(_PNG):
        return "png"
    if start.startswith(_JPEG):
        return "jpg"
    raise BadMedia("is neither PNG nor JPEG")


async def probed(kind: str, path: Path, seconds: float) -> dict[str, object]:
    """Read the properties of a file as :func:`probe` does, but in a process of its own, and in a total time.

    Returns:
        The fields of :class:`Probe`.

    Raises:
        BadMedia: The file is of another kind, or damaged.
        Unreadable: It cannot be judged, in that time, or at all.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, kind, str(path)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,  # FFmpeg quotes the file
        env={},
    )
    try:
        async with asyncio.timeout(seconds):
            out, _ = await process.communicate()
    except TimeoutError:
        raise Unreadable(f"takes longer than {seconds:g} seconds to read") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise Unreadable("cannot be read: the decoder crashed over it")
    answer: dict[str, object] = json.loads(out)
    if "refused" in answer:
        raise BadMedia(str(answer["refused"]))
    if "unreadable" in answer:
        raise Unreadable(str(answer["unreadable"]))
    return answer


def main() -> None:
    """Print the properties of the file that the command line names, or why it is refused."""
    os.nice(_NICENESS)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":  # elsewhere the limit is not kept
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, hard))
    try:
        answer = asdict(probe(sys.argv[1], Path(sys.argv[2])))
    except Unreadable as error:
        answer = {"unreadable": str(error)}
    except BadMedia as error:
        answer = {"refused": str(error)}
    except MemoryError:
        answer = {"unreadable": "needs more memory than a reference may"}
    except Exception as error:  # any failure of a decoder is a finding about the file
        answer = {"unreadable": f"cannot be read: a decoder failed over it, with {type(error).__name__}"}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
