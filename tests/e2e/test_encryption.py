"""With SEEDANCE_ENCRYPTION_KEYS, neither Temporal nor a log has a prompt, a URL or a user id; without, they have."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dev.stack import Stack, running_stack, settings_of
from seedance_temporal import JobState, VideoRequest
from seedance_temporal.identity import user_hash
from tests.e2e.command import starter
from tests.e2e.requests import a_request, creates_of, until, until_created, until_ended
from tests.replay.replaying import replay_histories
from tests.support import polling
from tests.support.encryption import a_key_setting
from tests.support.media_files import picture
from tests.support.result_host import Answer, ResultHost, result_host
from tests.support.searched import files_with, forms

USER = "user-42@example.com"
PROMPT = "A lighthouse of basalt at dusk"
PICTURE = "/confidential-product.png"
MISSING = "/confidential-plan.png"
PROJECT = "basalt-campaign"
# In outcome and end because this provider quotes it in its messages.
PROMPT_IN_BUCKET = {"attempts/claim.json", "attempts/outcome.json", "attempts/end.json", "record.json"}
SETTINGS = {
    "SEEDANCE_CREATE_TIMEOUT_SECONDS": "5",
    "SEEDANCE_CLOCK_SKEW_SECONDS": "1",
    "SEEDANCE_RECOVERY_SECONDS": "12",
}


@asynccontextmanager
async def stack_with(**settings: str) -> AsyncIterator[Stack]:
    async with running_stack(speed=60, settings=SETTINGS | settings) as stack:
        await stack.start_worker("worker-polling", ARK_ROUTE="volcengine", SEEDANCE_CALLBACK_URL="")
        yield stack


async def all_paths(stack: Stack, host: ResultHost) -> list[JobState]:
    """Run a job through each of the paths whose texts quote the request; return how they ended."""
    # The check of the reference fails once, and Temporal keeps that failure.
    host.answers = {PICTURE: [Answer(status=503), Answer(picture())]}
    image = {"role": "reference_image", "url": host.url(PICTURE)}
    missing = {"role": "reference_image", "url": host.url(MISSING)}
    stored = of_user("stored", references=[image], return_last_frame=True)
    refused, failed = of_user("refused"), of_user("failed")
    unreachable = of_user("unreachable", references=[missing])
    lost = of_user("lost", route="volcengine")
    await stack.ark.fault("create", "400", contains=refused.prompt, message=f"It may not show {refused.prompt}")
    await stack.ark.fault("task", "fail", contains=failed.prompt, message=f"Cannot show {failed.prompt}")
    await stack.ark.fault("create", "reset_before_commit", contains=lost.prompt)
    jobs = [await stack.jobs.submit(request) for request in (stored, refused, unreachable, failed, lost)]
    in_need = await until(stack, jobs[-1].id, lambda job: job.attention == "unknown_create")
    resolved = await starter(stack, "resolve", in_need.job_id, "--attempt", "1", "--not-created")
    assert resolved.answer["accepted"], resolved
    return [await until_ended(stack, job.id) for job in jobs]


def of_user(name: str, route: str = "byteplus", **fields: Any) -> VideoRequest:
    return a_request(route, user_id=USER, prompt=f"{PROMPT}, {name}", labels={"project": PROJECT}, **fields)


def left_by(stack: Stack) -> list[Path]:
    """Return the database of Temporal and the logs of all processes."""
    return [file for file in stack.folder.iterdir() if file.is_file()]


async def in_bucket(stack: Stack, text: str) -> set[str]:
    """Return the kinds of objects that hold a text."""
    sought = forms(text)
    found = set()
    for stored in await stack.bucket.list("seedance/"):
        content = await stack.bucket.read(stored.name) or b""
        if any(form in content + str(stored).encode() for form in sought):
            found.add(re.sub(r"[0-9a-f]{64}/|cgt-[^/]+/|\d{4}\.", "", stored.name.removeprefix("seedance/")))
    return found


ENDS = ["stored", "refused", "failed", "failed", "stored"]


async def test_temporal_and_logs_hold_no_request() -> None:
    async with result_host() as host, stack_with(SEEDANCE_ENCRYPTION_KEYS=a_key_setting("k1")) as stack:
        states = await all_paths(stack, host)
        assert [state.phase for state in states] == ENDS
        assert len(host.asked(PICTURE)) > 1, "the check did not fail"
        for text in (PROMPT, PICTURE, MISSING, USER, user_hash(USER), PROJECT, host.url("")):
            assert files_with(text, left_by(stack)) == set(), text
        assert files_with("binary/encrypted", left_by(stack)) == {"temporal.db"}
        # The request is part of the ledger, which must outlive Temporal.
        assert await in_bucket(stack, PROMPT) == PROMPT_IN_BUCKET
        (found,) = (await starter(stack, "list", "--user", USER, "--phase", "refused")).answer
        assert found["user"] == settings_of(stack.environment).user_key(USER)
        histories = [await stack.client.get_workflow_handle(state.job_id).fetch_history() for state in states]
        assert await replay_histories(histories, converter=stack.client.data_converter) == len(ENDS)
        audit = await starter(stack, "audit", found["job_id"])
        assert f"It may not show {PROMPT}, refused" in str(audit.answer)


async def test_search_finds_what_is_not_encrypted() -> None:
    async with result_host() as host, stack_with() as stack:
        assert [state.phase for state in await all_paths(stack, host)] == ENDS
        for text in (PROMPT, PICTURE, MISSING, USER, user_hash(USER), PROJECT, host.url("")):
            assert "temporal.db" in files_with(text, left_by(stack)), text
        assert "worker.log" in files_with(PICTURE, left_by(stack))
        assert await in_bucket(stack, PROMPT) == PROMPT_IN_BUCKET


@pytest.mark.faults
async def test_worker_without_key_fails_no_job() -> None:
    settings = {"SEEDANCE_ENCRYPTION_KEYS": a_key_setting("k1"), "SEEDANCE_CALLBACK_URL": ""}
    async with running_stack(speed=60, workers=False, settings=settings) as stack:
        keyless = await stack.start_worker("keyless", SEEDANCE_ENCRYPTION_KEYS="")
        requests = [a_request()]
        jobs = [await stack.jobs.submit(requests[0])]
        await keyless.until_log_says("encrypted with the key 'k1', which is not in SEEDANCE_ENCRYPTION_KEYS", 60)
        await stack.start_worker()
        failed = set[str]()
        # Chance decides which worker gets a create; it is half of them.
        while "create_task" not in failed:
            some = [a_request() for _ in range(2)]
            requests += some
            jobs += [await stack.jobs.submit(request) for request in some]
            await asyncio.gather(*(job.result(timeout=200) for job in jobs))
            failed.update(*[await failed_activities(stack, job.id) for job in jobs])
        for request in requests:
            assert len([entry for entry in await creates_of(stack, request) if entry.committed]) == 1


async def failed_activities(stack: Stack, job_id: str) -> list[str]:
    """Return the activities of a job that failed over a key."""
    history = await stack.client.get_workflow_handle(job_id).fetch_history()
    names = {e.event_id: e.activity_task_scheduled_event_attributes.activity_type.name for e in history.events}
    ends = [e.activity_task_failed_event_attributes for e in history.events]
    return [names[end.scheduled_event_id] for end in ends if end.failure.message == "Failed decoding arguments"]


@pytest.mark.faults
async def test_open_job_survives_switch_and_rotation() -> None:
    old, new = a_key_setting("old"), a_key_setting("new")
    async with running_stack(speed=60, workers=False) as stack:
        plain = await stack.start_worker()
        await stack.ark.fault("task", "stay_running", contains=PROMPT, seconds=3600, times=2)
        before = await stack.jobs.submit(of_user("before"))
        await until_created(stack, before.id)
        await plain.stop()
        switched = {"SEEDANCE_ENCRYPTION_KEYS": old}
        worker = await stack.start_worker("worker-old-key", **switched)
        submitted = await starter(stack, "submit", "-", stdin=of_user("after").model_dump_json(), **switched)
        after = submitted.answer["job_id"]
        rotated = {"SEEDANCE_ENCRYPTION_KEYS": f"{new},{old}"}
        await polling.until(lambda: starter_says(stack, after, "running", **rotated), "the second job runs", 60, 1)
        await worker.stop()
        await stack.start_worker("worker-new-key", **rotated)
        listed = (await starter(stack, "list", "--user", USER, **rotated)).answer
        assert {job["job_id"] for job in listed} == {before.id, after}
        shown = await starter(stack, "show", after, SEEDANCE_ENCRYPTION_KEYS=new)
        assert shown.code == 1
        assert "the key 'old', which is not in SEEDANCE_ENCRYPTION_KEYS" in shown.answer["error"]["message"]
        assert shown.answer["error"]["code"] == "encryption_key"
        await stack.ark.release()
        for job_id in (before.id, after):
            assert (await starter(stack, "wait", job_id, **rotated)).answer["phase"] == "stored"


async def starter_says(stack: Stack, job_id: str, phase: str, **changes: str) -> bool:
    return bool((await starter(stack, "show", job_id, **changes)).answer["phase"] == phase)
