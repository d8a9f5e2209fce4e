"""What follows from the facts of a job: rule by rule, and along every sequence of events."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from activities.facts import Again, Attempt, End, Facts, Look, Outcome, decide, look_by
from tests.unit.jobs import a_result, absent, an_end, created, not_sent, refused, some_settings

AGAIN = Again(accept_second_charge=False, at=datetime.now(UTC))


def an_attempt(
    number: int = 1,
    outcome: Outcome | None = None,
    *late: str,
    taken: bool = False,
    end: str | None = None,
    lost: bool = False,
    again: bool = False,
) -> Attempt:
    """``end``: the task that ended; ``lost``: nobody can tell which, if any."""
    return Attempt(
        number=number,
        outcome=outcome,
        taken=taken,
        late=late,
        end=an_end(number, end) if end is not None or lost else None,
        again=AGAIN if again else None,
    )


A, B = created("a"), created("b")


@pytest.mark.parametrize(
    ("attempts", "decision"),
    [
        # Nothing stands against a claim.
        ([], ("claim", 1)),
        ([an_attempt(1, not_sent())], ("claim", 2)),
        ([an_attempt(1, absent())], ("claim", 2)),
        ([an_attempt(1, not_sent()), an_attempt(2, absent()), an_attempt(3, not_sent())], ("claim", 4)),
        ([an_attempt(1, refused(), again=True)], ("claim", 2)),
        ([an_attempt(1, A, end="a", again=True)], ("claim", 2)),
        ([an_attempt(1, lost=True, again=True)], ("claim", 2)),
        ([an_attempt(1, taken=True, lost=True, again=True)], ("claim", 2)),
        ([an_attempt(1, A, end="a", again=True), an_attempt(2, not_sent())], ("claim", 3)),
        # A claim without an outcome: nobody knows.
        ([an_attempt(1)], ("recover", 1)),
        ([an_attempt(1, A, end="a", again=True), an_attempt(2)], ("recover", 2)),
        ([an_attempt(1, not_sent()), an_attempt(2)], ("recover", 2)),
        ([an_attempt(1, taken=True)], ("recover", 1)),
        # It counts again: a task exists, although another outcome stands.
        ([an_attempt(1, not_sent(), taken=True)], ("recover", 1)),
        ([an_attempt(1, absent(), taken=True)], ("recover", 1)),
        ([an_attempt(1, refused(), taken=True)], ("recover", 1)),
        ([an_attempt(1, absent(), taken=True), an_attempt(2, not_sent())], ("recover", 1)),
        # A wish for another attempt opens nothing before the attempt that it answers has ended.
        ([an_attempt(1, again=True)], ("recover", 1)),
        ([an_attempt(1, A, again=True)], ("adopt", 1, "a")),
        # A task is followed, not paid for once more.
        ([an_attempt(1, A)], ("adopt", 1, "a")),
        ([an_attempt(1, A, taken=True)], ("adopt", 1, "a")),
        ([an_attempt(1, None, "l")], ("adopt", 1, "l")),
        ([an_attempt(1, not_sent(), "l")], ("adopt", 1, "l")),
        ([an_attempt(1, absent(), "l")], ("adopt", 1, "l")),
        ([an_attempt(1, refused(), "l")], ("adopt", 1, "l")),
        ([an_attempt(1, refused(), "l", again=True)], ("adopt", 1, "l")),
        ([an_attempt(1, A, end="a", again=True), an_attempt(2, B)], ("adopt", 2, "b")),
        # An end that names no task does not bind one that came to light.
        ([an_attempt(1, None, "l", lost=True)], ("adopt", 1, "l")),
        ([an_attempt(1, None, "l", lost=True, again=True)], ("adopt", 1, "l")),
        ([an_attempt(1, A, lost=True)], ("adopt", 1, "a")),
        # An end, or a refusal, that nobody answered.
        ([an_attempt(1, A, end="a")], ("ended", 1)),
        ([an_attempt(1, None, "l", end="l")], ("ended", 1)),
        ([an_attempt(1, lost=True)], ("ended", 1)),
        ([an_attempt(1, refused())], ("ended", 1)),
        ([an_attempt(1, A, end="a", again=True), an_attempt(2, refused())], ("ended", 2)),
        ([an_attempt(1, A, end="a"), an_attempt(2, not_sent())], ("ended", 1)),
        # The highest one that is not settled decides; a task of a lower one is a second task.
        ([an_attempt(1, absent(), "l"), an_attempt(2, B)], ("adopt", 2, "b", "l")),
        ([an_attempt(1, absent(), "l"), an_attempt(2)], ("recover", 2, None, "l")),
        ([an_attempt(1, absent(), "l"), an_attempt(2, B, end="b")], ("ended", 2, None, "l")),
        ([an_attempt(1, absent(), "l"), an_attempt(2, refused())], ("ended", 2, None, "l")),
        ([an_attempt(1, absent(), "l"), an_attempt(2, B, end="b", again=True)], ("adopt", 1, "l")),
        ([an_attempt(1, A, "l")], ("adopt", 1, "a", "l")),
        ([an_attempt(1, A, "a")], ("adopt", 1, "a")),
        ([an_attempt(1, A, "l", end="a")], ("ended", 1, None, "l")),
        ([an_attempt(1, A, "l", end="a", again=True)], ("claim", 2, None, "l")),
    ],
)
def test_what_comes_next(attempts: list[Attempt], decision: tuple[object, ...]) -> None:
    for order in (attempts, attempts[::-1]):
        look = decide(Facts(None, tuple(order)))
        found = (look.next, look.attempt, look.task_id, look.second_task)
        assert found == (*decision, None, None)[:4]
        assert (look.error is not None) == (look.next == "ended")


@pytest.mark.parametrize(
    ("attempts", "attempt", "second_task"),
    [
        ([], 0, None),
        ([an_attempt(1, A)], 1, None),
        ([an_attempt(1)], 1, None),
        ([an_attempt(1, A, end="a")], 1, None),
        ([an_attempt(1, refused())], 1, None),
        ([an_attempt(1, A, "l")], 1, "l"),
        ([an_attempt(1, absent(), "l"), an_attempt(2, A)], 2, "l"),
        ([an_attempt(1, B, end="b", again=True), an_attempt(2, A)], 2, None),
    ],
)
def test_a_record_wins_over_everything(attempts: list[Attempt], attempt: int, second_task: str | None) -> None:
    look = decide(Facts(a_result("a"), tuple(attempts)))
    assert (look.next, look.attempt, look.task_id, look.second_task) == ("stored", attempt, "a", second_task)
    assert look.result == a_result("a")


def test_the_end_that_stands_is_told_as_it_was_written() -> None:
    attempt = an_attempt(1, A, end="a")
    assert attempt.end is not None
    assert decide(Facts(None, (attempt,))).error == attempt.end.error


def test_a_refusal_is_told_with_the_words_of_the_provider() -> None:
    outcome = refused("InvalidParameter.Ratio").model_copy(update={"message": "no such ratio."})
    error = decide(Facts(None, (an_attempt(3, outcome),))).error
    assert error is not None
    assert (error.code, error.failure_class, error.attempt, error.task_id) == (
        "InvalidParameter.Ratio",
        "invalid",
        3,
        None,
    )
    assert "no such ratio." in error.message
    assert "nothing is billed" in error.message
    assert not error.resubmit_could_help
    of_moderation = outcome.model_copy(update={"failure_class": "moderation"})
    error = decide(Facts(None, (an_attempt(3, of_moderation),))).error
    assert error is not None
    assert error.failure_class == "moderation"


@pytest.mark.parametrize(
    ("age", "over", "again"), [(0, False, 30), (599, False, 30), (601, True, 100), (99_999, True, 100)]
)
def test_how_long_an_attempt_is_looked_for(age: float, over: bool, again: float) -> None:
    attempt = replace(an_attempt(), claimed_at=datetime.now(UTC) - timedelta(seconds=age))
    look = look_by(Facts(None, (attempt,)), some_settings(seedance_recovery_seconds=600))
    assert (look.next, look.recovery_over, look.look_again_after) == ("recover", over, again)


def test_only_an_unknown_attempt_is_looked_for() -> None:
    attempt = replace(an_attempt(1, A), claimed_at=datetime.now(UTC) - timedelta(days=1))
    look = look_by(Facts(None, (attempt,)), some_settings())
    assert (look.next, look.recovery_over, look.look_again_after) == ("adopt", False, 0)


# --- for all facts ---------------------------------------------------------------------------------------------------

_task_ids = st.sampled_from("abcde")
_outcomes = st.one_of(st.none(), _task_ids.map(created), st.sampled_from([not_sent(), refused(), absent()]))


@st.composite
def some_facts(draw: st.DrawFn) -> Facts:
    """Any facts, also such as never come about."""
    attempts = [
        Attempt(
            number=number,
            outcome=draw(_outcomes),
            taken=draw(st.booleans()),
            late=tuple(draw(st.lists(_task_ids, unique=True, max_size=2))),
            end=draw(st.one_of(st.none(), st.none(), _task_ids, st.just("")).map(lambda t: _end(number, t))),  # noqa: B023
            again=draw(st.sampled_from([None, AGAIN])),
        )
        for number in range(1, draw(st.integers(0, 4)) + 1)
    ]
    record = draw(st.sampled_from([None, None, None, a_result("a")]))
    return Facts(record, tuple(attempts))


def _end(number: int, task_id: str | None) -> End | None:
    return None if task_id is None else an_end(number, task_id or None)


def open_attempts(attempts: tuple[Attempt, ...]) -> list[Attempt]:
    """Those that count and lack an end or an again."""
    return [a for a in attempts if a.counts and (a.end is None or a.again is None)]


def assert_no_task_is_dropped(facts: Facts, look: Look) -> None:
    """A task that is known is followed, stored or ended, or a person is told."""
    ended = {attempt.end.error.task_id for attempt in facts.attempts if attempt.end is not None}
    known = {task for attempt in facts.attempts for task in attempt.tasks}
    loose = known - ended - {look.task_id}
    if loose:
        assert look.second_task in loose
    else:
        assert look.second_task is None


@given(some_facts())
@settings(max_examples=500, deadline=None)
def test_a_claim_is_allowed_only_where_everything_that_counts_is_over(facts: Facts) -> None:
    look = decide(facts)
    if look.next == "claim":
        assert facts.record is None
        assert open_attempts(facts.attempts) == []
        assert all(a.again is not None for a in facts.attempts if a.outcome is not None and a.outcome.kind == "refused")
        assert look.attempt == len(facts.attempts) + 1
    assert (look.next == "stored") == (facts.record is not None)
    assert (look.next == "adopt") <= (look.task_id is not None)
    assert_no_task_is_dropped(facts, look)


class Life(RuleBasedStateMachine):
    """A job along every sequence of events: claims as they are allowed, outcomes, ends, wishes, and what comes late."""

    @initialize()
    def start(self) -> None:
        self.attempts: list[Attempt] = [Attempt(1)]
        self.revived: set[int] = set()  # a task came of an attempt that was written off
        self.tasks = (f"cgt-{n}" for n in count())

    @property
    def facts(self) -> Facts:
        return Facts(None, tuple(self.attempts))

    def change(self, attempt: Attempt, **fields: object) -> None:
        self.attempts[attempt.number - 1] = replace(attempt, **fields)  # type: ignore[arg-type]

    def one(self, data: st.DataObject, *among: Attempt) -> Attempt | None:
        return data.draw(st.sampled_from(among)) if among else None

    @precondition(lambda self: decide(self.facts).next == "claim")
    @rule()
    def claim(self) -> None:
        look = decide(self.facts)
        assert look.attempt == len(self.attempts) + 1, "each claim has a number of its own"
        assert open_attempts(tuple(self.attempts)) == []
        self.attempts.append(Attempt(look.attempt))

    @precondition(lambda self: any(a.outcome is None for a in self.attempts))
    @rule(data=st.data(), kind=st.sampled_from(["created", "refused", "not_sent", "absent"]))
    def outcome(self, data: st.DataObject, kind: str) -> None:
        attempt = self.one(data, *(a for a in self.attempts if a.outcome is None))
        if attempt is not None and not (kind == "absent" and attempt.taken):
            of = {"refused": refused(), "not_sent": not_sent(), "absent": absent()}
            if attempt.taken or attempt.late:
                self.revived.add(attempt.number)
            self.change(attempt, outcome=of.get(kind) or created(next(self.tasks)))

    @rule(data=st.data())
    def taken(self, data: st.DataObject) -> None:
        if (attempt := self.one(data, *self.attempts)) is not None:
            self._revive(attempt)
            self.change(attempt, taken=True)

    @rule(data=st.data())
    def late(self, data: st.DataObject) -> None:
        if (attempt := self.one(data, *self.attempts)) is not None:
            self._revive(attempt)
            self.change(attempt, late=(*attempt.late, next(self.tasks)))

    def _revive(self, attempt: Attempt) -> None:
        if not attempt.counts:
            self.revived.add(attempt.number)

    @precondition(lambda self: decide(self.facts).next == "adopt")
    @rule()
    def end(self) -> None:
        look = decide(self.facts)
        if self.attempts[look.attempt - 1].end is None:
            self.change(self.attempts[look.attempt - 1], end=an_end(look.attempt, look.task_id))

    @precondition(lambda self: decide(self.facts).next == "recover")
    @rule()
    def lost(self) -> None:
        look = decide(self.facts)
        self.change(self.attempts[look.attempt - 1], end=an_end(look.attempt, None))

    @precondition(lambda self: any(a.error is not None and a.again is None for a in self.attempts))
    @rule(data=st.data())
    def again(self, data: st.DataObject) -> None:
        attempt = self.one(data, *(a for a in self.attempts if a.error is not None and a.again is None))
        if attempt is not None:
            self.change(attempt, again=AGAIN)

    @invariant()
    def nothing_is_paid_for_that_nobody_asked_for(self) -> None:
        counting = [a for a in self.attempts if a.counts]
        wishes = [a for a in counting if a.again is not None]
        assert len(counting) <= 1 + len(wishes) + len(self.revived)

    @invariant()
    def no_task_is_dropped(self) -> None:
        assert_no_task_is_dropped(self.facts, decide(self.facts))


Life.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestLife = Life.TestCase
