"""The look at reference media, which stands before the claim."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from activities.references import ReferencesResult
from seedance_temporal.job import JobError
from seedance_temporal.reference_media import Medium
from seedance_temporal.request import Reference
from tests.support.jobs import detail_of
from tests.workflows.scripted import RESULT, Held, Stage, cancel, failed, noted, scheduled, shows, state, to_store
from workflows import policies

PICTURE = Reference(role="reference_image", url="https://cdn.example.com/a.png?sig=5ec4e7")
ASSET = Reference(role="reference_video", url="asset://a")
MEDIUM = Medium(reference=0, kind="image", format="png", size=1234, sha256="0" * 64, width=640, height=480)
GOOD = ReferencesResult(media=(MEDIUM,), warnings=("It was another picture once.",))
BAD = ReferencesResult(
    error=JobError(
        code="invalid_references",
        message="Nothing was sent, and nothing is billed. references[0]: is empty.",
        failure_class="invalid",
    )
)


def to_the_end(stage: Stage) -> None:
    stage.script.always("read_ledger", stage.claim())
    stage.script.plan("create_task", stage.created(again=0))
    stage.script.plan("get_task", to_store())
    stage.script.always("store_video", RESULT)


async def test_references_are_looked_at_before_the_claim(stage: Stage) -> None:
    to_the_end(stage)
    stage.script.plan("check_references", GOOD)
    job = await stage.start(references=(PICTURE, ASSET, PICTURE))
    await job.result()

    assert stage.script.names() == ["read_ledger", "check_references", "create_task", "get_task", "store_video"]
    assert stage.script.order("check_references").request.references == (PICTURE, ASSET, PICTURE)
    assert stage.script.order("create_task").media == (MEDIUM,)
    assert "It was another picture once." in stage.script.order("create_task").warnings
    assert "It was another picture once." in stage.script.order("store_video").warnings
    told = await state(job)
    (entry,) = [entry for entry in detail_of(told).timeline if entry.source == "references"]
    assert (entry.event, entry.detail) == ("references_checked", "png 640x480 1234 bytes")
    assert "It was another picture once." in detail_of(told).warnings
    (event,) = await scheduled(job, "check_references")
    assert event.heartbeat_timeout.ToTimedelta() == policies.REFERENCES_HEARTBEAT


@pytest.mark.parametrize("references", [(), (ASSET,)], ids=["none", "an asset"])
async def test_what_cannot_be_looked_at_is_not(stage: Stage, references: tuple[Reference, ...]) -> None:
    to_the_end(stage)
    job = await stage.start(references=references)
    await job.result()
    assert "check_references" not in stage.script.names()


async def test_a_finding_ends_the_job_before_a_claim(stage: Stage) -> None:
    stage.script.always("read_ledger", stage.claim())
    stage.script.plan("check_references", BAD)
    job = await stage.start(references=(PICTURE,))
    error = await failed(job)
    assert error == BAD.error
    assert error.attempt is None
    assert stage.script.names() == ["read_ledger", "check_references"]
    assert (await state(job)).phase == "failed"


async def test_they_are_looked_at_once_in_a_run(stage: Stage) -> None:
    stage.script.plan("create_task", stage.not_sent(0), stage.not_sent(0))
    to_the_end(stage)
    stage.script.plan("check_references", GOOD)
    job = await stage.start(references=(PICTURE,))
    await job.result()
    assert stage.script.names().count("check_references") == 1
    assert [call.order.media for call in stage.script.of("create_task")] == [(MEDIUM,)] * 3


async def test_they_are_not_looked_at_where_a_task_exists(stage: Stage) -> None:
    stage.script.always("read_ledger", stage.adopt())
    stage.script.plan("get_task", to_store())
    stage.script.plan("store_video", RESULT)
    job = await stage.start(references=(PICTURE,))
    await job.result()
    assert "check_references" not in stage.script.names()


async def test_a_passing_fault_is_tried_again(stage: Stage) -> None:
    to_the_end(stage)
    trouble = ApplicationError("references[0]: the host answered HTTP 503", type="ReferencesUnreachable")
    stage.script.plan("check_references", trouble, GOOD)
    job = await stage.start(references=(PICTURE,))
    await job.result()
    assert [call.tries for call in stage.script.of("check_references")] == [1, 2]


async def test_a_fault_that_does_not_pass_ends_the_job(skipping: Stage) -> None:
    skipping.script.always("read_ledger", skipping.claim())
    trouble = ApplicationError("references[0]: the host answered HTTP 503", type="ReferencesUnreachable")
    skipping.script.always("check_references", trouble)
    error = await failed(await skipping.start(references=(PICTURE,)))
    assert (error.code, error.failure_class, error.attempt) == ("references_unreachable", "invalid", None)
    assert error.message.startswith("Nothing was sent, and nothing is billed.")
    assert "HTTP 503" in error.message
    assert len(skipping.script.of("check_references")) == policies.REFERENCES_RETRY.maximum_attempts
    assert "create_task" not in skipping.script.names()


async def test_a_cancel_ends_the_look(stage: Stage) -> None:
    held = Held(GOOD)
    stage.script.always("read_ledger", stage.claim())
    stage.script.plan("check_references", held)
    job = await stage.start(references=(PICTURE,))
    await held.reached.wait()
    await shows(job, phase="checking")
    async with asyncio.timeout(5):
        answer = await cancel(job)
        error = await failed(job)
    assert answer.outcome == "cancelled"
    assert (error.code, error.failure_class) == ("cancelled", "cancelled")
    assert "create_task" not in stage.script.names()
    held.let_go()


async def test_many_references_are_counted_in_the_timeline(stage: Stage) -> None:
    to_the_end(stage)
    media: list[dict[str, Any]] = [{"reference": n} for n in range(9)] + [{"reference": 9, "kind": "audio"}]
    stage.script.plan("check_references", ReferencesResult(media=tuple(MEDIUM.model_copy(update=m) for m in media)))
    job = await stage.start(references=(PICTURE,) * 10)
    await job.result()
    (entry,) = [entry for entry in detail_of(await state(job)).timeline if entry.source == "references"]
    assert entry.detail == "9 image, 1 audio, 12340 bytes"
    assert "references_checked" in noted(await state(job))
