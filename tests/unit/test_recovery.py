"""The jobs of a bucket by their ledgers: the listing alone must never hide one that is open."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from seedance_temporal.contract import Resubmit
from seedance_temporal.identity import job_id_of, request_hash
from seedance_temporal.ledger.facts import Outcome
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.recovery import ALL_PARTS, LedgerJobs, read_jobs
from seedance_temporal.request import VideoRequest
from tests.support.jobs import (
    a_claim,
    a_record,
    a_request,
    absent,
    accepted,
    an_end,
    created,
    make_older,
    names,
    not_sent,
    refused,
)
from tests.support.memory_bucket import CountingBucket, MemoryBucket

FACTS = {
    "created": created("cgt-1"),
    "found late": created("cgt-2", "list"),
    "refused": refused(),
    "not sent": not_sent(),
    "absent": absent(),
    "accepted": accepted(),
    "ended": None,
    "given up": None,
    "granted": None,
}


async def write(bucket: MemoryBucket, request: VideoRequest, *attempts: list[str], stored: bool = False) -> None:
    """Write facts in their order, attempt by attempt; each object a second after the one before."""
    ledger, job_id = Ledger(bucket, "seedance"), job_id_of(request)
    for number, facts in enumerate(attempts, 1):
        assert await ledger.claim(a_claim(request, number))
        task_id = "cgt-1"
        for fact in facts:
            match fact:
                case "ended":
                    await ledger.end(job_id, number, an_end(number, task_id))
                case "given up":
                    await ledger.end(job_id, number, an_end(number, None, "lost"))
                case "granted":
                    await ledger.grant_resubmit(job_id, Resubmit(attempt=number))
                case _:
                    outcome = FACTS[fact]
                    assert isinstance(outcome, Outcome)
                    task_id = outcome.task_id or task_id
                    await ledger.write_outcome(job_id, number, outcome)
    if stored:
        await bucket.create(names(request).record, a_record("cgt-1"))
    for age, name in enumerate(reversed(bucket.writes)):
        make_older(bucket, name, seconds=age)


def counts(found: LedgerJobs) -> Counter[str]:
    read = Counter[str](job.progress for job in found.read)
    return read + Counter({"stored": found.stored, "ended": found.ended})


@settings(max_examples=400, deadline=None)
@given(
    attempts=st.lists(st.lists(st.sampled_from(sorted(FACTS)), max_size=4), min_size=1, max_size=3),
    stored=st.booleans(),
)
def test_listing_says_what_objects_say(attempts: list[list[str]], stored: bool) -> None:
    async def both() -> tuple[LedgerJobs, LedgerJobs]:
        bucket, request = MemoryBucket(), a_request()
        await write(bucket, request, *attempts, stored=stored)
        part = [request_hash(request)[:2]]
        return await read_jobs(bucket, "seedance", part), await read_jobs(bucket, "seedance", part, read_all=True)

    by_listing, by_objects = asyncio.run(both())
    assert counts(by_listing) == counts(by_objects)
    assert len(by_objects.read) == 1


async def test_settled_jobs_cost_no_reads() -> None:
    bucket = CountingBucket()
    for _ in range(10):
        await write(bucket, a_request(), ["created"], stored=True)
        await write(bucket, a_request(), ["created", "ended"])
        await write(bucket, a_request(), ["not sent"], ["refused"])
    bucket.requests.clear()
    found = await read_jobs(bucket, "seedance")
    assert (found.stored, found.ended, found.read) == (10, 20, [])
    assert bucket.requests == {"list": len(ALL_PARTS)}


async def test_open_jobs_are_read_with_their_requests() -> None:
    bucket = MemoryBucket()
    stages: dict[str, list[list[str]]] = {
        "task_known": [["created"]],
        "create_unknown": [[]],
        "not_created": [["created", "ended", "granted"], ["not sent"]],
    }
    requests = {progress: a_request() for progress in stages}
    for progress, attempts in stages.items():
        await write(bucket, requests[progress], *attempts)
    found = await read_jobs(bucket, "seedance")
    assert {job.progress: job.request for job in found.read} == requests
    assert {job.progress: (job.attempt, job.task_id) for job in found.read} == {
        "task_known": (1, "cgt-1"),
        "create_unknown": (1, None),
        "not_created": (2, None),
    }


async def test_given_up_task_that_turns_up_is_open() -> None:
    bucket = MemoryBucket()
    await write(bucket, a_request(), ["given up", "created"])
    (job,) = (await read_jobs(bucket, "seedance")).read
    assert (job.progress, job.task_id) == ("task_known", "cgt-1")


async def test_older_jobs_are_left_out() -> None:
    bucket, old, new = MemoryBucket(), a_request(), a_request()
    await write(bucket, old, ["created"])
    await write(bucket, new, ["created"])
    make_older(bucket, names(old).attempt(1, "claim"), days=2)
    found = await read_jobs(bucket, "seedance", since=datetime.now(UTC) - timedelta(days=1))
    assert [job.job_id for job in found.read] == [job_id_of(new)]


async def test_damaged_and_foreign_claims_are_named() -> None:
    bucket, cut, foreign, mine = MemoryBucket(), a_request(), a_request(), a_request()
    await bucket.create(names(cut).attempt(1, "claim"), b"{")
    await bucket.create(names(foreign).attempt(1, "claim"), a_claim(mine).model_dump_json().encode())
    await bucket.create("seedance/echo-byteplus.json", b"{}")
    await bucket.create("seedance/ab/attempts/0001.claim.json", b"{}")
    found = await read_jobs(bucket, "seedance")
    assert found.read == []
    assert found.damaged.keys() == {job_id_of(cut), job_id_of(foreign)}
    assert "is empty, cut, or another object" in found.damaged[job_id_of(cut)]
    assert f"holds a claim of another job, {job_id_of(mine)}" in found.damaged[job_id_of(foreign)]
