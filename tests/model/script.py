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


def _weathers(kind: Any) -> st.SearchStrategy[Any]:
    """Draw weathers, of which every other one is fine: else nothing would ever succeed."""
    fine, *others = get_args(kind)
    return st.one_of(st.just(fine), st.sampled_from(others))


_PAUSES = (1, 5, 30, 100, 200, 700, 1_000, 2_000, 4_000, 15_000)
_WHICH = st.integers(0, 2)
_WHERE = st.sampled_from([0, 0, 0, 1])
_STATUSES = st.sampled_from(["running", "succeeded", "succeeded", "failed", "expired", "cancelled"])


def moves() -> st.SearchStrategy[Move]:
    """Draw one move."""
    pause = st.tuples(st.just("pass"), st.sampled_from(_PAUSES))
    task = st.tuples(st.just("task"), _WHICH, _STATUSES)
    create = st.tuples(st.just("creates"), st.sampled_from(get_args(Fate)))
    return st.one_of(
        pause,
        pause,
        task,
        create,
        create,
        st.tuples(st.just("submit"), _WHERE),
        st.tuples(st.just("resubmit"), _WHERE, st.booleans()),
        st.tuples(st.just("get"), _weathers(GetWeather)),
        st.tuples(st.just("list"), _weathers(ListWeather)),
        st.tuples(st.just("results"), _weathers(ResultWeather)),
        st.tuples(st.just("bucket"), _weathers(BucketWeather)),
        st.tuples(st.just("callbacks"), st.sampled_from(["sent", "twice", "late", "lost"])),
        st.tuples(st.just("lag"), st.sampled_from([0, 0, 20, 90, 1_000])),
        st.tuples(st.just("callback"), st.integers(0, 4), _STATUSES),
        st.tuples(st.just("dies"), st.sampled_from(_ACTIVITIES), st.integers(0, 12)),
        st.tuples(st.just("crash")),
        st.tuples(st.just("worker"), st.booleans()),
        st.tuples(st.just("evict")),
        st.tuples(st.just("slow"), st.sampled_from([0.01, 0.01, 2, 20])),
        st.tuples(st.just("reset"), _WHERE, st.integers(0, 99)),
        st.tuples(st.just("terminate"), _WHERE),
        st.tuples(st.just("cancel"), _WHERE, st.sampled_from(["update", "temporal"])),
        st.tuples(st.just("retry"), _WHERE),
        st.tuples(st.just("resolve"), _WHERE, st.sampled_from(["truth", "truth", "adopt", "not_created", "lost"])),
    )


def scripts(longest: int = 24) -> st.SearchStrategy[Script]:
    """Draw a script, which begins with a few creates' fates, and the job's submission."""

    def script(fates: list[Any], rest: list[Move], settings: tuple[bool, bool, bool, int, int]) -> Script:
        single_batch, evicts, callbacks, automatic, renew_after = settings
        begin: list[Move] = [("creates", fate) for fate in fates]
        return Script(
            (*begin, ("submit", 0), *rest),
            single_batch=single_batch,
            evicts=evicts,
            callbacks=callbacks,
            automatic_resubmits=automatic,
            renew_after=renew_after,
        )

    return st.builds(
        script,
        st.lists(st.sampled_from(get_args(Fate)), max_size=3),
        st.lists(moves(), max_size=longest),
        st.tuples(
            st.booleans(),
            st.sampled_from([False, False, False, True]),
            st.sampled_from([True, True, False]),
            st.sampled_from([0, 0, 1]),
            st.sampled_from([10_000, 10_000, 120, 40]),
        ),
    )
