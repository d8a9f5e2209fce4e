"""How long tasks took: written by copies, read by polls, bounded, and never in the way of a job."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedance_temporal.ledger.task_times import MOST_A_DAY, TaskTimes, task_time
from seedance_temporal.provider.task import Task, parse_task
from seedance_temporal.request import VideoRequest
from seedance_temporal.storage.bucket import Bucket, StoredObject
from tests.support.jobs import a_request
from tests.support.memory_bucket import LosingAnswers, MemoryBucket
from tests.support.observed import a_success

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
REQUEST = a_request()
FOLDER = "seedance/task-times/byteplus/dreamina-seedance-2-0-260128/480p-4s-silent/"


class CountingBucket(MemoryBucket):
    """Counts its listings, and can hold each call back for ever."""

    lists = 0
    hangs = False

    async def _reach(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        await super()._reach()

    async def list(self, prefix: str) -> list[StoredObject]:
        self.lists += 1
        return await super().list(prefix)


class Worker:
    """One worker's task times, at a time that a test can set."""

    def __init__(self, bucket: Bucket) -> None:
        self.now = NOON
        self.times = TaskTimes(bucket, "seedance", lambda: self.now)

    async def note(self, *seconds: int, task: str = "cgt-1", request: VideoRequest = REQUEST) -> None:
        """Note tasks that have just ended."""
        for number, each in enumerate(seconds):
            await self.times.note(request, a_success(f"{task}-{number}", int(self.now.timestamp()), each))

    async def read(self, request: VideoRequest = REQUEST) -> Sequence[int]:
        return await self.times.of(request)


@pytest.fixture
def bucket() -> CountingBucket:
    return CountingBucket()


@pytest.fixture
def worker(bucket: CountingBucket) -> Worker:
    return Worker(bucket)


async def put(bucket: MemoryBucket, *names: str, content: bytes = b"") -> None:
    for name in names:
        assert await bucket.create(f"{FOLDER}{name}", content)


# Writing and reading


@pytest.mark.parametrize("real", [False, True])
async def test_other_worker_reads_times(real: bool, request: pytest.FixtureRequest) -> None:
    shared: Any = request.getfixturevalue("google") if real else MemoryBucket()
    asked = a_request(prompt="a dog", user_id="user-43")
    await Worker(shared).note(150, 120, 180, request=asked)
    assert await Worker(shared).read() == (120, 150, 180), "user and prompt are no part of the shape"
    (name, *_), content = [stored.name for stored in await shared.list(FOLDER)], ""
    assert name.startswith(f"{FOLDER}2026-11-22/")
    assert (await shared.read(name) or b"").decode() == content, "the name says it all"
    assert not any(secret in name for secret in ("user", "dog", "cgt-"))


@pytest.mark.parametrize(
    "fields",
    [
        {"route": "volcengine"},
        {"model": "dreamina-seedance-2-0-fast-260128"},
        {"resolution": "720p"},
        {"duration": 5},
        {"duration": -1},
        {"generate_audio": True},
        {"service_tier": "flex"},
        {"draft": True},
    ],
)
async def test_other_shape_has_other_times(bucket: CountingBucket, fields: dict[str, Any]) -> None:
    await Worker(bucket).note(150)
    assert await Worker(bucket).read(a_request(**fields)) == ()


async def test_same_task_is_noted_once(bucket: CountingBucket) -> None:
    """A repeated copy, a Reset, and a write whose answer was lost give no second time."""
    for shared in (bucket, LosingAnswers()):
        for _ in range(3):
            await Worker(shared).note(150)
        assert await Worker(shared).read() == (150,)


async def test_times_are_read_every_ten_minutes(bucket: CountingBucket, worker: Worker) -> None:
    await asyncio.gather(*(worker.read() for _ in range(100)))
    assert bucket.lists == 2, "this month and the one before, once for all jobs"
    await Worker(bucket).note(150)
    worker.now += timedelta(minutes=9)
    assert await worker.read() == ()
    worker.now += timedelta(minutes=1)
    assert await worker.read() == (150,)


async def test_newest_days_with_times_are_read(bucket: CountingBucket) -> None:
    """Also over the end of a month; days without times do not count."""
    later = Worker(bucket)
    for number, day in enumerate(("2026-10-02", "2026-10-30", "2026-10-31", "2026-11-01", "2026-11-20", "2026-11-22")):
        await put(bucket, f"{day}/{number:016x}-{100 + number}")
    assert await later.read() == (101, 102, 103, 104, 105)
    bucket.lists = 0
    await put(bucket, *(f"2026-11-{day:02}/{day:016x}-{200 + day}" for day in range(5, 10)))
    assert await Worker(bucket).read() == (104, 105, 207, 208, 209)
    assert bucket.lists == 1


# The bound


async def test_full_day_takes_no_more_and_costs_nothing(bucket: CountingBucket, worker: Worker) -> None:
    await worker.note(*range(100, 100 + 2 * MOST_A_DAY))
    assert len(bucket.stored) == MOST_A_DAY
    assert bucket.lists == MOST_A_DAY
    other = Worker(bucket)
    await other.note(500, 501, 502, task="cgt-other")
    assert (len(bucket.stored), bucket.lists) == (MOST_A_DAY, MOST_A_DAY + 1)
    worker.now += timedelta(days=1)
    await worker.note(150)
    assert len(bucket.stored) == MOST_A_DAY + 1, "a new day"


async def test_copies_at_once_keep_the_bound(bucket: CountingBucket, worker: Worker) -> None:
    await asyncio.gather(*(worker.note(150 + number, task=f"cgt-{number}") for number in range(2 * MOST_A_DAY)))
    assert len(bucket.stored) == MOST_A_DAY


@pytest.mark.parametrize("workers", [2, 5])
async def test_racing_workers_add_one_each(bucket: CountingBucket, workers: int) -> None:
    """For the last place of a day: at most one too many for each further worker, of which none is read."""
    await Worker(bucket).note(*range(100, 100 + MOST_A_DAY - 1))
    racing = [Worker(bucket) for _ in range(workers)]
    for _ in range(3):
        await asyncio.gather(*(one.note(300, task=f"cgt-{number}") for number, one in enumerate(racing)))
    assert MOST_A_DAY <= len(bucket.stored) <= MOST_A_DAY + workers - 1
    assert len(await Worker(bucket).read()) == MOST_A_DAY


# What is no time


NAMES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.from_regex(r"2026-1[01]-[0-9]{2}/[0-9a-f]{15,17}-[0-9]{0,8}(\.json)?", fullmatch=True),
    st.sampled_from(
        [
            "2026-11-22/0123456789abcdef-0",
            "2026-11-22/0123456789abcdef--5",
            "2026-11-22/0123456789abcdef-012",
            "2026-11-22/0123456789abcdef-259201",
            "2026-11-22/0123456789abcdef-١٢٣",
            "2026-11-22/0123456789abcdef-150\n",
            "2026-11-22/0123456789abcdef-1e3",
            "2026-11-22/",
        ]
    ),
)


@given(st.lists(NAMES, max_size=30, unique=True))
def test_odd_names_are_no_times(names: list[str]) -> None:
    async def read() -> tuple[Sequence[int], list[str]]:
        bucket = MemoryBucket()
        await put(bucket, *names)
        await Worker(bucket).note(150)
        return await Worker(bucket).read(), list(bucket.stored)

    times, stored = asyncio.run(read())
    assert all(0 < seconds <= 259_200 for seconds in times)
    usable = [name for name in stored if name.rpartition("-")[2] in {str(seconds) for seconds in times}]
    assert len(times) <= len(usable) <= len(stored)
    assert 150 in times or len(stored) > MOST_A_DAY


async def test_foreign_objects_take_no_place(bucket: CountingBucket) -> None:
    await put(bucket, "notes.txt", "2026-11-22/README", "2026-11-22/0123456789abcdef-999999", content=b"{}")
    await Worker(bucket).note(150)
    assert await Worker(bucket).read() == (150,)


USABLE = {"id": "cgt-1", "status": "succeeded", "created_at": 1_000_000, "updated_at": 1_000_150}


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({}, 150),
        ({"created_at": None}, None),
        ({"updated_at": None}, None),
        ({"updated_at": 1_000_000}, None),
        ({"updated_at": 999_999}, None),
        ({"created_at": 0}, None),
        ({"created_at": 1_000_150 - 259_200}, 259_200),
        ({"created_at": "yesterday"}, None),
        ({"created_at": 1_000_000_000, "updated_at": 1_000_150_000}, None),
        ({"created_at": 1_000_000 - 8 * 86_400, "updated_at": 1_000_150 - 8 * 86_400}, None),
    ],
    ids=str,
)
def test_odd_clock_gives_no_time(fields: dict[str, Any], seconds: int | None) -> None:
    now = datetime.fromtimestamp(1_000_200, UTC)
    assert task_time(parse_task(USABLE | fields), now) == seconds


async def test_task_without_times_costs_nothing(bucket: CountingBucket, worker: Worker) -> None:
    await worker.times.note(REQUEST, Task(id="cgt-1", status="succeeded"))
    assert (bucket.lists, bucket.writes) == (0, [])


# A bucket in trouble


async def test_bucket_in_trouble_raises_nothing(bucket: CountingBucket, worker: Worker) -> None:
    await worker.note(150)
    assert await worker.read() == (150,)
    bucket.broken = ConnectionError("no bucket")
    worker.now += timedelta(hours=1)
    await worker.note(160, task="cgt-2")
    assert await worker.read() == (150,), "what was known before"
    assert await Worker(bucket).read() == ()
    bucket.broken = None
    assert await worker.read() == (150,), "it is not asked at each poll"
    await worker.note(160, task="cgt-2")
    worker.now += timedelta(minutes=10)
    assert await worker.read() == (150, 160)


async def test_hanging_bucket_holds_up_nobody_for_long(bucket: CountingBucket, worker: Worker) -> None:
    bucket.hangs = True
    async with asyncio.timeout(8):
        await asyncio.gather(worker.note(150), *(worker.read() for _ in range(20)))
    before = bucket.lists
    assert await worker.read() == ()
    assert bucket.lists == before, "it is left alone for ten minutes"


async def test_memory_of_shapes_is_bounded(worker: Worker) -> None:
    for number in range(1_200):
        await worker.read(a_request(model=f"ep-{number}"))
    assert len(worker.times._known) <= 500
