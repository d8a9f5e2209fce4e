"""The check of reference media: the requests that are sent, their limits, and the messages.

The hosts are real ones on loopback; an injected resolver makes their names public.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from activities.references import ReferenceActivities, ReferencesInput, ReferencesResult
from seedance_temporal.identity import job_id_of
from seedance_temporal.ledger.asset_ids import Assets
from seedance_temporal.media import public_http, references
from seedance_temporal.media.probe import BadMedia, probed
from seedance_temporal.media.public_http import PublicTransport
from seedance_temporal.media.references import References
from seedance_temporal.provider.models import Kind
from seedance_temporal.reference_media import Medium
from seedance_temporal.storage.signing import CannotSign
from tests.support.jobs import a_request, in_activity, present, some_settings
from tests.support.media_files import clip, padded_mp4, picture, png_bomb, sound
from tests.support.memory_bucket import MemoryBucket
from tests.support.raw_host import serving
from tests.support.result_host import Answer, Names, ResultHost, result_host

MB = 1024 * 1024
PUBLIC = "93.184.215.14"


@dataclass
class SigningBucket(MemoryBucket):
    """Signs URLs of a host on loopback."""

    host: ResultHost = field(default_factory=ResultHost)

    async def signed_url(self, bucket: str, name: str, generation: int, lifetime: timedelta) -> str:
        await super().signed_url(bucket, name, generation, lifetime)
        return self.host.url(f"/{bucket}/{name}?generation={generation}&X-Goog-Signature=5ec4e7")


@dataclass
class Checker:
    """The activity, and the bucket that it works with."""

    bucket: SigningBucket = field(default_factory=SigningBucket)
    insecure: frozenset[str] = frozenset({"127.0.0.1"})
    names: Names = field(default_factory=Names)
    seconds: float = 20

    def __post_init__(self) -> None:
        settings = some_settings(seedance_insecure_hosts=self.insecure, seedance_create_timeout_seconds=self.seconds)
        references = References(self.bucket, settings, lambda: PublicTransport(self.insecure, self.names))
        self._activities = ReferenceActivities(references, Assets(self.bucket, "seedance"), settings)

    async def __call__(self, *references: dict[str, Any], **fields: Any) -> ReferencesResult:
        request = a_request(references=list(references), **fields)
        input = ReferencesInput(job_id=job_id_of(request), request=request)
        return await in_activity(self._activities.check_references, input)

    async def refusal(self, *references: dict[str, Any]) -> str:
        """Return the message for references that are refused."""
        result = await self(*references)
        assert result.error is not None
        assert (result.error.failure_class, result.error.attempt) == ("invalid", None)
        assert result.error.message.startswith("Nothing was sent, and nothing is billed. ")
        assert result.warnings == ()
        return f"{result.error.code}: {result.error.message}"


def image(url: str, role: str = "reference_image", **more: Any) -> dict[str, Any]:
    return {"role": role, "url": url} | more


video = partial(image, role="reference_video")
audio = partial(image, role="reference_audio")


@pytest.fixture
async def sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[int]]:
    """The bytes that all temporary files had together, measured again and again; none may remain."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen = [0]

    async def watch() -> None:
        while True:
            with contextlib.suppress(FileNotFoundError):
                seen.append(sum(path.stat().st_size for path in tmp_path.glob("*/*")))
            await asyncio.sleep(0.005)

    watching = asyncio.create_task(watch())
    yield seen
    watching.cancel()
    assert list(tmp_path.iterdir()) == []


# Findings


async def test_each_medium_is_described(host: ResultHost) -> None:
    contents = {"/a.png": picture(), "/v.mp4": clip(sound="aac"), "/s.wav": sound()}
    host.answers = {path: [Answer(content)] for path, content in contents.items()}
    result = await Checker()(
        image(host.url("/a.png?sig=5ec4e7")),
        video("asset://v"),
        video(host.url("/v.mp4")),
        audio(host.url("/s.wav")),
    )
    assert result.error is None
    seen = [medium.model_dump(exclude_none=True) for medium in result.media]
    for medium, path in zip(seen, contents, strict=True):
        assert medium.pop("size") == len(contents[path])
        assert medium.pop("sha256") == hashlib.sha256(contents[path]).hexdigest()
    pixels = {"width": 864, "height": 496, "seconds": 3.0, "fps": 25.0, "codecs": ("h264", "aac")}
    assert seen == [
        {"reference": 0, "kind": "image", "format": "png", "width": 640, "height": 480, "codecs": ()},
        {"reference": 2, "kind": "video", "format": "mp4"} | pixels,
        {"reference": 3, "kind": "audio", "format": "wav", "seconds": 3.0, "codecs": ("pcm_s16le",)},
    ]
    # A plain GET: no key, no cookie, and nothing of the URL's query in the history.
    assert {request.target for request in host.requests} == {"/a.png?sig=5ec4e7", "/v.mp4", "/s.wav"}
    assert not any({"authorization", "cookie"} & request.headers.keys() for request in host.requests)
    assert "5ec4e7" not in result.model_dump_json()


async def test_private_object_is_downloaded_by_signed_url(host: ResultHost) -> None:
    host.answers["/media/a.png"] = [Answer(picture())]
    result = await Checker(SigningBucket(host=host))(image("gs://media/a.png#17"))
    assert result.error is None
    assert [request.target for request in host.requests] == ["/media/a.png?generation=17&X-Goog-Signature=5ec4e7"]
    assert "5ec4e7" not in result.model_dump_json()


async def test_unsignable_reference_is_refused(host: ResultHost) -> None:
    message = await Checker(SigningBucket(signing_fails=CannotSign("it may not sign: grant it the role")))(
        image("gs://media/a.png#17")
    )
    assert message.error is not None
    assert message.error.code == "cannot_sign"
    assert "grant it the role" in message.error.message


async def test_failed_signing_is_retryable(host: ResultHost) -> None:
    fault = ConnectionError("https://iam.example.com/x?token=5ec4e7")
    with pytest.raises(ApplicationError) as raised:
        await Checker(SigningBucket(signing_fails=fault))(image("gs://media/a.png#17"))
    assert (raised.value.type, raised.value.non_retryable) == ("ReferencesFailed", False)
    assert "5ec4e7" not in str(raised.value)


async def test_all_problems_are_listed_at_once(host: ResultHost) -> None:
    host.answers = {
        "/text.mp4": [Answer(b"this is a text, not a video\n" * 9, headers={"Content-Type": "video/mp4"})],
        "/small.png": [Answer(picture(299, 299))],
        "/good.png": [Answer(picture())],
        "/closed.png": [Answer(b"no", 403)],
        "/busy.png": [Answer(b"later", 503)],
        "/cut.mp4": [Answer(clip()[:-100])],
    }
    urls = ["/small.png", "/gone.png?sig=5ec4e7", "/good.png", "/closed.png", "/busy.png"]
    pictures = [image(host.url(path)) for path in urls]
    message = await Checker().refusal(*pictures, video(host.url("/text.mp4")), video(host.url("/cut.mp4")))
    assert message.startswith("invalid_references: ")
    for index, reason in {
        0: "is 299x299 pixels large",
        1: "the host answered HTTP 404",
        3: "the host answered HTTP 403; it must be public",
        4: "the host answered HTTP 503",
        5: "is neither MP4 nor MOV",
        6: "is cut off",
    }.items():
        assert f"references[{index}]: " in message
        assert reason in message
    assert "references[2]" not in message
    assert "5ec4e7" not in message


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 408])
async def test_busy_host_is_retried(host: ResultHost, status: int) -> None:
    host.answers["/a.png"] = [Answer(b"later", status)]
    with pytest.raises(ApplicationError) as raised:
        await Checker()(image(host.url("/a.png?sig=5ec4e7")))
    assert (raised.value.type, raised.value.non_retryable) == ("ReferencesUnreachable", False)
    assert f"references[0]: cannot be downloaded as the provider would: the host answered HTTP {status}" in str(
        raised.value
    )
    assert "5ec4e7" not in str(raised.value)


async def test_unreachable_host_is_retried(host: ResultHost) -> None:
    async with result_host() as gone:
        pass
    host.answers["/a.png"] = [Answer(picture())]
    with pytest.raises(ApplicationError) as raised:
        await Checker()(image(host.url("/a.png")), image(gone.url("/a.png")))
    assert raised.value.type == "ReferencesUnreachable"
    assert "references[1]" in str(raised.value)
    assert "references[0]" not in str(raised.value)


async def test_invalid_request_is_not_downloaded(host: ResultHost) -> None:
    result = await Checker()(image(host.url("/a.png")), duration=99)
    assert present(result.error).code == "invalid_request"
    assert host.requests == []


async def test_short_break_is_retried(host: ResultHost) -> None:
    content = picture(1000, 1000, "BMP")
    host.answers["/a.bmp"] = [Answer(content, cut_after=200_000), Answer(content)]
    result = await Checker()(image(host.url("/a.bmp")))
    assert result.media[0].sha256 == hashlib.sha256(content).hexdigest()


# Hosts and addresses


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/a.png",
        "https://[::1]/a.png",
        "https://[::ffff:127.0.0.1]/a.png",
        "https://[::ffff:7f00:1]/a.png",
        "https://[64:ff9b::7f00:1]/a.png",
        "https://127.1/a.png",
        "https://2130706433/a.png",
        "https://0x7f.0.0.1/a.png",
        "https://0x7f000001/a.png",
        "https://0177.0.0.1/a.png",
        "https://10.1.2.3/a.png",
        "https://169.254.169.254/computeMetadata/v1/",
        "https://localhost/a.png",
        "https://metadata.google.internal/a.png",
        "http://cdn.example.com/a.png",
    ],
)
async def test_private_address_in_any_form_is_refused(url: str) -> None:
    names = Names()
    message = await Checker(insecure=frozenset(), names=names).refusal(image(f"{url}?sig=5ec4e7"))
    assert message.startswith("invalid_request: ")
    assert "references[0].url" in message
    assert names.asked == []
    assert "5ec4e7" not in message


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["10.0.0.1"], [PUBLIC, "127.0.0.1"], ["::ffff:192.168.1.1"]])
async def test_name_of_private_address_is_refused(host: ResultHost, addresses: list[str]) -> None:
    names = Names({"cdn.example.com": [addresses]})
    message = await Checker(names=names).refusal(image(f"https://cdn.example.com:{host.port}/a.png?sig=5ec4e7"))
    assert "references[0]: cannot be downloaded as the provider would: " in message
    assert "host cdn.example.com has an address that is not public" in message
    assert "5ec4e7" not in message
    assert host.requests == []


@pytest.mark.parametrize(
    "location",
    [
        "http://localhost:{port}/inside",
        "https://127.0.0.2:{port}/inside",
        "https://[::ffff:127.0.0.1]:{port}/inside",
        "https://0x7f.1:{port}/inside",
        "https://inside.example.com:{port}/inside",
        "file:///etc/passwd",
    ],
)
async def test_redirect_to_private_host_is_refused(host: ResultHost, location: str) -> None:
    names = Names({"inside.example.com": [["127.0.0.1"]]})
    host.answers["/a.png"] = [Answer(status=302, headers={"Location": location.format(port=host.port)})]
    host.answers["/inside"] = [Answer(picture())]
    message = await Checker(names=names).refusal(image(host.url("/a.png")))
    assert message.startswith("invalid_references: ")
    assert not host.asked("/inside")


async def test_default_transport_refuses_private_addresses(host: ResultHost) -> None:
    host.answers["/a.png"] = [Answer(status=302, headers={"Location": f"http://localhost:{host.port}/inside"})]
    host.answers["/inside"] = [Answer(picture())]
    references = References(MemoryBucket(), some_settings())
    findings = await references.examine(a_request(references=[image(host.url("/a.png"))]))
    assert (findings.media, len(findings.problems)) == ((), 1)
    assert not host.asked("/inside")


async def test_dns_rebinding_is_refused(host: ResultHost) -> None:
    """Each redirect resolves the name again: it was public the first time."""
    names = Names({"turns.example.com": [["127.0.0.1"], ["10.0.0.1"]]})
    host.answers["/a.png"] = [Answer(status=302, headers={"Location": f"https://turns.example.com:{host.port}/b.png"})]
    checker = Checker(insecure=frozenset({"127.0.0.1"}), names=names)
    assert "not public" in await checker.refusal(image(host.url("/a.png")))
    assert "not public" in await checker.refusal(image(f"https://turns.example.com:{host.port}/b.png"))
    assert names.asked.count("turns.example.com") == 2
    assert not host.asked("/b.png")


async def test_redirects_are_few(host: ResultHost) -> None:
    host.answers["/a.png"] = [Answer(status=302, headers={"Location": "/a.png"})]
    assert "invalid_references" in await Checker().refusal(image(host.url("/a.png")))
    assert len(host.requests) == 6


# Size and time


async def test_announced_long_answer_is_not_read(host: ResultHost, sizes: list[int]) -> None:
    host.answers["/a.png"] = [Answer(bytes(64 * 1024), announced=10 * 1024 * MB, hangs=True)]
    message = await Checker().refusal(image(host.url("/a.png")))
    assert f"it has {10 * 1024 * MB} bytes; {30 * MB - 1} are allowed" in message
    assert max(sizes) == 0


@asynccontextmanager
async def pouring(chunk: bytes, pause: float = 0) -> AsyncIterator[tuple[str, list[int]]]:
    """Run a host that never ends its answer; yield its URL, and the bytes that it has sent."""
    sent = [0]

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nConnection: close\r\n\r\n")
            while True:
                writer.write(chunk)
                await writer.drain()
                sent[0] += len(chunk)
                await asyncio.sleep(pause)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async with serving(pour) as port:
        yield f"http://127.0.0.1:{port}/a.png", sent


async def test_long_answer_is_read_up_to_limit(sizes: list[int]) -> None:
    async with pouring(bytes(256 * 1024)) as (url, sent):
        message = await Checker().refusal(image(url))
    assert f"it has more than the {30 * MB - 1} bytes that are allowed" in message
    # Bytes that are in the sockets come on top.
    assert 29 * MB < sent[0] < 45 * MB
    assert 20 * MB < max(sizes) < 30 * MB


async def test_slow_download_is_given_up() -> None:
    began = time.monotonic()
    async with pouring(b"\x89", pause=0.02) as (url, sent):
        message = await Checker(seconds=1).refusal(image(url), image(url))
    assert "it took longer than 1 seconds" in message
    assert sent[0] < 1000
    assert time.monotonic() - began < 10


async def test_largest_references_are_accepted(host: ResultHost) -> None:
    host.answers = {
        "/a.png": [Answer(picture() + bytes(30 * MB - 1 - len(picture())))],
        "/v.mp4": [Answer(padded_mp4(clip(), 50 * MB + 1))],
        "/s.wav": [Answer(sound() + bytes(15 * MB - len(sound())))],
    }
    result = await Checker()(*[image(host.url("/a.png")), video(host.url("/v.mp4")), audio(host.url("/s.wav"))])
    assert result.error is None
    assert [medium.size for medium in result.media] == [30 * MB - 1, 50 * MB + 1, 15 * MB]
    (warning,) = result.warnings
    assert warning.startswith("references[1] has 52428801 bytes")


@pytest.mark.parametrize(
    ("role", "most"), [("reference_image", 30 * MB - 1), ("reference_video", 200 * MB), ("reference_audio", 15 * MB)]
)
async def test_too_large_references_are_refused(host: ResultHost, role: str, most: int) -> None:
    host.answers = {"/x": [Answer(b"", announced=most + 1, hangs=True)], "/a.png": [Answer(picture())]}
    message = await Checker().refusal({"role": role, "url": host.url("/x")}, image(host.url("/a.png")))
    assert f"references[0]: cannot be downloaded as the provider would: it has {most + 1} bytes; {most} are" in message


async def test_decompression_bomb_is_refused(host: ResultHost) -> None:
    host.answers["/a.png"] = [Answer(png_bomb(50_000, 50_000))]
    message = await Checker().refusal(image(host.url("/a.png")))
    assert "references[0]: is 50000x50000 pixels large" in message


async def test_endless_check_is_stopped(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # opening it waits
    with pytest.raises(BadMedia, match="takes longer than 1 seconds to read"):
        await probed("image", pipe, 1)
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in _children()]
    assert not [command for command in commands if b"seedance_temporal.media.probe" in command]


async def test_user_has_one_probe_at_a_time(host: ResultHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that take long to probe hold up their user, and leave a place to the others."""
    at_once: Counter[str] = Counter()
    most: Counter[str] = Counter()

    async def slow(index: int, kind: Kind, path: Path, seconds: float) -> Medium:
        user = path.read_bytes()[:6].decode()
        at_once[user] += 1
        most[user] = max(most[user], at_once[user])
        await asyncio.sleep(0.05)
        at_once[user] -= 1
        return Medium(reference=index, kind=kind, format="png", size=9, sha256="a", width=400, height=400)

    monkeypatch.setattr(references, "probe_reference", slow)
    users = ("user-1", "user-2")
    host.answers = {f"/{user}.png": [Answer(user.encode())] * 4 for user in users}
    check = Checker()
    await asyncio.gather(
        *(check(*(image(host.url(f"/{user}.png?{n}")) for n in range(4)), user_id=user) for user in users)
    )
    assert most == dict.fromkeys(users, 1)


def _children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


async def test_cancel_ends_check_and_download(sizes: list[int]) -> None:
    async with pouring(bytes(64 * 1024), pause=0.02) as (url, _):
        check = asyncio.create_task(Checker()(image(url)))
        while not max(sizes):
            await asyncio.sleep(0.01)
        check.cancel()
        with pytest.raises(asyncio.CancelledError):
            await check


@pytest.mark.parametrize(("users", "at_once"), [(1, 2), (3, 6), (6, 8)])
async def test_downloads_are_parallel_and_bounded(users: int, at_once: int) -> None:
    """The host answers when so many requests have come, and counts one more."""
    waiting, most = [0], [0]
    full = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        waiting[0] += 1
        most[0] = max(most[0], waiting[0])
        if waiting[0] == at_once:
            await asyncio.sleep(0.2)  # for one more, that would be one too many
            full.set()
        await asyncio.wait_for(full.wait(), 10)
        waiting[0] -= 1
        content = picture()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
        await writer.drain()
        writer.close()

    async with serving(answer) as port:
        images = [image(f"http://127.0.0.1:{port}/a.png?{n}") for n in range(4)]
        check = Checker()
        results = await asyncio.gather(*(check(*images, user_id=f"user-{n}") for n in range(users)))
    assert [(result.error, len(result.media)) for result in results] == [(None, 4)] * users
    assert most[0] == at_once


async def test_dribbling_host_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public_http, "_SLOW_FOR_SECONDS", 0.3)
    async with pouring(b"\x89", pause=0.02) as (url, sent):
        with pytest.raises(ApplicationError, match="less than 10000 bytes a second") as raised:
            await Checker()(image(url))
    assert raised.value.type == "ReferencesUnreachable"
    assert sent[0] < 1000


# Asset ids


async def test_reused_asset_id_causes_warning(host: ResultHost) -> None:
    checker = Checker()
    host.answers["/a.png"] = [Answer(picture()), Answer(picture()), Answer(picture(700, 700))]
    reference = image(host.url("/a.png"), asset_id="Straße/1 #ä")
    for _ in range(2):
        assert (await checker(reference)).warnings == ()
    (stored,) = checker.bucket.writes
    folder, _, name = stored.rpartition("/")
    assert name == f"{hashlib.sha256(picture()).hexdigest()}.json"
    user, asset = (hashlib.sha256(text.encode()).hexdigest() for text in ("user-42", "Straße/1 #ä"))
    assert folder == f"seedance/assets/{user[:16]}/{asset}"
    assert json.loads(checker.bucket.contents[stored])["asset_id"] == "Straße/1 #ä"

    (warning,) = (await checker(reference)).warnings
    assert "references[0]: asset_id 'Straße/1 #ä' has named other content before." in warning
    assert len(checker.bucket.writes) == 2
    assert (await checker(reference, user_id="another")).warnings == (), "each user has asset ids of their own"


async def test_refused_reference_is_not_noted(host: ResultHost) -> None:
    checker = Checker()
    host.answers = {"/a.png": [Answer(picture())], "/b.png": [Answer(b"no picture")]}
    await checker.refusal(image(host.url("/a.png"), asset_id="a"), image(host.url("/b.png"), asset_id="b"))
    assert checker.bucket.writes == []


async def test_failed_asset_memory_delays_no_job(host: ResultHost) -> None:
    host.answers["/a.png"] = [Answer(picture())]
    checker = Checker(SigningBucket(broken=ConnectionError("no bucket")))
    result = await checker(image(host.url("/a.png"), asset_id="a"))
    assert (result.error, len(result.media)) == (None, 1)
