"""Scripts: what happens around a job, move by move. A failure prints one, and ``make model`` replays it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from hypothesis import strategies as st

from tests.model.bucket import BucketWeather
from tests.model.provider import Fate, GetWeather, ListWeather, ResultWeather

Move = tuple[Any, ...]

_ACTIVITIES = (
    "read_ledger",
    "write_outcome",
    "write_end",
    "create_task",
    "create_task",
    "get_task",
    "cancel_task",
    "identify_task",
    "ask_later",
    "follow_known_task",
    "resolve_attempt",
    "settle_absent",
    "ask_lister",
    "list_page",
    "answer_jobs",
    "store_video",
)


@dataclass(frozen=True)
class Script:
    """A script, and the settings under which it runs.

    Attributes:
        single_batch: Signals, cancels and results that arrive at once are delivered as a coming SDK will do.
        evicts: Each workflow task begins with a replay.
        renew_after: From so many events on, the server suggests to continue as new.
    """

    moves: tuple[Move, ...]
    single_batch: bool = False
    evicts: bool = False
    callbacks: bool = True
    automatic_resubmits: int = 0
    renew_after: int = 10_000

    def __repr__(self) -> str:
        """Return the script as Python."""
        unusual = [
            f"    {name}={getattr(self, name)!r},"
            for name, usual in (
                ("single_batch", False),
                ("evicts", False),
                ("callbacks", True),
                ("automatic_resubmits", 0),
                ("renew_after", 10_000),
            )
            if getattr(self, name) != usual
        ]
        moves = [f"        {move!r}," for move in self.moves]
        return "\n".join(["Script(", "    moves=(", *moves, "    ),", *unusual, ")"])


_CREATES: dict[str, tuple[Fate, ...]] = {
    "with a task": ("lost_after", "too_slow", "500_after", "502_page_after", "cut", "no_id", "made_later"),
    "unknown": ("lost_after", "too_slow", "cut", "made_later", "lost_before", "500_before", "502_page_before"),
    "not sent": ("429_now", "429_later", "quota", "401", "403", "cap", "not_connected"),
}
_PAUSES = st.sampled_from([0, 0, 0, 0.1, 1, 3, 10, 30, 60, 100, 200, 700, 1_500, 4_000])
_WHICH = st.integers(0, 2)
_WHERE = st.sampled_from([0, 0, 0, 1])
_STATUSES = st.sampled_from(["running", "succeeded", "succeeded", "failed", "expired", "cancelled"])
_LAGS = st.sampled_from([0, 3, 20, 50, 90, 250, 1_000])


def _move(name: str, *arguments: st.SearchStrategy[Any] | Any) -> st.SearchStrategy[Move]:
    return st.tuples(st.just(name), *(a if isinstance(a, st.SearchStrategy) else st.just(a) for a in arguments))


def _create(kind: str) -> st.SearchStrategy[Move]:
    return _move("creates", st.sampled_from(_CREATES[kind]))


def _weather(name: str, kind: Any) -> st.SearchStrategy[Move]:
    """Draw a weather; every other one is fine, or nothing would ever succeed."""
    fine, *others = get_args(kind)
    return _move(name, st.one_of(st.just(fine), st.sampled_from(others)))


_FATE = _move("creates", st.sampled_from(get_args(Fate)))
_PASS = _move("pass", _PAUSES)
_LONG = _move("pass", st.sampled_from([1_500, 4_000, 8_000, 20_000]))
_TASK = _move("task", _WHICH, _STATUSES)
_SUBMIT = _move("submit", 0)
_RESOLVE = _move("resolve", _WHERE, st.sampled_from(["truth", "truth", "adopt", "not_created", "lost"]))
_HIDE = _move("hide", 0, _LAGS)
_WAITS = _move("creates", "429_later")
_RESUBMIT = _move("resubmit", _WHERE, st.booleans())
_CALLBACK = _move("callback", st.integers(0, 4), _STATUSES)

# Each script has a few of these kinds of moves: those that meet often find more than all kinds that rarely do.
_KINDS: tuple[st.SearchStrategy[Move], ...] = (
    _move("submit", _WHERE),
    _RESUBMIT,
    _weather("get", GetWeather),
    _weather("list", ListWeather),
    _weather("results", ResultWeather),
    _weather("bucket", BucketWeather),
    _move("callbacks", st.sampled_from(["sent", "twice", "late", "lost"])),
    _move("lag", _LAGS),
    _move("hide", _WHICH, _LAGS),
    _CALLBACK,
    _move("dies", st.sampled_from(_ACTIVITIES), st.integers(0, 12)),
    _move("crash"),
    _move("worker", st.booleans()),
    _move("sending", st.booleans()),
    _move("evict"),
    _move("slow", st.sampled_from([0.01, 0.01, 2, 20])),
    _move("reset", _WHERE, st.integers(0, 99)),
    _move("terminate", _WHERE),
    _move("cancel", _WHERE, st.sampled_from(["signal", "temporal"])),
    _move("retry", _WHERE),
    _RESOLVE,
)

# Ways into situations that moves at random rarely meet.
_OPENINGS: dict[str, tuple[st.SearchStrategy[Move], ...]] = {
    "anything": (_FATE, _FATE, _SUBMIT),
    "usual": (_SUBMIT, _PASS),
    "unknown": (_create("unknown"), _FATE, _SUBMIT, _PASS),
    "unheard": (_move("callbacks", st.sampled_from(["lost", "late"])), _create("with a task"), _SUBMIT, _PASS),
    "two runs": (_FATE, _FATE, _SUBMIT, _move("submit", 1), _PASS),
    "two tasks": (_move("lag", _LAGS), _move("creates", "two_tasks"), _SUBMIT, _PASS, _TASK, _PASS, _TASK),
    "second task at the end": (
        *(
            _move("callbacks", "lost"),
            _move("creates", "two_tasks"),
            _SUBMIT,
            _move("pass", 5),
            _move("hide", 1, _LAGS),
        ),
        *(_move("task", 0, _STATUSES), _move("callback", 1, "running"), _move("callback", 0, "failed"), _PASS),
    ),
    "never sent": (*[_create("not sent")] * 4, _SUBMIT, _PASS),
    "written off by LIST": (
        *(_move("callbacks", "lost"), _create("with a task"), *[_WAITS] * 7, _move("list", "hides")),
        *(_SUBMIT, _move("pass", 2_000), _PASS, _HIDE, _CALLBACK, _PASS),
    ),
    "written off by an operator": (
        *(_move("callbacks", "lost"), _create("with a task"), *[_WAITS] * 5, _move("list", "down")),
        *(_SUBMIT, _move("pass", 700), _move("resolve", 0, "not_created"), _PASS, _HIDE, _CALLBACK, _PASS),
    ),
    "another attempt": (_SUBMIT, _move("pass", 5), _move("task", 0, "failed"), _move("pass", 400), _FATE, _RESUBMIT),
    "reset at once": (_FATE, _SUBMIT, _PASS, _move("reset", 0, st.integers(0, 99)), _PASS),
    "long trouble": (
        *(_SUBMIT, _PASS, st.one_of(_weather("get", GetWeather), _weather("bucket", BucketWeather))),
        *(_TASK, _LONG),
    ),
    "second task after the end": (
        *(_move("callbacks", "lost"), _move("creates", "two_tasks"), _SUBMIT, _move("pass", 5)),
        *(_move("task", 0, st.sampled_from(["failed", "expired"])), _move("pass", 400), _HIDE, _PASS),
        *(_move("callback", 1, _STATUSES), _PASS),
    ),
    "no worker sends": (
        *(_move("callbacks", "lost"), _create("with a task"), _move("list", "down"), _SUBMIT, _move("pass", 700)),
        *(_move("sending", False), _move("resolve", 0, "not_created"), _PASS, _CALLBACK, _PASS, _move("sending", True)),
    ),
    "outcome not written": (_move("bucket", "refuses_outcomes"), _FATE, _SUBMIT, _PASS, _move("bucket", "fine")),
    "unsure for long": (_create("unknown"), _SUBMIT, _weather("list", ListWeather), _LONG, _RESOLVE),
}


@st.composite
def scripts(draw: st.DrawFn, longest: int = 14) -> Script:
    """Draw a script: an opening, and moves of a few kinds after it, with pauses."""
    opening = _OPENINGS[draw(st.sampled_from(sorted(_OPENINGS)), label="opening")]
    moves = [draw(move) for move in opening]
    kinds = draw(st.lists(st.sampled_from(range(len(_KINDS))), min_size=1, max_size=5, unique=True), label="kinds")
    following = st.one_of(_TASK, _FATE, *(_KINDS[kind] for kind in kinds), *(_KINDS[kind] for kind in kinds))
    for move, pause in draw(st.lists(st.tuples(following, _PASS), min_size=2, max_size=longest)):
        moves += [move, pause]
    return Script(
        tuple(move for move in moves if move != ("pass", 0)),
        single_batch=draw(st.booleans()),
        evicts=draw(st.integers(0, 7)) == 7,
        callbacks=draw(st.integers(0, 3)) != 3,
        automatic_resubmits=draw(st.sampled_from([0, 0, 1])),
        renew_after=draw(st.sampled_from([10_000, 10_000, 120, 40])),
    )
