"""The plan of polls: few, and soon after the end of a task; and the estimate of that end."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from activities.poll import seconds_until_poll
from seedance_temporal.provider.poll_plan import LEAST_TIMES, expected_end, first_poll, next_poll
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings
from tests.support.jobs import SECRET, a_request, some_settings
from tests.support.observed import Polled, median_delay, observed_seconds, share_of_fixed

SETTINGS = some_settings()
USUAL = a_request(resolution="720p", duration=5)
TIMES = st.lists(st.integers(1, 259_200), max_size=100).map(sorted)


def simulated(seconds: float, times: Sequence[float], draw: random.Random) -> Polled:
    """Poll a task by the real plan, with timers that come up to a second late, and GETs of a tenth of one."""
    elapsed, polls = 0.0, 0
    while elapsed < seconds:
        elapsed += seconds_until_poll(SETTINGS, USUAL, times, elapsed=elapsed) + draw.random() + 0.1
        polls += 1
    return Polled(seconds, polls, elapsed - seconds)


@pytest.mark.parametrize(("known", "most_polls"), [(0, 0.25), (LEAST_TIMES, 0.2), (100, 0.2)])
def test_few_polls_see_end_soon(known: int, most_polls: float) -> None:
    """At most a quarter of the GETs of fixed polling, at a median delay of at most 5 %: also by the defaults alone."""
    random.seed(14)
    times = sorted(observed_seconds(known, seed=1))
    tasks = [simulated(seconds, times, random.Random(2)) for seconds in observed_seconds(4_000, seed=3)]
    assert share_of_fixed(tasks) <= most_polls
    assert median_delay(tasks) <= 0.05


def test_fewer_polls_where_times_are_known() -> None:
    """Tasks of two kinds, such as by the load: nothing ends between them, and nearly nothing is polled there."""
    draw = random.Random(5)
    both = [draw.gauss(100, 4) if draw.random() < 0.5 else draw.gauss(400, 16) for _ in range(400)]
    times = sorted(both[:100])
    known = [simulated(seconds, times, draw) for seconds in both[100:]]
    unknown = [simulated(seconds, [], draw) for seconds in both[100:]]
    assert share_of_fixed(known) < 0.75 * share_of_fixed(unknown)
    assert median_delay(known) <= min(0.05, median_delay(unknown))


def test_first_poll_comes_before_most_videos() -> None:
    times = sorted(observed_seconds(100, seed=1))
    assert sum(seconds < first_poll(USUAL, times) for seconds in times) == 5
    assert first_poll(USUAL, times[: LEAST_TIMES - 1]) == first_poll(USUAL, [])


@given(st.floats(0, 10**7), TIMES, st.floats(0.1, 10_000), st.floats(1, 10_000))
def test_waits_are_positive_and_bounded(elapsed: float, times: list[int], first: float, longest: float) -> None:
    wait = next_poll(elapsed, times, first=first, longest=longest)
    assert 0 < wait <= max(first, longest)


@given(st.floats(0, 10**6), TIMES)
def test_expected_end_lies_ahead(elapsed: float, times: list[int]) -> None:
    expected = expected_end(elapsed, times)
    if len(times) < LEAST_TIMES or elapsed >= times[-1]:
        assert expected is None
    else:
        assert expected is not None
        assert elapsed < expected <= times[-1]


def test_estimate_moves_with_time() -> None:
    times = [*range(100, 200, 10), 1000]
    assert [expected_end(elapsed, times) for elapsed in (0, 145, 195, 1000)] == [150, 175, 1000, None]


# The wait in seconds, with jitter and settings


def waits(settings: Settings, request: VideoRequest, *, elapsed: float, announced: bool = False) -> tuple[float, float]:
    drawn = [seconds_until_poll(settings, request, (), elapsed=elapsed, announced=announced) for _ in range(50)]
    return min(drawn), max(drawn)


def test_first_poll_leaves_most_of_url_life() -> None:
    """Tasks that took a day are followed by one that is quick again."""
    assert first_poll(USUAL, [100_000.0] * 20) <= 3_600


def test_waits_grow_with_elapsed_time() -> None:
    settings = some_settings()
    least, most = waits(settings, USUAL, elapsed=0)
    assert 90 <= least < most <= 110
    assert waits(settings, USUAL, elapsed=50)[1] <= 55, "a task that was polled early is not polled later for it"
    middle = [sum(waits(settings, USUAL, elapsed=elapsed)) for elapsed in (100, 200, 1_000, 3_000)]
    assert middle == sorted(middle)
    longest = waits(settings, USUAL, elapsed=10_000)
    assert 270 <= longest[0] < longest[1] <= 330


def test_larger_videos_are_polled_later() -> None:
    changes: dict[str, dict[str, Any]] = {
        "plain": {},
        "fast": {"model": "dreamina-seedance-2-0-fast-260128"},
        "4k": {"resolution": "4k"},
        "long": {"duration": 15},
        "chosen by the model": {"duration": -1},
    }
    wait = {name: first_poll(a_request(**fields), []) for name, fields in changes.items()}
    assert wait["fast"] < wait["plain"] * 0.9
    assert wait["4k"] > wait["plain"] * 2
    assert wait["long"] > wait["plain"] * 1.3
    assert wait["chosen by the model"] > 0


def test_callbacks_make_polling_sparse() -> None:
    callbacks = {
        "seedance_callback_url": "https://relay.example.com",
        "seedance_callback_secret": SecretStr(SECRET),
        "seedance_poll_with_callbacks_seconds": 1000,
    }
    settings = some_settings(None, **callbacks)
    for elapsed in (0, 100, 10_000):
        least, most = waits(settings, a_request(), elapsed=elapsed)
        assert 900 <= least < most <= 1100
    assert waits(settings, a_request(), elapsed=300, announced=True)[1] <= 5.5


def test_settings_bound_waits() -> None:
    settings = some_settings(seedance_poll_first_seconds=60, seedance_poll_max_seconds=20)
    assert 54 <= waits(settings, a_request(), elapsed=0)[0] <= waits(settings, a_request(), elapsed=0)[1] <= 66
    assert waits(settings, a_request(), elapsed=5_000)[1] <= 22
