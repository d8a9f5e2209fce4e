"""The audit of a job is the same while Temporal has it and afterwards, and finds every change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from dev.stack import Stack
from seedance_temporal import JobState, VideoRequest
from seedance_temporal.audit.bucket_evidence import read_bucket_evidence
from seedance_temporal.audit.verify import verify
from seedance_temporal.identity import ObjectNames
from tests.e2e import scenarios
from tests.e2e.command import starter
from tests.e2e.operator import delete_runs, reset, runs_of
from tests.e2e.requests import a_faulty_request, a_request, until, until_ended
from tests.e2e.scenarios import Scenario
from tests.support.jobs import present


async def _audit(stack: Stack, *arguments: str, **changes: str) -> tuple[int, Any]:
    ran = await starter(stack, "audit", *arguments, **changes)
    return ran.code, ran.answer


async def _reset(stack: Stack, request: VideoRequest) -> JobState:
    job = await scenarios.failed(stack, request)
    await reset(stack, job.job_id)
    return await until_ended(stack, job.job_id)


@dataclass(frozen=True)
class Life:
    """How a job goes, and its audit afterwards.

    Attributes:
        changes: Of the request.
        source: The object that the audit is read from.
        outcomes: Of its attempts, each with the source of its outcome.
        sources: Those of its events.
    """

    scenario: Scenario
    phase: str
    source: str
    outcomes: list[tuple[str, str | None]]
    sources: set[str]
    changes: dict[str, Any] = field(default_factory=dict)

    async def live(self, stack: Stack) -> JobState:
        return await self.scenario(stack, a_request(**self.changes))


POLLED = {"route": "volcengine"}
CREATED: list[tuple[str, str | None]] = [("created", "create")]
BY_CALLBACK = {"caller", "create", "callback"}
JOBS = {
    "stored": Life(scenarios.stored, "stored", "record", CREATED, BY_CALLBACK | {"copy"}, {"return_last_frame": True}),
    "refused": Life(scenarios.refused, "refused", "outcome", [("refused", "create")], {"caller", "create"}),
    "failed": Life(scenarios.failed, "failed", "end", CREATED, BY_CALLBACK),
    "resubmitted": Life(scenarios.resubmitted, "stored", "record", CREATED * 2, BY_CALLBACK | {"copy"}),
    "recovered": Life(
        scenarios.found, "stored", "record", [("created", "list")], {"caller", "create", "list", "ledger"}, POLLED
    ),
    "cancelled while queued": Life(scenarios.cancelled, "cancelled", "end", CREATED, {"caller", "create", "poll"}),
    "given up": Life(scenarios.given_up, "lost", "end", [("unknown", None)], {"caller", "create", "operator"}, POLLED),
    "reset": Life(_reset, "failed", "end", CREATED, BY_CALLBACK),
}


@dataclass(frozen=True)
class Audits:
    """The exit code and document of one job's audit, before its runs were deleted and after."""

    job: JobState
    before: tuple[int, Any]
    after: tuple[int, Any]


@pytest.fixture(scope="module")
async def audits(stack: Stack) -> dict[str, Audits]:
    """Return the audits of all jobs side by side: a deletion takes the server half a minute."""

    async def live(name: str) -> Audits:
        job = await JOBS[name].live(stack)
        before = await _audit(stack, job.job_id, "--verify", "--history")
        await delete_runs(stack, job.job_id, await runs_of(stack, job.job_id))
        return Audits(job, before, await _audit(stack, job.job_id, "--verify", "--history"))

    return dict(zip(JOBS, await asyncio.gather(*map(live, JOBS)), strict=True))


@pytest.mark.parametrize("name", JOBS)
def test_audit_survives_deleted_runs(audits: dict[str, Audits], name: str) -> None:
    life = JOBS[name]
    job, (code, before), (code_after, after) = audits[name].job, audits[name].before, audits[name].after
    assert (code, code_after) == (0, 0)
    assert before.pop("history")[-1]["events"]
    assert after.pop("history") == []
    assert (before.pop("source"), after.pop("source")) == ("temporal", life.source)
    assert after == before

    assert not [finding for finding in after["verification"] if finding["problems"]]
    assert [one["name"] for one in after["verification"]] == [stored["name"] for stored in after["objects"]]

    assert (after["phase"], after["missing"]) == (life.phase, [])
    assert [(one["outcome"], one["known_by"]) for one in after["attempts"]] == life.outcomes
    assert {step["source"] for step in after["timeline"]} >= life.sources
    assert [step["at"] for step in after["timeline"]] == sorted(step["at"] for step in after["timeline"])
    assert (after["result"] or after["error"])["task_id"] == job.task_id
    assert after["seconds"] > 0


async def test_audit_of_resubmitted_job(stack: Stack) -> None:
    job = await JOBS["resubmitted"].live(stack)
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


async def test_audit_of_unclaimed_job(stack: Stack) -> None:
    request, _ = await a_faulty_request(stack, "create", "429", times=None, retry_after=30)
    job_id = (await stack.jobs.submit(request)).id
    await until(stack, job_id, lambda job: job.phase == "waiting")
    _, open_job = await _audit(stack, job_id)
    assert (open_job["phase"], open_job["result"], open_job["error"]) == ("waiting", None, None)
    assert open_job["charge"]["billed"] is False
    await stack.jobs.job(job_id).cancel()
    await until_ended(stack, job_id)
    code, audit = await _audit(stack, job_id, "--verify")
    assert (code, audit["source"], audit["phase"], audit["error"]["class"]) == (0, "temporal", "cancelled", "cancelled")
    assert {step["event"] for step in audit["timeline"]} >= {"not_sent", "cancel_requested", "ended"}
    assert audit["timeline"][-1]["detail"] == "cancelled (cancelled)"
    assert [one["outcome"] for one in audit["attempts"]] == ["not_sent"]


async def test_audit_without_bucket_or_temporal(stack: Stack) -> None:
    job = await JOBS["stored"].live(stack)
    _, whole = await _audit(stack, job.job_id)

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


async def test_audit_of_unknown_job_fails(stack: Stack) -> None:
    code, answer = await _audit(stack, f"seedance-{'0' * 64}")
    assert (code, answer["error"]["code"]) == (1, "unknown_job")
    assert "nothing was ever paid" in answer["error"]["message"]
    assert (await _audit(stack, "no-job-id"))[0] == 2


# Changed objects

KINDS = {
    "stored": {"claim", "outcome", "output", "last_frame", "task", "verified", "record"},
    "refused": {"claim", "outcome"},
    "resubmitted": {"claim", "outcome", "end", "again", "output", "task", "verified", "record"},
    "given up": {"claim", "end"},
}


@pytest.mark.parametrize("name", KINDS)
async def test_changed_objects_are_found(stack: Stack, name: str) -> None:
    """By the objects alone, as after Temporal's retention. An object that was put back counts as replaced."""
    job = await JOBS[name].live(stack)
    names = [stored.name for stored in await stack.bucket.list(ObjectNames("seedance", job.request_hash).root)]
    kinds = {one.rpartition("/")[2].split(".")[-2].partition("-")[0] for one in names}
    assert kinds == KINDS[name]
    known = await _problems(stack, job.job_id)
    assert known == dict.fromkeys(names, ())
    for one in names:
        content = present(await stack.bucket.read(one))
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


async def test_verify_names_replaced_object(stack: Stack) -> None:
    job = await JOBS["stored"].live(stack)
    name = ObjectNames("seedance", job.request_hash).attempt(1, "claim")
    content = present(await stack.bucket.read(name))
    async with _instead(stack, name, content.replace(b"paper boat", b"paper goat"), content):
        code, audit = await _audit(stack, job.job_id, "--verify")
    assert code == 1
    (wrong,) = [finding for finding in audit["verification"] if finding["problems"]]
    assert wrong["name"] == name
    problems = " ".join(wrong["problems"])
    for words in ("SHA-256", "was replaced", "not the one that the job id is the hash of"):
        assert words in problems


async def _problems(stack: Stack, job_id: str) -> Mapping[str, tuple[str, ...]]:
    evidence = await read_bucket_evidence(stack.bucket, "seedance", job_id)
    return {finding.name: finding.problems for finding in await verify(stack.bucket, evidence, None)}


@asynccontextmanager
async def _instead(stack: Stack, name: str, content: bytes | None, original: bytes) -> AsyncIterator[None]:
    """Overwrite or remove an object, and put it back. Only an operator could: no worker may."""
    blob = stack.bucket._bucket.blob(name)
    try:
        if content is None:
            await asyncio.to_thread(blob.delete)
        else:
            await asyncio.to_thread(blob.upload_from_string, content)
        yield
    finally:
        await asyncio.to_thread(blob.upload_from_string, original)
