"""The decisions that follow from the facts of a job: rule by rule, and along every sequence of events."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from seedance_temporal.ledger import decisions
from seedance_temporal.ledger.decisions import Decision, Ending, decide, decide_at, ending, is_absent
from seedance_temporal.ledger.facts import Attempt, Facts, Listing, Outcome, ResubmitGrant
from tests.support.jobs import (
    a_claim,
    a_listing,
    a_request,
    a_result,
    absent,
    an_end,
    created,
    not_sent,
    present,
    refused,
    some_settings,
)

GRANT = ResubmitGrant(accept_second_charge=False, at=datetime.now(UTC))


def an_attempt(
    number: int = 1,
    outcome: Outcome | None = None,
    *late: str,
    accepted_without_id: bool = False,
    end: str | None = None,
    lost: bool = False,
    resubmitted: bool = False,
) -> Attempt:
    """``end``: the task that ended; ``lost``: the attempt was given up, and its end names no task."""
    return Attempt(
        number=number,
        outcome=outcome,
        accepted_without_id=accepted_without_id,
        late=late,
        ends=(an_end(number, end),) if end is not None or lost else (),
        resubmit_grant=GRANT if resubmitted else None,
    )


A, B = created("a"), created("b")


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        # A claim is allowed.
        ([], ("claim", 1)),
        ([an_attempt(1, not_sent())], ("claim", 2)),
        ([an_attempt(1, absent())], ("claim", 2)),
        ([an_attempt(1, not_sent()), an_attempt(2, absent()), an_attempt(3, not_sent())], ("claim", 4)),
        ([an_attempt(1, refused(), resubmitted=True)], ("claim", 2)),
        ([an_attempt(1, A, end="a", resubmitted=True)], ("claim", 2)),
        ([an_attempt(1, lost=True, resubmitted=True)], ("claim", 2)),
        ([an_attempt(1, accepted_without_id=True, lost=True, resubmitted=True)], ("claim", 2)),
        ([an_attempt(1, A, end="a", resubmitted=True), an_attempt(2, not_sent())], ("claim", 3)),
        # A claim without an outcome is unknown.
        ([an_attempt(1)], ("recover", 1)),
        ([an_attempt(1, A, end="a", resubmitted=True), an_attempt(2)], ("recover", 2)),
        ([an_attempt(1, not_sent()), an_attempt(2)], ("recover", 2)),
        ([an_attempt(1, accepted_without_id=True)], ("recover", 1)),
        # It counts again: a task exists, although the outcome says otherwise.
        ([an_attempt(1, not_sent(), accepted_without_id=True)], ("recover", 1)),
        ([an_attempt(1, absent(), accepted_without_id=True)], ("recover", 1)),
        ([an_attempt(1, refused(), accepted_without_id=True)], ("recover", 1)),
        ([an_attempt(1, absent(), accepted_without_id=True), an_attempt(2, not_sent())], ("recover", 1)),
        # A resubmit grant allows nothing before its attempt has ended.
        ([an_attempt(1, resubmitted=True)], ("recover", 1)),
        ([an_attempt(1, A, resubmitted=True)], ("adopt", 1, "a")),
        # A task is followed, not paid for once more.
        ([an_attempt(1, A)], ("adopt", 1, "a")),
        ([an_attempt(1, A, accepted_without_id=True)], ("adopt", 1, "a")),
        ([an_attempt(1, None, "l")], ("adopt", 1, "l")),
        ([an_attempt(1, not_sent(), "l")], ("adopt", 1, "l")),
        ([an_attempt(1, absent(), "l")], ("adopt", 1, "l")),
        ([an_attempt(1, refused(), "l")], ("adopt", 1, "l")),
        ([an_attempt(1, refused(), "l", resubmitted=True)], ("adopt", 1, "l")),
        ([an_attempt(1, A, end="a", resubmitted=True), an_attempt(2, B)], ("adopt", 2, "b")),
        # An end that names no task does not end a late task.
        ([an_attempt(1, None, "l", lost=True)], ("adopt", 1, "l")),
        ([an_attempt(1, None, "l", lost=True, resubmitted=True)], ("adopt", 1, "l")),
        ([an_attempt(1, A, lost=True)], ("adopt", 1, "a")),
        # An end, or a refusal, without a resubmit grant.
        ([an_attempt(1, A, end="a")], ("ended", 1)),
        ([an_attempt(1, None, "l", end="l")], ("ended", 1)),
        ([an_attempt(1, lost=True)], ("ended", 1)),
        ([an_attempt(1, refused())], ("ended", 1)),
        ([an_attempt(1, A, end="a", resubmitted=True), an_attempt(2, refused())], ("ended", 2)),
        ([an_attempt(1, A, end="a"), an_attempt(2, not_sent())], ("ended", 1)),
        # A live task decides, of any attempt: the newest one, and another is a second task.
        ([an_attempt(1, absent(), "l"), an_attempt(2, B)], ("adopt", 2, "b", "l")),
        ([an_attempt(1, absent(), "l"), an_attempt(2)], ("adopt", 1, "l")),
        ([an_attempt(1, absent(), "l"), an_attempt(2, B, end="b")], ("adopt", 1, "l")),
        ([an_attempt(1, absent(), "l"), an_attempt(2, refused())], ("adopt", 1, "l")),
        ([an_attempt(1, absent(), "l"), an_attempt(2, not_sent())], ("adopt", 1, "l")),
        ([an_attempt(1, absent(), "l"), an_attempt(2, not_sent()), an_attempt(3, refused())], ("adopt", 1, "l")),
        ([an_attempt(1, absent(), "l", end="l"), an_attempt(2)], ("recover", 2)),
        ([an_attempt(1, absent(), "l", end="l"), an_attempt(2, refused())], ("ended", 2)),
        ([an_attempt(1, absent(), "l"), an_attempt(2, B, end="b", resubmitted=True)], ("adopt", 1, "l")),
        ([an_attempt(1, A, "l")], ("adopt", 1, "a", "l")),
        ([an_attempt(1, A, "a")], ("adopt", 1, "a")),
        ([an_attempt(1, A, "l", end="a")], ("adopt", 1, "l")),
        ([an_attempt(1, A, "l", end="l")], ("adopt", 1, "a")),
        ([an_attempt(1, A, "l", end="a", resubmitted=True)], ("adopt", 1, "l")),
    ],
)
def test_facts_decide_next_step(attempts: list[Attempt], expected: tuple[object, ...]) -> None:
    for order in (attempts, attempts[::-1]):
        decision = decide(Facts(None, tuple(order)))
        found = (decision.next, decision.attempt, decision.task_id, decision.second_task)
        assert found == (*expected, None, None)[:4]
        assert (decision.error is not None) == (decision.next == "ended")


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
        ([an_attempt(1, B, end="b", resubmitted=True), an_attempt(2, A)], 2, None),
    ],
)
def test_record_beats_everything(attempts: list[Attempt], attempt: int, second_task: str | None) -> None:
    decision = decide(Facts(a_result("a"), tuple(attempts)))
    assert (decision.next, decision.task_id) == ("stored", "a")
    assert (decision.attempt, decision.second_task) == (attempt, second_task)
    assert decision.result == a_result("a")


@pytest.mark.parametrize(
    ("attempts", "unknown"),
    [
        ([an_attempt(1, A)], None),
        ([an_attempt(1, A), an_attempt(2)], 2),
        ([an_attempt(1, A), an_attempt(2, accepted_without_id=True)], 2),
        ([an_attempt(1, A), an_attempt(2, lost=True)], None),
        ([an_attempt(1, A), an_attempt(2, not_sent())], None),
        ([an_attempt(1, A), an_attempt(2, refused())], None),
        ([an_attempt(1, A), an_attempt(2, B)], None),
    ],
)
def test_attempt_without_outcome_is_never_silent(attempts: list[Attempt], unknown: int | None) -> None:
    for record in (None, a_result("a")):
        decision = decide(Facts(record, tuple(attempts)))
        assert decision.next in {"adopt", "stored"}
        assert decision.unknown_attempt == unknown


def test_ending_of_a_stored_job() -> None:
    at = datetime.now(UTC)
    attempts = (an_attempt(1, A, end="a"),)
    found = ending(Facts(a_result("b"), attempts, stored_at=at))
    assert found == Ending("stored", at, result=a_result("b"))


@pytest.mark.parametrize(
    ("attempt", "phase"),
    [
        (an_attempt(1, A, end="a"), "failed"),
        (an_attempt(1, lost=True), "failed"),
        (an_attempt(1, refused()), "refused"),
    ],
)
def test_ending_without_a_video(attempt: Attempt, phase: str) -> None:
    found = ending(Facts(None, (attempt,)))
    last = attempt.end or attempt.outcome
    assert found is not None
    assert last is not None
    assert (found.phase, found.at, found.error, found.result) == (phase, last.at, attempt.error, None)


@pytest.mark.parametrize("attempts", [(), (an_attempt(1),), (an_attempt(1, A),), (an_attempt(1, not_sent()),)])
def test_open_job_has_no_ending(attempts: tuple[Attempt, ...]) -> None:
    assert ending(Facts(None, attempts)) is None


def test_existing_end_is_shown_as_written() -> None:
    attempt = an_attempt(1, A, end="a")
    assert decide(Facts(None, (attempt,))).error == present(attempt.end).error


def test_refusal_shows_provider_message() -> None:
    outcome = refused("InvalidParameter.Ratio").model_copy(update={"message": "no such ratio."})
    error = present(decide(Facts(None, (an_attempt(3, outcome),))).error)
    assert (error.code, error.failure_class) == ("InvalidParameter.Ratio", "invalid")
    assert (error.attempt, error.task_id) == (3, None)
    assert "no such ratio." in error.message
    assert "nothing is billed" in error.message
    assert not error.resubmit_could_help
    of_moderation = outcome.model_copy(update={"failure_class": "moderation"})
    error = present(decide(Facts(None, (an_attempt(3, of_moderation),))).error)
    assert error.failure_class == "moderation"


def test_only_unknown_attempt_is_searched() -> None:
    attempt = replace(an_attempt(1, A), claimed_at=datetime.now(UTC) - timedelta(days=1))
    decision = decide_at(Facts(None, (attempt,)), some_settings())
    assert (decision.next, decision.recovery) == ("adopt", None)


# --- absence ---------------------------------------------------------------------------------------------------------

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
WINDOW = timedelta(seconds=600)
# And the difference that clocks may have.
SEARCH = timedelta(seconds=630)
CLAIM = a_claim(a_request())
# As an older worker wrote it.
KEYLESS = CLAIM.model_copy(update={"key": ""})
TICK = timedelta(microseconds=1)


@pytest.fixture
def frozen_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped clock, so that exact limits can be tested."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Clock:
            return cls(NOW.year, NOW.month, NOW.day, NOW.hour, tzinfo=tz)

    monkeypatch.setattr(decisions, "datetime", Clock)


def unknown(age: timedelta, **given: Any) -> Attempt:
    return replace(an_attempt(), claim=CLAIM, claimed_at=NOW - age, **given)


def after(window: timedelta, **given: Any) -> Listing:
    """A complete listing begun so long after the end of the search for an attempt of 20 minutes."""
    return a_listing(CLAIM, **{"began_at": NOW - 2 * WINDOW + SEARCH + window} | given)


FIRST, MINUTE = timedelta(seconds=1), timedelta(seconds=60)
SECOND = FIRST + MINUTE
TWO = (after(FIRST), after(SECOND))
EARLIER_ABSENT = an_attempt(1, absent())


@pytest.mark.usefixtures("frozen_clock")
@pytest.mark.parametrize(
    ("proved", "listings"),
    [
        pytest.param(True, TWO, id="two, a tenth of the window apart"),
        pytest.param(True, TWO[::-1], id="in any order"),
        pytest.param(True, (*TWO, after(FIRST + MINUTE / 2)), id="more between them"),
        pytest.param(False, (), id="none"),
        pytest.param(False, TWO[:1], id="one"),
        pytest.param(False, (TWO[0], TWO[0]), id="one, given twice"),
        pytest.param(False, (TWO[0], after(SECOND - TICK)), id="too close together"),
        pytest.param(False, (after(timedelta(0)), after(MINUTE)), id="begun as the window ended"),
        pytest.param(True, (after(TICK), after(TICK + MINUTE)), id="begun just after the window"),
        pytest.param(False, (after(-MINUTE), TWO[0]), id="begun in the window"),
        pytest.param(True, (after(-MINUTE), *TWO), id="a third one in the window"),
        pytest.param(False, (TWO[0], after(SECOND, complete=False)), id="one is not complete"),
        pytest.param(False, (TWO[0], after(SECOND, is_blind=True)), id="one of a model of which none is ours"),
        pytest.param(False, (TWO[0], after(SECOND, safety_identifier="another")), id="one of another claim"),
        pytest.param(False, (TWO[0], after(SECOND, key="01234567")), id="one of another key"),
        pytest.param(False, (after(FIRST, key=""), after(SECOND, key="")), id="of several keys"),
        pytest.param(True, (after(FIRST, key="01234567"), *TWO), id="a third one of another key"),
        pytest.param(False, (TWO[0], after(SECOND, unmarked=True)), id="an unmarked task in the last"),
        pytest.param(False, (after(FIRST, unmarked=True), *TWO), id="an unmarked task in the first of three"),
        pytest.param(False, (after(-MINUTE, unmarked=True), *TWO), id="an unmarked task within the window"),
        pytest.param(
            False, (after(FIRST, unmarked=True, complete=False), *TWO), id="an unmarked task, and not complete"
        ),
        pytest.param(False, (TWO[0], after(SECOND, task_id="cgt-1")), id="found in the last"),
        pytest.param(False, (after(-MINUTE, task_id="cgt-1"), *TWO), id="found once, within the window"),
    ],
)
def test_which_listings_prove_absence(proved: bool, listings: tuple[Listing, ...]) -> None:
    attempt = unknown(2 * WINDOW)
    assert is_absent(Facts(None, (attempt,), identifiers_listed=True), attempt, listings, some_settings()) is proved


@pytest.mark.usefixtures("frozen_clock")
@pytest.mark.parametrize(("of_sender", "proved"), [(0, True), (620, True), (700, False), (86_400, False)])
def test_create_under_senders_longer_settings_is_not_absent(of_sender: float, proved: bool) -> None:
    """A worker with other settings can still be sending it."""
    claim = CLAIM.model_copy(update={"search_seconds": of_sender})
    attempt = replace(unknown(2 * WINDOW), claim=claim)
    assert is_absent(Facts(None, (attempt,), identifiers_listed=True), attempt, TWO, some_settings()) is proved
    asked = decide_at(Facts(None, (attempt,), identifiers_listed=True), some_settings()).recovery
    assert asked is not None
    assert asked.needs_operator is (timedelta(seconds=max(of_sender, 630)) + WINDOW / 2 < 2 * WINDOW)


DAYS = timedelta(days=6)


@pytest.mark.usefixtures("frozen_clock")
@pytest.mark.parametrize(
    ("attempt", "others", "identifiers_listed", "bar"),
    [
        pytest.param(unknown(2 * WINDOW), (), True, None, id="nothing"),
        pytest.param(
            unknown(2 * WINDOW, accepted_without_id=True), (), True, "a task exists", id="accepted_without_id"
        ),
        pytest.param(unknown(2 * WINDOW), (), False, "identifiers", id="identifiers not listed"),
        pytest.param(replace(unknown(2 * WINDOW), claim=KEYLESS), (), True, "which API key", id="key unknown"),
        pytest.param(unknown(DAYS), (), True, None, id="six days"),
        pytest.param(unknown(DAYS + TICK), (), True, "forgotten", id="more than six days"),
        pytest.param(replace(unknown(2 * WINDOW), number=2), (EARLIER_ABSENT,), True, "earlier", id="earlier absent"),
        pytest.param(
            replace(unknown(2 * WINDOW), number=3),
            (EARLIER_ABSENT, an_attempt(2, not_sent())),
            True,
            "earlier",
            id="absent long before",
        ),
        pytest.param(replace(unknown(2 * WINDOW), number=2), (an_attempt(1, not_sent()),), True, None, id="not sent"),
        pytest.param(
            replace(unknown(2 * WINDOW), number=2),
            (an_attempt(1, refused(), resubmitted=True),),
            True,
            None,
            id="refused",
        ),
    ],
)
def test_doubts_bar_absence(
    attempt: Attempt, others: tuple[Attempt, ...], identifiers_listed: bool, bar: str | None
) -> None:
    known = Facts(None, (*others, attempt), identifiers_listed)
    assert attempt.claimed_at is not None
    began = attempt.claimed_at + SEARCH + FIRST
    key = attempt.claim.key if attempt.claim is not None else ""
    listings = (after(FIRST, began_at=began, key=key), after(FIRST, began_at=began + MINUTE, key=key))
    assert is_absent(known, attempt, listings, some_settings()) is (bar is None)
    doubt = decisions._no_proof_of_absence(known, attempt)
    assert (doubt is None) if bar is None else (bar in (doubt or ""))


def test_unclaimed_attempt_is_not_absent() -> None:
    for attempt in (replace(unknown(2 * WINDOW), claim=None), replace(unknown(2 * WINDOW), claimed_at=None)):
        assert not is_absent(Facts(None, (attempt,), identifiers_listed=True), attempt, TWO, some_settings())


@pytest.mark.usefixtures("frozen_clock")
@pytest.mark.parametrize(
    ("barred", "given", "identifiers_listed"),
    [
        pytest.param(False, {}, True, id="absence can be proved"),
        pytest.param(True, {}, False, id="identifiers not listed"),
        pytest.param(True, {"accepted_without_id": True}, True, id="accepted_without_id"),
        pytest.param(True, {"number": 2}, True, id="earlier absent"),
    ],
)
def test_search_time_follows_settings(barred: bool, given: dict[str, Any], identifiers_listed: bool) -> None:
    """Half a window more where listings can settle it, because no operator is needed for that."""
    border = SEARCH if barred else SEARCH + WINDOW / 2
    # Where an operator is needed, it is searched for less and less often.
    waits = [(timedelta(0), 30), (border, 30), (border + TICK, 100), (timedelta(hours=1), 360), (DAYS, 900)]
    for age, wait in waits:
        over = age > border
        attempt = replace(unknown(age), **given)
        others = (EARLIER_ABSENT,) if attempt.number == 2 else ()
        decision = decide_at(
            Facts(None, (*others, attempt), identifiers_listed), some_settings(seedance_recovery_seconds=600)
        )
        assert decision.recovery is not None, age
        recovery = decision.recovery.needs_operator, round(decision.recovery.wait_seconds)
        assert (decision.next, *recovery) == ("recover", over, wait), age


# --- for all facts ---------------------------------------------------------------------------------------------------

_task_ids = st.sampled_from("abcde")
_ended = st.lists(st.one_of(st.none(), _task_ids), unique=True, max_size=2)
_outcomes = st.one_of(st.none(), _task_ids.map(created), st.sampled_from([not_sent(), refused(), absent()]))


@st.composite
def some_facts(draw: st.DrawFn) -> Facts:
    """Draw any facts, also impossible ones."""
    attempts = [
        Attempt(
            number=number,
            outcome=draw(_outcomes),
            accepted_without_id=draw(st.booleans()),
            late=tuple(draw(st.lists(_task_ids, unique=True, max_size=2))),
            ends=tuple(an_end(number, ended) for ended in draw(_ended)),
            resubmit_grant=draw(st.sampled_from([None, GRANT])),
        )
        for number in range(1, draw(st.integers(0, 4)) + 1)
    ]
    record = draw(st.sampled_from([None, None, None, a_result("a")]))
    return Facts(record, tuple(attempts))


def open_attempts(attempts: tuple[Attempt, ...]) -> list[Attempt]:
    """Return those that count and lack an end or a resubmit grant."""
    return [a for a in attempts if a.live or (a.counts and (a.end is None or a.resubmit_grant is None))]


def _live(attempt: Attempt) -> set[str]:
    """Return the tasks of an attempt that are not known to have ended."""
    return {*attempt.tasks} - {end.error.task_id for end in attempt.ends}


def assert_no_task_is_dropped(facts: Facts, decision: Decision) -> None:
    """Assert that each known task is followed, stored or ended, or is shown as second task."""
    loose = {task for attempt in facts.attempts for task in _live(attempt)} - {decision.task_id}
    if loose:
        assert decision.second_task in loose
    else:
        assert decision.second_task is None


@given(some_facts())
@settings(max_examples=500)
def test_claim_needs_end_of_counting_attempts(facts: Facts) -> None:
    decision = decide(facts)
    if decision.next == "claim":
        assert facts.record is None
        assert open_attempts(facts.attempts) == []
        assert all(
            a.resubmit_grant is not None
            for a in facts.attempts
            if a.outcome is not None and a.outcome.kind == "refused"
        )
        assert decision.attempt == len(facts.attempts) + 1
    assert (decision.next == "stored") == (facts.record is not None)
    assert (decision.next == "adopt") <= (decision.task_id is not None)
    assert_no_task_is_dropped(facts, decision)


@pytest.mark.parametrize(
    ("attempt", "may_be"),
    [
        (an_attempt(1, not_sent()), False),
        (an_attempt(1, absent().model_copy(update={"source": "list"})), False),
        (an_attempt(1, absent()), True),  # an operator said so, and can be wrong
        (an_attempt(1, A, end="a", resubmitted=True), False),
        (replace(an_attempt(1, resubmitted=True), ends=(an_end(1, None, "lost"),)), True),
    ],
)
def test_claim_says_whether_earlier_attempts_may_be_billed(attempt: Attempt, may_be: bool) -> None:
    decision = decide(Facts(record=None, attempts=(attempt,)))
    assert (decision.next, decision.attempt, decision.may_be_billed) == ("claim", 2, may_be)


class Life(RuleBasedStateMachine):
    """A job along every sequence of events: allowed claims, outcomes, ends, resubmit grants, and late tasks."""

    @initialize()
    def start(self) -> None:
        self.attempts: list[Attempt] = [Attempt(1)]
        self.revived: set[int] = set()  # attempts that counted as absent, and have a task
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
        decision = decide(self.facts)
        assert decision.attempt == len(self.attempts) + 1, "each claim has a number of its own"
        assert open_attempts(tuple(self.attempts)) == []
        self.attempts.append(Attempt(decision.attempt))

    @precondition(lambda self: any(a.outcome is None for a in self.attempts))
    @rule(data=st.data(), kind=st.sampled_from(["created", "refused", "not_sent", "absent"]))
    def outcome(self, data: st.DataObject, kind: str) -> None:
        attempt = self.one(data, *(a for a in self.attempts if a.outcome is None))
        if attempt is not None and not (kind == "absent" and attempt.accepted_without_id):
            of = {"refused": refused(), "not_sent": not_sent(), "absent": absent()}
            if attempt.accepted_without_id or attempt.late:
                self.revived.add(attempt.number)
            self.change(attempt, outcome=of.get(kind) or created(next(self.tasks)))

    @rule(data=st.data())
    def accepted_without_id(self, data: st.DataObject) -> None:
        if (attempt := self.one(data, *self.attempts)) is not None:
            self._revive(attempt)
            self.change(attempt, accepted_without_id=True)

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
        decision = decide(self.facts)
        attempt = self.attempts[decision.attempt - 1]
        self.change(attempt, ends=(*attempt.ends, an_end(decision.attempt, decision.task_id)))

    @precondition(lambda self: decide(self.facts).next == "recover")
    @rule()
    def lost(self) -> None:
        decision = decide(self.facts)
        self.change(self.attempts[decision.attempt - 1], ends=(an_end(decision.attempt, None),))

    @precondition(lambda self: any(a.error is not None and a.resubmit_grant is None for a in self.attempts))
    @rule(data=st.data())
    def again(self, data: st.DataObject) -> None:
        attempt = self.one(data, *(a for a in self.attempts if a.error is not None and a.resubmit_grant is None))
        if attempt is not None:
            self.change(attempt, resubmit_grant=GRANT)

    @invariant()
    def nothing_is_paid_for_that_nobody_asked_for(self) -> None:
        counting = [a for a in self.attempts if a.counts]
        grants = [a for a in counting if a.resubmit_grant is not None]
        assert len(counting) <= 1 + len(grants) + len(self.revived)

    @invariant()
    def no_task_is_dropped(self) -> None:
        assert_no_task_is_dropped(self.facts, decide(self.facts))


Life.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
TestLife = Life.TestCase
