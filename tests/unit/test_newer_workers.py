"""An older client meets a newer worker: words that it does not know hide no job."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from seedance_temporal.cli.live import table_of
from seedance_temporal.cli.output import exit_code, print_job
from seedance_temporal.job import JobState
from seedance_temporal.provider.billing import is_billed
from seedance_temporal.reports.figures import accounts_of, figures

STATE = {
    "job_id": "seedance-" + "a" * 64,
    "request_hash": "a" * 64,
    "phase": "archived",
    "attention": "new_reason",
    "route": "byteplus",
    "started_at": datetime(2026, 11, 22, tzinfo=UTC).isoformat(),
    "of_a_newer_worker": {"x": 1},
}


def test_unknown_phase_and_attention_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    state = JobState.model_validate(STATE)
    assert (state.phase, state.attention, is_billed(state.phase)) == ("archived", "new_reason", None)
    print_job(state, names_show=True)
    shown = capsys.readouterr().out
    assert "archived" in shown
    assert "new_reason" in shown
    assert exit_code(state) == 4
    assert figures(accounts_of([state])).outcomes == {"open": 1}
    assert table_of([state]).row_count == 1
