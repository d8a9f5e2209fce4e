"""Real pictures, videos and sounds, made by Pillow and PyAV: small, and each made once."""

from __future__ import annotations

import io
import struct
import wave
import zlib
from fractions import Fraction
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import pillow_heif
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

FPS = 25
_RATE = 44_100


@cache
def picture(width: int = 640, height: int = 480, format_name: str = "PNG") -> bytes:
    """Return a grey picture in a format as Pillow names it."""
    pillow_heif.register_heif_opener()
    output = io.BytesIO()
    Image.new("RGB", (width, height), (90, 90, 90)).save(output, format_name)
    return output.getvalue()


def heif(brand: bytes) -> bytes:
    """Return the same content under another name of the format."""
    content = picture(format_name="HEIF")
    return content[:8] + brand + content[12:]


def png_bomb(width: int, height: int) -> bytes:
    """Return a PNG of a few kilobytes that claims this size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(4_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@cache
def clip(
    width: int = 864,
    height: int = 496,
    frames: int = 3 * FPS,
    fps: Fraction = Fraction(FPS),
    codec: str = "libx264",
    sound: str | None = None,
    container: str = "mp4",
) -> bytes:
    """Return a video whose frames are all the same key frame, which is encoded once."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip"
        with av.open(str(path), "w", format=container) as file:
            stream = file.add_stream(codec, rate=fps)
            assert isinstance(stream, VideoStream)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.time_base = stream.codec_context.time_base = 1 / fps
            stream.options.update(_QUICK.get(codec, {}))
            audio = file.add_stream(sound, rate=_RATE, layout="stereo") if sound is not None else None
            file.start_encoding()
            grey = VideoFrame(width, height, "yuv420p")
            for plane in grey.planes:
                plane.update(b"\x5a" * plane.buffer_size)
            grey.pts, grey.time_base = 0, 1 / fps
            key = next(bytes(packet) for packet in [*stream.encode(grey), *stream.encode(None)] if packet.size)
            for at in range(frames):
                packet = av.Packet(key)
                packet.stream, packet.time_base = stream, 1 / fps
                packet.pts = packet.dts = at
                packet.duration, packet.is_keyframe = 1, True
                file.mux(packet)
            if audio is not None:
                assert isinstance(audio, AudioStream)
                file.mux(_encoded(audio, 0.5))
        return path.read_bytes()


_QUICK = {
    "libx264": {"preset": "ultrafast", "tune": "zerolatency"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
}


@cache
def sound(seconds: float = 3, format_name: str = "wav", codec: str = "pcm_s16le") -> bytes:
    """Return silence; a WAV has exactly this length, other formats end with a whole frame."""
    output = io.BytesIO()
    if format_name == "wav" and codec == "pcm_s16le":
        with wave.open(output, "wb") as wav:
            wav.setparams((1, 2, 8000, 0, "NONE", ""))
            wav.writeframes(bytes(2 * round(8000 * seconds)))
        return output.getvalue()
    with av.open(output, "w", format=format_name) as file:
        stream = file.add_stream(codec, rate=_RATE, layout="stereo")
        assert isinstance(stream, AudioStream)
        file.mux(_encoded(stream, seconds))
    return output.getvalue()


def _encoded(stream: AudioStream, seconds: float) -> list[Packet[AudioStream]]:
    frame_format = stream.codec_context.format.name
    packets = []
    for start in range(0, round(seconds * _RATE), 1024):
        silence = AudioFrame(format=frame_format, layout="stereo", samples=1024)
        for plane in silence.planes:
            plane.update(bytes(plane.buffer_size))
        silence.sample_rate, silence.pts, silence.time_base = _RATE, start, Fraction(1, _RATE)
        packets += stream.encode(silence)
    return [*packets, *stream.encode(None)]


def with_zeros(content: bytes, zeros: int, *, each_frame_is_cut: bool) -> bytes:
    """Return a video whose frames end with zeros: behind their content, or in place of its end."""
    output = io.BytesIO()
    with av.open(io.BytesIO(content), "r") as source, av.open(output, "w", format="mp4") as file:
        stream = file.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if not packet.size:
                continue
            whole, at = bytes(packet), 0
            while (end := at + 4 + int.from_bytes(whole[at : at + 4], "big")) < len(whole):
                at = end
            kept = whole[at + 4 : -zeros] if each_frame_is_cut else whole[at + 4 :]
            last = kept + bytes(zeros)
            changed = av.Packet(whole[:at] + len(last).to_bytes(4, "big") + last)
            changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
            changed.duration, changed.is_keyframe, changed.stream = packet.duration, packet.is_keyframe, stream
            file.mux(changed)
    return output.getvalue()


def padded_mp4(content: bytes, size: int) -> bytes:
    """Return an MP4 with a box behind it that every player skips."""
    more = size - len(content)
    return content + struct.pack(">I4s", more, b"free") + bytes(more - 8)


def bottomless_video(frames: int = 50_000_000) -> bytes:
    """Return an MP4 of some hundred bytes whose index announces millions of frames: it costs a demuxer gigabytes."""

    def box(kind: bytes, *parts: bytes) -> bytes:
        content = b"".join(parts)
        return struct.pack(">I4s", len(content) + 8, kind) + content

    def full(kind: bytes, *parts: bytes, flags: int = 0) -> bytes:
        return box(kind, struct.pack(">I", flags), *parts)

    matrix = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    entry = box(b"mp4v", bytes(6), struct.pack(">H", 1), bytes(16), struct.pack(">HH", 64, 64), bytes(50))
    table = box(
        b"stbl",
        full(b"stsd", struct.pack(">I", 1), entry),
        full(b"stts", struct.pack(">3I", 1, frames, 1)),
        full(b"stsc", struct.pack(">4I", 1, 1, frames, 1)),
        full(b"stsz", struct.pack(">2I", 1, frames)),
        full(b"stco", struct.pack(">2I", 1, 40)),
    )
    sources = box(b"dinf", full(b"dref", struct.pack(">I", 1), full(b"url ", flags=1)))
    media = box(
        b"mdia",
        full(b"mdhd", struct.pack(">4I", 0, 0, 24, 96), struct.pack(">HH", 0x55C4, 0)),
        full(b"hdlr", bytes(4), b"vide", bytes(12), b"v\0"),
        box(b"minf", full(b"vmhd", bytes(8), flags=1), sources, table),
    )
    track = full(
        b"tkhd", struct.pack(">5I", 0, 0, 1, 0, 4000), bytes(16), matrix, struct.pack(">2I", 64 << 16, 64 << 16)
    )
    times = struct.pack(">4I", 0, 0, 1000, 4000) + struct.pack(">IH", 0x10000, 0x100) + bytes(10)
    movie = box(b"moov", full(b"mvhd", times, matrix, bytes(24), struct.pack(">I", 2)), box(b"trak", track, media))
    return box(b"ftyp", b"isom\0\0\2\0isomiso2mp41") + box(b"mdat", b"\1" * 100) + movie
