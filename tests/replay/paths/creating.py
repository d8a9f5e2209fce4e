"""Paths up to the create: references, limits, creates that send nothing, and what becomes of the others."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import Any

from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError

from activities.create import CreateResult
from activities.limits import QuotaResult
from activities.references import ReferencesResult
from seedance_temporal.reference_media import Medium
from seedance_temporal.request import Reference
from tests.replay.paths.registry import add, path
from tests.workflows.fakes import (
    LONG,
    NOT_YET,
    OTHER_TASK,
    OURS,
    RESULT,
    Held,
    adopt,
    claim,
    create_result,
    created,
    ended,
    failure,
    not_sent,
    refused,
    to_store,
)
from tests.workflows.harness import Harness
from workflows import policies

PICTURE = Reference(role="reference_image", url="https://cdn.example.com/a.png")
ASSET = Reference(role="reference_video", url="asset://a")
MEDIUM = Medium(reference=0, kind="image", format="png", size=1234, sha256="0" * 64, width=640, height=480)
CHECKED = ReferencesResult(media=(MEDIUM,), warnings=("It was another picture once.",))
INVALID = failure("invalid", "invalid_references", task_id=None, attempt=None)
UNREACHABLE = ApplicationError("references[0]: the host answered HTTP 503", type="ReferencesUnreachable")


def to_the_end(harness: Harness) -> None:
    """Plan a create that is accepted, and all that follows."""
    harness.fake.always("read_ledger", claim())
    harness.fake.always("create_task", created(seconds=0))
    harness.fake.always("get_task", to_store())
    harness.fake.always("store_video", RESULT)


# References


@path()
async def references_checked(harness: Harness) -> None:
    to_the_end(harness)
    harness.fake.plan("check_references", UNREACHABLE, CHECKED)
    await harness.start_until_stored(references=(PICTURE, ASSET, PICTURE))


@path()
async def many_references_checked(harness: Harness) -> None:
    to_the_end(harness)
    media = tuple(MEDIUM.model_copy(update={"reference": number}) for number in range(9))
    harness.fake.plan("check_references", ReferencesResult(media=media))
    await harness.start_until_stored(references=(PICTURE,) * 9)


@path()
async def references_not_to_be_downloaded(harness: Harness) -> None:
    to_the_end(harness)
    await harness.start_until_stored(references=(ASSET,))


@path()
async def references_refused(harness: Harness) -> None:
    harness.fake.plan("read_ledger", claim())
    harness.fake.plan("check_references", ReferencesResult(error=INVALID))
    await (await harness.start(references=(PICTURE,))).failed()


@path("skipping")
async def references_unreachable(harness: Harness) -> None:
    harness.fake.plan("read_ledger", claim())
    harness.fake.always("check_references", UNREACHABLE)
    await (await harness.start(references=(PICTURE,))).failed()


@path()
async def references_checked_until_task_is_named(harness: Harness) -> None:
    harness.fake.plan("read_ledger", claim(2), adopt(OTHER_TASK))
    harness.fake.plan("check_references", held := Held(CHECKED))
    harness.fake.find()
    job = await harness.start_until(held, references=(PICTURE,))
    await job.callback("queued", OTHER_TASK)
    await job.result()


# What the worker knows of the job


@path()
async def estimated_and_warned(harness: Harness) -> None:
    to_the_end(harness)
    known: dict[str, Any] = {"estimated_tokens": 100, "estimated_usd": 0.5, "warnings": ("It may disappoint.",)}
    harness.fake.plan("read_ledger", claim(folder="gs://videos/seedance/1/", **known))
    await harness.start_until_stored()


@path()
async def user_with_long_name(harness: Harness) -> None:
    """Longer, in JSON, than a search attribute may be."""
    to_the_end(harness)
    await harness.start_until_stored(user_id="\N{GRINNING FACE}" * 250)


@path()
async def ledger_fails_for_good(harness: Harness) -> None:
    harness.fake.plan("read_ledger", ApplicationError("no such bucket", non_retryable=True))
    job = await harness.start()
    with contextlib.suppress(WorkflowFailureError):
        await job.result()


# Limits


@path()
async def quota_reserved(harness: Harness) -> None:
    harness.fake.plan("read_ledger", claim(1, limited=True, hash_users=True), claim(2, limited=True))
    harness.fake.always("reserve_quota", QuotaResult(used="1 of 10 videos today"))
    harness.fake.plan("create_task", not_sent(), created(seconds=0))
    harness.fake.finish()
    await harness.start_until_stored()


@path()
async def quota_used_up(harness: Harness) -> None:
    harness.fake.plan("read_ledger", claim(limited=True))
    harness.fake.plan("reserve_quota", QuotaResult(error=failure("invalid", "over_limit", None, None)))
    await harness.start_until_failed()


@path()
async def not_allowed_to_create(harness: Harness) -> None:
    harness.fake.plan("read_ledger", claim(2))
    await (await harness.start(may_create=False)).failed()


# The create


@path()
async def impossible(harness: Harness) -> None:
    harness.fake.create(CreateResult(kind="impossible", error=failure("invalid", "invalid_request", None, None)))
    await harness.start_until_failed()


@path()
async def refused_by_provider(harness: Harness) -> None:
    harness.fake.plan("read_ledger", claim(), ended(failure("moderation", task_id=None)))
    harness.fake.plan("create_task", refused(written=False))
    harness.fake.plan("write_outcome", None)
    await harness.start_until_failed()


@path()
async def not_sent_three_times(harness: Harness) -> None:
    harness.fake.plan("read_ledger", *map(claim, (1, 2, 3, 4)))
    answers = (not_sent(), not_sent(seconds=1.2), not_sent(written=False), created(seconds=0, written=False))
    harness.fake.plan("create_task", *answers)
    harness.fake.always("write_outcome", None)
    harness.fake.finish()
    await harness.start_until_stored()


async def _attention_until_created(attention: str, harness: Harness) -> None:
    held = Held(created(seconds=0))
    harness.fake.plan("read_ledger", *map(claim, (1, 2, 3)))
    closed = not_sent(seconds=1.2, attention=attention, message="AccountOverdueError: overdue")
    harness.fake.plan("create_task", closed, closed, held)
    harness.fake.finish()
    job = await harness.start_until(held)
    await job.until_state(attention=attention)
    held.release()
    await job.result()


for _kept in ("account", "credentials"):
    add(f"{_kept}-attention-until-created", partial(_attention_until_created, _kept))


@path()
async def claim_conflict(harness: Harness) -> None:
    harness.fake.plan("read_ledger", claim(), adopt())
    harness.fake.plan("create_task", CreateResult(kind="conflict"))
    harness.fake.finish()
    await harness.start_until_stored()


@path()
async def task_named_while_create_waits(harness: Harness) -> None:
    """No worker starts with the create, so it is withdrawn."""
    await harness.stop("create")
    harness.fake.plan("read_ledger", claim(2), adopt(OTHER_TASK))
    harness.fake.find()
    job = await harness.start_until_state(phase="creating")
    await job.callback("running", OTHER_TASK)
    await job.result()


@path("skipping")
async def claim_waits_for_named_task(harness: Harness) -> None:
    held = Held(claim(2))
    harness.fake.plan("read_ledger", held)
    harness.fake.plan("identify_task", *[NOT_YET] * (1 + len(policies.IDENTIFY_PAUSES)))
    to_the_end(harness)
    job = await harness.start_until(held)
    await job.callback("queued", OTHER_TASK)
    held.release()
    await job.result()


@path()
async def task_named_before_create(harness: Harness) -> None:
    harness.fake.plan("read_ledger", reading := Held(claim(2)), adopt(OTHER_TASK))
    harness.fake.plan("identify_task", identifying := Held(OURS))
    harness.fake.finish()
    job = await harness.start_until(reading)
    await job.callback("queued", OTHER_TASK)
    reading.release()
    await identifying.reached.wait()
    # Longer than the run needs to come to the claim, which waits for the answer.
    await asyncio.sleep(0.5)
    identifying.release()
    await job.result()


@path()
async def task_named_during_create(harness: Harness) -> None:
    harness.fake.finish()
    job, held = await harness.start_creating(created())
    await job.callback("running")
    await job.callback("succeeded")
    held.release()
    await job.result()


@path()
async def task_named_after_create_sent_nothing(harness: Harness) -> None:
    harness.fake.plan("read_ledger", claim(2), adopt(OTHER_TASK))
    harness.fake.plan("create_task", not_sent(LONG))
    harness.fake.plan("identify_task", OURS)
    harness.fake.finish()
    job = await harness.start_until_state(phase="waiting")
    await job.callback("running", OTHER_TASK)
    await job.result()


# Unknown outcomes


@path()
async def create_fails(harness: Harness) -> None:
    harness.fake.create(ApplicationError("it broke"))
    harness.fake.plan("ask_lister", adopt())
    harness.fake.finish()
    await harness.start_until_stored()


@path()
async def create_cut_off(harness: Harness) -> None:
    harness.fake.plan("ask_lister", adopt())
    harness.fake.finish()
    job, _ = await harness.start_creating(created())
    await harness.stop("create")
    await job.result()


@path()
async def create_times_out(harness: Harness) -> None:
    # With the margin that the workflow adds, the activity has a second.
    harness.fake.create(Held(created()), create_seconds=1 - policies.CREATE_MARGIN.total_seconds())
    harness.fake.plan("ask_lister", adopt())
    harness.fake.finish()
    await harness.start_until_stored()


@path()
async def unknown_after_unsent(harness: Harness) -> None:
    harness.fake.plan("read_ledger", claim(1), claim(2))
    harness.fake.plan("create_task", not_sent(), create_result("unknown"), created(seconds=0))
    harness.fake.plan("ask_lister", claim(3))
    harness.fake.finish()
    await harness.start_until_stored()


# Over an hour


async def _unsent_for_an_hour(code: str, harness: Harness) -> None:
    harness.fake.always("read_ledger", claim())
    harness.fake.always("create_task", not_sent(900, code))
    job = await harness.start_until_called("create_task")
    await harness.skip(policies.PATIENCE.total_seconds() * 1.4)
    harness.fake.always("create_task", created(seconds=0))
    harness.fake.finish()
    await job.result()


for _code in ("not_connected", "bucket_unreachable"):
    add(f"unsent-for-an-hour-{_code.replace('_', '-')}", partial(_unsent_for_an_hour, _code), "skipping")
