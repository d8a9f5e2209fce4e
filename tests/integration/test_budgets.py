"""Budgets of account and labels: exact for racing workers, and corrected by what was billed."""

from __future__ import annotations

import asyncio
import calendar
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from temporalio.testing import ActivityEnvironment

from activities.limits import LimitActivities, QuotaInput, QuotaResult
from seedance_temporal.contract import Resubmit
from seedance_temporal.identity import job_id_of
from seedance_temporal.job import JobError
from seedance_temporal.ledger.facts import End, Outcome
from seedance_temporal.ledger.settling import settle
from seedance_temporal.ledger.spending import Reservation, Spending
from seedance_temporal.ledger.store import Ledger, LedgerDamaged
from seedance_temporal.limits import BudgetUse
from seedance_temporal.provider.rules import Rules
from seedance_temporal.request import VideoRequest
from seedance_temporal.storage.bucket import Bucket
from tests.support.jobs import (
    a_claim,
    a_record,
    a_request,
    absent,
    an_end,
    content,
    created,
    names,
    not_sent,
    present,
    refused,
    some_settings,
)
from tests.support.memory_bucket import CountingBucket, LosingAnswers, MemoryBucket

# The most that a_request costs, by the provider's list.
PRICE = Rules().estimate(a_request()).usd or 0
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
ALPHA = {"project": "alpha"}


class Worker:
    """One worker with budgets, at a time of day that a test can set."""

    def __init__(self, bucket: Bucket | None = None, **given: Any) -> None:
        self.bucket = bucket or MemoryBucket()
        self.now = NOON
        self.ledger = Ledger(self.bucket, "seedance")
        self.settings = some_settings(**{f"seedance_{name}": value for name, value in given.items()})
        self.activities = LimitActivities(self.ledger, self.bucket, self.settings, lambda: self.now)

    async def reserve(self, request: VideoRequest, waits: int = 0) -> QuotaResult:
        input = QuotaInput(job_id=job_id_of(request), request=request, waits=waits)
        return await ActivityEnvironment().run(self.activities.reserve_quota, input)

    async def allows(self, request: VideoRequest | None = None) -> bool:
        return (await self.reserve(request or a_request())).error is None

    async def refuses(self, request: VideoRequest) -> JobError:
        return present((await self.reserve(request)).error)

    async def create(self, request: VideoRequest, *facts: Outcome | End, attempt: int = 1) -> str:
        """Reserve, claim and write facts as the activities do, and settle; return the entry's reference."""
        reserved = await self.activities.reserve(job_id_of(request), request)
        assert isinstance(reserved, Reservation), reserved
        claim = a_claim(request, attempt).model_copy(update={"reserved": reserved.reference})
        assert await self.ledger.claim(claim)
        for fact in facts:
            if isinstance(fact, End):
                await self.ledger.end(claim.job_id, attempt, fact)
            else:
                await self.ledger.write_outcome(claim.job_id, attempt, fact)
        await self.settle(request)
        return reserved.reference

    async def settle(self, request: VideoRequest) -> None:
        await settle(self.ledger, job_id_of(request), self.settings)

    async def store(self, request: VideoRequest, cost_usd: float | None, task_id: str = "cgt-1") -> None:
        """Write the record of a job, as the copy does."""
        record = a_record(task_id).decode()[:-1] + f', "cost_usd": {cost_usd if cost_usd is not None else "null"}}}'
        await self.bucket.create(names(request).record, record.encode())
        await self.settle(request)

    async def figures(self) -> list[BudgetUse]:
        return await Spending(self.ledger, self.bucket, self.settings).figures(self.now)

    async def used(self) -> float:
        """What the first budget has used, in videos."""
        return round((await self.figures())[0].used / PRICE, 4)


@pytest.fixture
def bucket() -> MemoryBucket:
    return MemoryBucket()


def objects(bucket: MemoryBucket, kind: str) -> list[str]:
    return [name for name in bucket.stored if "/limits/" in name and kind in name]


def permissions(bucket: MemoryBucket) -> int:
    """Count the entries that allow a create: others close a day."""
    return len([name for name in objects(bucket, "/log/") if not content(bucket, name)["closes"]])


# Racing


@pytest.mark.parametrize("kind", ["memory", "google"])
async def test_two_hundred_racing_jobs_get_ten_videos(request: pytest.FixtureRequest, kind: str) -> None:
    """Of 50 users: another user id gets round no budget."""
    bucket: Bucket = MemoryBucket() if kind == "memory" else request.getfixturevalue("google")
    workers = [Worker(bucket, max_usd_per_day=10 * PRICE) for _ in range(3)]
    requests = [a_request(user_id=f"user-{number % 50}") for number in range(200)]
    answers = await asyncio.gather(*(workers[n % 3].reserve(each) for n, each in enumerate(requests)))
    assert Counter(answer.error.code if answer.error else "allowed" for answer in answers) == {
        "allowed": 10,
        "over_budget": 190,
    }
    assert len(await bucket.list("seedance/limits/2026-11-22/log/")) == 10


async def test_two_hundred_racing_jobs_all_get_on(bucket: MemoryBucket) -> None:
    workers = [Worker(bucket, max_usd_per_day=200 * PRICE) for _ in range(3)]
    answers = await asyncio.gather(*(workers[n % 3].reserve(a_request()) for n in range(200)))
    assert all(answer.error is None for answer in answers)
    assert len(objects(bucket, "/log/")) == 200
    assert await workers[0].used() == 200


async def test_racing_runs_of_a_job_reserve_once(bucket: MemoryBucket) -> None:
    workers = [Worker(bucket, max_usd_per_day=10 * PRICE) for _ in range(3)]
    request = a_request()
    await asyncio.gather(*(workers[n % 3].reserve(request) for n in range(12)))
    assert len(objects(bucket, "/log/")) == 1


async def test_entry_with_lost_answer_counts_once() -> None:
    bucket = LosingAnswers()
    worker = Worker(bucket, max_usd_per_day=2 * PRICE)
    assert [await worker.allows() for _ in range(3)] == [True, True, False]
    assert len(objects(bucket, "/log/")) == 2


async def test_entry_is_found_past_waiting_jobs(bucket: MemoryBucket) -> None:
    """A create checks its entry again, often on another worker than the one that added it."""
    one, other = (Worker(bucket, max_usd_per_day=9.0) for _ in range(2))
    await other.reserve(a_request())
    request = a_request()
    await one.reserve(request)
    turns = asyncio.Event()
    bucket.before["000002"] = turns.wait
    waiting = asyncio.create_task(other.allows())
    async with asyncio.timeout(10):
        while not other.activities._spending._log(NOON.date()).turns.locked():
            await asyncio.sleep(0)
        assert await other.allows(request)
    assert not waiting.done()
    turns.set()
    assert await waiting
    assert permissions(bucket) == 3


async def test_user_limit_and_budget_reserve_both_or_none(bucket: MemoryBucket) -> None:
    """A create that one limit refuses takes nothing of another."""
    worker = Worker(bucket, max_usd_per_day=3 * PRICE, max_jobs_per_user_day=1)
    assert await worker.allows(a_request(user_id="a"))
    for _ in range(5):
        assert (await worker.refuses(a_request(user_id="a"))).code == "over_limit"
    assert await worker.used() == 1
    assert await worker.allows(a_request(user_id="b"))
    assert await worker.allows(a_request(user_id="c"))
    assert (await worker.refuses(a_request(user_id="d"))).code == "over_budget"


# What is said


async def test_refusal_names_budget_and_its_end(bucket: MemoryBucket) -> None:
    worker = Worker(bucket, max_usd_per_day=PRICE, max_usd_per_month=100.0)
    await worker.reserve(a_request())
    error = await worker.refuses(a_request())
    assert (error.code, error.failure_class, error.attempt) == ("over_budget", "invalid", None)
    for figure in (
        "Nothing was sent",
        f"{PRICE:.4f} USD by estimate",
        f"{PRICE:.4f} USD of the day's budget of the account byteplus are used or reserved",
        f"SEEDANCE_MAX_USD_PER_DAY allows {PRICE:.4f} USD",
        "begins anew at 2026-11-23 00:00 UTC",
    ):
        assert figure in error.message


async def test_month_is_named_where_it_ends_later(bucket: MemoryBucket) -> None:
    worker = Worker(bucket, max_usd_per_day=PRICE, max_usd_per_month=PRICE)
    await worker.reserve(a_request())
    assert "the month's budget of the account byteplus" in (await worker.refuses(a_request())).message
    assert "2026-12-01 00:00 UTC" in (await worker.refuses(a_request())).message


async def test_used_share_is_said_for_history(bucket: MemoryBucket) -> None:
    worker = Worker(bucket, max_usd_per_day=1.0, label_budgets={"project=alpha": {"usd_per_month": 2.0}})
    used = (await worker.reserve(a_request(labels=ALPHA))).used
    assert used == (
        f"{PRICE:.4f} USD of 1.0000 USD today: the day's budget of the account byteplus; "
        f"{PRICE:.4f} USD of 2.0000 USD this month: the month's budget of the label project=alpha"
    )


async def test_all_budgets_that_are_used_up_are_named(bucket: MemoryBucket) -> None:
    worker = Worker(bucket, max_usd_per_day=PRICE, label_budgets={"project=alpha": {"usd_per_month": PRICE}})
    await worker.reserve(a_request(labels=ALPHA))
    message = (await worker.refuses(a_request(labels=ALPHA))).message
    for setting in ("SEEDANCE_MAX_USD_PER_DAY", "SEEDANCE_LABEL_BUDGETS (project=alpha, usd_per_month)"):
        assert f"{setting} allows {PRICE:.4f} USD" in message
    assert "begins anew at 2026-12-01 00:00 UTC. Submit it again then" in message


async def test_one_job_is_warned_at_four_fifths(bucket: MemoryBucket, caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker(bucket, max_usd_per_day=10 * PRICE)
    requests = [a_request() for _ in range(10)]
    warnings = [(await worker.reserve(each)).warnings for each in requests]
    assert [bool(each) for each in warnings] == [False] * 7 + [True] + [False] * 2
    (warning,) = warnings[7]
    assert "80% or more" in warning
    assert f"{8 * PRICE:.4f} USD of {10 * PRICE:.4f} USD today: the day's budget of the account byteplus" in warning
    assert caplog.text.count("80% or more") == 1
    assert (await worker.reserve(requests[7])).warnings == ()


async def test_last_job_that_fits_is_warned(bucket: MemoryBucket) -> None:
    worker = Worker(bucket, max_usd_per_day=2.7 * PRICE)
    warnings = [(await worker.reserve(a_request())).warnings for _ in range(2)]
    assert warnings[0] == ()
    (warning,) = warnings[1]
    assert warning.startswith("After this job, no other of its price fits into a budget: ")


@pytest.mark.parametrize("name", ["max_usd_per_day", "max_usd_per_month"])
async def test_unknown_price_passes_no_budget(bucket: MemoryBucket, name: str) -> None:
    unpriced = a_request(model="dreamina-seedance-2-5-premium-260915", resolution="4k")
    error = await Worker(bucket, **{name: 1000.0}).refuses(unpriced)
    assert error.code == "price_unknown"
    assert f"SEEDANCE_{name.upper()}" in error.message
    assert bucket.writes == []


async def test_request_over_whole_budget_never_waits(bucket: MemoryBucket) -> None:
    budgets = {"project=alpha": {"usd_per_day": PRICE / 2}}
    worker = Worker(bucket, label_budgets=budgets, over_budget="wait")
    error = await worker.refuses(a_request(labels=ALPHA))
    assert error.code == "over_limit"
    assert "SEEDANCE_LABEL_BUDGETS (project=alpha, usd_per_day) allows" in error.message
    assert bucket.writes == []


# Labels


async def test_label_has_budget_of_its_own(bucket: MemoryBucket) -> None:
    worker = Worker(bucket, label_budgets={"project=alpha": {"usd_per_day": 2 * PRICE}})
    assert [await worker.allows(a_request(labels=ALPHA)) for _ in range(3)] == [True, True, False]
    error = await worker.refuses(a_request(labels=ALPHA | {"team": "x"}))
    assert "the day's budget of the label project=alpha" in error.message
    assert "SEEDANCE_LABEL_BUDGETS (project=alpha, usd_per_day) allows" in error.message
    for labels in (None, {}, {"project": "beta"}, {"projects": "alpha"}):
        assert await worker.allows(a_request(labels=labels))


async def test_label_counts_on_both_routes(bucket: MemoryBucket) -> None:
    budgets = {"project=alpha": {"usd_per_day": 1.5 * PRICE}}
    assert await Worker(bucket, label_budgets=budgets).allows(a_request(labels=ALPHA))
    chinese = Worker(bucket, label_budgets=budgets, cny_per_usd=7.0, max_usd_per_day=100.0)
    chinese.settings = chinese.settings.model_copy(update={"ark_route": "volcengine"})
    request = a_request(route="volcengine", model="doubao-seedance-2-0-260128", labels=ALPHA)
    assert "label project=alpha" in (await chinese.refuses(request)).message


async def test_account_is_one_route(bucket: MemoryBucket) -> None:
    here = Worker(bucket, max_usd_per_day=PRICE)
    there = Worker(bucket, max_usd_per_day=PRICE, ark_route="volcengine", cny_per_usd=7.0)
    there.settings = some_settings(ark_route="volcengine", seedance_max_usd_per_day=PRICE, seedance_cny_per_usd=7.0)
    there.activities = LimitActivities(there.ledger, bucket, there.settings, lambda: there.now)
    chinese = {"route": "volcengine", "model": "doubao-seedance-2-0-260128"}
    assert await here.allows()
    assert await there.allows(a_request(**chinese))
    assert not await here.allows()


async def test_other_labels_need_another_entry(bucket: MemoryBucket) -> None:
    """A job that was cancelled before its create, and is submitted again with other labels, is still the same job."""
    of_alpha, of_beta = {"usd_per_day": 5 * PRICE}, {"usd_per_day": PRICE}
    worker = Worker(bucket, label_budgets={"project=alpha": of_alpha, "project=beta": of_beta})
    assert await worker.allows(a_request(labels={"project": "beta"}))
    request = a_request(labels=ALPHA | {"team": "x"})
    assert await worker.allows(request)
    relabelled = request.model_copy(update={"labels": {"project": "beta"}})
    assert job_id_of(relabelled) == job_id_of(request)
    assert "label project=beta" in (await worker.refuses(relabelled)).message
    worker.now += timedelta(days=1)
    assert await worker.allows(a_request(labels={"project": "beta"}))
    assert "label project=beta" in (await worker.refuses(relabelled)).message
    # The same labels in another order are the same.
    assert await worker.allows(request.model_copy(update={"labels": {"team": "x"} | ALPHA}))
    assert permissions(bucket) == 3


# Corrected by what was billed


async def test_billed_cost_replaces_estimate(bucket: MemoryBucket) -> None:
    worker = Worker(bucket, max_usd_per_day=2 * PRICE)
    request = a_request()
    await worker.create(request, created("cgt-1"))
    assert await worker.used() == 1
    await worker.store(request, PRICE / 4)
    assert await worker.used() == 0.25
    assert [await worker.allows() for _ in range(3)] == [True, False, False]


ENDS: dict[str, tuple[list[Outcome | End], float]] = {
    "refused": ([refused()], 0),
    "failed": ([created("cgt-1"), an_end(1, "cgt-1")], 0),
    "expired": ([created("cgt-1"), an_end(1, "cgt-1", "expired")], 0),
    "cancelled": ([created("cgt-1"), an_end(1, "cgt-1", "cancelled")], 0),
    "lost, at a known cost": (
        [created("cgt-1"), an_end(1, "cgt-1", "lost").model_copy(update={"cost_usd": PRICE / 2})],
        0.5,
    ),
    "lost, at an unknown cost": ([created("cgt-1"), an_end(1, "cgt-1", "lost")], 1),
    "given up": ([an_end(1, None, "lost")], 1),
    "running": ([created("cgt-1")], 1),
    "unknown": ([], 1),
    "not sent": ([not_sent()], 1),
    "absent": ([absent()], 1),
}


@pytest.mark.parametrize("end", ENDS)
async def test_end_decides_what_counts(bucket: MemoryBucket, end: str) -> None:
    worker = Worker(bucket, max_usd_per_day=2 * PRICE)
    facts, used = ENDS[end]
    await worker.create(a_request(), *facts)
    assert await worker.used() == used
    other = Worker(bucket, max_usd_per_day=PRICE)
    assert await other.allows() == (used == 0)


async def test_unknown_cost_of_a_video_counts_by_estimate(bucket: MemoryBucket) -> None:
    worker = Worker(bucket, max_usd_per_day=2 * PRICE)
    request = a_request()
    await worker.create(request, created("cgt-1"))
    await worker.store(request, None)
    assert await worker.used() == 1


async def test_first_correction_stands(bucket: MemoryBucket) -> None:
    worker = Worker(bucket, max_usd_per_day=2 * PRICE)
    request = a_request()
    reference = await worker.create(request, created("cgt-1"))
    await worker.store(request, PRICE / 2)
    for _ in range(2):
        await worker.settle(request)
        await worker.ledger.write_actual(reference, PRICE)
    assert await worker.used() == 0.5
    assert len(objects(bucket, "/actual/")) == 1


async def test_higher_bill_than_estimate_counts(bucket: MemoryBucket) -> None:
    worker = Worker(bucket, max_usd_per_day=3 * PRICE)
    request = a_request()
    await worker.create(request, created("cgt-1"))
    await worker.store(request, 2.5 * PRICE)
    assert not await Worker(bucket, max_usd_per_day=3 * PRICE).allows()


async def test_resubmit_reserves_beside_what_failed(bucket: MemoryBucket) -> None:
    worker = Worker(bucket, max_usd_per_day=2 * PRICE)
    request = a_request()
    await worker.create(request, created("cgt-1"), an_end(1, "cgt-1"))
    await worker.ledger.grant_resubmit(job_id_of(request), Resubmit(attempt=1))
    second = await worker.create(request, created("cgt-2"), attempt=2)
    assert second == "2026-11-22/000002"
    await worker.store(request, PRICE / 2, "cgt-2")
    assert await worker.used() == 0.5
    assert [content(bucket, name)["usd"] for name in objects(bucket, "/actual/")] == [0, PRICE / 2]


async def test_attempts_that_were_not_sent_share_an_entry(bucket: MemoryBucket) -> None:
    worker = Worker(bucket, max_usd_per_day=5 * PRICE)
    request = a_request()
    references = {await worker.create(request, not_sent(), attempt=number) for number in range(1, 5)}
    references.add(await worker.create(request, created("cgt-1"), attempt=5))
    await worker.store(request, PRICE / 2)
    assert references == {"2026-11-22/000001"}
    assert await worker.used() == 0.5


async def test_damaged_ledger_of_a_job_leaves_its_estimate(
    bucket: MemoryBucket, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(bucket, max_usd_per_day=5 * PRICE)
    request = a_request()
    await worker.create(request, created("cgt-1"))
    bucket.contents[names(request).attempt(1, "claim")] = b""
    await worker.settle(request)
    assert "what a job has cost was not noted for its budgets" in caplog.text
    assert await worker.used() == 1


async def test_no_budget_notes_no_cost(bucket: MemoryBucket) -> None:
    worker = Worker(bucket, max_jobs_per_user_day=5)
    await worker.create(a_request(), refused())
    assert objects(bucket, "/actual/") == []


# Days and months


async def test_day_begins_at_midnight_utc(bucket: MemoryBucket) -> None:
    worker = Worker(bucket, max_usd_per_day=PRICE)
    worker.now = datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC)
    late = a_request()
    assert await worker.allows(late)
    assert not await worker.allows()
    worker.now += timedelta(seconds=1)
    # A run that was reset has its entry of yesterday.
    assert (await worker.reserve(late)).used == "allowed yesterday"
    assert await worker.allows()
    assert not await worker.allows()


async def test_entry_of_a_worker_that_is_behind_is_found(bucket: MemoryBucket) -> None:
    """Just after midnight, another worker still adds to the day before."""
    ahead, behind = Worker(bucket, max_usd_per_day=9.0), Worker(bucket, max_usd_per_day=9.0)
    ahead.now = datetime(2026, 11, 23, 0, 0, 1, tzinfo=UTC)
    behind.now = datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC)
    await ahead.reserve(a_request())
    request = a_request()
    await behind.reserve(request)
    assert (await ahead.reserve(request)).used == "allowed yesterday"


async def test_month_holds_where_a_clock_is_behind(bucket: MemoryBucket) -> None:
    """The first entry of a day closes the day before, so the worker that is behind counts, and adds, on the new day."""
    ahead, behind = (Worker(bucket, max_usd_per_month=10 * PRICE) for _ in range(2))
    behind.now = datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC)
    ahead.now = datetime(2026, 11, 23, 0, 0, 1, tzinfo=UTC)
    allowed = [await behind.allows(), await ahead.allows()]
    for _ in range(6):
        allowed += [await behind.allows(), await ahead.allows()]
        ahead.now += timedelta(seconds=20)
    assert allowed.count(True) == 10
    assert len(objects(bucket, "2026-11-22/log/")) == 1 + 1
    assert all(content(bucket, name)["at"] >= "2026-11-23" for name in objects(bucket, "2026-11-23/log/"))


async def test_entries_that_wait_past_midnight_count_anew(bucket: MemoryBucket) -> None:
    worker = Worker(bucket, max_usd_per_month=10 * PRICE)
    worker.now = datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC)
    assert await worker.allows()
    async with worker.activities._spending._log(worker.now.date()).turns:
        late = [asyncio.create_task(worker.allows()) for _ in range(9)]
        while len(worker.activities._spending._log(worker.now.date()).turns._waiters or ()) < len(late):
            await asyncio.sleep(0)
        worker.now = datetime(2026, 11, 23, 0, 0, 1, tzinfo=UTC)
        allowed = [await worker.allows() for _ in range(5)]
    allowed += await asyncio.gather(*late)
    assert allowed.count(True) == 9
    assert len(objects(bucket, "2026-11-23/log/")) == 9


async def test_racing_workers_at_midnight_keep_month(bucket: MemoryBucket) -> None:
    workers = [Worker(bucket, max_usd_per_month=10 * PRICE) for _ in range(3)]
    for number, worker in enumerate(workers):
        worker.now = datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC) + timedelta(seconds=number)
    answers = await asyncio.gather(*(workers[n % 3].allows() for n in range(60)))
    assert answers.count(True) == permissions(bucket) == 10


async def test_month_adds_days_and_begins_anew(bucket: MemoryBucket) -> None:
    worker = Worker(bucket, max_usd_per_month=4 * PRICE)
    for day in (1, 2, 15, 30):
        worker.now = datetime(2026, 11, day, 12, tzinfo=UTC)
        await worker.create(a_request(), created(f"cgt-{day}"))
    for fresh in (worker, Worker(bucket, max_usd_per_month=4 * PRICE)):
        fresh.now = datetime(2026, 11, 30, 23, tzinfo=UTC)
        assert "2026-12-01 00:00 UTC" in (await fresh.refuses(a_request())).message
    worker.now = datetime(2026, 12, 1, tzinfo=UTC)
    assert await worker.allows()


async def test_unused_entry_is_given_back_to_month(bucket: MemoryBucket) -> None:
    """A crash between entry and claim, or a cancel: two days later no claim can name it any more."""
    worker = Worker(bucket, max_usd_per_month=2 * PRICE)
    await worker.reserve(a_request())
    await worker.create(a_request(), not_sent())
    for days, is_free in ((0, False), (1, False), (2, True)):
        later = Worker(bucket, max_usd_per_month=2 * PRICE)
        later.now = NOON + timedelta(days=days)
        assert await later.allows() == is_free
    assert await later.used() == 1
    assert len(objects(bucket, "total")) == 22


async def test_open_task_of_last_week_counts(bucket: MemoryBucket) -> None:
    worker = Worker(bucket, max_usd_per_month=9 * PRICE)
    worker.now = datetime(2026, 11, 5, 12, tzinfo=UTC)
    request = a_request()
    await worker.create(request, created("cgt-1"))
    later = Worker(bucket, max_usd_per_month=9 * PRICE)
    later.now = datetime(2026, 11, 9, 12, tzinfo=UTC)
    open_task = a_request()
    await later.create(open_task, created("cgt-2"))
    assert await later.used() == 2
    assert not any("2026-11-05/total" in name for name in bucket.stored)
    await worker.store(request, PRICE / 2)
    # What nobody settled in ten days counts by its estimate for good.
    last = Worker(bucket, max_usd_per_month=9 * PRICE)
    last.now = datetime(2026, 11, 22, 12, tzinfo=UTC)
    assert await last.allows()
    assert await last.used() == 2.5
    for day in ("05", "09"):
        assert any(f"2026-11-{day}/total" in name for name in bucket.stored)
    await worker.store(open_task, 0.0, "cgt-2")
    assert await Worker(bucket, max_usd_per_month=9 * PRICE).used() == 2.5


async def test_label_that_no_total_names_is_read_from_logs(
    bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A budget can be set in the middle of a month, for a label that was one of very many."""
    monkeypatch.setattr("seedance_temporal.ledger.past_days._MOST_PAYERS", 1)
    worker = Worker(bucket, max_usd_per_month=9.0)
    worker.now = datetime(2026, 11, 3, 12, tzinfo=UTC)
    request = a_request(labels=ALPHA)
    await worker.create(request, created("cgt-1"))
    await worker.store(request, PRICE)
    later = Worker(bucket, max_usd_per_month=9.0, label_budgets={"project=alpha": {"usd_per_month": 1.5 * PRICE}})
    later.now = NOON
    assert await later.allows(a_request(user_id="first"))
    assert await later.used() == 2
    assert content(bucket, "seedance/limits/2026-11-03/total.json")["complete"] is False
    assert "label project=alpha" in (await later.refuses(a_request(labels=ALPHA))).message


async def test_figures_write_nothing(bucket: MemoryBucket) -> None:
    """A report is also for people who may only read the bucket."""
    worker = Worker(bucket, max_usd_per_month=9.0, max_usd_per_day=1.0)
    await worker.create(a_request(), not_sent())
    before = list(bucket.writes)
    worker.now += timedelta(days=4)
    day, month = await worker.figures()
    assert bucket.writes == before
    assert (day.used, day.until, str(day.budget)) == (
        0,
        datetime(2026, 11, 27, tzinfo=UTC),
        "the day's budget of the account byteplus",
    )
    assert round(month.used - PRICE, 5) == 0
    assert month.until == datetime(2026, 12, 1, tzinfo=UTC)


# Requests to the bucket


async def test_create_costs_few_requests(bucket: MemoryBucket) -> None:
    """However long the log is: of a warm worker alone, and of one that others were ahead of."""
    limits = {"max_usd_per_day": 9_000.0, "max_usd_per_month": 9_000.0}
    counting = CountingBucket(contents=bucket.contents, stored=bucket.stored)
    first, second = Worker(counting, **limits), Worker(counting, **limits)
    for _ in range(250):
        await first.reserve(a_request())
    counting.requests.clear()
    await first.reserve(a_request())
    # The read of the job's own ledger is one listing.
    assert counting.requests == {"list": 1, "create": 1}
    counting.requests.clear()
    await second.reserve(a_request())
    cold = counting.requests.copy()
    # The entry that closes yesterday is read twice: to know that it is closed, and among the days of the month.
    assert cold["read"] == 251 + 21 + 2
    counting.requests.clear()
    for _ in range(3):
        await first.reserve(a_request())
    # Behind by one entry of the other worker, once: a create that fails, a listing of the newest block, a read.
    assert counting.requests == {"list": 3 + 1, "create": 3 + 1, "read": 1}
    counting.requests.clear()
    await settle(first.ledger, job_id_of(a_request()), first.settings)
    assert counting.requests == {"list": 1}


# Waiting


async def test_job_waits_for_budget_by_setting(bucket: MemoryBucket) -> None:
    worker = Worker(bucket, max_usd_per_day=PRICE, over_budget="wait")
    await worker.reserve(a_request())
    answer = await worker.reserve(a_request())
    assert answer.error is None
    assert "the day's budget of the account byteplus" in answer.waits_for
    assert "begins anew at 2026-11-23 00:00 UTC" in answer.waits_for
    # It looks again before that, because a correction can free some; ever less often, up to an hour.
    looks = [(await worker.reserve(a_request(), waits)).wait_seconds for waits in (0, 1, 2, 3, 4, 50)]
    for seconds, at_least in zip(looks, (300, 600, 1200, 2400, 3600, 3600), strict=True):
        assert at_least <= seconds <= 1.2 * at_least
    worker.now = datetime(2026, 11, 22, 23, 59, tzinfo=UTC)
    assert 65 <= (await worker.reserve(a_request(), 9)).wait_seconds <= 1.2 * 65


async def test_user_limit_never_waits(bucket: MemoryBucket) -> None:
    worker = Worker(bucket, max_jobs_per_user_day=1, max_usd_per_day=9.0, over_budget="wait")
    await worker.reserve(a_request())
    assert (await worker.refuses(a_request())).code == "over_limit"


# Faults


async def test_missing_entry_is_named(bucket: MemoryBucket) -> None:
    worker = Worker(bucket, max_usd_per_day=9.0)
    for _ in range(3):
        await worker.reserve(a_request())
    gone = "seedance/limits/2026-11-22/log/000002.json"
    del bucket.stored[gone], bucket.contents[gone]
    with pytest.raises(LedgerDamaged, match=r"000002\.json is missing"):
        await Worker(bucket, max_usd_per_day=9.0).reserve(a_request())


@pytest.mark.parametrize("found", [b"", b'{"usd": -1, "at": "2026-11-22T12:00:00Z"}', b"[1]"])
async def test_damaged_cost_is_named(bucket: MemoryBucket, found: bytes) -> None:
    """One that was written without a kind, such as a copy."""
    worker = Worker(bucket, max_usd_per_day=9.0)
    await worker.reserve(a_request())
    await bucket.create("seedance/limits/2026-11-22/actual/000001.json", found)
    with pytest.raises(LedgerDamaged, match=r"actual/000001\.json"):
        await Worker(bucket, max_usd_per_day=9.0).reserve(a_request())


async def test_cost_without_kind_is_read(bucket: MemoryBucket) -> None:
    worker = Worker(bucket, max_usd_per_day=9.0)
    await worker.create(a_request(), refused())
    (name,) = objects(bucket, "/actual/")
    found = bucket.contents.pop(name)
    del bucket.stored[name]
    await bucket.create(name, found)
    assert await worker.used() == 0


async def test_damaged_total_is_named(bucket: MemoryBucket) -> None:
    await bucket.create("seedance/limits/2026-11-03/total.json", b"{}")
    with pytest.raises(LedgerDamaged, match=r"2026-11-03/total\.json is no total of a day"):
        await Worker(bucket, max_usd_per_month=9.0).reserve(a_request())


async def test_unreachable_bucket_allows_nothing(bucket: MemoryBucket) -> None:
    worker = Worker(bucket, max_usd_per_month=9.0)
    bucket.broken = ConnectionError("down")
    with pytest.raises(ConnectionError):
        await worker.reserve(a_request())
    bucket.broken = None
    assert await worker.allows()


# Any sequence of events

Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(st.sampled_from(["reserve", "store", "fail", "refuse", "again", "day", "restart"]), st.integers(0, 9)),
    max_size=30,
)


@given(steps=STEPS)
@settings(max_examples=150, deadline=None)
async def test_any_sequence_keeps_both_budgets(steps: list[Step]) -> None:
    """By a model of its own: the sum of what was billed, and of the estimates of what is open."""
    bucket = MemoryBucket()
    limits = {"max_usd_per_day": 3 * PRICE, "max_usd_per_month": 7 * PRICE}
    workers = [Worker(bucket, **limits) for _ in range(2)]
    counted: dict[str, tuple[datetime, float]] = {}
    open_jobs: dict[str, VideoRequest] = {}
    for number, (step, value) in enumerate(steps):
        worker = workers[value % 2]
        job = sorted(open_jobs)[value % len(open_jobs)] if open_jobs else None
        if step == "reserve":
            request = a_request()
            today = sum(usd for at, usd in counted.values() if at.date() == worker.now.date())
            month = sum(usd for _, usd in counted.values())
            fits = today + PRICE <= 3 * PRICE + 1e-9 and month + PRICE <= 7 * PRICE + 1e-9
            answer = await worker.activities.reserve(job_id_of(request), request)
            assert isinstance(answer, Reservation) == fits, (answer, today, month)
            if isinstance(answer, Reservation):
                counted[job_id_of(request)] = worker.now, PRICE
                open_jobs[job_id_of(request)] = request
                claim = a_claim(request).model_copy(update={"reserved": answer.reference})
                await worker.ledger.claim(claim)
        elif step in {"store", "fail", "refuse"} and job is not None:
            request = open_jobs.pop(job)
            task = f"cgt-{number}"
            await worker.ledger.write_outcome(job, 1, refused() if step == "refuse" else created(task))
            cost = round(value / 10 * PRICE, 6) if step == "store" else 0.0
            if step == "store":
                await worker.store(request, cost, task)
            elif step == "fail":
                await worker.ledger.end(job, 1, an_end(1, task))
            await worker.settle(request)
            counted[job] = counted[job][0], cost
        elif step == "again" and job is not None and counted[job][0] >= worker.now - timedelta(days=1):
            # A Reset, or a run that crashed after its claim.
            before = permissions(bucket)
            assert isinstance(await worker.activities.reserve(job, open_jobs[job]), Reservation)
            assert permissions(bucket) == before
        elif step == "day" and worker.now.day < calendar.monthrange(2026, 11)[1]:
            for each in workers:
                each.now += timedelta(days=1)
            # What others have billed on days before is read again after some minutes.
            workers = [_at(Worker(bucket, **limits), workers[0].now) for _ in range(2)]
        elif step == "restart":
            workers = [_at(Worker(bucket, **limits), workers[0].now) for _ in range(2)]


def _at(worker: Worker, now: datetime) -> Worker:
    worker.now = now
    return worker
