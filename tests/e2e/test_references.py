"""Reference media through the whole stack: checked before a claim, and refused before anything is sent."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dev.stack import Stack
from seedance_temporal import JobFailed, VideoRequest
from seedance_temporal.identity import ObjectNames, hash_of_job, request_hash
from tests.e2e.command import starter
from tests.e2e.requests import a_request, creates_of
from tests.support.jobs import detail_of, present
from tests.support.media_files import clip, picture, png_bomb, sound
from tests.support.result_host import Answer, ResultHost, result_host


@pytest.fixture
async def host() -> AsyncIterator[ResultHost]:
    async with result_host() as host:
        yield host


@pytest.fixture
async def inspecting(stack: Stack) -> AsyncIterator[None]:
    """The provider downloads references, too, and refuses unusable ones."""
    await stack.ark.configure(fetch_references=True, inspect_references=True)
    yield
    await stack.ark.configure(fetch_references=False, inspect_references=False)


async def _refused(stack: Stack, request: VideoRequest) -> str:
    """Return the error of a job that ends before a claim."""
    submitted = await stack.jobs.submit(request)
    with pytest.raises(JobFailed) as raised:
        await submitted.result()
    error = present(raised.value.state.error)
    assert (error.failure_class, error.attempt) == ("invalid", None)
    assert error.message.startswith("Nothing was sent, and nothing is billed.")
    assert await creates_of(stack, request) == []
    assert await stack.bucket.list(ObjectNames("seedance", request_hash(request)).root) == []
    return f"{error.code}: {error.message}"


@pytest.mark.usefixtures("inspecting")
async def test_checked_media_are_recorded(stack: Stack, host: ResultHost) -> None:
    contents = {"/a.png": picture(), "/v.mp4": clip(sound="aac"), "/s.wav": sound()}
    host.answers = {path: [Answer(content)] for path, content in contents.items()}
    roles = ("reference_image", "reference_video", "reference_audio")
    request = a_request(
        references=[
            {"role": role, "url": host.url(f"{path}?sig=5ec4e7"), "asset_id": path}
            for role, path in zip(roles, contents, strict=True)
        ]
    )
    submitted = await stack.jobs.submit(request)
    await submitted.result()

    names = ObjectNames("seedance", hash_of_job(submitted.id))
    record: dict[str, Any] = json.loads(await stack.bucket.read(names.record) or b"")
    claim = json.loads(await stack.bucket.read(names.attempt(1, "claim")) or b"")
    assert record["references"] == claim["media"]
    assert [(one["reference"], one["format"], one["sha256"]) for one in record["references"]] == [
        (at, form, hashlib.sha256(content).hexdigest())
        for at, (form, content) in enumerate(zip(("png", "mp4", "wav"), contents.values(), strict=True))
    ]
    assert "5ec4e7" not in json.dumps(record["references"])
    timeline = detail_of(await submitted.state()).timeline
    (entry,) = [entry for entry in timeline if entry.source == "references"]
    assert present(entry.detail).startswith("png 640x480 ")
    # Once by us, and once by the provider.
    assert all(len(host.asked(path)) == 2 for path in contents)
    assert len(await creates_of(stack, request)) == 1
    audit = (await starter(stack, "audit", submitted.id)).answer
    assert [one["sha256"] for one in audit["media"]] == [one["sha256"] for one in record["references"]]


@pytest.mark.faults
async def test_worker_killed_during_check(stack: Stack, host: ResultHost) -> None:
    """Nothing is claimed yet: another worker checks again, as soon as the heartbeats are missed."""
    host.answers["/a.png"] = [Answer(picture(), cut_after=1000, hangs=True), Answer(picture())]
    request = a_request(references=[{"role": "first_frame", "url": host.url("/a.png")}])
    submitted = await stack.jobs.submit(request)
    async with asyncio.timeout(60):
        while not host.asked("/a.png"):
            await asyncio.sleep(0.05)
    worker = stack.children["worker"]
    await worker.kill()
    assert worker.process.returncode == -signal.SIGKILL, "the fault did not happen"
    assert await creates_of(stack, request) == []
    await stack.start_worker()
    await submitted.result()
    assert len(host.asked("/a.png")) > 1
    assert len(await creates_of(stack, request)) == 1
    claims = await stack.bucket.list(f"{ObjectNames('seedance', hash_of_job(submitted.id)).root}attempts/")
    assert [one.name.rpartition("/")[2] for one in claims] == ["0001.claim.json", "0001.outcome.json"]


@pytest.mark.usefixtures("inspecting")
async def test_private_object_is_sent_as_signed_url(stack: Stack) -> None:
    name = "media/a picture ä.png"
    await stack.bucket.create(name, picture(700, 700))
    stored = present(await stack.bucket.stat(name))
    url = f"gs://{stack.bucket.name}/{name}#{stored.generation}"
    request = a_request(references=[{"role": "first_frame", "url": url}])
    await (await stack.jobs.submit(request)).result()

    (entry,) = await creates_of(stack, request)
    (sent,) = [item["image_url"]["url"] for item in entry.body["content"] if item["type"] == "image_url"]
    assert sent.startswith(f"http://127.0.0.1:{stack.ports.bucket}/{stack.bucket.name}/media/a%20picture%20%C3%A4.png?")
    assert f"generation={stored.generation}" in sent
    assert "X-Goog-Signature=" in sent


async def test_all_unusable_references_are_listed(stack: Stack, host: ResultHost) -> None:
    host.answers = {
        "/bomb.png": [Answer(png_bomb(50_000, 50_000))],
        "/inside": [Answer(picture())],
        # The host is one that may be private; its redirect's target is not.
        "/away.png": [Answer(status=302, headers={"Location": f"http://localhost:{host.port}/inside"})],
        "/flood.png": [Answer(bytes(65_536), announced=10 * 1024**3, hangs=True)],
        "/text.mp4": [Answer(b"this is a text, despite its name", headers={"Content-Type": "video/mp4"})],
        "/cut.mp4": [Answer(clip()[:-100])],
        "/drip.wav": [Answer(sound(), cut_after=1000, hangs=True)],
    }
    pictures = ["/bomb.png", "/away.png", "/flood.png", "/gone.png?sig=5ec4e7"]
    request = a_request(
        references=[
            *({"role": "reference_image", "url": host.url(path)} for path in pictures),
            *({"role": "reference_video", "url": host.url(path)} for path in ("/text.mp4", "/cut.mp4")),
            {"role": "reference_audio", "url": host.url("/drip.wav")},
        ]
    )
    message = await _refused(stack, request)
    assert message.startswith("invalid_references: ")
    for place, reason in enumerate(
        [
            "is 50000x50000 pixels large",
            "the URL of host localhost is plain http",
            "it has 10737418240 bytes",
            "HTTP 404",
            "is neither MP4 nor MOV",
            "is cut off",
            "it took longer than 10 seconds",  # SEEDANCE_CREATE_TIMEOUT_SECONDS of the stack
        ]
    ):
        assert f"references[{place}]: " in message
        assert reason in message
    assert not host.asked("/inside")
    assert "5ec4e7" not in message


async def test_fixed_reference_starts_job_anew(stack: Stack, host: ResultHost) -> None:
    host.answers["/a.png"] = [Answer(picture(200, 200))]
    request = a_request(references=[{"role": "first_frame", "url": host.url("/a.png")}])
    assert "each side must have 300 to 6000" in await _refused(stack, request)
    host.answers["/a.png"] = [Answer(picture())]
    await (await stack.jobs.submit(request)).result()
    assert len(await creates_of(stack, request)) == 1


async def test_unavailable_host_is_asked_again(stack: Stack, host: ResultHost) -> None:
    host.answers["/a.png"] = [Answer(b"later", 503), Answer(picture())]
    request = a_request(references=[{"role": "first_frame", "url": host.url("/a.png")}])
    await (await stack.jobs.submit(request)).result()
    assert len(host.asked("/a.png")) == 2


async def test_asset_id_with_other_content_warns(stack: Stack, host: ResultHost) -> None:
    host.answers["/a.png"] = [Answer(picture()), Answer(picture(700, 700))]
    reference = {"role": "first_frame", "url": host.url("/a.png"), "asset_id": "front of the e2e product"}
    warnings = []
    for take in (1, 2):
        submitted = await stack.jobs.submit(a_request(references=[reference], take=take))
        await submitted.result()
        name = ObjectNames("seedance", hash_of_job(submitted.id)).record
        record = json.loads(await stack.bucket.read(name) or b"")
        warnings.append([warning for warning in record["warnings"] if "has named other content" in warning])
    assert warnings[0] == []
    assert len(warnings[1]) == 1
    assert "'front of the e2e product'" in warnings[1][0]
