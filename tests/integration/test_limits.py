"""The daily limits: exact for any number of racing workers, and after any fault."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from activities.limits import LimitActivities, QuotaInput, QuotaResult
from seedance_temporal.contract import Resubmit
from seedance_temporal.identity import job_id_of
from seedance_temporal.job import JobError
from seedance_temporal.ledger.store import Ledger, LedgerDamaged
from seedance_temporal.limits import refusal_by_price
from seedance_temporal.provider.rules import Rules
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings
from seedance_temporal.storage.bucket import Bucket
from tests.support.jobs import a_claim, a_request, an_end, content, created, in_activity, present, some_settings
from tests.support.memory_bucket import LosingAnswers, MemoryBucket

# The most that a_request costs, by the provider's list.
PRICE = Rules().estimate(a_request()).usd or 0
UNPRICED = {"model": "dreamina-seedance-2-5-premium-260915", "resolution": "4k"}
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Worker:
    """One worker's limits, at a time of day that a test can set."""

    def __init__(self, bucket: Bucket | None = None, cny_per_usd: float | None = None, **limits: Any) -> None:
        bucket = bucket or MemoryBucket()
        self.now = NOON
        self.ledger = Ledger(bucket, "seedance")
        settings = some_settings(
            **{f"seedance_max_{name}": limit for name, limit in limits.items()}, seedance_cny_per_usd=cny_per_usd
        )
        self.activities = LimitActivities(self.ledger, bucket, settings, lambda: self.now)

    async def reserve(self, request: VideoRequest) -> QuotaResult:
        input = QuotaInput(job_id=job_id_of(request), request=request)
        return await in_activity(self.activities.reserve_quota, input)

    async def refuses(self, request: VideoRequest) -> JobError:
        return present((await self.reserve(request)).error)


@pytest.fixture
def bucket() -> MemoryBucket:
    return MemoryBucket()


def entries(bucket: MemoryBucket) -> list[str]:
    return [name for name in bucket.stored if "/limits/" in name]


# One request


def test_no_limits_refuse_nothing() -> None:
    assert refusal_by_price(a_request(**UNPRICED), some_settings()) is None
    assert not some_settings().limited


@pytest.mark.parametrize("name", ["usd_per_request", "jobs_per_user_day", "usd_per_user_day"])
def test_any_limit_reserves_quota(name: str) -> None:
    assert Settings.model_validate({f"seedance_max_{name}": 1}).limited


def test_request_limit_may_be_reached() -> None:
    settings = some_settings(seedance_max_usd_per_request=PRICE)
    assert refusal_by_price(a_request(), settings) is None
    settings = some_settings(seedance_max_usd_per_request=PRICE - 0.000001)
    refusal = present(refusal_by_price(a_request(), settings))
    assert refusal.code == "over_limit"
    assert f"{PRICE:.4f} USD" in refusal.message
    assert "SEEDANCE_MAX_USD_PER_REQUEST" in refusal.message


@pytest.mark.parametrize("name", ["usd_per_request", "usd_per_user_day"])
async def test_unknown_price_passes_usd_limit(bucket: MemoryBucket, name: str) -> None:
    limits: dict[str, Any] = {name: 1000.0}
    error = await Worker(bucket, **limits).refuses(a_request(**UNPRICED))
    assert (error.code, error.failure_class, error.attempt) == ("price_unknown", "invalid", None)
    for variable in (f"SEEDANCE_MAX_{name.upper()}", "SEEDANCE_PRICES", "SEEDANCE_ENDPOINTS"):
        assert variable in error.message
    assert entries(bucket) == []


async def test_cny_needs_a_rate_for_a_limit_in_usd(bucket: MemoryBucket) -> None:
    chinese = {"route": "volcengine", "model": "doubao-seedance-2-0-260128"}
    error = await Worker(bucket, usd_per_request=1000.0).refuses(a_request(**chinese))
    assert (error.code, error.failure_class, error.attempt) == ("rate_unknown", "invalid", None)
    assert "set SEEDANCE_CNY_PER_USD" in error.message
    cny = present(Rules().estimate(a_request(**chinese)).cny)
    for name in ("usd_per_request", "usd_per_user_day"):
        limit: dict[str, Any] = {name: cny / 7 + 0.001}
        limited = Worker(bucket, cny_per_usd=7.0, **limit)
        assert (await limited.reserve(a_request(**chinese))).error is None
    assert content(bucket, entries(bucket)[0])["usd"] == pytest.approx(cny / 7, abs=1e-6)
    dear = Worker(bucket, cny_per_usd=7.0, usd_per_request=cny / 7 - 0.001)
    assert (await dear.refuses(a_request(**chinese))).code == "over_limit"


async def test_unknown_price_counts_as_job(bucket: MemoryBucket) -> None:
    worker = Worker(bucket, jobs_per_user_day=1)
    assert (await worker.reserve(a_request(**UNPRICED))).error is None
    assert content(bucket, entries(bucket)[0])["usd"] is None
    assert (await worker.refuses(a_request(**UNPRICED))).code == "over_limit"


async def test_request_limit_writes_nothing(bucket: MemoryBucket) -> None:
    worker = Worker(bucket, usd_per_request=PRICE)
    assert (await worker.reserve(a_request())).error is None
    assert (await worker.refuses(a_request(duration=15))).code == "over_limit"
    assert bucket.writes == []


# A day


async def test_daily_jobs_are_counted_and_named_in_refusal(bucket: MemoryBucket) -> None:
    worker = Worker(bucket, jobs_per_user_day=2)
    used = [(await worker.reserve(a_request())).used for _ in range(2)]
    assert used == ["1 of 2 videos today", "2 of 2 videos today"]
    error = await worker.refuses(a_request())
    assert (error.code, error.failure_class, error.attempt) == ("over_limit", "invalid", None)
    for figure in ("Nothing was sent", "2 videos", "allows 2", "2026-11-23 00:00 UTC"):
        assert figure in error.message
    assert (await worker.reserve(a_request(user_id="another"))).error is None
    assert len(entries(bucket)) == 3


@pytest.mark.parametrize("duration", range(4, 16))
async def test_daily_usd_is_added_exactly(duration: int) -> None:
    """Ten times the price is the limit: for some prices, a sum of floats would miss it."""
    price = Rules().estimate(a_request(duration=duration)).usd or 0
    worker = Worker(usd_per_user_day=round(10 * price, 6))
    for _ in range(10):
        assert (await worker.reserve(a_request(duration=duration))).error is None
    error = await worker.refuses(a_request(duration=duration))
    total = f"{10 * price:.4f} USD"
    for figure in (f"{price:.4f} USD by estimate", f"{total} allowed today", f"allows {total}"):
        assert figure in error.message


async def test_smaller_request_fits() -> None:
    worker = Worker(usd_per_user_day=2.5 * PRICE)
    for _ in range(2):
        assert (await worker.reserve(a_request())).error is None
    assert (await worker.refuses(a_request())).code == "over_limit"
    mini = a_request(model="dreamina-seedance-2-0-mini-260615")
    assert (await worker.reserve(mini)).error is None


async def test_user_is_not_named(bucket: MemoryBucket) -> None:
    await Worker(bucket, jobs_per_user_day=1).reserve(a_request(user_id="../a user@example.com"))
    (name,) = entries(bucket)
    assert name.startswith("seedance/limits/2026-11-22/")
    assert "example" not in name + bucket.contents[name].decode()


async def test_job_reserves_one_quota_entry(bucket: MemoryBucket) -> None:
    """As a Reset does, and a run that crashed between its entry and its claim; also when no quota is left."""
    request = a_request()
    for _ in range(3):
        assert (await Worker(bucket, jobs_per_user_day=1).reserve(request)).error is None
    assert len(entries(bucket)) == 1
    assert (await Worker(bucket, jobs_per_user_day=1).refuses(a_request())).code == "over_limit"


async def test_resubmit_needs_new_quota_entry(bucket: MemoryBucket) -> None:
    request = a_request()
    worker = Worker(bucket, jobs_per_user_day=2)
    await worker.reserve(request)
    claim = a_claim(request)
    await worker.ledger.claim(claim)
    await worker.ledger.write_outcome(claim.job_id, 1, created("cgt-1"))
    await worker.ledger.end(claim.job_id, 1, an_end(1, "cgt-1"))
    await worker.ledger.grant_resubmit(claim.job_id, Resubmit(attempt=1))
    assert (await worker.reserve(request)).error is None
    assert [content(bucket, name)["resubmits"] for name in entries(bucket)] == [0, 1]
    assert (await worker.refuses(a_request())).code == "over_limit"


async def test_quota_day_begins_at_midnight_utc(bucket: MemoryBucket) -> None:
    worker = Worker(bucket, jobs_per_user_day=1)
    worker.now = datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC)
    late = a_request()
    await worker.reserve(late)
    other = a_request()
    assert (await worker.refuses(other)).code == "over_limit"
    worker.now += timedelta(seconds=1)
    assert (await worker.reserve(other)).error is None
    # A run that was reset after midnight has its entry of yesterday.
    assert (await worker.reserve(late)).used == "allowed yesterday"
    assert len(entries(bucket)) == 2
    # Two days later the create counts for that day.
    worker.now += timedelta(days=2)
    assert (await worker.reserve(late)).error is None
    assert len(entries(bucket)) == 3


# Faults


@pytest.mark.parametrize("kind", ["memory", "google"])
async def test_fifty_racing_jobs_get_ten_entries(request: pytest.FixtureRequest, kind: str) -> None:
    bucket: Bucket = MemoryBucket() if kind == "memory" else request.getfixturevalue("google")
    workers = [Worker(bucket, jobs_per_user_day=10) for _ in range(3)]
    answers = await asyncio.gather(*(workers[n % 3].reserve(a_request()) for n in range(50)))
    assert sum(answer.error is None for answer in answers) == 10
    assert {answer.error.code for answer in answers if answer.error is not None} == {"over_limit"}
    assert len(await bucket.list("seedance/limits/")) == 10


async def test_racing_runs_reserve_one_entry(bucket: MemoryBucket) -> None:
    workers = [Worker(bucket, jobs_per_user_day=10) for _ in range(3)]
    request = a_request()
    answers = await asyncio.gather(*(workers[n % 3].reserve(request) for n in range(12)))
    assert all(answer.error is None for answer in answers)
    assert len(entries(bucket)) == 1


async def test_racing_prices_stay_within_daily_usd(bucket: MemoryBucket) -> None:
    workers = [Worker(bucket, usd_per_user_day=1.0) for _ in range(3)]
    requests = [a_request(duration=4 + n % 5) for n in range(30)]
    await asyncio.gather(*(workers[n % 3].reserve(request) for n, request in enumerate(requests)))
    spent = sum(content(bucket, name)["usd"] for name in entries(bucket))
    assert 1.0 - PRICE < spent <= 1.0


async def test_entry_with_lost_answer_is_ours() -> None:
    bucket = LosingAnswers()
    worker = Worker(bucket, jobs_per_user_day=2)
    answers = await asyncio.gather(*(worker.reserve(a_request()) for _ in range(4)))
    assert [answer.error is None for answer in answers].count(True) == 2
    assert len(entries(bucket)) == 2


async def test_unreachable_bucket_allows_nothing(bucket: MemoryBucket) -> None:
    worker = Worker(bucket, jobs_per_user_day=1)
    bucket.broken = ConnectionError("down")
    with pytest.raises(ConnectionError):
        await worker.reserve(a_request())
    bucket.broken = None
    assert (await worker.reserve(a_request())).error is None


@pytest.mark.parametrize("name", ["000001.json", "notes.txt", "1.json", "000001.json.bak"])
@pytest.mark.parametrize("found", [b"", b'{"job_id": "cu', b"garbage", b"[1]"])
async def test_damaged_quota_is_named(bucket: MemoryBucket, name: str, found: bytes) -> None:
    """Nothing is sent: an entry that cannot be read may be one that counts."""
    worker = Worker(bucket, jobs_per_user_day=5)
    assert (await worker.reserve(a_request())).error is None
    (entry,) = entries(bucket)
    odd = f"{entry.rpartition('/')[0]}/{name}"
    bucket.contents.pop(odd, None)
    bucket.stored.pop(odd, None)
    await bucket.create(odd, found)
    with pytest.raises(LedgerDamaged, match=f"{name} is no entry of a quota"):
        await Worker(bucket, jobs_per_user_day=5).reserve(a_request())


async def test_lower_limit_applies_at_once(bucket: MemoryBucket) -> None:
    for _ in range(3):
        await Worker(bucket, jobs_per_user_day=3).reserve(a_request())
    assert "3 videos" in (await Worker(bucket, jobs_per_user_day=2).refuses(a_request())).message


@pytest.mark.parametrize("name", ["usd_per_request", "jobs_per_user_day", "usd_per_user_day"])
@pytest.mark.parametrize("limit", [0, -1])
def test_absent_setting_is_no_limit(name: str, limit: int) -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        Settings.model_validate({f"seedance_max_{name}": limit})
