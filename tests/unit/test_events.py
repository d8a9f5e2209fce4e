"""Events of a job, and the sentences made of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter

from seedance_temporal.events import Event, EventName, Timeline, sentence

NOW = datetime(2026, 11, 26, tzinfo=UTC)
TIMELINE: TypeAdapter[tuple[Event, ...]] = TypeAdapter(Timeline)


def an_event(event: EventName = "status", **given: Any) -> Event:
    return Event.model_validate({"at": NOW, "event": event, "source": "poll", "task_id": "cgt-1", "attempt": 2} | given)


@pytest.mark.parametrize("event", get_args(EventName))
def test_every_event_has_a_sentence(event: EventName) -> None:
    text = sentence(an_event(event))
    assert text
    assert "{" not in text
    assert "None" not in text


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (an_event(detail="running"), "provider status: running"),
        (an_event(detail="running", count=3), "provider status (3 times): running"),
        (an_event(detail="a status of {tomorrow}"), "provider status: a status of {tomorrow}"),
        (an_event("task_created"), "attempt 2 created task cgt-1"),
        (an_event("attention_raised", detail="account: overdue"), "operator needed: account: overdue"),
        (an_event("callback_received", detail=""), "callback for task cgt-1"),
    ],
)
def test_sentences(event: Event, text: str) -> None:
    assert sentence(event) == text


def test_repeats_ignore_time_and_count() -> None:
    event = an_event(detail="running")
    assert event.repeats(an_event(detail="running", at=NOW + timedelta(seconds=1), count=4))
    for other in ({"detail": "queued"}, {"source": "callback"}, {"task_id": None}, {"attempt": 3}):
        assert not event.repeats(an_event(**({"detail": "running"} | other)))


def test_unreadable_events_are_left_out() -> None:
    known = an_event(detail="running")
    newer = known.model_dump(mode="json") | {"event": "of_a_newer_version"}
    older = {"at": NOW.isoformat(), "what": "running", "how": "poll"}
    raw = [newer, known.model_dump(mode="json") | {"more": 1}, older, {"anything": True}, None]
    assert TIMELINE.validate_python(raw) == (known,)
    assert TIMELINE.validate_json(TIMELINE.dump_json((known,))) == (known,)
