"""The estimate of when a video is ready, as the commands show it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console, RenderableType

from seedance_temporal.cli.live import LiveJob, table_of
from seedance_temporal.cli.output import document, print_job
from seedance_temporal.job import JobDetail, JobState
from tests.support.jobs import a_request


def a_job(expected_in: float | None = None, **fields: Any) -> JobState:
    """Return a job whose task runs, and should end in so many seconds."""
    now = datetime.now(UTC)
    return JobState(
        job_id="seedance-" + "a" * 64,
        request_hash="a" * 64,
        phase="running",
        route="byteplus",
        started_at=now,
        expected_at=now + timedelta(seconds=expected_in) if expected_in is not None else None,
        **fields,
    )


def drawn(what: RenderableType) -> str:
    console = Console(width=300)
    with console.capture() as captured:
        console.print(what)
    return captured.get()


def test_show_says_when_and_that_it_is_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    job = a_job(90, detail=JobDetail(request=a_request()))
    assert job.expected_at is not None
    print_job(job, names_show=True)
    assert f"expected   {job.expected_at:%Y-%m-%d %H:%M:%S}, an estimate" in capsys.readouterr().out
    assert datetime.fromisoformat(document(job)["expected_at"]) == job.expected_at
    print_job(a_job(detail=JobDetail(request=a_request())), names_show=True)
    assert "expected" not in capsys.readouterr().out


@pytest.mark.parametrize(("seconds", "shown"), [(90.5, "expected in 90 s"), (-5, "expected in 0 s"), (None, "")])
def test_live_line_counts_down(seconds: float | None, shown: str) -> None:
    live = LiveJob()
    live.job = a_job(seconds)
    assert shown in drawn(live)
    assert ("expected" in drawn(live)) == bool(shown)


@pytest.mark.parametrize(("seconds", "shown"), [(90.5, True), (-5, False), (None, False)])
def test_table_leaves_out_estimate_that_is_over(seconds: float | None, shown: bool) -> None:
    text = drawn(table_of([a_job(seconds)]))
    assert "expected in" in text
    assert ("0:01:30" in text) == shown
