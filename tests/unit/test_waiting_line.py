"""The line for places, over generated requests, grants and frees."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from seedance_temporal.places import PlaceRequest
from seedance_temporal.waiting_line import WaitingLine

BEGAN = datetime(2026, 11, 27, tzinfo=UTC)


def a_request(number: int, user: str, **given: int) -> PlaceRequest:
    return PlaceRequest(job_id=f"job-{number}", user=user, since=BEGAN + timedelta(seconds=number), **given)


def some_requests(seed: int) -> list[PlaceRequest]:
    of = random.Random(seed)
    return [
        a_request(
            number,
            f"user-{min(of.randrange(12), of.randrange(12))}",
            rank=of.choice((0, 3, 3, 3, 4)),
            priority=of.randrange(10),
        )
        for number in range(of.randrange(1, 60))
    ]


@pytest.mark.parametrize("seed", range(40))
def test_taken_requests_come_in_promised_order(seed: int) -> None:
    line = WaitingLine()
    waiting = {request.job_id: request for request in some_requests(seed)}
    of = random.Random(seed)
    for request in of.sample([*waiting.values()], len(waiting)):
        line.add(request)
        line.add(request)
    held: list[PlaceRequest] = []
    while waiting:
        # As many get a place before a job as really do, where none is freed.
        watched = of.choice([*waiting])
        expected = line.before(watched, Counter(request.user for request in held))
        for count in range(of.randrange(1, 6)):
            places = Counter(request.user for request in held)
            taken = line.take(places)
            del waiting[taken.job_id]
            held.append(taken)
            for other in waiting.values():
                assert taken.rank <= other.rank or other.user != taken.user
                if other.user == taken.user and other.rank == taken.rank:
                    assert (-taken.priority, taken.since) < (-other.priority, other.since)
            heads = {
                request.user: min(r.rank for r in waiting.values() if r.user == request.user)
                for request in waiting.values()
            }
            for user, rank in heads.items():
                assert (taken.rank, places[taken.user]) <= (rank, places[user]) or user == taken.user
            if taken.job_id == watched:
                assert count == expected
            if not waiting:
                break
        assert len(line) == len(waiting)
        held = of.sample(held, of.randrange(len(held) + 1))


def test_one_job_of_another_user_waits_for_one() -> None:
    line = WaitingLine()
    for number in range(5_000):
        line.add(a_request(number, "many"))
    line.add(a_request(5_000, "one"))
    places = Counter({"many": 10})
    assert line.before("job-5000", places) == 0
    assert line.take(places).user == "one"


def test_removed_request_is_not_taken() -> None:
    line = WaitingLine()
    for number in range(3):
        line.add(a_request(number, "user"))
    line.remove("job-1")
    line.remove("unknown")
    assert line.before("job-1", {}) is None
    assert [line.take({}).job_id, line.take({}).job_id] == ["job-0", "job-2"]
    assert len(line) == 0


def test_oldest_requests_are_kept() -> None:
    line = WaitingLine()
    for number in reversed(range(10)):
        line.add(a_request(number, f"user-{number % 3}"))
    assert [request.job_id for request in line.oldest(4)] == ["job-0", "job-1", "job-2", "job-3"]
