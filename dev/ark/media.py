"""Real MP4s and PNGs of any size and length, made cheaply.

One second of a moving gradient is encoded, and its packets are repeated: a clip of 15 seconds costs as much
as a clip of one. Clips of one shape are made once; a `free` box with the task's id, which every player skips,
makes the bytes of two tasks differ.

4k is H.264 as well, where the real service sends 10-bit HEVC.
"""

import array
import io
import math
import struct
import tempfile
import threading
import zlib
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
from av.audio.frame import AudioFrame
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

FPS = 24
_AUDIO_RATE = 44_100
_TONE_HZ = 440
_AUDIO_BLOCK = 1024  # samples in one AAC frame
_ENCODING = threading.Lock()  # two tasks of one shape must not both encode it, and two cores are not many


@dataclass(frozen=True)
class Clip:
    """The shape of a video. Tasks of one shape share its pictures and sound."""

    width: int
    height: int
    seconds: int
    audio: bool


def video(clip: Clip, task_id: str) -> bytes:
    """Make the MP4 of a task: H.264 yuv420p, 24 fps, AAC mono when `clip.audio`, index first.

    It has 24 * seconds + 1 frames, the number that the service bills. Blocks for some 100 ms the first
    time that a shape is asked for: call it in a thread.
    """
    with _ENCODING:
        shared = _encoded(clip)
    return shared + _free_box(task_id.encode())


def last_frame(clip: Clip, task_id: str) -> bytes:
    """Make the last picture of the task's video as PNG. Blocks, as `video` does."""
    with _ENCODING:
        shared = _still(clip.width, clip.height, "png", "rgb24")
    end = len(shared) - 12  # the IEND chunk
    return shared[:end] + _png_chunk(b"tEXt", b"task\0" + task_id.encode()) + shared[end:]


def last_frame_jpeg(clip: Clip, task_id: str) -> bytes:
    """Make the same picture as JPEG. Blocks, as `video` does."""
    with _ENCODING:
        shared = _still(clip.width, clip.height, "mjpeg", "yuvj420p")
    comment = task_id.encode()
    return shared[:2] + struct.pack(">HH", 0xFFFE, 2 + len(comment)) + comment + shared[2:]


def _free_box(payload: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(payload), b"free") + payload


def _png_chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


@lru_cache(maxsize=32)
def _encoded(clip: Clip) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"  # a file, not memory: moving the index to the front reads it again
        _write(clip, path)
        return path.read_bytes()


def _write(clip: Clip, path: Path) -> None:
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = clip.width, clip.height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, FPS)
        stream.gop_size = FPS
        stream.options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "35"}
        sound = container.add_stream("aac", rate=_AUDIO_RATE, layout="mono") if clip.audio else None
        container.start_encoding()

        packets = []
        for index in range(FPS):
            frame = _picture(clip.width, clip.height, index / FPS)
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        second = [(bytes(packet), packet.is_keyframe) for packet in packets]

        for index in range(FPS * clip.seconds + 1):
            data, is_keyframe = second[index % FPS]
            packet = av.Packet(data)
            packet.stream = stream
            packet.time_base = Fraction(1, FPS)
            packet.pts = packet.dts = index
            packet.duration = 1
            packet.is_keyframe = is_keyframe
            container.mux(packet)

        if sound is not None:
            for block in range(math.ceil(clip.seconds * _AUDIO_RATE / _AUDIO_BLOCK)):
                container.mux(sound.encode(_tone(block * _AUDIO_BLOCK)))
            container.mux(sound.encode(None))


def _picture(width: int, height: int, phase: float) -> VideoFrame:
    """A grey ramp, shifted by `phase` (0..1) of its width, so that it starts over where it ended."""
    frame = VideoFrame(width, height, "yuv420p")
    luma, *chroma = frame.planes
    ramp = bytes(16 + abs(2 * x - width) * 200 // width for x in range(width))
    shift = int(phase * width)
    row = (ramp[shift:] + ramp[:shift]).ljust(luma.line_size, b"\x10")
    luma.update(row * luma.height)
    for plane, value in zip(chroma, (b"\x90", b"\x70"), strict=True):
        plane.update(value * plane.buffer_size)
    return frame


def _tone(start: int) -> AudioFrame:
    samples = array.array(
        "f",
        (0.1 * math.sin(2 * math.pi * _TONE_HZ * (start + n) / _AUDIO_RATE) for n in range(_AUDIO_BLOCK)),
    )
    frame = AudioFrame(format="fltp", layout="mono", samples=_AUDIO_BLOCK)
    frame.planes[0].update(samples.tobytes())
    frame.sample_rate = _AUDIO_RATE
    frame.pts, frame.time_base = start, Fraction(1, _AUDIO_RATE)
    return frame


@lru_cache(maxsize=32)
def _still(width: int, height: int, codec: str, pixel_format: str) -> bytes:
    # The last frame is the first of a repeated second, so it is the picture of phase 0.
    picture = _picture(width, height, 0).reformat(format=pixel_format)
    picture.pts, picture.time_base = 0, Fraction(1, FPS)
    encoder = VideoCodecContext.create(codec, "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = width, height, pixel_format
    encoder.time_base = Fraction(1, FPS)
    output = io.BytesIO()
    for packet in [*encoder.encode(picture), *encoder.encode(None)]:
        output.write(bytes(packet))
    return output.getvalue()
