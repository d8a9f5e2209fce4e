"""Download and check references during the create call, where that is switched on."""

import asyncio
import base64
import binascii
import io
from collections.abc import Sequence
from typing import NamedTuple

import av
import httpx
from av.container import InputContainer

from .errors import ArkError, invalid

_SECONDS = 20  # for each download
_MEGABYTE = 1024 * 1024
_LARGEST = {"image_url": 30 * _MEGABYTE - 1, "video_url": 200 * _MEGABYTE, "audio_url": 15 * _MEGABYTE}
_SIDES = range(300, 6001)
_AREAS = range(407_696, 8_295_044 + 1)
_SHORTEST, _TOLERANCE = 2, 0.2  # seconds
_HEIF = (b"heic", b"heix", b"mif1", b"heif")
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*", b"GIF8")


class MediaUrl(NamedTuple):
    """A reference: the type of its item, and where it is."""

    kind: str
    url: str


async def fetch(references: Sequence[MediaUrl]) -> list[tuple[str, bytes]]:
    """Fetch every http(s) URL once, and return all contents but those of assets, which do not exist here.

    Raises:
        ArkError: 400 `InvalidParameter` for the first that cannot be fetched, or is too large.
    """
    seen = [reference for reference in references if not reference.url.startswith("asset://")]
    async with httpx.AsyncClient(trust_env=False, timeout=_SECONDS, follow_redirects=True) as client:
        contents = await asyncio.gather(*(_fetch_one(client, reference) for reference in seen))
    return [(reference.kind, content) for reference, content in zip(seen, contents, strict=True)]


async def _fetch_one(client: httpx.AsyncClient, reference: MediaUrl) -> bytes:
    content = bytearray()
    try:
        if reference.url.startswith("data:"):
            content += base64.b64decode(reference.url.partition(",")[2], validate=True)
        else:
            async with client.stream("GET", reference.url) as response:
                response.raise_for_status()
                async for part in response.aiter_bytes():
                    content += part
                    if len(content) > _LARGEST[reference.kind]:
                        break
    except (httpx.HTTPError, httpx.InvalidURL, binascii.Error) as error:
        raise _refused(f"Failed to download a reference: {type(error).__name__}") from None
    if len(content) > _LARGEST[reference.kind]:
        raise _refused(f"a reference of type {reference.kind} is too large")
    return bytes(content)


def check_media(contents: Sequence[tuple[str, bytes]], longest: int) -> None:
    """Check formats, sizes and lengths. It blocks: call it in a thread.

    Args:
        contents: the result of `fetch`.
        longest: the most seconds of one video or sound, and of all of a kind together.

    Raises:
        ArkError: 400 `InvalidParameter` for the first that the service would not take.
    """
    seconds = {"video_url": 0.0, "audio_url": 0.0}
    for kind, content in contents:
        if kind == "image_url":
            _check_picture(content)
            continue
        with _opened(content) as container:
            length = _check_video(container) if kind == "video_url" else _check_sound(container)
        seconds[kind] += length
        if length < _SHORTEST - _TOLERANCE:
            raise _refused(f"a reference is shorter than {_SHORTEST} seconds")
        if seconds[kind] > longest + _TOLERANCE:
            raise _refused(f"references of type {kind} are longer than {longest} seconds")


def _check_picture(content: bytes) -> None:
    if content[4:8] == b"ftyp" and content[8:12] in _HEIF:
        return  # nothing here can read its size
    is_webp = content[:4] == b"RIFF" and content[8:12] == b"WEBP"
    if not (content.startswith(_PICTURES) or is_webp):
        raise _refused("a picture has a format that is not supported")
    with _opened(content) as container:
        stream = container.streams.video[0]
        _check_sides(stream.width, stream.height)


def _check_video(container: InputContainer) -> float:
    """Check it, and return its seconds."""
    if "mp4" not in container.format.name or not container.streams.video:
        raise _refused("a video is neither MP4 nor MOV")
    stream = container.streams.video[0]
    sounds = [sound.codec_context for sound in container.streams.audio if sound.codec_context is not None]
    codecs = {stream.codec_context.name, *(sound.name for sound in sounds)}
    if not codecs <= {"h264", "hevc", "aac", "mp3", "mp3float"}:
        raise _refused("a video has a codec that is not supported")
    _check_sides(stream.width, stream.height)
    if stream.width * stream.height not in _AREAS:
        raise _refused("a video has too few or too many pixels")
    if not 23.8 <= (stream.average_rate or 0) <= 60.2:
        raise _refused("a video has too few or too many frames a second")
    return (container.duration or 0) / av.time_base


def _check_sound(container: InputContainer) -> float:
    """Check it, and return its seconds."""
    if container.format.name not in {"wav", "mp3"}:
        raise _refused("a sound is neither WAV nor MP3")
    return (container.duration or 0) / av.time_base


def _check_sides(width: int, height: int) -> None:
    if not width or not height:
        raise _refused("a reference cannot be read")
    if width not in _SIDES or height not in _SIDES or not 0.4 <= width / height <= 2.5:
        raise _refused("a reference is too small, too large, too wide or too high")


def _opened(content: bytes) -> InputContainer:
    try:
        return av.open(io.BytesIO(content), "r")
    except av.FFmpegError:
        raise _refused("a reference cannot be read") from None


def _refused(problem: str) -> ArkError:
    return invalid("content", problem)
