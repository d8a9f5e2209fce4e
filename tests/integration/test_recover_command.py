"""``recover``: which jobs it leaves alone, which get a run that cannot create, and which are submitted on request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError

from seedance_temporal.client import VideoJobs
from seedance_temporal.contract import GenerateVideoInput
from seedance_temporal.errors import JobFailed
from seedance_temporal.identity import job_id_of
from seedance_temporal.ledger.facts import Outcome
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.request import VideoRequest
from seedance_temporal.storage.bucket import GoogleBucket
from tests.support.command_line import CommandResult, run_command
from tests.support.jobs import a_claim, an_end, created, names, not_sent
from tests.support.temporal_stub import request

Recover = Callable[..., Awaitable[CommandResult]]
# An Attention that lasts for a second is an operator's.
IMPATIENT = {
    "SEEDANCE_RECOVERY_SECONDS": "2",
    "SEEDANCE_CREATE_TIMEOUT_SECONDS": "1",
    "SEEDANCE_CLOCK_SKEW_SECONDS": "0.5",
}


@pytest.fixture
def ledger(google: GoogleBucket) -> Ledger:
    return Ledger(google, "seedance")


@pytest.fixture
def recover(temporal: Client, bucket_env: dict[str, str]) -> Recover:
    async def run(*arguments: str, **variables: str) -> CommandResult:
        return await run_command(temporal, "recover", *arguments, **bucket_env, **variables)

    return run


async def claim(ledger: Ledger, of: VideoRequest, *outcomes: Outcome) -> str:
    assert await ledger.claim(a_claim(of))
    for outcome in outcomes:
        await ledger.write_outcome(job_id_of(of), 1, outcome)
    return job_id_of(of)


async def given_to(temporal: Client, job_id: str) -> GenerateVideoInput | None:
    """Return the argument of a job's run, if it has one."""
    with suppress(RPCError):
        given: GenerateVideoInput = await temporal.get_workflow_handle(job_id).query(
            "given", result_type=GenerateVideoInput
        )
        return given
    return None


async def failed(temporal: Client, of: VideoRequest) -> None:
    with pytest.raises(JobFailed):
        await (await VideoJobs(temporal).submit(of)).result(20)


def job_in(result: CommandResult, job_id: str) -> dict[str, Any]:
    (job,) = (each for each in result.document["jobs"] if each["job_id"] == job_id)
    assert isinstance(job, dict)
    return job


async def test_paid_job_gets_run_that_cannot_create(temporal: Client, ledger: Ledger, recover: Recover) -> None:
    of = request("paid", "stored")
    job_id = await claim(ledger, of, created("cgt-1"))
    planned = await recover(job_id, "--dry-run", "--json")
    assert job_in(planned, job_id)["progress"] == "task_known"
    assert job_in(planned, job_id)["run"] is None
    assert await given_to(temporal, job_id) is None

    result = await recover(job_id, "--json")
    assert (result.code, job_in(result, job_id)["action"], job_in(result, job_id)["phase"]) == (0, "started", "stored")
    assert await given_to(temporal, job_id) == GenerateVideoInput(request=of, may_create=False)


async def test_open_run_is_left_alone(temporal: Client, ledger: Ledger, recover: Recover) -> None:
    of = request("goes on")
    job_id = await claim(ledger, of, created("cgt-1"))
    await VideoJobs(temporal).submit(of)
    before = (await temporal.get_workflow_handle(job_id).describe()).run_id
    result = await recover(job_id, "--no-wait", "--json")
    assert (job_in(result, job_id)["run"], job_in(result, job_id)["action"]) == ("open", None)
    assert (await temporal.get_workflow_handle(job_id).describe()).run_id == before


async def test_terminated_job_is_brought_back(temporal: Client, ledger: Ledger, recover: Recover) -> None:
    of = request("terminated")
    job_id = await claim(ledger, of)
    await VideoJobs(temporal).submit(of)
    await temporal.get_workflow_handle(job_id).terminate()
    result = await recover(job_id, "--no-wait", "--json")
    assert job_in(result, job_id)["progress"] == "create_unknown"
    assert job_in(result, job_id)["action"] == "started"
    given = await given_to(temporal, job_id)
    assert given is not None
    assert not given.may_create


async def test_lasting_attention_ends_wait_with_4(ledger: Ledger, recover: Recover) -> None:
    job_id = await claim(ledger, request("in need", "attention:unknown_create"))
    result = await recover(job_id, **IMPATIENT)
    assert result.code == 4
    assert "1 in need of an operator (unknown_create)" in result.out
    assert f"show {job_id}" in result.out


async def test_job_without_task_is_resubmitted_on_request(temporal: Client, ledger: Ledger, recover: Recover) -> None:
    of = request("not sent", "stored")
    job_id = await claim(ledger, of, not_sent())
    listed = await recover("--dry-run")
    assert job_id in listed.out
    assert "1 job without a task: nothing is sent, and nothing is paid for." in listed.out, listed.out

    refused = await recover(job_id, "--resubmit", "--json")
    assert refused.code == 2
    assert refused.document["error"]["problems"][0]["at"] == "--yes"
    result = await recover(job_id, "--resubmit", "--yes", "--json")
    assert (result.code, job_in(result, job_id)["action"]) == (0, "resubmitted")
    assert await given_to(temporal, job_id) == GenerateVideoInput(request=of)


async def test_job_cancelled_before_create_is_no_open_one(temporal: Client, ledger: Ledger, recover: Recover) -> None:
    of = request("cancelled", "unclaimed")
    job_id = await claim(ledger, of, not_sent())
    await failed(temporal, of)
    result = await recover("--resubmit", "--yes", "--no-wait", "--json")
    assert all(job["job_id"] != job_id for job in result.document["jobs"])
    status = (await temporal.get_workflow_handle(job_id).describe()).status
    assert status is WorkflowExecutionStatus.FAILED


async def test_unsettled_job_is_open(temporal: Client, ledger: Ledger, recover: Recover) -> None:
    of = request("unsettled", "unsettled")
    job_id = await claim(ledger, of, not_sent())
    await failed(temporal, of)
    result = await recover("--dry-run", "--json")
    assert job_in(result, job_id)["run"] == "closed"


async def test_named_job_that_ended_is_known_again(temporal: Client, ledger: Ledger, recover: Recover) -> None:
    of = request("ended", "failed")
    job_id = await claim(ledger, of, created("cgt-1"))
    await ledger.end(job_id, 1, an_end(1, "cgt-1"))
    result = await recover(job_id[:20], "--json")
    assert (result.code, job_in(result, job_id)["action"]) == (3, "started")
    assert job_in(result, job_id)["error"]["code"] == "InternalServiceError"
    again = await recover(job_id, job_id[:20], "--json")
    assert job_in(again, job_id)["action"] is None


async def test_newer_request_is_not_resubmitted(google: GoogleBucket, ledger: Ledger, recover: Recover) -> None:
    """Its id is not that of the fields that this release knows: another job would be paid for."""
    of, newer = request("newer"), "f" * 64
    moved = a_claim(of).model_copy(update={"job_id": f"seedance-{newer}"})
    assert await ledger.claim(moved)
    await ledger.write_outcome(moved.job_id, 1, not_sent())
    result = await recover(newer, "--resubmit", "--yes", "--json")
    assert result.code == 1
    assert "newer release" in job_in(result, moved.job_id)["problem"]


async def test_damaged_ledger_is_named(google: GoogleBucket, recover: Recover) -> None:
    of = request("damaged")
    await google.create(names(of).attempt(1, "claim"), b"{")
    result = await recover(job_id_of(of))
    assert result.code == 1
    assert f"audit {job_id_of(of)} --verify" in result.out


async def test_unknown_job_is_refused(recover: Recover) -> None:
    result = await recover("0" * 64, "--json")
    assert (result.code, result.document["error"]["code"]) == (1, "unknown_job")
    assert (await recover("nonsense", "--json")).code == 2


async def test_silent_bucket_is_named(temporal: Client) -> None:
    result = await run_command(
        temporal, "recover", "--json", SEEDANCE_BUCKET="videos", STORAGE_EMULATOR_HOST="http://127.0.0.1:1"
    )
    assert (result.code, result.document["error"]["code"]) == (1, "bucket")
