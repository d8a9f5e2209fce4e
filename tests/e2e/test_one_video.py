"""The main job: a request becomes an MP4 in the bucket, paid for once, with a complete record."""

from __future__ import annotations

import asyncio
import json

import pytest

from dev.stack import Stack, jobs_of
from seedance_temporal import VideoJob
from seedance_temporal.events import EventSource
from seedance_temporal.identity import ObjectNames, hash_of_job, request_hash
from tests.e2e.requests import a_request, creates_of
from tests.support.jobs import detail_of, found, present


async def _success_was_seen_by(job: VideoJob) -> list[EventSource]:
    timeline = detail_of(await job.state()).timeline
    return [e.source for e in timeline if (e.event, e.detail) == ("status", "succeeded")]


async def test_callback_stores_video_without_poll(stack: Stack) -> None:
    request = a_request(return_last_frame=True, generate_audio=True, ratio="9:16")
    submitted = await stack.jobs.submit(request)
    assert not submitted.existing
    result = await submitted.result()

    assert await _success_was_seen_by(submitted) == ["copy"]
    # By the copy, after the callback.
    requests = await stack.ark.requests()
    assert requests.tasks[result.task_id].get == 1
    assert len(await creates_of(stack, request)) == 1

    names = ObjectNames("seedance", request_hash(request))
    video = await stack.bucket.read(names.of_task(result.task_id, "output.mp4"))
    assert video == await stack.ark.video_bytes(result.task_id)
    assert video is not None
    assert len(video) == result.size
    frame = await stack.bucket.read(names.of_task(result.task_id, "last_frame.png"))
    assert frame == await stack.ark.video_bytes(result.task_id, "last_frame.png")


async def test_record_is_complete(stack: Stack) -> None:
    request = a_request(rights={"depicts_real_person": True, "consent_reference": "contract 7"})
    submitted = await stack.jobs.submit(request)
    result = await submitted.result()
    names = ObjectNames("seedance", hash_of_job(submitted.id))

    record = json.loads(await stack.bucket.read(names.record) or b"")
    assert record["request"]["prompt"] == request.prompt
    assert record["rights"] == {"depicts_real_person": True, "consent_reference": "contract 7"}
    assert record["job_id"] == submitted.id
    assert record["request_hash"] == hash_of_job(submitted.id)
    assert record["attempt"] == 1
    assert record["task_id"] == result.task_id
    assert (record["model"], record["status"]) == (request.model, "succeeded")
    assert (record["resolution"], record["ratio"], record["duration"]) == ("480p", "16:9", 4)
    assert record["generate_audio"] is False
    (entry,) = await creates_of(stack, request)
    assert entry.billed_tokens is not None
    assert record["usage"]["total_tokens"] == entry.billed_tokens
    assert record["estimated_tokens"] >= record["usage"]["total_tokens"]
    assert record["cost_usd"] == pytest.approx(entry.billed_tokens * 3.5 / 1e6, abs=1e-6)
    assert [(e["event"], e["detail"]) for e in record["timeline"]][-1] == ("callback_received", "succeeded")
    objects = record["objects"]
    ledger = objects.pop("ledger")
    assert [one["name"] for one in ledger] == [names.attempt(1, kind) for kind in ("claim", "outcome")]
    verified = objects.pop("verified")
    assert [one["name"] for one in verified] == [names.verified(result.task_id, objects["video"]["crc32c"])]
    for recorded in (*ledger, *verified, *objects.values()):
        if recorded is not None:
            stored = present(await stack.bucket.stat(recorded["name"]))
            assert (stored.generation, stored.size, stored.crc32c, stored.md5) == (
                recorded["generation"],
                recorded["size"],
                recorded["crc32c"],
                recorded["md5"],
            )

    task = json.loads(await stack.bucket.read(names.of_task(result.task_id, "task.json")) or b"")
    assert task["id"] == result.task_id
    assert task["content"]["video_url"].endswith("/video.mp4"), "the signature is cut off"
    assert task["safety_identifier"] == entry.body["safety_identifier"]


async def test_repeated_request_is_one_job(stack: Stack) -> None:
    request = a_request()
    others = [jobs_of(stack.client) for _ in range(10)]
    submitted = await asyncio.gather(*(jobs.submit(request) for jobs in others))
    assert len({one.id for one in submitted}) == 1
    assert [one.existing for one in submitted].count(False) == 1
    results = await asyncio.gather(*(jobs.job(one.id).result() for jobs, one in zip(others, submitted, strict=True)))
    assert all(result == results[0] for result in results)

    later = await stack.jobs.submit(request)
    assert later.existing
    assert found(later).result == results[0]
    assert len(await creates_of(stack, request)) == 1


async def test_other_take_is_other_video(stack: Stack) -> None:
    request = a_request()
    first, second = [await stack.jobs.submit(request.model_copy(update={"take": take})) for take in (1, 2)]
    results = [await stack.jobs.job(one.id).result() for one in (first, second)]
    assert first.id != second.id
    assert results[0].task_id != results[1].task_id
    assert len(await creates_of(stack, request)) == 2


async def test_polling_without_callbacks_stores_video(stack: Stack) -> None:
    request = a_request("volcengine")
    submitted = await stack.jobs.submit(request)
    await submitted.result()
    (entry,) = await creates_of(stack, request)
    assert "callback_url" not in entry.body
    assert await _success_was_seen_by(submitted) == ["poll"]


async def test_lost_callbacks_cost_only_latency(stack: Stack) -> None:
    await stack.ark.configure(callbacks="off")
    try:
        request = a_request()
        submitted = await stack.jobs.submit(request)
        result = await submitted.result()
    finally:
        await stack.ark.configure(callbacks="on")
    (entry,) = await creates_of(stack, request)
    assert entry.body["callback_url"].startswith(f"http://127.0.0.1:{stack.ports.relay}/callbacks/")
    assert not [one for one in await stack.ark.deliveries() if one.task_id == result.task_id]
    assert await _success_was_seen_by(submitted) == ["poll"]


@pytest.mark.parametrize("mode", ["repeated", "reversed"])
async def test_repeated_or_reversed_callbacks_store_video(stack: Stack, mode: str) -> None:
    await stack.ark.configure(callbacks=mode)
    try:
        request = a_request()
        result = await (await stack.jobs.submit(request)).result()
    finally:
        await stack.ark.configure(callbacks="on")
    deliveries = [one for one in await stack.ark.deliveries() if one.task_id == result.task_id]
    assert deliveries, "the fault did not happen: no callback was sent"
    if mode == "repeated":
        assert len([one for one in deliveries if one.status == "succeeded"]) > 1
    assert len(await creates_of(stack, request)) == 1


async def test_followed_job_ends_stored(stack: Stack) -> None:
    submitted = await stack.jobs.submit(a_request())
    phases = [job.phase async for job in submitted.follow(every=0.05)]
    assert phases[-1] == "stored"
    job = await submitted.state()
    assert present(job.detail).timeline[-1].event == "stored"
    assert job.attempt == 1
