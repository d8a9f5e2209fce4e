"""The current details of a run, as Temporal's UI shows them, while it is open and when it has ended."""

from __future__ import annotations

import re
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.exceptions import ApplicationError

from seedance_temporal.contract import SEEDANCE_USER
from seedance_temporal.identity import user_hash
from tests.support.jobs import detail_of
from tests.support.polling import until
from tests.workflows.fakes import (
    OURS,
    RESULT,
    TASK,
    Held,
    a_listing,
    adopt,
    as_written,
    claim,
    created,
    ended,
    ending,
    failure,
    not_sent,
    recover,
    stored,
    to_store,
    waiting,
)
from tests.workflows.harness import Harness, Job

FOLDER = "gs://videos/seedance/hash/"


def escaped(uri: str) -> str:
    """Return a URI as Markdown that makes no link of it."""
    return uri.replace("://", r"\://")


EXPECTED: dict[str, Any] = {"estimated_tokens": 108_900, "estimated_usd": 0.7623}
TIMER = EventType.EVENT_TYPE_TIMER_STARTED


async def until_details_say(job: Job, *sentences: str) -> str:
    async def shown() -> str:
        text = await job.current_details()
        return text if all(sentence in text for sentence in sentences) else ""

    text: str = await until(shown, f"the details say {sentences}; they say {await job.current_details()}")
    return text


async def test_details_follow_job(harness: Harness) -> None:
    read, create, copy = Held(claim(folder=FOLDER, **EXPECTED)), Held(None), Held(RESULT)

    async def creating(input: Any) -> Any:
        await create(input)
        return await created()(input)

    harness.fake.plan("read_ledger", read)
    harness.fake.plan("create_task", creating)
    harness.fake.not_ready(waiting("running"))
    harness.fake.plan("store_video", copy)
    job = await harness.start_until(read)
    assert await job.current_details() == ""
    read.release()
    await create.reached.wait()
    text = await until_details_say(job, "**Creating.**", f"`python starter.py audit {job.id}`")
    assert "- **cost**: at most 0.7623 USD, 108,900 tokens, if it succeeds" in text
    assert f"- **ledger**: {escaped(FOLDER)}attempts/" in text
    assert "awaited" not in text, "nothing is waited for: the request is being sent"
    create.release()
    due = detail_of(await job.until_state(phase="queued")).continues_at
    text = await until_details_say(job, "**Queued.**", f"- **task**: {TASK}", "- **attempt**: 1")
    assert f"- **awaited**: callback, or poll at {due:%Y-%m-%d %H:%M:%S} UTC" in text
    await job.callback("succeeded")
    await until_details_say(job, "**Running.**", "- **provider says**: running")
    await job.callback("succeeded")
    await copy.reached.wait()
    assert "awaited" not in await until_details_say(job, "**Storing.**", "- **provider says**: running")
    copy.release()
    await job.result()
    text = await job.current_details()
    assert text.startswith("**Stored.** The video is in the bucket, verified, and on record.")
    assert "- **cost**: 0.5000 USD, 42 tokens (expected: at most 0.7623 USD, 108,900 tokens)" in text
    assert f"- **video**: {escaped(RESULT.video_uri)}, 1.2 kB" in text
    assert f"- **record**: {escaped(RESULT.record_uri)}" in text


async def test_attention_shows_reason_and_commands(harness: Harness) -> None:
    harness.fake.plan("read_ledger", recover(attempt=2), adopt(attempt=2))
    harness.fake.plan("ask_lister", recover(attempt=2, needs_operator=True))
    harness.fake.plan("identify_task", OURS)
    harness.fake.plan("get_task", waiting())
    job = await harness.start_until_called("ask_lister")
    await job.listed(a_listing(attempt=2, complete=False))
    text = await until_details_say(
        job, "**Needs an operator: unknown\\_create.** Whether the provider accepted attempt 2"
    )
    assert "**Recovering.**" in text
    commands = re.findall(r"`(python starter\.py resolve [^`]+)`", text)
    assert commands == [
        f"python starter.py resolve {job.id} --attempt 2 {resolution}"
        for resolution in ("--task-id ID", "--not-created", "--lost")
    ]
    # What the command line shows of it are the same words, without Markdown.
    advice = (await job.detail()).advice or ""
    assert all(command in advice for command in commands)
    assert "`" not in advice
    await job.listed(a_listing(attempt=2, task_id=TASK))
    assert "Needs an operator" not in await until_details_say(job, "**Queued.**")


async def test_video_at_risk_is_shown_at_once(skipping: Harness) -> None:
    """Nothing else changes then: the copy is still at work."""
    skipping.fake.follow(to_store())
    skipping.fake.plan("store_video", *[ApplicationError("no bucket", type="StoreFailed")] * 30, RESULT)
    job = await skipping.start()
    await skipping.skip(50 * 60)
    assert (await job.current_details()).startswith("**Storing.**")
    await skipping.skip(20 * 60)
    assert (await job.current_details()).startswith(
        f"**Needs an operator: video\\_at\\_risk.** The video of task {TASK} is paid for"
    )
    await job.result()
    assert (await job.current_details()).startswith("**Stored.**")


@pytest.mark.parametrize(
    ("of", "cost"),
    [("moderation", "nothing is billed for attempt 1"), ("lost", "not known here (expected: at most 0.7623 USD")],
)
async def test_end_without_video_shows_reason_and_cost(harness: Harness, of: Any, cost: str) -> None:
    error = failure(of).model_copy(
        update={"message": f"It ended: {of}. Resubmit: python starter.py resubmit X --attempt 1"}
    )
    harness.fake.plan("read_ledger", ended(error, folder=FOLDER, **EXPECTED))
    job = await harness.start_until_failed(error)
    text = await job.current_details()
    phase = (await job.state()).phase
    assert text.startswith(
        f"**No video: {phase} ({of}).** It ended: {of}. Resubmit: `python starter.py resubmit X --attempt 1`"
    )
    assert f"- **cost**: {cost}" in text
    assert f"- **ledger**: {escaped(FOLDER)}attempts/" in text


async def test_foreign_text_is_escaped(harness: Harness) -> None:
    message = "![x](https://example.com/x.png) <b>*no*</b> `|\n\n# rm"
    error = failure("provider").model_copy(update={"message": message})
    harness.fake.plan("read_ledger", ended(error, warnings=("a | b\n- c",)))
    job = await harness.start_until_failed()
    text = await job.current_details()
    first, *_ = text.splitlines()
    assert first.endswith(r"\!\[x\](https\://example.com/x.png) \<b\>\*no\*\</b\> \`\| \# rm")
    assert r"- **warning 1**: a \| b - c" in text


async def test_foreign_text_looks_like_no_way(harness: Harness) -> None:
    """A provider's message of several lines must not offer a command as one of ours."""
    forged = "quota is used up\nNo task exists: python starter.py resubmit JOB --accept-second-charge\u2028HTTP 403"
    harness.fake.always("read_ledger", claim())
    harness.fake.always("create_task", not_sent(3600, attention="account", message=forged))
    job = await harness.start()
    shown = await job.until_state(attention="account")
    assert len((detail_of(shown).advice or "").splitlines()) == 1
    text = await until_details_say(job, "Needs an operator: account")
    assert "resubmit" in text
    assert "`python starter.py resubmit" not in text
    assert "\n- No task" not in text


async def test_every_step_has_a_summary(harness: Harness) -> None:
    harness.fake.plan("read_ledger", claim(folder=FOLDER), claim(2, folder=FOLDER))
    harness.fake.plan("create_task", not_sent(seconds=0.2), created(seconds=0.2, written=False))
    harness.fake.plan("write_outcome", None)
    harness.fake.plan("get_task", waiting("running", 0.2), to_store())
    harness.fake.plan("store_video", RESULT)
    job = await harness.start_until_stored()
    converter = harness.client.data_converter
    text = []
    for event in await job.events():
        if event.event_type in {EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED, TIMER}:
            (summary,) = await converter.decode([event.user_metadata.summary], [str])
            text.append(summary)
    assert text == [
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


async def test_long_provider_code_does_not_block_end(harness: Harness) -> None:
    seen = ending("failed", "provider")
    assert seen.error is not None
    error = seen.error.model_copy(update={"code": "Long" * 200})
    harness.fake.follow(seen.model_copy(update={"error": error}))
    harness.fake.plan("write_end", as_written)
    job = await harness.start()
    await job.callback("failed")
    assert (await job.failed()).code == error.code
    assert len(await job.scheduled("write_end")) == 1


@pytest.mark.parametrize("hashed", [False, True])
async def test_user_is_hashed_by_setting(harness: Harness, hashed: bool) -> None:
    harness.fake.plan("read_ledger", stored(hash_users=hashed))
    job = await harness.start_until_stored()
    shown = (await job.attributes()).get(SEEDANCE_USER)
    assert shown == (user_hash("user-42") if hashed else "user-42")
    assert "user-42" not in await job.current_details()


async def test_pseudonym_of_worker_is_listed(harness: Harness) -> None:
    """A worker with encryption keys makes it."""
    harness.fake.plan("read_ledger", stored(user="0123456789abcdef"))
    job = await harness.start_until_stored()
    assert (await job.attributes()).get(SEEDANCE_USER) == "0123456789abcdef"
