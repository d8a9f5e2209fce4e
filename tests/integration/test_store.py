"""The copy of a finished video, on a real bucket server, a real HTTP host, and real MP4s."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.store import StoreActivities, StoreInput
from seedance_temporal.identity import request_hash
from seedance_temporal.ledger.record import Record, result_of_record
from seedance_temporal.media.public_http import PublicTransport
from seedance_temporal.request import Reference, Rights, VideoRequest
from seedance_temporal.settings import Settings
from seedance_temporal.storage.bucket import Checksums, GoogleBucket
from tests.support.jobs import a_request, present
from tests.support.memory_bucket import MemoryBucket
from tests.support.result_host import Answer, result_host
from tests.support.stores import GET, PNG, SIGNATURE, TASK, VIDEO, StoreWorld, a_stored_request


@pytest.fixture
async def world(google: GoogleBucket, scratch: Path) -> AsyncIterator[StoreWorld]:
    async with result_host() as host:
        yield StoreWorld(bucket=google, host=host, scratch=scratch)


# The good path


async def test_video_is_stored_byte_for_byte(world: StoreWorld, tmp_path: Path) -> None:
    result = await world.store()

    assert await world.bucket.read(world.name("output.mp4")) == VIDEO
    assert await world.bucket.read(world.name("last_frame.png")) == PNG
    (tmp_path / "v.mp4").write_bytes(VIDEO)
    local = Checksums.of_file(tmp_path / "v.mp4")
    assert (result.size, result.crc32c, result.md5) == (len(VIDEO), local.crc32c, local.md5)
    assert result.video_uri == f"gs://videos/{world.name('output.mp4')}"
    assert result.last_frame_uri == f"gs://videos/{world.name('last_frame.png')}"
    assert result.record_uri == f"gs://videos/{world.names.record}"
    assert (result.task_id, result.seed) == (TASK, 7)
    assert result.cost_usd == pytest.approx(0.284158)


async def test_record_describes_whole_job(world: StoreWorld) -> None:
    world.request = a_stored_request(rights={"depicts_real_person": True, "consent_reference": "contract 7"})
    await world.bucket.create(world.names.attempt(1, "claim"), b"{}")
    await world.store()
    record = await world.record()

    assert record["v"] == 1
    assert record["request"]["prompt"] == "a cat"
    assert VideoRequest.model_validate(record["request"]) == world.request
    assert record["rights"] == Rights(depicts_real_person=True, consent_reference="contract 7").model_dump()
    assert record["request_hash"] == request_hash(world.request)
    assert (record["job_id"], record["attempt"], record["task_id"]) == (world.job_id, 1, TASK)
    assert (record["status"], record["model"]) == ("succeeded", "dreamina-seedance-2-0-260128")
    expected = {"seed": 7, "ratio": "16:9", "resolution": "480p", "duration": 4, "generate_audio": True}
    assert expected.items() <= record.items()
    assert record["usage"] == {"completion_tokens": 40_594, "total_tokens": 40_594}
    assert record["estimated_tokens"] > 40_000
    assert record["estimated_usd"] == pytest.approx(record["cost_usd"], rel=0.01)
    assert [(e["event"], e["source"], e["attempt"]) for e in record["timeline"]] == [("task_created", "create", 1)]
    assert record["warnings"] == []
    assert (record["namespace"], bool(record["run_id"])) == ("default", True)
    assert [one["name"] for one in record["objects"]["ledger"]] == [world.names.attempt(1, "claim")]
    assert datetime.fromisoformat(record["stored_at"]).tzinfo is not None
    objects = {kind: record["objects"][kind] for kind in ("video", "last_frame", "task")}
    named = {"video": "output.mp4", "last_frame": "last_frame.png", "task": "task.json"}
    assert {kind: one["name"] for kind, one in objects.items()} == {kind: world.name(named[kind]) for kind in named}
    assert {one["name"] for one in record["objects"]["verified"]} == {world.verified(VIDEO)[0], world.verified(PNG)[0]}
    for one in (*objects.values(), *record["objects"]["verified"]):
        stored = await world.bucket.stat(one["name"])
        assert one == {name: getattr(stored, name) for name in ("name", "generation", "size", "crc32c", "md5")}


async def test_payload_is_stored_without_signatures(world: StoreWorld) -> None:
    world.task(world.payload(new_field={"deep": [world.host.url(f"/x?{SIGNATURE}"), 1.5, None]}))
    await world.store()
    content = present(await world.bucket.read(world.name("task.json")))

    payload = json.loads(content)
    assert payload["content"] == {"video_url": world.host.url("/v.mp4"), "last_frame_url": world.host.url("/f.png")}
    assert payload["new_field"] == {"deep": [world.host.url("/x"), 1.5, None]}
    assert payload["framespersecond"] == 24


async def test_no_key_goes_to_the_result_host(world: StoreWorld) -> None:
    await world.store()
    for path in ("/v.mp4", "/f.png"):
        (request,) = world.host.asked(path)
        assert not {"authorization", "cookie"} & request.headers.keys()
        assert "ark-key" not in str(request)


async def test_no_signature_is_logged(world: StoreWorld, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    await world.store()
    assert "/v.mp4" in caplog.text
    assert "SECRET" not in caplog.text


async def test_progress_shows_in_the_heartbeats(world: StoreWorld) -> None:
    await world.store()
    steps = [beat["step"] for beat in world.heartbeats]
    assert steps[-1] == "writing the record"
    assert {"downloading the video", "verifying the video", "uploading output.mp4"} <= set(steps)
    assert {"step": "uploading output.mp4", "bytes": 0, "of": len(VIDEO)} in world.heartbeats


async def test_input_crosses_temporal(world: StoreWorld) -> None:
    (payload,) = await pydantic_data_converter.encode([world.input])
    assert await pydantic_data_converter.decode([payload], [StoreInput]) == [world.input]


async def test_cancelled_copy_leaves_no_video(world: StoreWorld) -> None:
    world.host.answers["/v.mp4"] = [Answer(VIDEO, cut_after=1000, hangs=True)]
    copy = asyncio.create_task(world.store())
    async with asyncio.timeout(10):
        while not world.host.asked("/v.mp4"):
            await asyncio.sleep(0.01)
    copy.cancel()
    with pytest.raises(asyncio.CancelledError):
        await copy
    assert await world.files() == ["cgt-20261122101010-abcde/task.json"]


async def test_endpoint_costs_as_its_model(world: StoreWorld) -> None:
    reference = Reference(role="reference_video", url="https://cdn.example.com/a.mp4")
    world.request = a_stored_request(model="ep-1", references=(reference,), ratio="16:9")
    assert (await world.store()).cost_usd == pytest.approx(0.174554)
    assert (await world.record())["model"] == "dreamina-seedance-2-0-260128"


# Downloads that go wrong


async def test_broken_download_is_resumed(world: StoreWorld) -> None:
    cut = Answer(VIDEO, cut_after=len(VIDEO) // 2, headers={"ETag": '"one"'})
    world.host.answers["/v.mp4"] = [cut, Answer(VIDEO, headers={"ETag": '"one"'})]
    await world.store()
    assert await world.bucket.read(world.name("output.mp4")) == VIDEO
    assert world.host.asked("/v.mp4")[1].headers["range"] == f"bytes={len(VIDEO) // 2}-"


async def test_late_tries_download_without_resume(world: StoreWorld) -> None:
    world.host.answers["/v.mp4"] = [Answer(VIDEO, cut_after=10)]
    await world.fails("DownloadFailed", "broke")
    assert len(world.host.asked("/v.mp4")) == 5

    world.attempt = 6
    await world.fails("DownloadFailed", "broke")
    assert len(world.host.asked("/v.mp4")) == 6


@pytest.mark.parametrize(
    ("answer", "kind", "match"),
    [
        (Answer(VIDEO, announced=len(VIDEO) + 1, ranges=False), "DownloadFailed", "broke"),
        (Answer(b"<html><body>Come back later</body></html>"), "BadVideo", "page of text"),
        (Answer(b""), "BadVideo", "is empty"),
        (Answer(VIDEO[:-2000]), "BadVideo", "cut off"),
        (Answer(b"<Error>SignatureProvided=SECRET</Error>", status=403), "DownloadFailed", "HTTP 403"),
        (Answer(b"gone", status=404), "DownloadFailed", "HTTP 404"),
        (Answer(b'{"error": {"code": "video_not_ready"}}', status=400), "NotReady", "HTTP 400"),
        (Answer(b"bad", status=400), "DownloadFailed", "HTTP 400"),
    ],
)
async def test_incomplete_video_is_not_uploaded(world: StoreWorld, answer: Answer, kind: str, match: str) -> None:
    world.host.answers["/v.mp4"] = [answer]
    await world.fails(kind, match)
    assert await world.files() == ["cgt-20261122101010-abcde/task.json"]


async def test_unreadable_video_is_stored_with_warning(world: StoreWorld) -> None:
    """It is paid for, and a player may play it. It is downloaded again first: the fault can be the download's."""
    odd = VIDEO.replace(b"avc1", b"zzz1")
    world.host.answers["/v.mp4"] = [Answer(odd)]
    await world.fails("BadVideo", "not known here")
    world.attempt = 3
    await world.store()
    assert await world.bucket.read(world.name("output.mp4")) == odd
    (warning,) = (await world.record())["warnings"]
    assert "not verified: it is encoded in a way that is not known here" in warning


async def test_refused_url_is_refreshed(world: StoreWorld) -> None:
    world.host.answers["/old.mp4"] = [Answer(b"expired", status=403)]
    world.task(world.payload(video="/old.mp4"), world.payload())
    await world.fails("DownloadFailed", "403")
    assert (await world.store()).size == len(VIDEO)


async def test_too_large_video_is_not_downloaded(world: StoreWorld) -> None:
    world.settings = world.settings.model_copy(update={"seedance_max_video_bytes": len(VIDEO) - 1})
    await world.fails("DownloadFailed", f"it has {len(VIDEO)} bytes")
    assert await world.files() == ["cgt-20261122101010-abcde/task.json"]


async def test_private_address_is_refused(world: StoreWorld) -> None:
    world.settings = Settings()
    await world.fails("DownloadFailed", r"127\.0\.0\.1")
    assert not world.host.asked("/v.mp4")


async def test_redirect_to_private_address_is_refused(world: StoreWorld) -> None:
    async def resolver(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    world.transport = lambda: PublicTransport({"results.test"}, resolver)
    inside = Answer(status=302, headers={"Location": world.host.url(f"/inside?{SIGNATURE}")})
    world.host.answers["/v.mp4"] = [inside]
    url = world.host.url(f"/v.mp4?{SIGNATURE}", "results.test")
    world.task(world.payload(content={"video_url": url}))
    await world.fails("DownloadFailed", r"127\.0\.0\.1")
    assert world.host.asked("/v.mp4")
    assert not world.host.asked("/inside")


# The provider's payload


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"status": "running"}, "it is running"),
        ({"status": "failed"}, "it is failed"),
        ({"content": None}, "no URL"),
        ({"content": {"video_url": None}}, "no URL"),
    ],
)
async def test_task_without_video_is_not_ready(world: StoreWorld, fields: dict[str, Any], match: str) -> None:
    world.task(world.payload(**fields))
    await world.fails("NotReady", match)
    assert not world.host.asked("/v.mp4")
    assert await world.files() == []


async def test_missing_task_is_gone(world: StoreWorld) -> None:
    world.forgets()
    await world.fails("TaskGone")


async def test_silent_provider_is_retryable(world: StoreWorld) -> None:
    world.host.answers[GET] = [Answer(b"<html>", 503)]
    await world.fails("ProviderUnavailable", "503")


# Objects that exist already


async def test_second_run_returns_record_without_download(world: StoreWorld) -> None:
    first = await world.store()
    asked = len(world.host.requests)
    stored = await world.bucket.list(world.names.root)
    world.task(world.payload(seed=8))

    assert await world.store() == first
    assert len(world.host.requests) == asked
    assert await world.bucket.list(world.names.root) == stored


async def test_stored_video_needs_no_live_url(world: StoreWorld) -> None:
    await world.put("task.json", json.dumps({"id": TASK, "status": "succeeded"}).encode())
    for file, content in (("output.mp4", VIDEO), ("last_frame.jpg", b"\xff\xd8\xff")):
        await world.verify(content, file)
        await world.put(file, content)
    world.host.answers.pop("/v.mp4")

    result = await world.store()
    assert result.size == len(VIDEO)
    assert result.last_frame_uri == f"gs://videos/{world.name('last_frame.jpg')}"
    assert not world.host.asked("/v.mp4")
    assert not world.host.asked("/f.png")


async def test_stored_video_outlives_task(world: StoreWorld) -> None:
    world.request = a_request()
    await world.put("task.json", json.dumps(world.payload()).encode().replace(b"SECRET", b""))
    await world.verify(VIDEO)
    await world.put("output.mp4", VIDEO)
    world.forgets()

    result = await world.store()
    assert (result.size, result.seed, result.usage is not None) == (len(VIDEO), 7, True)


async def test_equal_uploaded_video_is_ours(world: StoreWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another object, or an upload of ours whose answer was lost, appears between the listing and the upload."""
    upload = GoogleBucket.upload

    async def twice(self: GoogleBucket, name: str, path: Path, content_type: str) -> Any:
        assert await upload(self, name, path, content_type)
        return await upload(self, name, path, content_type)

    monkeypatch.setattr(GoogleBucket, "upload", twice)
    assert (await world.store()).size == len(VIDEO)


async def test_bucket_content_is_compared(world: StoreWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = GoogleBucket.upload

    async def spoilt(self: GoogleBucket, name: str, path: Path, content_type: str) -> Any:
        await asyncio.to_thread(path.write_bytes, VIDEO[:-1] + b"!")
        return await upload(self, name, path, content_type)

    monkeypatch.setattr(GoogleBucket, "upload", spoilt)
    await world.fails("ObjectConflict", "CRC32C", final=True)
    assert await world.bucket.read(world.names.record) is None


async def test_first_record_wins(world: StoreWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run commits between our listing and our record, even with another task."""
    first = await world.store()
    read = GoogleBucket.read
    reads = count()

    async def blind_at_first(self: GoogleBucket, name: str) -> bytes | None:
        return None if next(reads) == 0 else await read(self, name)

    monkeypatch.setattr(GoogleBucket, "read", blind_at_first)
    world.task_id = "cgt-other"
    other = world.payload(id="cgt-other", seed=99)
    world.host.answers["/api/v3/contents/generations/tasks/cgt-other"] = [Answer(json.dumps(other).encode())]

    assert await world.store() == first
    assert (await world.record())["task_id"] == TASK


async def test_bucket_error_shows_no_queries(world: StoreWorld) -> None:
    upload = "https://storage.googleapis.com/upload?upload_id=SECRET"
    world.bucket = MemoryBucket(broken=RuntimeError(f"PUT {upload}: 503"))
    activities = StoreActivities(world.bucket, world.client, world.settings)
    with pytest.raises(ApplicationError, match=r"storage\.googleapis\.com/upload") as failed:
        await ActivityEnvironment().run(activities.store_video, world.input)
    assert failed.value.type == "StoreFailed"
    assert "SECRET" not in str(failed.value)
    assert failed.value.__cause__ is None


async def test_task_and_checksums_precede_upload(world: StoreWorld) -> None:
    bucket = MemoryBucket()
    world.bucket = bucket
    await world.store()
    assert bucket.writes == [
        world.name("task.json"),
        world.verified(VIDEO)[0],
        world.name("output.mp4"),
        world.verified(PNG)[0],
        world.name("last_frame.png"),
        world.names.record,
    ]


# The last frame


async def test_jpeg_frame_is_named_jpg(world: StoreWorld) -> None:
    world.host.answers["/f.png"] = [Answer(b"\xff\xd8\xff\xe0 a picture")]
    result = await world.store()
    assert result.last_frame_uri == f"gs://videos/{world.name('last_frame.jpg')}"


async def test_unrequested_frame_is_skipped(world: StoreWorld) -> None:
    world.request = a_request()
    assert (await world.store()).last_frame_uri is None
    assert not world.host.asked("/f.png")
    assert (await world.record())["warnings"] == []


async def test_missing_frame_stores_video(world: StoreWorld) -> None:
    world.task(world.payload(frame=None))
    result = await world.store()
    assert (result.size, result.last_frame_uri) == (len(VIDEO), None)
    assert len((await world.record())["warnings"]) == 1


@pytest.mark.parametrize("answer", [Answer(b"<html>"), Answer(b"gone", status=403)])
async def test_broken_last_frame_is_dropped_after_tries(world: StoreWorld, answer: Answer) -> None:
    world.host.answers["/f.png"] = [answer]
    await world.fails("DownloadFailed", "last frame")
    assert await world.bucket.read(world.names.record) is None

    world.attempt = 5
    result = await world.store()
    assert (result.size, result.last_frame_uri) == (len(VIDEO), None)
    (warning,) = (await world.record())["warnings"]
    assert "last frame" in warning
    assert len(world.host.asked("/v.mp4")) == 1


async def test_late_last_frame_is_stored(world: StoreWorld) -> None:
    world.host.answers["/f.png"] = [Answer(b"", status=403), Answer(PNG)]
    await world.fails("DownloadFailed", "last frame")
    assert (await world.store()).last_frame_uri is not None
    assert len(world.host.asked("/v.mp4")) == 1


# Records of other versions


def test_other_release_record_is_read() -> None:
    record = {
        "v": 2,
        "task_id": TASK,
        "request": {"a_field_of_the_future": 1},
        "timeline": [{"anything": True}],
        "objects": {
            "video": {"name": "p/h/t/output.mp4", "generation": 5, "size": 6, "crc32c": "AAAAAA==", "region": "x"},
            "sound": {},
        },
        "more": {},
    }
    result = result_of_record(Record.model_validate_json(json.dumps(record)), "videos", "p/h/record.json")
    assert (result.video_uri, result.size, result.md5) == ("gs://videos/p/h/t/output.mp4", 6, None)
    assert (result.record_uri, result.task_id) == ("gs://videos/p/h/record.json", TASK)


def test_record_has_promised_shape() -> None:
    assert Record.model_fields.keys() >= {"request", "request_hash", "attempt", "task_id", "timeline", "rights"}
