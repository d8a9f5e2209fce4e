"""A step that keeps failing raises an Attention after an hour, with reason and advice; the job goes on by itself."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.exceptions import ApplicationError

from activities.create import CreateResult
from activities.limits import QuotaResult
from activities.places import TasksResult
from activities.poll import Observation
from activities.recover import IdentifyInput, IdentifyResult
from seedance_temporal.job import Attention
from tests.support.jobs import detail_of
from tests.support.polling import until
from tests.workflows.fakes import (
    CANCELLED,
    LONG,
    OTHER,
    OTHER_TASK,
    RESULT,
    TASK,
    Held,
    a_listing,
    adopt,
    and_again,
    as_written,
    claim,
    created,
    ending,
    failure,
    not_sent,
    recover,
    to_store,
    waiting,
)
from tests.workflows.harness import Harness, Job, noted
from workflows import policies

DENIED = ApplicationError("403 the account may not read https://storage.example.com/x?signature=abc", type="Forbidden")
GATEWAY = ApplicationError("the provider gave no usable answer: HTTP 404", type="ProviderUnavailable")
CONFLICT = ApplicationError("gs://videos/a/output.mp4 holds another", type="ObjectConflict", non_retryable=True)
UNREACHABLE = "bucket_unreachable"
# On the real server, an hour is this long.
HOUR = timedelta(seconds=4)


@dataclass(frozen=True)
class Step:
    """A step that is repeated until it succeeds.

    Attributes:
        name: The activity.
        good: Its answer in the end.
        others: The answers of the steps before it, and of those after it where the job ends without a video.
        error: Its failure until then.
        attention: The Attention that is raised.
        stored: Whether the job then ends with its video.
    """

    name: str
    good: Any
    others: dict[str, Any]
    error: ApplicationError = DENIED
    attention: Attention = "storage"
    stored: bool = True


FOLLOWED = {"read_ledger": adopt()}
STEPS = [
    Step("read_ledger", adopt(), {}),
    Step("reserve_quota", QuotaResult(), {"read_ledger": claim(limited=True), "create_task": created(seconds=0)}),
    Step("write_outcome", None, {"read_ledger": claim(), "create_task": created(seconds=0, written=False)}),
    Step("ask_lister", adopt(), {"read_ledger": recover()}),
    Step("get_task", to_store(), FOLLOWED),
    Step("get_task", to_store(), FOLLOWED, GATEWAY, "provider"),
    Step("write_end", as_written, FOLLOWED | {"get_task": ending("failed", "provider")}, stored=False),
]


# Steps that read the ledger, with others as above.
READ = [step for step in STEPS if step.name in {"read_ledger", "reserve_quota", "ask_lister", "write_end"}]
DAMAGED = ApplicationError("gs://videos/seedance/1/attempts/0001.claim.json is empty", type="LedgerDamaged")


@pytest.mark.parametrize("step", READ, ids=lambda step: step.name)
async def test_damaged_ledger_calls_operator_at_once(
    impatient: Harness, monkeypatch: pytest.MonkeyPatch, step: Step
) -> None:
    monkeypatch.setattr(policies, "PATIENCE", timedelta(hours=1))
    monkeypatch.setattr(policies, "DAMAGE_PAUSE", timedelta(seconds=1))
    for name, answer in step.others.items():
        impatient.fake.plan(name, answer)
    if step.stored:
        impatient.fake.always("get_task", to_store())
        impatient.fake.always("store_video", RESULT)
    impatient.fake.always(step.name, DAMAGED)
    job = await impatient.start()
    shown = await job.until_state(attention="ledger_damaged")
    advice = detail_of(shown).advice or ""
    assert str(DAMAGED.message) in advice
    assert "Never only remove it" in advice
    await impatient.fake.called(step.name, len(impatient.fake.of(step.name)) + 2)
    impatient.fake.always(step.name, step.good)
    if step.stored:
        assert await job.result() == RESULT
    else:
        assert (await job.failed()).task_id == TASK
    noted_events = noted(await job.state())
    assert len([event for event in noted_events if event.startswith("attention_raised ledger_damaged")]) == 1
    assert "attention_settled ledger_damaged" in noted_events


@pytest.fixture
def impatient(unsandboxed: Harness, monkeypatch: pytest.MonkeyPatch) -> Harness:
    """A route with all its workers, whose patience is short."""
    monkeypatch.setattr(policies, "PATIENCE", HOUR)
    monkeypatch.setattr(policies, "ONE_TRY", timedelta(seconds=1))
    return unsandboxed


async def test_free_places_not_granted_call_operator(idle: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workflow that grants places cannot read the ledgers: it repeats that for ever, and its jobs wait."""
    monkeypatch.setattr(policies, "PATIENCE", timedelta(seconds=6))
    monkeypatch.setattr(policies, "ONE_TRY", timedelta(seconds=4))
    monkeypatch.setattr(policies, "PLACE_ASK_AGAIN", timedelta(seconds=1))
    monkeypatch.setattr(policies, "PLACES_REST", timedelta(seconds=1))
    idle.sandboxed, idle.tasks_at_once = False, 1
    await idle.start_workers()
    idle.fake.create(created(seconds=0), capped=True)
    idle.fake.finish()
    idle.fake.always("open_tasks", ApplicationError("403 for the bucket"))
    job = await idle.start()
    shown = await job.until_state(attention="places")
    assert "grants none of its free places" in (detail_of(shown).advice or "")
    idle.fake.always("open_tasks", TasksResult(leases=()))
    assert await job.result() == RESULT
    assert "attention_settled places" in noted(await job.state())


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step.name}, {step.attention}")
async def test_failing_step_raises_attention(impatient: Harness, step: Step) -> None:
    for name, answer in step.others.items():
        impatient.fake.plan(name, answer)
    if step.stored:
        impatient.fake.always("get_task", to_store())
        impatient.fake.always("store_video", RESULT)
    impatient.fake.always(step.name, step.error)
    job = await impatient.start()
    await impatient.fake.called(step.name)
    assert (await job.state()).attention is None, "shorter outages pass by themselves"
    shown = await job.until_state(attention=step.attention)
    assert step.error.message.partition("?")[0] in (detail_of(shown).advice or ""), "the last failure, in words"
    assert "signature" not in (detail_of(shown).advice or "")
    await impatient.fake.called(step.name, len(impatient.fake.of(step.name)) + 1)
    impatient.fake.always(step.name, step.good)
    if step.stored:
        assert await job.result() == RESULT
    else:
        assert (await job.failed()).task_id == TASK
    shown = await job.state()
    assert shown.attention is None
    assert f"attention_settled {step.attention}" in noted(shown)


async def test_failing_absence_raises_an_attention(impatient: Harness) -> None:
    impatient.fake.plan("read_ledger", recover())
    impatient.fake.always("ask_lister", recover())
    impatient.fake.always("settle_absent", DENIED)
    job = await impatient.start_until_called("ask_lister")
    await job.listed(a_listing(), a_listing())
    await job.until_state(attention="storage")
    await job.terminate()


async def test_step_without_worker_raises_no_attention(impatient: Harness) -> None:
    """That no worker runs is an alert of its own; the job cannot know it, and its step did not fail."""
    impatient.fake.plan("read_ledger", adopt())
    await impatient.stop("get")
    job = await impatient.start()
    await until(lambda: _scheduled_again(job), "an hour without a worker has passed")
    assert (await job.state()).attention is None
    await impatient.start_workers("get")
    impatient.fake.finish()
    assert await job.result() == RESULT
    assert not [event for event in (await job.noted()) if event.startswith("attention_raised")]


async def _scheduled_again(job: Job) -> bool:
    return len(await job.scheduled("get_task")) > 1


async def test_hour_of_failures_raises_attention(skipping: Harness) -> None:
    skipping.fake.plan("read_ledger", adopt())
    skipping.fake.always("get_task", GATEWAY)
    job = await skipping.start()
    await skipping.fake.called("get_task", 2)
    await skipping.skip(policies.PATIENCE.total_seconds() * 0.8)
    assert (await job.state()).attention is None
    await skipping.skip(policies.PATIENCE.total_seconds() * 0.3)
    assert (await job.state()).attention == "provider"
    skipping.fake.finish()
    assert await job.result() == RESULT


async def test_hour_of_unknown_status_raises_attention(skipping: Harness) -> None:
    skipping.fake.plan("read_ledger", adopt())
    skipping.fake.always("get_task", waiting("dreaming", 300))
    job = await skipping.start_until_called("get_task")
    await skipping.skip(policies.PATIENCE.total_seconds() * 0.8)
    assert (await job.state()).attention is None
    await skipping.skip(policies.PATIENCE.total_seconds() * 0.4)
    shown = await job.state()
    assert (shown.attention, detail_of(shown).provider_status) == ("provider", "dreaming")
    assert "'dreaming'" in (detail_of(shown).advice or "")
    skipping.fake.always("get_task", waiting("running", 300))
    await skipping.skip(400)
    assert (await job.state()).attention is None
    skipping.fake.finish()
    assert await job.result() == RESULT


async def test_hour_without_cancel_raises_attention(skipping: Harness) -> None:
    skipping.fake.plan("read_ledger", adopt())
    skipping.fake.always("get_task", waiting("queued", 300))
    skipping.fake.always("cancel_task", ApplicationError("403 AccessDenied", type="ProviderUnavailable"))
    job = await skipping.start_until_called("get_task")
    await job.cancel()
    await skipping.skip(policies.PATIENCE.total_seconds() * 0.8)
    assert (await job.state()).attention is None
    await skipping.skip(policies.PATIENCE.total_seconds() * 0.4)
    shown = await job.state()
    assert (shown.attention, shown.phase) == ("provider", "queued")
    assert "403 AccessDenied" in (detail_of(shown).advice or "")
    await skipping.skip(1200)
    raised = [event for event in await job.noted() if event.startswith("attention_")]
    assert raised == ["attention_raised provider"], "polls that are answered do not settle it"
    skipping.fake.always("cancel_task", CANCELLED)
    skipping.fake.always("get_task", ending("cancelled", "cancelled"))
    skipping.fake.always("write_end", as_written)
    assert (await job.failed()).failure_class == "cancelled"
    assert (await job.state()).attention is None


async def test_answers_for_other_tasks_hide_no_unasked_one(skipping: Harness) -> None:
    """GET fails for one task alone, and made-up names are answered all the time."""

    async def identify(input: IdentifyInput) -> IdentifyResult:
        if input.task_id == OTHER_TASK:
            raise ApplicationError("500", type="ProviderUnavailable")
        return OTHER

    skipping.fake.plan("read_ledger", adopt())
    skipping.fake.always("get_task", waiting("queued", 300))
    skipping.fake.always("identify_task", identify)
    job = await skipping.start_until_called("get_task")
    await job.callback("queued", OTHER_TASK)
    for number in range(24):
        await skipping.skip(300)
        await job.callback("queued", f"{OTHER_TASK}-{number}")
    shown = await job.state()
    assert (shown.attention, shown.phase) == ("provider", "queued")
    assert OTHER_TASK in (detail_of(shown).advice or "")
    raised = [event for event in await job.noted() if event.startswith("attention_")]
    assert raised == ["attention_raised provider"], "no other answer settles it"
    await job.terminate()


@pytest.mark.parametrize(
    "status", ["dreaming", *(pytest.param(known, marks=pytest.mark.faults) for known in ("queued", "running"))]
)
async def test_new_run_continues_the_hour(skipping: Harness, status: str) -> None:
    """An unknown status, a cancel that is not served, a task that cannot be asked for; callbacks fill the history."""
    skipping.fake.always("read_ledger", adopt())
    skipping.fake.always("get_task", waiting(status, 300))
    skipping.fake.always("cancel_task", ApplicationError("403 AccessDenied", type="ProviderUnavailable"))
    job = await skipping.start_until_called("get_task")
    if status == "queued":
        await job.ask_to_cancel()
    if status == "running":
        skipping.fake.always("identify_task", ApplicationError("500", type="ProviderUnavailable"))
        await job.callback("queued", OTHER_TASK)
    await skipping.skip(policies.PATIENCE.total_seconds() * 0.6)
    for _ in range(policies.MOST_EVENTS):
        await job.callback("running")
    await skipping.skip(policies.PATIENCE.total_seconds() * 0.2)
    assert (await job.events())[-1].event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW
    assert (await job.newest().state()).attention is None
    await skipping.skip(policies.PATIENCE.total_seconds() * 0.4)
    assert (await job.newest().state()).attention == "provider"


async def test_damage_of_days_makes_no_long_history(skipping: Harness) -> None:
    skipping.fake.always("read_ledger", DAMAGED)
    job = await skipping.start_until_state(attention="ledger_damaged")
    await skipping.skip(3 * 86_400)
    assert len(await job.events()) < 3 * 24 * 12
    skipping.fake.always("read_ledger", adopt())
    skipping.fake.finish()
    assert await job.result() == RESULT


async def test_refusals_in_a_row_are_counted(harness: Harness) -> None:
    refused = waiting("", 0, attention="credentials", note="401")
    harness.fake.follow(refused, refused, waiting("running", 0), refused, to_store())
    harness.fake.plan("store_video", RESULT)
    await harness.start_until_stored()
    assert [call.input.refused for call in harness.fake.of("get_task")] == [0, 1, 2, 0, 1]


async def test_conflict_is_reported_at_once_and_retried(skipping: Harness) -> None:
    skipping.fake.follow(to_store())
    skipping.fake.plan("store_video", *[CONFLICT] * 20, RESULT)
    job = await skipping.start_until_called("store_video")
    await skipping.skip(1)
    shown = await job.state()
    assert shown.attention == "object_conflict"
    assert "gs://videos/a/output.mp4" in (detail_of(shown).advice or "")
    await skipping.skip(2 * policies.COPY_AT_RISK.total_seconds())
    assert (await job.state()).attention == "object_conflict", "it says more than that the video is at risk"
    assert await job.result() == RESULT
    assert (await job.state()).attention is None


async def test_lasting_conflict_is_reported_as_lost(skipping: Harness) -> None:
    skipping.fake.follow(to_store(within=3600))
    skipping.fake.always("store_video", CONFLICT)
    skipping.fake.plan("write_end", as_written)
    error = await (await skipping.start()).failed()
    assert (error.failure_class, error.task_id) == ("lost", TASK)
    assert "gs://videos/a/output.mp4" in error.message
    assert failure("lost").failure_class == error.failure_class


async def test_late_copy_gets_one_try(unsandboxed: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A negative time-out would block the run for good."""
    monkeypatch.setattr(policies, "COPY_AT_LEAST", timedelta(seconds=6))
    monkeypatch.setattr(policies, "CONFLICT_PAUSE", timedelta(seconds=2))
    unsandboxed.fake.follow(to_store(within=6))
    unsandboxed.fake.plan("store_video", CONFLICT, RESULT)
    job = await unsandboxed.start_until_state(attention="object_conflict")
    await unsandboxed.stop("workflows")
    await asyncio.sleep(7)  # the URL dies, by the server's clock
    await unsandboxed.start_workers("workflows")
    assert await job.result() == RESULT


@pytest.mark.parametrize(("code", "attention"), [("not_connected", "provider"), (UNREACHABLE, "storage")])
async def test_unsent_create_raises_attention(skipping: Harness, code: str, attention: str) -> None:
    skipping.fake.always("read_ledger", claim())
    skipping.fake.always("create_task", not_sent(900, code))
    job = await skipping.start_until_called("create_task")
    await skipping.skip(policies.PATIENCE.total_seconds() * 0.7)
    assert (await job.state()).attention is None
    await skipping.skip(policies.PATIENCE.total_seconds() * 0.3)
    shown = await job.state()
    assert shown.attention == attention, "before the wait in which the hour ends"
    assert code in (detail_of(shown).advice or "")
    # A ledger that can be read says nothing about the create.
    await skipping.skip(1800)
    assert (await job.noted()).count(f"attention_raised {attention}") == 1
    skipping.fake.always("create_task", created(seconds=0))
    skipping.fake.finish()
    assert await job.result() == RESULT
    assert (await job.state()).attention is None


async def test_cancelled_job_needs_no_operator(skipping: Harness) -> None:
    skipping.fake.always("read_ledger", claim())
    skipping.fake.always("create_task", not_sent(900, UNREACHABLE))
    job = await skipping.start_until_called("create_task")
    await skipping.skip(policies.PATIENCE.total_seconds() * 1.4)
    assert (await job.state()).attention == "storage"
    await job.ask_to_cancel()
    assert await job.until_cancel_answered() == "cancelled"
    assert (await job.failed()).code == "cancelled"
    assert (await job.state()).attention is None


@pytest.mark.parametrize("how", ["not sent", "conflict"])
async def test_followed_task_needs_no_sent_create(skipping: Harness, how: str) -> None:
    skipping.fake.always("read_ledger", claim(attempt=2))
    skipping.fake.always("create_task", not_sent(900, UNREACHABLE))
    job = await skipping.start_until_called("create_task")
    await skipping.skip(policies.PATIENCE.total_seconds() * 1.6)
    assert (await job.state()).attention == "storage"
    skipping.fake.always("read_ledger", adopt(OTHER_TASK, attempt=1))
    skipping.fake.always("get_task", waiting("running", 3000))
    last = not_sent(0, UNREACHABLE) if how == "not sent" else CreateResult(kind="conflict")
    skipping.fake.always("create_task", last)
    await skipping.skip(1000)
    await skipping.fake.called("get_task")
    assert (await job.state()).attention is None
    skipping.fake.finish()
    assert await job.result() == RESULT


async def test_next_task_has_no_conflict(skipping: Harness) -> None:
    skipping.fake.plan("read_ledger", adopt(TASK, attempt=2), adopt(OTHER_TASK, attempt=1))
    skipping.fake.plan("get_task", to_store(within=3600))
    skipping.fake.always("store_video", CONFLICT)
    skipping.fake.plan("write_end", and_again)
    skipping.fake.always("get_task", waiting("running", 3000))
    job = await skipping.start()
    await skipping.skip(3600 * 3)
    shown = await job.state()
    assert (shown.task_id, shown.attention) == (OTHER_TASK, None)


async def test_copy_that_fails_after_a_conflict_is_at_risk(skipping: Harness) -> None:
    skipping.fake.follow(to_store())
    skipping.fake.plan("store_video", CONFLICT)
    skipping.fake.always("store_video", ApplicationError("503 the bucket is away", type="StoreFailed"))
    job = await skipping.start_until_called("store_video")
    await skipping.skip(6 * 3600)
    assert len(skipping.fake.of("store_video")) > 5
    assert (await job.state()).attention == "video_at_risk"
    skipping.fake.always("store_video", RESULT)
    assert await job.result() == RESULT


async def test_next_attempt_has_no_task_gone(harness: Harness) -> None:
    """Another run wrote the end of the task; the ledger then allows another attempt, which waits."""
    harness.fake.plan("read_ledger", adopt(), claim(attempt=2))
    harness.fake.plan(
        "get_task",
        waiting("", 1.5, attention="task_gone", note="x"),
        Observation(next="already_ended", status="failed"),
    )
    harness.fake.plan("create_task", not_sent(LONG))
    job = await harness.start_until_state(attention="task_gone")
    assert (await job.until_state(phase="waiting")).attention is None


async def test_withdrawn_create_needs_no_operator(impatient: Harness) -> None:
    """No worker of the create queue runs for over an hour, and two callbacks withdraw the create."""
    impatient.fake.always("read_ledger", claim(attempt=2))
    impatient.fake.always("identify_task", IdentifyResult(answer="known"))
    await impatient.stop("create")
    job = await impatient.start()
    await job.until_state(phase="creating")
    await job.callback("running", task_id="t-1")
    await asyncio.sleep(HOUR.total_seconds() + 1)
    await job.callback("running", task_id="t-2")
    await until(lambda: len(impatient.fake.of("identify_task")) == 2, "both are identified")
    await job.until_noted("not_sent")
    assert impatient.fake.of("create_task") == []
    assert (await job.state()).attention is None


async def test_ledger_keeps_the_attention_of_a_create(impatient: Harness) -> None:
    """Creates are not sent for an hour, then the ledger cannot be read for one: when it can, creates are no better."""
    impatient.fake.always("read_ledger", claim())
    impatient.fake.always("create_task", not_sent(0.5, UNREACHABLE))
    job = await impatient.start()
    await job.until_state(attention="storage")
    impatient.fake.always("read_ledger", DENIED)
    await asyncio.sleep(HOUR.total_seconds() * 2)
    held = Held(not_sent(LONG, UNREACHABLE))
    impatient.fake.always("create_task", held)
    impatient.fake.always("read_ledger", claim())
    await held.reached.wait()
    assert (await job.state()).attention == "storage"
    held.release()
