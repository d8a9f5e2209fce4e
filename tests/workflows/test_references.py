"""The check of reference media, before the claim."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from activities.references import ReferencesResult
from seedance_temporal.job import JobError
from seedance_temporal.reference_media import Medium
from seedance_temporal.request import Reference
from tests.workflows.fakes import RESULT, Held, adopt, claim, created, not_sent, to_store
from tests.workflows.harness import Harness, noted
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


def to_the_end(harness: Harness) -> None:
    harness.fake.always("read_ledger", claim())
    harness.fake.plan("create_task", created(seconds=0))
    harness.fake.plan("get_task", to_store())
    harness.fake.always("store_video", RESULT)


async def test_references_are_checked_before_claim(harness: Harness) -> None:
    to_the_end(harness)
    harness.fake.plan("check_references", GOOD)
    job = await harness.start_until_stored(references=(PICTURE, ASSET, PICTURE))

    assert harness.fake.names() == ["read_ledger", "check_references", "create_task", "get_task", "store_video"]
    assert harness.fake.input("check_references").request.references == (PICTURE, ASSET, PICTURE)
    assert harness.fake.input("create_task").media == (MEDIUM,)
    assert "It was another picture once." in harness.fake.input("create_task").warnings
    assert "It was another picture once." in harness.fake.input("store_video").warnings
    shown = await job.detail()
    (entry,) = [entry for entry in shown.timeline if entry.source == "references"]
    assert (entry.event, entry.detail) == ("references_checked", "png 640x480 1234 bytes")
    assert "It was another picture once." in shown.warnings
    (event,) = await job.scheduled("check_references")
    assert event.heartbeat_timeout.ToTimedelta() == policies.REFERENCES_HEARTBEAT


@pytest.mark.parametrize("references", [(), (ASSET,)], ids=["none", "an asset"])
async def test_assets_are_not_downloaded(harness: Harness, references: tuple[Reference, ...]) -> None:
    to_the_end(harness)
    await harness.start_until_stored(references=references)
    assert "check_references" not in harness.fake.names()


async def test_bad_reference_ends_before_claim(harness: Harness) -> None:
    harness.fake.always("read_ledger", claim())
    harness.fake.plan("check_references", BAD)
    job = await harness.start(references=(PICTURE,))
    error = await job.failed()
    assert error == BAD.error
    assert error.attempt is None
    assert harness.fake.names() == ["read_ledger", "check_references"]
    assert (await job.state()).phase == "failed"


async def test_references_are_checked_once_in_a_run(harness: Harness) -> None:
    harness.fake.plan("create_task", not_sent(0), not_sent(0))
    to_the_end(harness)
    harness.fake.plan("check_references", GOOD)
    await harness.start_until_stored(references=(PICTURE,))
    assert harness.fake.names().count("check_references") == 1
    assert [call.input.media for call in harness.fake.of("create_task")] == [(MEDIUM,)] * 3


async def test_existing_task_skips_reference_check(harness: Harness) -> None:
    harness.fake.always("read_ledger", adopt())
    harness.fake.finish()
    await harness.start_until_stored(references=(PICTURE,))
    assert "check_references" not in harness.fake.names()


async def test_passing_fault_is_retried(harness: Harness) -> None:
    to_the_end(harness)
    trouble = ApplicationError("references[0]: the host answered HTTP 503", type="ReferencesUnreachable")
    harness.fake.plan("check_references", trouble, GOOD)
    await harness.start_until_stored(references=(PICTURE,))
    assert [call.tries for call in harness.fake.of("check_references")] == [1, 2]


async def test_lasting_fault_ends_job(skipping: Harness) -> None:
    skipping.fake.always("read_ledger", claim())
    trouble = ApplicationError("references[0]: the host answered HTTP 503", type="ReferencesUnreachable")
    skipping.fake.always("check_references", trouble)
    error = await (await skipping.start(references=(PICTURE,))).failed()
    assert (error.code, error.failure_class, error.attempt) == ("references_unreachable", "invalid", None)
    assert error.message.startswith("Nothing was sent, and nothing is billed.")
    assert "HTTP 503" in error.message
    assert len(skipping.fake.of("check_references")) == policies.REFERENCES_RETRY.maximum_attempts
    assert "create_task" not in skipping.fake.names()


async def test_slow_check_calls_operator(unsandboxed: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody fails: hosts and workers are slow."""
    monkeypatch.setattr(policies, "PATIENCE", timedelta(seconds=1))
    to_the_end(unsandboxed)
    held = Held(GOOD)
    unsandboxed.fake.plan("check_references", held, GOOD)
    job = await unsandboxed.start_until(held, references=(PICTURE,))
    assert await job.result() == RESULT
    events = [event for event in noted(await job.state()) if event.startswith("attention")]
    assert [event.split(":")[0] for event in events] == ["attention_raised references", "attention_settled references"]
    held.release()


async def test_slow_check_ends_job_at_last(unsandboxed: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "PATIENCE", timedelta(seconds=0.5))
    unsandboxed.fake.always("read_ledger", claim())
    trouble = ApplicationError("references[0]: the host answered HTTP 503", type="ReferencesUnreachable")
    unsandboxed.fake.always("check_references", trouble)
    error = await (await unsandboxed.start(references=(PICTURE,))).failed()
    assert error.code == "references_unreachable"
    assert "HTTP 503" in error.message
    assert len(unsandboxed.fake.of("check_references")) == policies.REFERENCES_TRIES


async def test_end_of_second_attempt_says_nothing_of_first(harness: Harness) -> None:
    """That nothing is billed is true of the first attempt alone."""
    harness.fake.always("read_ledger", claim(attempt=2, may_be_billed=True))
    harness.fake.plan("check_references", BAD)
    error = await (await harness.start(references=(PICTURE,))).failed()
    assert error.message.startswith("Attempt 2 was not created, and is not billed; an attempt before it may be. ")


async def test_cancel_ends_reference_check(harness: Harness) -> None:
    held = Held(GOOD)
    harness.fake.always("read_ledger", claim())
    harness.fake.plan("check_references", held)
    job = await harness.start_until(held, references=(PICTURE,))
    await job.until_state(phase="checking")
    async with asyncio.timeout(5):
        await job.ask_to_cancel()
        error = await job.failed()
    assert await job.cancel_outcome() == "cancelled"
    assert (error.code, error.failure_class) == ("cancelled", "cancelled")
    assert "create_task" not in harness.fake.names()
    held.release()


async def test_timeline_counts_many_references(harness: Harness) -> None:
    to_the_end(harness)
    media: list[dict[str, Any]] = [{"reference": n} for n in range(9)] + [{"reference": 9, "kind": "audio"}]
    harness.fake.plan("check_references", ReferencesResult(media=tuple(MEDIUM.model_copy(update=m) for m in media)))
    job = await harness.start_until_stored(references=(PICTURE,) * 10)
    (entry,) = [entry for entry in (await job.detail()).timeline if entry.source == "references"]
    assert entry.detail == "9 image, 1 audio, 12340 bytes"
    assert "references_checked" in await job.noted()
