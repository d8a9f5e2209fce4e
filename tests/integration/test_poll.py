"""Polling tasks, and cancelling queued ones, against the local Ark."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from temporalio.exceptions import ApplicationError

from activities import poll
from activities.poll import seconds_since_creation, seconds_since_success
from dev.ark.control import ArkControl
from seedance_temporal.provider.ark import Ark
from seedance_temporal.provider.task import parse_task
from tests.support.jobs import KEY, a_claim, a_request, absent, an_end, created, present, some_settings
from tests.support.observed import know_times
from tests.support.world import NOWHERE, World


async def a_world(ark: ArkControl, status: str = "queued") -> World:
    """Create a job whose task has reached a status, and stays in it."""
    endings = {"failed": "fail", "expired": "expire", "reviewing": "unknown_status", "running": "stay_running"}
    if status in endings:
        await ark.fault("task", endings[status])
    if status not in {"queued", "cancelled"}:
        await ark.fault("task", "seconds", queued_seconds=0, running_seconds=0)
    world = await World.at(ark)
    await world.claim()
    await world.write(created(await world.create_task()))
    if status == "cancelled":
        await world.client.delete(world.task_id)
    await world.until(status)
    return world


@pytest.fixture
async def world(ark: ArkControl) -> World:
    return await a_world(ark)


# --- the ledger first ------------------------------------------------------------------------------------------------


async def test_record_is_returned_without_get(world: World) -> None:
    await world.write_record(world.task_id)
    seen = await world.poll()
    assert (seen.next, seen.status, seen.second_task) == ("already_stored", "succeeded", None)
    assert present(seen.result).task_id == world.task_id
    assert (await world.asked()).get == 0


async def test_end_is_returned_without_get(world: World) -> None:
    end = an_end(1, world.task_id, "expired", "expired")
    await world.write(end)
    seen = await world.poll()
    assert (seen.next, seen.status, seen.error) == ("already_ended", "expired", end.error)
    assert (await world.asked()).get == 0


async def test_end_of_other_attempt_is_not_ours(world: World) -> None:
    await world.write(an_end(2, "cgt-other"), attempt=2)
    assert (await world.poll()).status == "queued"


async def test_late_task_of_lost_attempt_is_followed(ark: ArkControl) -> None:
    """An operator gave the attempt up; then the slow create returned the id of a paid task."""
    world = await a_world(ark, "succeeded")
    await world.write(an_end(1, None, "lost", "unknown_outcome"))
    assert (await world.poll()).next == "copy"


# --- the task --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["queued", "running", "reviewing"])
async def test_running_task_waits(ark: ArkControl, status: str) -> None:
    world = await a_world(ark, status)
    seen = await world.poll()
    assert (seen.next, seen.status, seen.attention, seen.error) == ("wait", status, None, None)
    assert 0 < seen.wait_seconds <= 330
    assert (await world.asked()).get == 1
    announced = await world.poll(announced=True)
    assert 0 < announced.wait_seconds <= 5.5


async def test_succeeded_task_is_stored(ark: ArkControl) -> None:
    world = await a_world(ark, "succeeded")
    seen = await world.poll()
    assert (seen.next, seen.status) == ("copy", "succeeded")
    assert 86_400 - 60 < seen.copy_within <= 86_401
    assert seen.usage is not None
    assert seen.usage.total_tokens
    assert seen.cost_usd == round(seen.usage.total_tokens * 7e-6, 6)
    assert "http" not in seen.model_dump_json(), "no result URL is in the history"


async def test_copy_time_counts_from_success(ark: ArkControl) -> None:
    world = await a_world(ark, "succeeded")
    now = datetime.now(UTC).timestamp()
    world.make_older(days=2)
    for age, least, most in ((3600, 82_700, 82_801), (90_000, -1, 1)):
        world.client = answering(id=world.task_id, status="succeeded", updated_at=int(now - age))
        seen = await world.poll()
        assert seen.next == "copy"
        assert least < seen.copy_within < most
    world.client = answering(id=world.task_id, status="succeeded")  # it does not say since when
    assert (await world.poll()).copy_within == 86_400


def test_age_is_counted_by_provider_then_claim() -> None:
    """A time that cannot be the task's is not believed; without a claim nor a time, the task counts as new."""
    now = datetime.now(UTC)
    claimed_at = now - timedelta(minutes=5)
    ages = {
        (created_at, claim): seconds_since_creation(
            parse_task({"id": "cgt-1", "status": "running", "created_at": created_at}), claim, 30
        )
        for created_at in (int(now.timestamp()) - 240, int(now.timestamp()) + 9_999, 0, None)
        for claim in (claimed_at, None)
    }
    assert [round(age, -1) for (_, claim), age in ages.items() if claim is not None] == [240, 300, 300, 300]
    known, future, ancient, none = (age for (_, claim), age in ages.items() if claim is None)
    assert (round(known, -1), future, none) == (240, 0, 0)
    assert ancient > 10**9, "nothing says that it is wrong, and such a task is polled rarely"


async def test_known_times_estimate_end(ark: ArkControl) -> None:
    world = await a_world(ark, "running")
    assert (await world.poll()).expected_at is None
    await know_times(world.bucket, world.request, range(100, 200, 5))
    seen = await world.poll()
    assert seen.expected_at is not None
    assert abs((seen.expected_at - datetime.now(UTC)).total_seconds() - 150) < 15
    assert seen.wait_seconds > 90, "the first of those tasks took that long, and 60 s would be the default"


@given(st.one_of(st.integers(), st.sampled_from([0, 1, -1, 2**31, 1_790_000_000_000, 2**53, 10**30])))
@settings(max_examples=100)
def test_odd_success_time_leaves_whole_day(updated_at: int) -> None:
    """No time that GET shows gives a paid video up early, or has it tried for longer than its URL lives."""
    claimed_at, now = datetime.now(UTC) - timedelta(minutes=5), datetime.now(UTC).timestamp()
    task = parse_task({"id": "cgt-1", "status": "succeeded", "updated_at": updated_at})
    age = seconds_since_success(task, claimed_at, 30)
    assert 0 <= age <= 5 * 60 + 60
    if not now - 400 < updated_at < now + 60:
        assert age == 0


@pytest.mark.parametrize(
    ("status", "failure_class", "could_help"),
    [("failed", "moderation", False), ("expired", "expired", True), ("cancelled", "cancelled", True)],
)
async def test_ended_task_is_ended(ark: ArkControl, status: str, failure_class: str, could_help: bool) -> None:
    world = await a_world(ark, status)
    seen = await world.poll()
    assert (seen.next, seen.status) == ("write_end", status)
    assert seen.error is not None
    assert (seen.error.failure_class, seen.error.resubmit_could_help) == (failure_class, could_help)
    assert (seen.error.task_id, seen.error.attempt) == (world.task_id, 1)
    assert seen.error.code
    assert world.task_id in seen.error.message


@pytest.mark.parametrize(
    ("code", "failure_class"),
    [
        ("OutputVideoSensitiveContentDetected.PolicyViolation", "moderation"),
        ("InvalidParameter.TaskType", "invalid"),
        ("InternalServiceError", "provider"),
    ],
)
async def test_failure_code_decides_advice(world: World, code: str, failure_class: str) -> None:
    world.client = answering(
        id=world.task_id,
        status="failed",
        error={"code": code, "message": "its words"},
        usage={"completion_tokens": 0, "total_tokens": 0},
    )
    seen = await world.poll()
    assert seen.error is not None
    assert (seen.error.code, seen.error.failure_class) == (code, failure_class)
    assert seen.error.resubmit_could_help == (failure_class == "provider")
    assert "its words" in seen.error.message
    assert (present(seen.usage).total_tokens, seen.cost_usd) == (0, 0)


async def test_second_task_is_reported_beside_followed_one(world: World) -> None:
    await world.write(created("cgt-second"))
    assert (await world.poll()).second_task == "cgt-second"
    await world.write_record(world.task_id)
    assert (await world.poll()).second_task == "cgt-second"


# --- no such task, and no usable answer ------------------------------------------------------------------------------


async def test_young_unknown_task_waits(world: World) -> None:
    world.make_older(days=6, hours=23)
    seen = await world.poll(task_id="cgt-gone")
    assert (seen.next, seen.attention, seen.error) == ("wait", "task_gone", None)
    assert seen.wait_seconds == 300


async def test_old_unknown_task_is_lost(world: World) -> None:
    world.make_older(days=7, minutes=1)
    seen = await world.poll(task_id="cgt-gone")
    assert (seen.next, seen.status) == ("write_end", "lost")
    assert seen.error is not None
    assert (seen.error.code, seen.error.failure_class, seen.error.task_id) == ("task_forgotten", "lost", "cgt-gone")
    assert seen.error.attempt == 1


async def test_known_task_of_old_claim_goes_on(world: World) -> None:
    world.make_older(days=8)
    assert (await world.poll()).status == "queued"


async def test_unknown_task_without_claim_waits(world: World) -> None:
    assert (await world.poll(task_id="cgt-gone", attempt=9)).attention == "task_gone"


async def test_foreign_404_loses_no_task(world: World) -> None:
    world.make_older(days=8)
    await world.ark.fault("get", "404", code="InvalidEndpointOrModel.NotFound")
    with pytest.raises(ApplicationError):
        await world.poll()


@pytest.mark.parametrize(
    ("fault", "fields", "attention"),
    [("401", {}, "credentials"), ("403", {}, "account"), ("429", {"code": "SetLimitExceeded"}, "account")],
)
async def test_account_problem_waits_with_attention(
    world: World, fault: str, fields: dict[str, Any], attention: str
) -> None:
    await world.ark.fault("get", fault, **fields)
    seen = await world.poll()
    assert (seen.next, seen.attention, seen.error) == ("wait", attention, None)
    assert seen.wait_seconds >= 30
    assert seen.note
    assert (await world.poll()).attention is None


async def test_refused_key_is_polled_ever_more_rarely(world: World) -> None:
    """An operator is awaited: a day must not cost thousands of events."""
    await world.ark.fault("get", "401", times=5)
    waits = [(await world.poll(refused=n)).wait_seconds for n in (0, 1, 2, 5, 1000)]
    assert waits == [60, 120, 240, 900, 900]


@pytest.mark.parametrize("fault", ["429", "500", "502", "503", "504", "reset", "400"])
async def test_unusable_answer_is_retryable(world: World, fault: str) -> None:
    fault_id = await world.ark.fault("get", fault)
    with pytest.raises(ApplicationError) as caught:
        await world.poll()
    assert (caught.value.type, caught.value.non_retryable) == ("ProviderUnavailable", False)
    assert len(await world.ark.fired(fault_id)) == 1
    assert (await world.poll()).status == "queued"


async def test_unreachable_provider_is_retryable(world: World) -> None:
    world.client = Ark(NOWHERE, KEY, (KEY,))
    for call in (world.poll(), world.cancel()):
        with pytest.raises(ApplicationError) as caught:
            await call
        assert caught.value.type == "ProviderUnavailable"


async def test_unreachable_ledger_identifies_nothing(world: World) -> None:
    world.memory.broken = ConnectionError("no bucket")
    with pytest.raises(ConnectionError):
        await world.poll()
    assert (await world.asked()).get == 0


# --- cancel ----------------------------------------------------------------------------------------------------------


async def test_queued_task_is_cancelled(world: World) -> None:
    result = await world.cancel()
    assert (result.outcome, result.status) == ("cancelled", "cancelled")
    asked = await world.asked()
    assert (asked.get, asked.delete) == (1, 1)
    assert (await world.poll()).status == "cancelled"


@pytest.mark.parametrize("status", ["running", "reviewing", "succeeded", "failed", "expired"])
async def test_unqueued_task_is_never_deleted(ark: ArkControl, status: str) -> None:
    world = await a_world(ark, status)
    result = await world.cancel()
    assert (result.outcome, result.status) == ("running_will_finish", status)
    asked = await world.asked()
    assert (asked.get, asked.delete) == (1, 0)
    assert (await world.poll()).status == status, "its record is still there"


async def test_queued_task_by_gateways_word_is_never_deleted(ark: ArkControl) -> None:
    """It may be further on than the word says, and DELETE erases the record of a task that has ended."""
    await ark.fault("task", "unknown_status", status="pending")
    await ark.fault("task", "seconds", queued_seconds=0, running_seconds=0)
    world = await World.at(ark)
    await world.claim()
    await world.write(created(await world.create_task()))
    await world.until("pending")
    with pytest.raises(ApplicationError, match="'pending', not 'queued'"):
        await world.cancel()
    assert (await world.asked()).delete == 0
    assert (await world.poll()).status == "queued"


async def test_cancelled_task_stays_cancelled(ark: ArkControl) -> None:
    world = await a_world(ark, "cancelled")
    result = await world.cancel()
    assert (result.outcome, result.status) == ("cancelled", "cancelled")
    assert (await world.asked()).delete == 1  # the one that cancelled it


async def test_unknown_task_is_not_deleted(world: World) -> None:
    with pytest.raises(ApplicationError, match="GET does not show task cgt-gone"):
        await world.cancel(task_id="cgt-gone", attempt=6)
    assert (await world.ark.requests()).tasks["cgt-gone"].delete == 0


@pytest.mark.parametrize("fault", ["401", "404", "429", "500", "502", "reset"])
async def test_failed_get_deletes_nothing(world: World, fault: str) -> None:
    fields = {"code": "NotFound"} if fault == "404" else {}
    await world.ark.fault("get", fault, **fields)
    with pytest.raises(ApplicationError):
        await world.cancel()
    assert (await world.asked()).delete == 0


async def test_slow_get_deletes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poll, "_GET_IS_FRESH_SECONDS", 0.05)
    await world.ark.fault("get", "slow", seconds=0.2)
    with pytest.raises(ApplicationError):
        await world.cancel()
    assert (await world.asked()).delete == 0


@pytest.mark.parametrize("fault", ["429", "500", "reset"])
async def test_failed_cancel_starts_with_new_get(world: World, fault: str) -> None:
    await world.ark.fault("delete", fault)
    with pytest.raises(ApplicationError):
        await world.cancel()
    assert (await world.cancel()).outcome == "cancelled"
    asked = await world.asked()
    assert (asked.get, asked.delete) == (2, 2)


async def test_task_starting_meanwhile_finishes(world: World) -> None:
    """GET said queued, DELETE is refused: the next try sees it run."""
    statuses = iter(["queued", "running"])
    asked = []

    def exchange(request: httpx.Request) -> httpx.Response:
        asked.append(request.method)
        if request.method == "DELETE":
            return httpx.Response(409, json={"error": {"code": "InvalidAction.RunningTaskDeletion", "message": "no"}})
        return httpx.Response(200, json={"id": world.task_id, "status": next(statuses)})

    world.client = Ark("http://world.ark.test", KEY, (), lambda: httpx.MockTransport(exchange))
    with pytest.raises(ApplicationError):
        await world.cancel()
    assert (await world.cancel()).outcome == "running_will_finish"
    assert asked == ["GET", "DELETE", "GET"]


def answering(**payload: Any) -> Ark:
    """A provider whose every GET shows this payload."""
    body = json.dumps(payload).encode()
    return Ark("http://ark.test", KEY, (), lambda: httpx.MockTransport(lambda _: httpx.Response(200, content=body)))


async def test_failed_task_message_is_redacted_and_short(world: World) -> None:
    signed = "https://cdn.example.com/ref.png?X-Tos-Signature=5ec4e7"
    error = {"code": f"Bad.{KEY}" + "c" * 9000, "message": f"Bearer {KEY} cannot fetch {signed} " + "m" * 9000}
    world.client = answering(id=world.task_id, status="failed", error=error)
    written = (await world.poll()).model_dump_json()
    assert "cannot fetch https://cdn.example.com/ref.png" in written
    assert KEY not in written
    assert "5ec4e7" not in written
    assert len(written) < 3000


async def test_reason_without_code_is_shown(world: World) -> None:
    world.client = answering(id=world.task_id, status="failed", failure_reason="out of luck")
    seen = await world.poll()
    assert f"Task {world.task_id} ended failed: out of luck. The provider" in present(seen.error).message


async def test_task_of_absent_attempt_is_followed(ark: ArkControl) -> None:
    world = await a_world(ark, "running")
    claim = a_claim(a_request())
    await world.ledger.claim(claim)
    await world.ledger.write_outcome(claim.job_id, 1, absent())
    await world.ledger.write_outcome(claim.job_id, 1, created(world.task_id, source="callback"))
    seen = await world.poll(job_id=claim.job_id, request=claim.request)
    assert (seen.next, seen.status, seen.second_task) == ("wait", "running", None)


async def test_missing_task_under_other_key_names_both(world: World) -> None:
    world.settings = some_settings(world.ark, ark_api_key=SecretStr("a key of another project"))
    note = (await world.poll(task_id="cgt-gone")).note or ""
    assert world.claims[0].key in note
    assert world.settings.key_fingerprint in note


async def test_cancel_waits_for_task_missing_from_get(world: World) -> None:
    await world.ark.fault("get", "404", code="ResourceNotFound")
    with pytest.raises(ApplicationError) as caught:
        await world.cancel()
    assert not caught.value.non_retryable
    assert (await world.cancel()).outcome == "cancelled"
