"""Fixed scripts, which always run. Each is the smallest one that found some broken edit of the workflow."""

from __future__ import annotations

from tests.model.script import Script

SITUATIONS = {
    "a written-off task is named before the next create": Script(
        moves=(
            ("callbacks", "lost"),
            ("creates", "lost_after"),
            ("creates", "429_later"),
            ("list", "down"),
            ("submit", 0),
            ("pass", 700),
            ("resolve", 0, "not_created"),
            ("hide", 0, 20),
            ("callback", 0, "running"),
            ("pass", 200),
        ),
    ),
    "a second task is named before the first one ends": Script(
        moves=(
            ("callbacks", "lost"),
            ("creates", "two_tasks"),
            ("submit", 0),
            ("pass", 5),
            ("hide", 1, 3),
            ("task", 0, "failed"),
            ("callback", 1, "running"),
            ("callback", 0, "failed"),
            ("pass", 700),
        ),
    ),
    "a task is found after a later attempt was not sent": Script(
        moves=(
            ("callbacks", "lost"),
            ("creates", "lost_after"),
            ("creates", "429_later"),
            ("list", "down"),
            ("submit", 0),
            ("pass", 700),
            ("resolve", 0, "not_created"),
            ("pass", 10),
            ("callback", 0, "running"),
            ("pass", 200),
        ),
    ),
    "a reset sends a create again over a task that was found": Script(
        moves=(
            ("callbacks", "lost"),
            ("creates", "lost_after"),
            ("list", "down"),
            ("submit", 0),
            ("pass", 700),
            ("dies", "create_task", 0),
            ("resolve", 0, "not_created"),
            ("pass", 5),
            ("callback", 0, "running"),
            ("pass", 5),
            ("reset", 0, 92),
            ("pass", 200),
        ),
    ),
    "an outcome cannot be written": Script(
        moves=(
            ("callbacks", "lost"),
            ("bucket", "refuses_outcomes"),
            ("submit", 0),
            ("pass", 30),
            ("bucket", "fine"),
            ("task", 0, "failed"),
        ),
    ),
    "a second task is named after the end": Script(
        moves=(
            ("callbacks", "lost"),
            ("creates", "two_tasks"),
            ("submit", 0),
            ("pass", 5),
            ("task", 0, "failed"),
            ("pass", 400),
            ("callback", 1, "running"),
            ("pass", 200),
        ),
    ),
    "GET fails for hours": Script(moves=(("submit", 0), ("get", "500"), ("task", 0, "running"), ("pass", 8_000))),
    "a lost answer": Script(moves=(("creates", "lost_after"), ("submit", 0), ("pass", 700))),
    "a reset while the answer is awaited": Script(
        moves=(
            ("creates", "callback_first"),
            ("submit", 0),
            ("pass", 3),
            ("reset", 0, 0),
            ("pass", 3),
            ("reset", 0, 99),
        ),
        single_batch=True,
        evicts=True,
    ),
    "a task is named in an outage that outlasts a run": Script(
        moves=(
            ("callbacks", "lost"),
            ("creates", "lost_after"),
            ("list", "down"),
            ("submit", 0),
            ("pass", 700),
            ("get", "500"),
            ("callback", 0, "running"),
            ("pass", 20_000),
            ("get", "fine"),
            ("pass", 2_000),
        ),
        renew_after=120,
    ),
    "two runs of a job": Script(
        moves=(
            ("creates", "created_slowly"),
            ("submit", 0),
            ("submit", 1),
            ("pass", 30),
            ("terminate", 0),
            ("submit", 0),
        ),
        renew_after=40,
    ),
}
