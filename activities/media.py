"""Whether bytes are the video, or the picture, that they should be. Blocking: call it in a thread."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from os import SEEK_END
from pathlib import Path
from typing import BinaryIO, Literal

import av
from av.container import InputContainer
from av.video.stream import VideoStream

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_START_BYTES = 512
# No frame of these codecs holds so many zeros in a row (they escape three already), but a hole in the file does.
_ESCAPING_CODECS = {"h264", "hevc"}
_HOLE = bytes(8)
_BOX_HEADER = struct.Struct(">I4s")


class BadMedia(Exception):
    """The content is not what it should be. The message is the end of a sentence: "the file …"."""


@dataclass(frozen=True)
class VideoProbe:
    """What a whole, readable video turned out to be.

    Attributes:
        width: Pixels.
        height: Pixels.
        frames: Frames in the file.
        seconds: Its length; None where the file does not say.
        fps: Frames a second, on average; None where the file does not say.
        codecs: Of the pictures and of each sound.
    """

    width: int
    height: int
    frames: int
    seconds: float | None
    fps: float | None
    codecs: tuple[str, ...]


def probe_video(path: Path) -> VideoProbe:
    """Reads a video from end to end, and decodes its first frame.

    Raises:
        BadMedia: It is no MP4 or MOV, holds no readable video, or is cut off.
    """
    _refuse_what_is_no_video(path)
    try:
        # No other format is tried: some, such as playlists, would open further files and addresses. Edit lists hide
        # frames, and would spoil the count. A title that is not UTF-8 does no harm.
        options = {"ignore_editlist": "1"}
        with av.open(str(path), format="mov", options=options, metadata_errors="replace") as container:
            return _probe(container)
    except av.FFmpegError as error:
        raise BadMedia(f"is not a readable MP4: {error.strerror}") from None


def _refuse_what_is_no_video(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(_START_BYTES)
        if not start:
            raise BadMedia("is empty")
        if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"<", b"{")):
            raise BadMedia("is not a video but a page of text")
        _refuse_cut_boxes(file)


def _refuse_cut_boxes(file: BinaryIO) -> None:
    """An MP4 is a row of boxes, each with its size in front; in a cut one the last goes on behind the file's end."""
    end = file.seek(0, SEEK_END)
    at = 0
    while at + _BOX_HEADER.size <= end:
        file.seek(at)
        size, _kind = _BOX_HEADER.unpack(file.read(_BOX_HEADER.size))
        if size == 1:  # The real size follows, in 64 bits.
            size = int.from_bytes(file.read(8), "big")
        if size < _BOX_HEADER.size:  # The last box, up to the end; or no box at all, which is the demuxer's to judge.
            return
        at += size
        if at > end:
            raise BadMedia(f"is cut off: it has {end} bytes, and its parts at least {at}")


def _probe(container: InputContainer) -> VideoProbe:
    if not container.streams.video:
        raise BadMedia("holds no video stream")
    stream = container.streams.video[0]
    frames = _count_frames(container, stream)
    container.seek(0)
    first = next(container.decode(stream), None)
    if first is None:
        raise BadMedia("holds no frame that can be decoded")
    seconds = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
    fps = float(stream.average_rate) if stream.average_rate else None
    codecs = tuple(each.codec.canonical_name for each in (stream, *container.streams.audio))
    return VideoProbe(first.width, first.height, frames, seconds, fps, codecs)


def _count_frames(container: InputContainer, stream: VideoStream) -> int:
    """How many frames the file really holds. A cut one announces more in its index."""
    found = 0
    for packet in container.demux():
        if packet.is_corrupt:
            raise BadMedia("is cut off: a frame in it is not whole")
        if packet.stream is stream and packet.size:
            if stream.codec_context.name in _ESCAPING_CODECS and _HOLE in bytes(packet):
                raise BadMedia("has a hole: a frame in it is overwritten with zeros")
            found += 1
    if not found:
        raise BadMedia("holds no frame")
    if found < stream.frames:
        raise BadMedia(f"is cut off: it holds {found} of the {stream.frames} frames that it announces")
    return found


def picture_type(picture: Path | bytes) -> Literal["png", "jpg"]:
    """The format of a picture, by its content; it is the file's extension as well.

    Raises:
        BadMedia: It is neither PNG nor JPEG.
    """
    if isinstance(picture, Path):
        with picture.open("rb") as file:
            picture = file.read(_START_BYTES)
    if picture.startswith(_PNG):
        return "png"
    if picture.startswith(_JPEG):
        return "jpg"
    raise BadMedia("is neither PNG nor JPEG")
