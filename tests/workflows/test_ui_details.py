"""The current details of a run, as Temporal's UI shows them, while it is open and when it has ended."""

from __future__ import annotations

import re
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.exceptions import ApplicationError

from seedance_temporal.contract import SEEDANCE_USER
from seedance_temporal.identity import user_hash
from tests.support.jobs import detail_of
from tests.workflows.scripted import (
    OURS,
    RESULT,
    TASK,
    Handle,
    Held,
    Stage,
    a_listing,
    as_written,
    callback,
    ending,
    events,
    failed,
    failure,
    listed,
    scheduled,
    shows,
    state,
    to_store,
    until,
    waiting,
)

FOLDER = "gs://videos/seedance/hash/"
EXPECTED: dict[str, Any] = {"estimated_tokens": 108_900, "estimated_usd": 0.7623}
TIMER = EventType.EVENT_TYPE_TIMER_STARTED


async def details(job: Handle) -> str:
    metadata: WorkflowMetadata = await job.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
    return metadata.current_details


async def until_details_say(job: Handle, *sentences: str) -> str:
    async def said() -> str:
        told = await details(job)
        return told if all(sentence in told for sentence in sentences) else ""

    told: str = await until(said, f"the details say {sentences}; they say {await details(job)}")
    return told


async def test_details_follow_the_job(stage: Stage) -> None:
    look, create, copy = Held(stage.claim(folder=FOLDER, **EXPECTED)), Held(None), Held(RESULT)

    async def creating(order: Any) -> Any:
        await create(order)
        return await stage.created()(order)

    stage.script.plan("read_ledger", look)
    stage.script.plan("create_task", creating)
    stage.script.plan("get_task", waiting("running"), to_store())
    stage.script.plan("store_video", copy)
    job = await stage.start()
    await look.reached.wait()
    assert await details(job) == ""
    look.let_go()
    await create.reached.wait()
    told = await until_details_say(job, "**Creating.**", f"`python starter.py audit {job.id}`")
    assert "- **cost**: at most 0.7623 USD, 108,900 tokens, if it succeeds" in told
    assert f"- **ledger**: {FOLDER}attempts/" in told
    assert "awaited" not in told, "nothing is waited for: the request is being sent"
    create.let_go()
    due = detail_of(await shows(job, phase="queued")).next_poll_at
    told = await until_details_say(job, "**Queued.**", f"- **task**: {TASK}", "- **attempt**: 1")
    assert f"- **awaited**: callback, or poll at {due:%Y-%m-%d %H:%M:%S} UTC" in told
    await callback(job, "succeeded")
    await until_details_say(job, "**Running.**", "- **provider says**: running")
    await callback(job, "succeeded")
    await copy.reached.wait()
    assert "awaited" not in await until_details_say(job, "**Storing.**", "- **provider says**: succeeded")
    copy.let_go()
    await job.result()
    told = await details(job)
    assert told.startswith("**Stored.** The video is in the bucket, verified, and on record.")
    assert "- **cost**: 0.5000 USD, 42 tokens (expected: at most 0.7623 USD, 108,900 tokens)" in told
    assert f"- **video**: {RESULT.video_uri}, 1.2 kB" in told
    assert f"- **record**: {RESULT.record_uri}" in told


async def test_details_show_attention_and_commands(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.recover(attempt=2), stage.adopt(attempt=2))
    stage.script.plan("ask_lister", stage.recover(attempt=2, needs_operator=True))
    stage.script.plan("identify_task", OURS)
    stage.script.plan("get_task", waiting())
    job = await stage.start()
    await stage.script.called("ask_lister")
    await listed(job, a_listing(attempt=2, complete=False))
    told = await until_details_say(
        job, "**Needs an operator: unknown\\_create.** Whether the provider accepted attempt 2"
    )
    assert "**Recovering.**" in told
    commands = re.findall(r"`(python starter\.py resolve [^`]+)`", told)
    assert commands == [
        f"python starter.py resolve {job.id} --attempt 2 {word}" for word in ("--task-id ID", "--not-created", "--lost")
    ]
    # What the command line shows of it are the same words, without Markdown.
    advice = detail_of(await state(job)).advice or ""
    assert all(command in advice for command in commands)
    assert "`" not in advice
    await listed(job, a_listing(attempt=2, task_id=TASK))
    assert "Needs an operator" not in await until_details_say(job, "**Queued.**")


async def test_details_show_a_video_at_risk(skipping: Stage) -> None:
    """Nothing else changes then: the copy is still at work."""
    stage = skipping
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", to_store())
    stage.script.plan("store_video", *[ApplicationError("no bucket", type="StoreFailed")] * 30, RESULT)
    job = await stage.start()
    await stage.skip(50 * 60)
    assert (await details(job)).startswith("**Storing.**")
    await stage.skip(20 * 60)
    assert (await details(job)).startswith(
        f"**Needs an operator: video\\_at\\_risk.** The video of task {TASK} is paid for"
    )
    await job.result()
    assert (await details(job)).startswith("**Stored.**")


@pytest.mark.parametrize(
    ("of", "cost"),
    [("moderation", "nothing is billed for attempt 1"), ("lost", "not known here (expected: at most 0.7623 USD")],
)
async def test_details_show_reason_and_cost_of_an_end(stage: Stage, of: Any, cost: str) -> None:
    error = failure(of).model_copy(
        update={"message": f"It ended: {of}. ResubmitGrant: python starter.py resubmit X --attempt 1"}
    )
    stage.script.plan("read_ledger", stage.ended(error, folder=FOLDER, **EXPECTED))
    job = await stage.start()
    assert await failed(job) == error
    told = await details(job)
    phase = (await state(job)).phase
    assert told.startswith(
        f"**No video: {phase} ({of}).** It ended: {of}. ResubmitGrant: `python starter.py resubmit X --attempt 1`"
    )
    assert f"- **cost**: {cost}" in told
    assert f"- **ledger**: {FOLDER}attempts/" in told


async def test_foreign_text_is_escaped_in_details(stage: Stage) -> None:
    message = "![x](https://example.com/x.png) <b>*no*</b> `|\n\n# rm"
    error = failure("provider").model_copy(update={"message": message})
    stage.script.plan("read_ledger", stage.ended(error, warnings=("a | b\n- c",)))
    job = await stage.start()
    await failed(job)
    told = await details(job)
    first, *_ = told.splitlines()
    assert first.endswith(r"\!\[x\](https://example.com/x.png) \<b\>\*no\*\</b\> \`\| \# rm")
    assert r"- **warning 1**: a \| b - c" in told


async def test_every_step_has_a_summary(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.claim(folder=FOLDER), stage.claim(2, folder=FOLDER))
    stage.script.plan("create_task", stage.not_sent(again=0.2), stage.created(again=0.2, written=False))
    stage.script.plan("write_outcome", None)
    stage.script.plan("get_task", waiting("running", 0.2), to_store())
    stage.script.plan("store_video", RESULT)
    job = await stage.start()
    await job.result()
    converter = stage.client.data_converter
    told = []
    for event in await events(job):
        if event.event_type in {EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED, TIMER}:
            (summary,) = await converter.decode([event.user_metadata.summary], [str])
            told.append(summary)
    assert told == [
        "read the ledger",
        "POST create: attempt 1, paid at most once",
        "nothing was created; create again in 0 s",
        "read the ledger",
        "POST create: attempt 2, paid at most once",
        "write the outcome of attempt 2: created",
        "callback, or poll in 0 s",
        f"GET {TASK}",
        "callback, or poll in 0 s",
        f"GET {TASK}",
        "copy MP4 to gs://videos, verified, and write the record",
        "the copy is at risk in 3600 s",
    ]


async def test_long_provider_code_ends_the_job(stage: Stage) -> None:
    seen = ending("failed", "provider")
    assert seen.error is not None
    error = seen.error.model_copy(update={"code": "Long" * 200})
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", seen.model_copy(update={"error": error}))
    stage.script.plan("write_end", as_written)
    job = await stage.start()
    await callback(job, "failed")
    assert (await failed(job)).code == error.code
    assert len(await scheduled(job, "write_end")) == 1


@pytest.mark.parametrize("hashed", [False, True])
async def test_user_is_hashed_by_setting(stage: Stage, hashed: bool) -> None:
    stage.script.plan("read_ledger", stage.stored(hash_users=hashed))
    job = await stage.start()
    await job.result()
    shown = (await job.describe()).typed_search_attributes.get(SEEDANCE_USER)
    assert shown == (user_hash("user-42") if hashed else "user-42")
    assert "user-42" not in await details(job)
