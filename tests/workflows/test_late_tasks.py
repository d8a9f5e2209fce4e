"""Callbacks of an ended job: their tasks are identified, and one that is the job's is followed. Nothing is created."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError

from activities.recover import IdentifyInput, IdentifyResult
from seedance_temporal.contract import (
    LATE_TASKS,
    MEMO_NAMED,
    SIGNAL_TASK_CHANGED,
    LateTasksInput,
    NamedTask,
    Queues,
    TaskChanged,
    late_tasks_id,
)
from tests.support.polling import until
from tests.workflows.fakes import NOT_YET, OTHER, OTHER_TASK, OURS, TASK, Held
from tests.workflows.harness import Harness, Job
from workflows import policies

JOB_ID = "seedance-" + "0" * 64


@pytest.fixture
def quick(unsandboxed: Harness, monkeypatch: pytest.MonkeyPatch) -> Harness:
    """A route whose waits are short."""
    monkeypatch.setattr(policies, "LATE_TASKS_IDLE", timedelta(seconds=1.5))
    monkeypatch.setattr(policies, "IDENTIFY_PAUSES", (timedelta(seconds=0.1),) * 2)
    monkeypatch.setattr(policies, "IDENTIFY_LATER", timedelta(seconds=0.2))
    monkeypatch.setattr(policies, "LATE_TASK_PAUSE", timedelta(seconds=0.2))
    return unsandboxed


async def named(harness: Harness, *task_ids: Any) -> Job:
    """Have callbacks name tasks, as the relay does."""
    for task_id in task_ids:
        change = TaskChanged(task_id=task_id, status="succeeded", attempt=2) if isinstance(task_id, str) else task_id
        handle = await harness.client.start_workflow(
            LATE_TASKS,
            LateTasksInput(job_id=JOB_ID, attempt=2, route=harness.route),
            id=f"{harness.route}-{late_tasks_id(JOB_ID, 2)}",
            task_queue=Queues(harness.route).workflows,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            start_signal=SIGNAL_TASK_CHANGED,
            start_signal_args=[change],
        )
    job = Job(handle)
    harness.jobs.append(job)
    return job


async def test_task_of_the_job_is_followed(quick: Harness) -> None:
    answers = {OTHER_TASK: [NOT_YET, OTHER], TASK: [OURS]}

    async def answer(input: IdentifyInput) -> IdentifyResult:
        return answers[input.task_id].pop(0)

    quick.fake.always("identify_task", answer)
    quick.fake.plan("follow_known_task", None)
    job = await named(quick, OTHER_TASK, TASK, TASK)
    await job.result()
    assert answers == {OTHER_TASK: [], TASK: []}
    follow = quick.fake.input("follow_known_task")
    assert (follow.job_id, follow.attempt) == (JOB_ID, 2)


async def test_task_of_others_is_not_followed(quick: Harness) -> None:
    quick.fake.always("identify_task", OTHER)
    await (await named(quick, TASK)).result()
    assert quick.fake.names() == ["identify_task"]


async def test_task_without_answer_holds_up_no_other(quick: Harness) -> None:
    async def answer(input: IdentifyInput) -> IdentifyResult:
        if input.task_id == TASK:
            return OURS
        raise ApplicationError("400", non_retryable=True)

    quick.fake.always("identify_task", answer)
    quick.fake.plan("follow_known_task", None)
    await named(quick, OTHER_TASK)
    await quick.fake.called("identify_task")
    job = await named(quick, TASK)
    await quick.fake.called("follow_known_task")
    await job.terminate()


async def test_outage_is_outlasted(quick: Harness) -> None:
    quick.fake.plan("identify_task", *[RuntimeError("503")] * 12, OURS)
    quick.fake.plan("follow_known_task", None)
    await (await named(quick, TASK)).result()
    assert quick.fake.names()[-1] == "follow_known_task"


async def test_damaged_ledger_is_outlasted(quick: Harness) -> None:
    damaged = ApplicationError("gs://videos/a is empty", type="LedgerDamaged")
    quick.fake.plan("identify_task", damaged, damaged, OURS)
    quick.fake.plan("follow_known_task", damaged, damaged, None)
    await (await named(quick, TASK)).result()
    assert quick.fake.names() == ["identify_task"] * 3 + ["follow_known_task"] * 3


async def test_lag_after_outage_is_outlasted(quick: Harness) -> None:
    """An outage says nothing of the task: "not yet" still has all of its pauses after it."""
    quick.fake.plan("identify_task", *[RuntimeError("503")] * 12, NOT_YET, NOT_YET, OURS)
    quick.fake.plan("follow_known_task", None)
    await (await named(quick, TASK)).result()
    assert quick.fake.names()[-1] == "follow_known_task"


async def test_task_that_was_given_up_is_asked_for_again(quick: Harness) -> None:
    tries = 2 + len(policies.IDENTIFY_PAUSES)
    quick.fake.plan("identify_task", *[NOT_YET] * tries, OURS)
    quick.fake.plan("follow_known_task", None)
    job = await named(quick, TASK)
    await quick.fake.called("identify_task", tries)
    while not quick.fake.of("follow_known_task"):
        await named(quick, TASK)
        await asyncio.sleep(0.1)
    await job.terminate()


async def test_new_run_is_shown_what_is_in_question(quick: Harness) -> None:
    """Where the provider is away, a run that begins asks for it before it creates."""
    asked, other = Held(NOT_YET), Held(OTHER)

    async def answer(input: IdentifyInput) -> Any:
        return await (other if input.task_id == OTHER_TASK else asked)(input)

    quick.fake.always("identify_task", answer)
    job = await named(quick, TASK, OTHER_TASK)

    async def shown() -> list[str]:
        value: list[str] = await (await job.describe()).memo_value(MEMO_NAMED, default=[])
        return value

    await until(shown, "the memo names tasks")
    assert set(await shown()) <= {TASK, OTHER_TASK}
    await asyncio.gather(asked.reached.wait(), other.reached.wait())
    other.release()
    async with asyncio.timeout(20):
        while await shown() != [TASK]:
            await asyncio.sleep(0.05)
    await job.terminate()
    asked.release()


async def test_task_that_is_named_again_is_asked_for_anew(quick: Harness) -> None:
    """Also where its last question is just being asked."""
    last = Held(NOT_YET)
    questions = 1 + len(policies.IDENTIFY_PAUSES)
    quick.fake.plan("identify_task", *[NOT_YET] * questions, last, *[NOT_YET] * (questions - 1), OURS)
    quick.fake.plan("follow_known_task", None)
    job = await named(quick, TASK)
    await last.reached.wait()
    await named(quick, NamedTask(task_id=TASK, status="", attempt=2, source="operator"))
    last.release()
    await job.result()
    assert quick.fake.names()[-1] == "follow_known_task"
    assert len(quick.fake.of("identify_task")) == 2 * questions + 1


async def test_task_that_is_named_again_ends_long_pause(quick: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "LATE_TASK_PAUSE", timedelta(hours=1))
    away = ApplicationError("503", non_retryable=True)
    pauses = len(policies.IDENTIFY_PAUSES)
    quick.fake.plan("identify_task", *[away] * (pauses + 1), OURS)
    quick.fake.plan("follow_known_task", None)
    job = await named(quick, TASK)
    await quick.fake.called("identify_task", pauses + 1)
    await named(quick, TASK)
    await job.result()
    assert quick.fake.names()[-1] == "follow_known_task"


async def test_task_is_asked_for_after_every_pause(skipping: Harness) -> None:
    skipping.fake.plan("identify_task", *[NOT_YET] * (1 + len(policies.IDENTIFY_PAUSES)), OURS)
    skipping.fake.plan("follow_known_task", None)
    await (await named(skipping, TASK)).result()
    assert skipping.fake.names()[-1] == "follow_known_task"


async def test_task_that_is_wanted_is_asked_for_at_once(quick: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """An activity that is about to pay, or to give an attempt up, waits for the answer."""
    monkeypatch.setattr(policies, "LATE_TASK_PAUSE", timedelta(hours=1))
    away = ApplicationError("503", non_retryable=True)
    pauses = len(policies.IDENTIFY_PAUSES)
    quick.fake.plan("identify_task", *[away] * (pauses + 1), OURS)
    quick.fake.plan("follow_known_task", None)
    await named(quick, TASK)
    await quick.fake.called("identify_task", pauses + 1)
    wanted, unknown = (NamedTask(task_id=task, status="", attempt=2, source="ledger") for task in (TASK, OTHER_TASK))
    await (await named(quick, unknown, wanted)).result()
    assert {call.input.task_id for call in quick.fake.of("identify_task")} == {TASK}
    assert quick.fake.names()[-1] == "follow_known_task"


async def test_early_question_of_late_task_is_not_the_last(quick: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it make the task be asked for any longer."""
    monkeypatch.setattr(policies, "IDENTIFY_LATER", timedelta(seconds=3))
    asked = Held(NOT_YET)
    pauses = len(policies.IDENTIFY_PAUSES)
    quick.fake.plan("identify_task", *[NOT_YET] * pauses, asked)
    quick.fake.always("identify_task", NOT_YET)
    wanted = NamedTask(task_id=TASK, status="", attempt=2, source="ledger")
    job = await named(quick, TASK)
    await asked.reached.wait()
    asked.release()
    for number in range(3):
        await quick.fake.called("identify_task", pauses + 1 + number)
        await named(quick, wanted)
    await job.result()
    # Three early ones, and the last one in its time.
    assert len(quick.fake.of("identify_task")) == pauses + 1 + 3 + 1


async def test_names_that_come_again_shut_out_no_new_one(quick: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run hands its names over, and repeats that where its worker dies."""
    monkeypatch.setattr(policies, "MOST_CALLBACKS", 2)
    asked = Held(OTHER)

    async def answer(input: IdentifyInput) -> Any:
        return OURS if input.task_id == TASK else await asked(input)

    quick.fake.always("identify_task", answer)
    quick.fake.plan("follow_known_task", None)
    await named(quick, *[OTHER_TASK] * 5)
    await asked.reached.wait()
    job = await named(quick, TASK)
    await quick.fake.called("follow_known_task")
    asked.release()
    await job.result()


async def test_made_up_names_shut_out_no_task_for_long(quick: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """While GET answers, they are given up as soon as in a run, long before the pause of an outage is over."""
    monkeypatch.setattr(policies, "MOST_CALLBACKS", 3)
    monkeypatch.setattr(policies, "LATE_TASK_PAUSE", timedelta(hours=1))
    monkeypatch.setattr(policies, "LATE_TASKS_IDLE", timedelta(seconds=0.5))

    async def answer(input: IdentifyInput) -> IdentifyResult:
        return OURS if input.task_id == TASK else NOT_YET

    quick.fake.always("identify_task", answer)
    quick.fake.plan("follow_known_task", None)
    await (await named(quick, *[f"{TASK}-{n}" for n in range(3)])).result()
    await (await named(quick, TASK)).result()
    assert quick.fake.names()[-1] == "follow_known_task"


async def test_task_that_operator_names_is_followed_in_flood(quick: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "MOST_CALLBACKS", 1)

    async def answer(input: IdentifyInput) -> IdentifyResult:
        return OURS if input.source == "operator" else OTHER

    quick.fake.always("identify_task", answer)
    quick.fake.plan("follow_known_task", None)
    by_operator = NamedTask(task_id=TASK, status="", attempt=2, source="operator")
    await (await named(quick, OTHER_TASK, f"{OTHER_TASK}-2", by_operator)).result()
    assert quick.fake.names().count("follow_known_task") == 1


@pytest.mark.parametrize("nonsense", [{}, {"task_id": 1}, None, {"task_id": "x" * 5_000, "status": "", "attempt": 1}])
async def test_nonsense_is_ignored(quick: Harness, nonsense: Any) -> None:
    await (await named(quick, nonsense)).result()
    assert quick.fake.names() == []


async def test_flood_of_names_is_bounded(quick: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "MOST_CALLBACKS", 5)
    quick.fake.always("identify_task", OTHER)
    await (await named(quick, *[f"{TASK}-{n}" for n in range(12)])).result()
    assert len(quick.fake.of("identify_task")) <= 10
