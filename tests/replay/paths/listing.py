"""Paths of the lister. The jobs that it answers do not exist: an answer to an ended job is dropped."""

from __future__ import annotations

from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.exceptions import ApplicationError

from activities.task_list import ListedTask, ListerInput, ListingRequest, ListPageInput, Page
from seedance_temporal.contract import LISTER, SIGNAL_LISTING_REQUESTED, Queues, lister_id
from tests.replay.paths.registry import path
from tests.support.polling import until
from tests.workflows.conftest import SUGGESTED_FROM
from tests.workflows.fakes import Held, now
from tests.workflows.harness import Harness, Job
from workflows import policies

OURS = "0123456789abcdef-" + "a" * 32
MODEL = "dreamina-seedance-2-0-260128"
LONG_AGO = 1_700_000_000.0
DOWN = ApplicationError("503", type="ProviderUnavailable")


def a_request(job: str | None = "job", attempt: int = 1, **given: Any) -> ListingRequest:
    usual = {"safety_identifier": OURS, "model": MODEL, "service_tier": "default", "since": LONG_AGO}
    return ListingRequest.model_validate({"job_id": job, "attempt": attempt} | usual | given)


def a_page(*ids: str, total: int | None = None, identifier: str | None = None, key: str = "0a1b2c3d") -> Page:
    tasks = tuple(ListedTask(id=one, safety_identifier=identifier, model=MODEL, created_at=LONG_AGO) for one in ids)
    return Page(tasks=tasks, total=len(tasks) if total is None else total, asked_at=now(), key=key)


async def lister(harness: Harness, *requests: Any) -> Job:
    """Start a lister by a first signal."""
    handle = await harness.client.start_workflow(
        LISTER,
        ListerInput(route=harness.route),
        id=f"{harness.route}-{lister_id(harness.route)}",
        task_queue=Queues(harness.route).workflows,
        start_signal=SIGNAL_LISTING_REQUESTED,
        start_signal_args=requests,
    )
    harness.jobs.append(Job(handle))
    return harness.jobs[-1]


@path("skipping")
async def lister_answers_and_ends(harness: Harness) -> None:
    harness.fake.plan("list_page", held := Held(a_page("cgt-1")))
    job = await lister(harness, a_request("a"), "nonsense", a_request("a"))
    await held.reached.wait()
    harness.fake.plan("list_page", DOWN, a_page("cgt-1", "cgt-2", identifier=OURS))
    await job.signal(SIGNAL_LISTING_REQUESTED, a_request("b"))
    held.release()
    await job.result()


@path()
async def lister_reads_pages_and_tiers(harness: Harness) -> None:
    async def page(input: ListPageInput) -> Page:
        number = input.page
        return a_page(f"cgt-{number}", total=2 if input.service_tier == "flex" else 3, key=f"key-{number}")

    harness.fake.always("list_page", page)
    job = await lister(harness, a_request("a"), a_request("b", service_tier="flex"), a_request("c", 2))
    await until(lambda: _answered(job, 2), "both tiers are answered")


@path()
async def lister_without_job_to_answer(harness: Harness) -> None:
    harness.fake.plan("list_page", a_page())
    await lister(harness, a_request(None))
    await harness.fake.called("list_page")


@path("skipping")
async def lister_gives_up_endless_listing(harness: Harness) -> None:
    harness.fake.always("list_page", a_page("cgt-1", total=1_000_000))
    await (await lister(harness, a_request())).result()
    assert len(harness.fake.of("list_page")) == policies.MOST_PAGES


@path("skipping")
async def lister_while_list_is_down(harness: Harness) -> None:
    harness.fake.always("list_page", DOWN)
    job = await lister(harness, a_request())
    await harness.fake.called("list_page")
    await harness.skip(policies.LIST_WITHIN.total_seconds() * 2.2)
    harness.fake.always("list_page", a_page())
    await job.result()


@path("renewing")
async def lister_continued(harness: Harness) -> None:
    harness.fake.plan("list_page", held := Held(a_page()))
    job = await lister(harness, a_request("first"))
    await held.reached.wait()
    harness.fake.always("list_page", a_page())
    for number in range(SUGGESTED_FROM + 5):
        await job.signal(SIGNAL_LISTING_REQUESTED, a_request(f"late-{number % 3}"))
    held.release()
    await harness.fake.called("list_page", 2)

    async def is_continued() -> bool:
        return (await job.events())[-1].event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW

    await until(is_continued, "the lister continues as new")


async def _answered(job: Job, times: int) -> bool:
    done = [event for event in await job.events() if event.HasField("activity_task_completed_event_attributes")]
    answers = {event.activity_task_completed_event_attributes.scheduled_event_id for event in done}
    scheduled = {e.event_id: e.activity_task_scheduled_event_attributes for e in await job.events()}
    return sum(scheduled[number].activity_type.name == "answer_jobs" for number in answers) == times
