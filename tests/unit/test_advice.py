"""The advice of ``unknown_create`` offers only what is accepted, and says what it costs."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from workflows.messages import advice_on_unknown


@pytest.mark.parametrize("cancelled", [True, False])
@pytest.mark.parametrize("accepted", [True, False])
def test_absence_is_offered_only_where_possible(accepted: bool, cancelled: bool) -> None:
    fact, *ways = advice_on_unknown("seedance-1", 2, "LIST has failed", "", accepted=accepted, cancelled=cancelled)
    advice = "\n".join([fact, *ways])
    assert ("--not-created" in advice) != accepted
    assert ("another one is to be paid" in advice) == (not accepted and not cancelled)
    assert ("is not known" in fact) != accepted
    assert "seedance-1 --attempt 2 --task-id ID" in advice
    assert ": LIST has failed." in advice, "in both cases"


def test_operator_learns_what_to_search_for() -> None:
    since = datetime(2026, 11, 22, 12, 30, tzinfo=UTC)
    advice, *_ = advice_on_unknown(
        "seedance-1", 1, "", "", accepted=False, cancelled=False, shows="0123-4567", since=since
    )
    assert "console, by safety_identifier 0123-4567, made after 2026-11-22 12:30:00 UTC, and resolve" in advice


def test_unchecked_task_is_named() -> None:
    unchecked = "Task cgt-1 was named, and could not be checked: 401."
    advice, *_ = advice_on_unknown("seedance-1", 1, "", unchecked, accepted=False, cancelled=False)
    assert "Task cgt-1 was named" in advice
    assert "cannot prove" not in advice
