"""A job over a budget waits without a claim, says for what, and calls nobody."""

from __future__ import annotations

from activities.create import CreateResult
from activities.limits import QuotaResult
from seedance_temporal.contract import SIGNAL_RETRY
from tests.support.jobs import detail_of
from tests.workflows.fakes import LONG, RESULT, SHORT, claim, created
from tests.workflows.harness import Harness, Job, noted

BUDGET = "1.0000 USD of the day's budget of the account byteplus are used or reserved."
ALLOWED = QuotaResult(used="0.5000 USD of 1.0000 USD today")
OVER = CreateResult(kind="not_sent", message=BUDGET, over_budget=True)


def over(seconds: float = LONG) -> QuotaResult:
    return QuotaResult(waits_for=BUDGET, wait_seconds=seconds)


async def waiting_for_budget(harness: Harness) -> Job:
    harness.fake.plan("read_ledger", claim(limited=True))
    harness.fake.plan("reserve_quota", over())
    return await harness.start_until_state(phase="waiting", waits_for=BUDGET)


async def test_job_waits_for_budget_until_it_fits(harness: Harness) -> None:
    harness.fake.plan("read_ledger", claim(limited=True))
    harness.fake.plan("reserve_quota", over(SHORT), over(SHORT), ALLOWED)
    harness.fake.plan("create_task", created(seconds=0))
    harness.fake.finish()
    job = await harness.start_until_stored()
    assert harness.fake.names()[:5] == ["read_ledger", *["reserve_quota"] * 3, "create_task"]
    assert [harness.fake.input("reserve_quota", index).waits for index in range(3)] == [0, 1, 2]
    state = await job.state()
    assert (detail_of(state).waits_for, state.attention) == (None, None)
    assert [event.count for event in detail_of(state).timeline if event.event == "over_budget"] == [2]


async def test_waiting_job_names_budget_and_next_look(harness: Harness) -> None:
    job = await waiting_for_budget(harness)
    state = await job.until_waiting()
    assert (state.attention, detail_of(state).advice) == (None, None)
    assert "over_budget" in noted(state)
    details = await job.current_details()
    assert "**Waiting.** Nothing was sent. 1.0000 USD of the day's budget" in details
    assert "budget, looked at again at" in details


async def test_retry_looks_at_budget_at_once(harness: Harness) -> None:
    job = await waiting_for_budget(harness)
    harness.fake.plan("reserve_quota", ALLOWED)
    harness.fake.plan("create_task", created(seconds=0))
    harness.fake.finish()
    await job.signal(SIGNAL_RETRY)
    assert await job.result() == RESULT


async def test_cancel_ends_wait_for_budget(harness: Harness) -> None:
    job = await waiting_for_budget(harness)
    harness.fake.plan("read_ledger", claim(limited=True))
    await job.ask_to_cancel()
    assert await job.until_cancel_answered() == "cancelled"
    assert (await job.failed()).failure_class == "cancelled"
    assert "create_task" not in harness.fake.names()


async def test_budget_set_since_start_is_waited_for(harness: Harness) -> None:
    """The create checks it once more; the run began when there was none."""
    harness.fake.plan("read_ledger", claim(limited=False))
    harness.fake.plan("create_task", OVER, created(seconds=0))
    harness.fake.plan("reserve_quota", over(SHORT), ALLOWED)
    harness.fake.finish()
    job = await harness.start_until_stored()
    assert harness.fake.names()[:5] == ["read_ledger", "create_task", *["reserve_quota"] * 2, "create_task"]
    assert "not_sent" not in await job.noted()


async def test_nearly_used_budget_is_a_warning(harness: Harness) -> None:
    harness.fake.plan("read_ledger", claim(limited=True))
    warning = "From this job on, 80% or more of a budget are used or reserved."
    harness.fake.plan("reserve_quota", ALLOWED.model_copy(update={"warnings": (warning,)}))
    harness.fake.plan("create_task", created(seconds=0))
    harness.fake.finish()
    job = await harness.start_until_stored()
    assert warning in detail_of(await job.state()).warnings
    assert warning in harness.fake.input("create_task").warnings


async def test_long_wait_for_budget_calls_nobody(skipping: Harness) -> None:
    """Nothing fails: an hour of it is no reason for an operator."""
    skipping.fake.plan("read_ledger", claim(limited=True))
    skipping.fake.always("reserve_quota", over(3_600))
    job = await skipping.start_until_state(phase="waiting", waits_for=BUDGET)
    await skipping.skip(5 * 3_600)
    await skipping.fake.called("reserve_quota", 4)
    assert "attention_raised" not in await job.noted()


async def test_long_history_of_looks_continues_as_new(renewing: Harness) -> None:
    renewing.fake.always("read_ledger", claim(limited=True))
    renewing.fake.plan("reserve_quota", *[over(0.01)] * 12, ALLOWED)
    renewing.fake.plan("create_task", created(seconds=0))
    renewing.fake.finish()
    job = await renewing.start_until_stored()
    assert "create_task" in renewing.fake.names()
    assert len(renewing.fake.of("read_ledger")) >= 2
    assert "over_budget" in noted(await job.newest().state())
