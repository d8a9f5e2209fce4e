"""The guard of recorded histories explains a change of the workflow in plain words."""

from __future__ import annotations

from datetime import timedelta

import pytest
from temporalio import workflow

from activities.limits import LimitActivities, QuotaInput
from seedance_temporal.contract import WORKFLOW, GenerateVideoInput
from seedance_temporal.job import VideoResult
from tests.replay.guard import WAYS_OUT, assert_followed, unlike
from tests.replay.histories import Recorded, events_of
from workflows.generate_video import GenerateVideo


@pytest.fixture(scope="module")
def callback(records: list[Recorded]) -> Recorded:
    return next(record for record in records if record.name == "follow-callback-before-timer-replaces-it")


@workflow.defn(name=WORKFLOW)
class WaitsFirst(GenerateVideo):
    """A change that starts a timer before the first step."""

    @workflow.init
    def __init__(self, job: GenerateVideoInput) -> None:
        super().__init__(job)

    @workflow.run
    async def run(self, job: GenerateVideoInput) -> VideoResult:
        await workflow.sleep(timedelta(seconds=1), summary="think")
        return await super().run(job)


@workflow.defn(name=WORKFLOW)
class WaitsFirstWhereNew(GenerateVideo):
    """The same change, with a gate."""

    @workflow.init
    def __init__(self, job: GenerateVideoInput) -> None:
        super().__init__(job)

    @workflow.run
    async def run(self, job: GenerateVideoInput) -> VideoResult:
        if workflow.patched("wait-first"):
            await workflow.sleep(timedelta(seconds=1))
        return await super().run(job)


@workflow.defn(name=WORKFLOW)
class AsksForQuota(GenerateVideo):
    """A change that does a step more."""

    @workflow.init
    def __init__(self, job: GenerateVideoInput) -> None:
        super().__init__(job)

    @workflow.run
    async def run(self, job: GenerateVideoInput) -> VideoResult:
        await workflow.execute_activity_method(
            LimitActivities.reserve_quota,
            QuotaInput(job_id=workflow.info().workflow_id, request=job.request),
            start_to_close_timeout=timedelta(seconds=1),
        )
        return await super().run(job)


@workflow.defn(name=WORKFLOW)
class OnlyWaits(GenerateVideo):
    """A change after which the workflow does nothing."""

    @workflow.init
    def __init__(self, job: GenerateVideoInput) -> None:
        super().__init__(job)

    @workflow.run
    async def run(self, job: GenerateVideoInput) -> VideoResult:
        await workflow.wait_condition(lambda: False)
        raise AssertionError


class LaterInput(GenerateVideoInput):
    """The workflow's argument, with a later field that has no default."""

    budget: float


@workflow.defn(name=WORKFLOW)
class ReadsLaterField(GenerateVideo):
    """A change that needs a field which earlier payloads lack."""

    @workflow.init
    def __init__(self, job: LaterInput) -> None:
        super().__init__(job)

    @workflow.run
    async def run(self, job: LaterInput) -> VideoResult:  # type: ignore[override]
        return await super().run(job)


@pytest.mark.parametrize(
    ("changed", "recorded", "now"),
    [
        (WaitsFirst, "start the activity read_ledger (read the ledger)", "start a timer (think)"),
        (AsksForQuota, "start the activity read_ledger (read the ledger)", "start the activity reserve_quota"),
        (OnlyWaits, "start the activity read_ledger (read the ledger)", "nothing"),
    ],
)
async def test_change_is_explained(callback: Recorded, changed: type, recorded: str, now: str) -> None:
    (explained,) = await unlike([callback], changed)
    assert f"/{callback.name}.json.gz, run 1 of 1: this history cannot be replayed." in explained
    assert f"  recorded:  {recorded}\n" in explained
    assert f"  now:       {now}\n" in explained


async def test_later_difference_shows_earlier_steps(records: list[Recorded]) -> None:
    """The recorded copy is renamed, as if the present code had another activity there."""
    polled = next(record for record in records if record.name == "follow-timer-polls-without-callbacks")
    for event in events_of([polled]):
        if event.activity_task_scheduled_event_attributes.activity_type.name == "store_video":
            event.activity_task_scheduled_event_attributes.activity_type.name = "copy_video"
            changed = event
    try:
        (explained,) = await unlike([polled])
    finally:
        changed.activity_task_scheduled_event_attributes.activity_type.name = "store_video"
    before, _, after = explained.partition("  recorded:  start the activity copy_video")
    assert "  after:     start the activity get_task (GET " in before
    assert "  now:       start the activity store_video (copy MP4" in after


async def test_missing_field_is_explained(callback: Recorded) -> None:
    (explained,) = await unlike([callback], ReadsLaterField)
    assert "the workflow now raises: " in explained
    assert "budget" in explained
    assert "needs a default" in explained


async def test_gated_change_is_followed(callback: Recorded) -> None:
    assert await unlike([callback], WaitsFirstWhereNew) == []


async def test_failure_says_what_to_do(records: list[Recorded]) -> None:
    explained = await unlike([record for record in records if record.name.startswith("retry-")], WaitsFirst)
    assert len(explained) > 4
    with pytest.raises(AssertionError) as caught:
        assert_followed(explained)
    assert str(caught.value).count("cannot be replayed") == 4
    assert f"… and {len(explained) - 4} more runs." in str(caught.value)
    assert str(caught.value).endswith(WAYS_OUT)
    assert "workflow.patched(" in WAYS_OUT
    assert "make histories" in WAYS_OUT


def test_no_difference_is_no_failure() -> None:
    assert_followed([])
