"""Paths of what lasts: long histories, steps that fail for an hour, damage, and an operator's retry."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.exceptions import ApplicationError

from activities.limits import QuotaResult
from activities.references import ReferencesResult
from seedance_temporal.contract import SIGNAL_RETRY
from tests.replay.paths.creating import MEDIUM, PICTURE
from tests.replay.paths.following import CONFLICT, FAILED
from tests.replay.paths.registry import add, path
from tests.support.polling import until
from tests.workflows.conftest import SUGGESTED_FROM
from tests.workflows.fakes import (
    LONG,
    OTHER,
    RESULT,
    Held,
    a_listing,
    adopt,
    as_written,
    claim,
    created,
    ending,
    not_sent,
    recover,
    to_store,
    waiting,
)
from tests.workflows.harness import Harness, Job
from workflows import policies

DAMAGED = ApplicationError("gs://videos/seedance/1/attempts/0001.claim.json is empty", type="LedgerDamaged")
DENIED = ApplicationError("403 the account may not read the bucket", type="Forbidden")
GATEWAY = ApplicationError("the provider gave no usable answer: HTTP 404", type="ProviderUnavailable")
CONTINUED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW


# Continue-as-new


async def _noise(job: Job) -> None:
    """Make the history long, by callbacks that change nothing."""
    for _ in range(SUGGESTED_FROM + 5):
        await job.callback("queued")


async def _until_continued(job: Job) -> Job:
    async def is_continued() -> bool:
        return (await job.events())[-1].event_type == CONTINUED

    await until(is_continued, "the run continues as new")
    return job.newest()


@path("renewing")
async def continued_between_attempts(harness: Harness) -> None:
    closed = not_sent(seconds=0, attention="account", message="AccountOverdueError: overdue")
    harness.fake.plan("read_ledger", *[claim(number, about="**who asked**") for number in range(1, 7)], adopt())
    harness.fake.plan("check_references", ReferencesResult(media=(MEDIUM,)))
    harness.fake.plan("create_task", *[closed] * 6)
    harness.fake.finish()
    job = await harness.start(references=(PICTURE,))
    await (await _until_continued(job)).result()


@path("renewing")
async def continued_while_recovering(harness: Harness) -> None:
    harness.fake.plan("read_ledger", recover(), recover())
    harness.fake.plan("ask_lister", held := Held(recover(seconds=0)), adopt())
    harness.fake.plan("identify_task", OTHER)
    harness.fake.cancel()
    job = await harness.start_until(held)
    await job.cancel()
    await job.until_noted("cancel_requested")
    await _noise(job)
    held.release()
    await (await _until_continued(job)).failed()


@path("renewing")
async def continued_while_following(harness: Harness) -> None:
    harness.fake.plan("read_ledger", claim(), adopt())
    harness.fake.plan("create_task", created(seconds=0))
    harness.fake.plan("get_task", held := Held(waiting("", 0, attention="task_gone", note="x")), waiting("running"))
    job = await harness.start_until(held)
    await _noise(job)
    held.release()
    job = await _until_continued(job)
    await job.until_state(phase="running")
    harness.fake.finish()
    await job.callback("succeeded")
    await job.result()


# Steps that fail for an hour


@dataclass(frozen=True)
class Step:
    """A step that is repeated until it succeeds.

    Attributes:
        name: The activity.
        good: Its answer in the end.
        others: The answers of the steps around it.
        stored: Whether the job then ends with its video.
    """

    name: str
    good: Any
    others: dict[str, Any] = field(default_factory=dict)
    stored: bool = True


STEPS = [
    Step("read_ledger", adopt()),
    Step("reserve_quota", QuotaResult(), {"read_ledger": claim(limited=True), "create_task": created(seconds=0)}),
    Step("write_outcome", None, {"read_ledger": claim(), "create_task": created(seconds=0, written=False)}),
    Step("ask_lister", adopt(), {"read_ledger": recover()}),
    Step("get_task", to_store(), {"read_ledger": adopt()}),
    Step("write_end", as_written, {"read_ledger": adopt(), "get_task": ending("failed", "provider")}, stored=False),
]


async def _start_failing(step: Step, error: ApplicationError, harness: Harness) -> Job:
    for name, answer in step.others.items():
        harness.fake.plan(name, answer)
    if step.stored:
        harness.fake.always("get_task", to_store())
        harness.fake.always("store_video", RESULT)
    harness.fake.always(step.name, error)
    return await harness.start_until_called(step.name)


async def _end_well(step: Step, harness: Harness, job: Job) -> None:
    harness.fake.always(step.name, step.good)
    await (job.result() if step.stored else job.failed())


async def _fails_for_an_hour(step: Step, harness: Harness) -> None:
    error = GATEWAY if step.name == "get_task" else DENIED
    job = await _start_failing(step, error, harness)
    await harness.skip(policies.PATIENCE.total_seconds() * 1.1)
    await _end_well(step, harness, job)


async def _damaged_ledger(step: Step, harness: Harness) -> None:
    job = await _start_failing(step, DAMAGED, harness)
    await harness.skip(policies.DAMAGE_PAUSE.total_seconds() * 1.5)
    await _end_well(step, harness, job)


for _step in STEPS:
    add(f"{_step.name.replace('_', '-')}-fails-for-an-hour", partial(_fails_for_an_hour, _step), "skipping")
    if _step.name not in {"write_outcome", "get_task"}:
        add(f"ledger-damaged-for-{_step.name.replace('_', '-')}", partial(_damaged_ledger, _step), "skipping")


@path("skipping")
async def absence_fails_for_an_hour(harness: Harness) -> None:
    harness.fake.plan("read_ledger", recover())
    harness.fake.always("ask_lister", recover())
    harness.fake.always("settle_absent", DENIED)
    job = await harness.start_until_called("ask_lister")
    await job.listed(a_listing(), a_listing())
    await harness.fake.called("settle_absent")
    await harness.skip(policies.PATIENCE.total_seconds() * 1.1)
    harness.fake.always("settle_absent", adopt())
    harness.fake.finish()
    await job.result()


# Retry

_SLOW = ApplicationError("503", type="ProviderUnavailable", next_retry_delay=policies.PATIENCE / 6)
# The plan until then, the activity that is tried again, and its answer at last.
WAITS: dict[str, tuple[dict[str, Any], str, Any]] = {
    "account": ({"read_ledger": claim(), "create_task": not_sent(LONG, attention="account")}, "create_task", None),
    "poll": ({"read_ledger": adopt(), "get_task": waiting("running", LONG)}, "get_task", to_store()),
    "listing": ({"read_ledger": recover(), "ask_lister": recover(seconds=LONG)}, "ask_lister", adopt()),
    "damage": ({"read_ledger": DAMAGED}, "read_ledger", adopt()),
    "object": ({"read_ledger": adopt(), "get_task": to_store(), "store_video": CONFLICT}, "store_video", RESULT),
    "copy": ({"read_ledger": adopt(), "get_task": to_store(), "store_video": FAILED}, "store_video", RESULT),
    "step": ({"read_ledger": adopt(), "get_task": _SLOW}, "get_task", to_store()),
}
_ATTENTIONS = {"damage": "ledger_damaged", "object": "object_conflict"}


async def _retry(wait: str, harness: Harness) -> None:
    plan, name, answer = WAITS[wait]
    for activity, planned in plan.items():
        harness.fake.plan(activity, planned)
    harness.fake.plan("read_ledger", *[claim(2)] * (wait == "account"))
    job = await harness.start_until_called(name)
    if wait in _ATTENTIONS:
        await job.until_state(attention=_ATTENTIONS[wait])
    elif wait not in {"step", "copy"}:
        await job.until_waiting()
    harness.fake.always(name, answer if wait != "account" else created(seconds=0))
    harness.fake.finish()
    await job.signal(SIGNAL_RETRY)
    await job.result()


for _wait in WAITS:
    add(f"retry-of-{_wait}", partial(_retry, _wait))


@path()
async def retry_during_create(harness: Harness) -> None:
    harness.fake.finish()
    job, held = await harness.start_creating(created(seconds=0))
    await job.signal(SIGNAL_RETRY)
    held.release()
    await job.result()
