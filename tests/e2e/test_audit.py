"""The audit of a job is the same while Temporal has it and afterwards, and finds every change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.service import RPCError

from dev.stack import Stack
from seedance_temporal import JobState, VideoRequest
from seedance_temporal.audit.bucket_evidence import read_bucket_evidence
from seedance_temporal.audit.verify import verify
from seedance_temporal.identity import ObjectNames
from tests.e2e.command import starter
from tests.e2e.operator import reset_to_the_first_task
from tests.e2e.requests import a_request, until


async def _audit(stack: Stack, *arguments: str, **changes: str) -> tuple[int, Any]:
    ran = await starter(stack, "audit", *arguments, **changes)
    return ran.code, ran.answer


async def _ended(stack: Stack, request: VideoRequest) -> JobState:
    async for job in (await stack.jobs.submit(request)).follow():
        last = job
    return last


async def _stored(stack: Stack) -> JobState:
    return await _ended(stack, a_request(return_last_frame=True))


async def _refused(stack: Stack) -> JobState:
    request = a_request()
    await stack.ark.fault("create", "400", contains=request.prompt)
    return await _ended(stack, request)


async def _failed(stack: Stack) -> JobState:
    request = a_request()
    await stack.ark.fault("task", "fail", contains=request.prompt)
    return await _ended(stack, request)


async def _resubmitted(stack: Stack) -> JobState:
    request = a_request()
    await stack.ark.fault("task", "expire", contains=request.prompt)
    await stack.jobs.job((await _ended(stack, request)).job_id).resubmit(attempt=1)
    return await _ended(stack, request)


async def _recovered(stack: Stack) -> JobState:
    request = a_request("volcengine")
    await stack.ark.fault("create", "lost_after_commit", contains=request.prompt)
    return await _ended(stack, request)


async def _cancelled_while_queued(stack: Stack) -> JobState:
    request = a_request()
    await stack.ark.fault("task", "stay_queued", contains=request.prompt)
    job_id = (await stack.jobs.submit(request)).id
    await until(stack, job_id, lambda job: job.task_id is not None)
    await stack.jobs.job(job_id).cancel()
    return await _ended(stack, request)


async def _given_up(stack: Stack) -> JobState:
    request = a_request("volcengine")
    await stack.ark.fault("create", "reset_before_commit", contains=request.prompt)
    job_id = (await stack.jobs.submit(request)).id
    await until(stack, job_id, lambda job: job.phase == "recovering")
    assert (await stack.jobs.job(job_id).resolve(attempt=1, action="lost")).accepted
    return await _ended(stack, request)


async def _reset(stack: Stack) -> JobState:
    job = await _failed(stack)
    await reset_to_the_first_task(stack, job.job_id)
    async for after in stack.jobs.job(job.job_id).follow():
        last = after
    return last


JOBS: dict[str, tuple[Callable[[Stack], Awaitable[JobState]], str, str, list[tuple[str, str | None]], list[str]]] = {
    # The job, its phase and the source afterwards, its outcomes with their sources, and the sources of its events.
    "stored": (_stored, "stored", "record", [("created", "create")], ["caller", "create", "callback", "copy"]),
    "refused": (_refused, "refused", "outcome", [("refused", "create")], ["caller", "create"]),
    "failed": (_failed, "failed", "end", [("created", "create")], ["caller", "create", "callback"]),
    "resubmitted": (
        _resubmitted,
        "stored",
        "record",
        [("created", "create"), ("created", "create")],
        ["caller", "create", "callback", "copy"],
    ),
    "recovered": (_recovered, "stored", "record", [("created", "list")], ["caller", "create", "list", "ledger"]),
    "cancelled while queued": (
        _cancelled_while_queued,
        "cancelled",
        "end",
        [("created", "create")],
        ["caller", "create", "poll"],
    ),
    "given up": (_given_up, "lost", "end", [("unknown", None)], ["caller", "create", "operator"]),
    "reset": (_reset, "failed", "end", [("created", "create")], ["caller", "create", "callback"]),
}


@dataclass(frozen=True)
class Audits:
    """Of one job: exit code and document, before its runs were deleted and after."""

    job: JobState
    before: tuple[int, Any]
    after: tuple[int, Any]


@pytest.fixture(scope="module")
async def audits(stack: Stack) -> dict[str, Audits]:
    """Return the audits of all jobs side by side: a deletion takes the server half a minute."""

    async def live(name: str) -> Audits:
        job = await JOBS[name][0](stack)
        before = await _audit(stack, job.job_id, "--verify", "--history")
        await _delete_runs(stack, job.job_id)
        return Audits(job, before, await _audit(stack, job.job_id, "--verify", "--history"))

    return dict(zip(JOBS, await asyncio.gather(*map(live, JOBS)), strict=True))


@pytest.mark.parametrize("name", JOBS)
def test_audit_is_the_same_without_the_runs(audits: dict[str, Audits], name: str) -> None:
    _, phase, source, outcomes, sources = JOBS[name]
    job, (code, before), (code_after, after) = audits[name].job, audits[name].before, audits[name].after
    assert (code, code_after) == (0, 0)
    assert before.pop("history")[-1]["events"]
    assert after.pop("history") == []
    assert (before.pop("source"), after.pop("source")) == ("temporal", source)
    assert after == before

    assert not [finding for finding in after["verification"] if finding["problems"]]
    assert [one["name"] for one in after["verification"]] == [stored["name"] for stored in after["objects"]]

    assert (after["phase"], after["missing"]) == (phase, [])
    assert [(one["outcome"], one["known_by"]) for one in after["attempts"]] == outcomes
    assert {step["source"] for step in after["timeline"]} >= set(sources)
    assert [step["at"] for step in after["timeline"]] == sorted(step["at"] for step in after["timeline"])
    assert (after["result"] or after["error"])["task_id"] == job.task_id
    assert after["seconds"] > 0


async def test_audit_of_a_resubmitted_job(stack: Stack) -> None:
    job = await _resubmitted(stack)
    _, audit = await _audit(stack, job.job_id)
    assert job.result is not None
    assert job.result.usage is not None
    first, second = audit["attempts"]
    assert (first["charge"]["billed"], first["charge"]["tokens"], first["asked_again_by"]) == (False, 0, "caller")
    assert first["error"]["class"] == "expired"
    assert (second["charge"]["billed"], second["task_ids"]) == (True, [job.result.task_id])
    for charge in (second["charge"], audit["charge"]):
        assert (charge["tokens"], charge["usd"]) == (job.result.usage.total_tokens, job.result.cost_usd)
        assert charge["estimated_tokens"] > 0
    assert [step["event"] for step in audit["timeline"]].count("run_started") == 2
    assert second["task_seconds"] > 0
    assert second["copy_seconds"] > 0


async def test_unclaimed_job_is_audited_by_temporal_alone(stack: Stack) -> None:
    request = a_request()
    await stack.ark.fault("create", "429", contains=request.prompt, times=None, retry_after=30)
    job_id = (await stack.jobs.submit(request)).id
    await until(stack, job_id, lambda job: job.phase == "waiting")
    going_on = (await _audit(stack, job_id))[1]
    assert (going_on["phase"], going_on["result"], going_on["error"]) == ("waiting", None, None)
    assert going_on["charge"]["billed"] is False
    await stack.jobs.job(job_id).cancel()
    await _ended_by(stack, job_id)
    code, audit = await _audit(stack, job_id, "--verify")
    assert (code, audit["source"], audit["phase"], audit["error"]["class"]) == (0, "temporal", "cancelled", "cancelled")
    assert {step["event"] for step in audit["timeline"]} >= {"not_sent", "cancel_requested", "ended"}
    assert audit["timeline"][-1]["detail"] == "cancelled (cancelled)"
    assert [one["outcome"] for one in audit["attempts"]] == ["not_sent"]


async def _ended_by(stack: Stack, job_id: str) -> None:
    async for _ in stack.jobs.job(job_id).follow():
        pass


async def test_audit_without_bucket_or_temporal(stack: Stack) -> None:
    job = await _stored(stack)
    whole = (await _audit(stack, job.job_id))[1]

    for unset in ({"SEEDANCE_BUCKET": ""}, {"SEEDANCE_BUCKET": "nobody-has-this"}):
        code, audit = await _audit(stack, job.job_id, **unset)
        assert (code, audit["source"], audit["phase"]) == (0, "temporal", "stored")
        assert "BUCKET" in audit["missing"][0] or "nobody-has-this" in audit["missing"][0]
        assert (audit["result"], audit["request"]) == (whole["result"], whole["request"])
        assert audit["attempts"][0]["claimed_at"] == whole["attempts"][0]["claimed_at"]
        assert {step["event"] for step in audit["timeline"]} >= {"status", "stored"}
        assert "succeeded" in [step["detail"] for step in audit["timeline"] if step["event"] == "status"]
        code, refused = await _audit(stack, job.job_id, "--verify", **unset)
        assert (code, refused["error"]["code"]) == (1, "bucket")

    code, audit = await _audit(stack, job.job_id, "--verify", TEMPORAL_ADDRESS="127.0.0.1:9")
    assert (code, audit.pop("source")) == (0, "record")
    assert "Temporal could not be read" in audit.pop("missing")[0]
    assert all(not finding["problems"] for finding in audit.pop("verification"))
    for name, value in audit.items():
        assert value == whole[name], name


async def test_unknown_job_is_one_error(stack: Stack) -> None:
    code, answer = await _audit(stack, f"seedance-{'0' * 64}")
    assert (code, answer["error"]["code"]) == (1, "unknown_job")
    assert "nothing was ever paid" in answer["error"]["message"]
    assert (await _audit(stack, "no-job-id"))[0] == 2


# What was changed

KINDS = {
    "stored": {"claim", "outcome", "output", "last_frame", "task", "verified", "record"},
    "refused": {"claim", "outcome"},
    "resubmitted": {"claim", "outcome", "end", "again", "output", "task", "verified", "record"},
    "given up": {"claim", "end"},
}


@pytest.mark.parametrize("name", KINDS)
async def test_flipped_and_missing_objects_are_found(stack: Stack, name: str) -> None:
    """By the objects alone, as after Temporal's retention. What was put back counts as replaced from then on."""
    job = await JOBS[name][0](stack)
    names = [stored.name for stored in await stack.bucket.list(ObjectNames("seedance", job.request_hash).root)]
    kinds = {one.rpartition("/")[2].split(".")[-2].partition("-")[0] for one in names}
    assert kinds == KINDS[name]
    known = await _problems(stack, job.job_id)
    assert known == dict.fromkeys(names, ())
    for one in names:
        content = await stack.bucket.read(one)
        assert content is not None
        flipped = bytes([*content[:-40], content[-40] ^ 0x01, *content[-39:]])
        async with _instead(stack, one, flipped, content):
            found = await _problems(stack, job.job_id)
            assert set(found[one]) - set(known[one]), f"{one} was flipped"
        known = await _problems(stack, job.job_id)
        async with _instead(stack, one, None, content):
            found = await _problems(stack, job.job_id)
            blamed = [other for other in found if set(found[other]) - set(known.get(other, ()))]
            assert blamed, f"{one} was removed"
            if not one.endswith(("again.json", "end.json")):
                assert one in found, f"{one} was removed"
        known = await _problems(stack, job.job_id)


async def test_verify_exits_1_and_names_the_object(stack: Stack) -> None:
    job = await _stored(stack)
    name = ObjectNames("seedance", job.request_hash).attempt(1, "claim")
    content = await stack.bucket.read(name)
    assert content is not None
    async with _instead(stack, name, content.replace(b"paper boat", b"paper goat"), content):
        code, audit = await _audit(stack, job.job_id, "--verify")
    assert code == 1
    (wrong,) = [finding for finding in audit["verification"] if finding["problems"]]
    assert wrong["name"] == name
    said = " ".join(wrong["problems"])
    for words in ("SHA-256", "was replaced", "not the one that the job id is the hash of"):
        assert words in said


async def _problems(stack: Stack, job_id: str) -> Mapping[str, tuple[str, ...]]:
    """By the objects alone."""
    evidence = await read_bucket_evidence(stack.bucket, "seedance", job_id)
    return {finding.name: finding.problems for finding in await verify(stack.bucket, evidence, None)}


@asynccontextmanager
async def _instead(stack: Stack, name: str, content: bytes | None, original: bytes) -> AsyncIterator[None]:
    """An object is overwritten, or removed, and put back. Only an operator could: no worker may."""
    blob = stack.bucket._bucket.blob(name)
    try:
        if content is None:
            await asyncio.to_thread(blob.delete)
        else:
            await asyncio.to_thread(blob.upload_from_string, content)
        yield
    finally:
        await asyncio.to_thread(blob.upload_from_string, original)


async def _delete_runs(stack: Stack, job_id: str) -> None:
    """What the end of retention does, for all runs of the job."""
    newest = (await stack.client.get_workflow_handle(job_id).describe()).run_id
    runs = {run.run_id async for run in stack.client.list_workflows(f"WorkflowId = '{job_id}'")} | {newest}
    for run_id in runs:
        await stack.client.workflow_service.delete_workflow_execution(
            DeleteWorkflowExecutionRequest(
                namespace=stack.client.namespace,
                workflow_execution=WorkflowExecution(workflow_id=job_id, run_id=run_id),
            )
        )
    async with asyncio.timeout(180):
        for run_id in runs:
            while await _is_there(stack, job_id, run_id):
                await asyncio.sleep(0.2)


async def _is_there(stack: Stack, job_id: str, run_id: str) -> bool:
    try:
        await stack.client.get_workflow_handle(job_id, run_id=run_id).describe()
    except RPCError:
        return False
    return True
