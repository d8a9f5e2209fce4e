"""What `worker.py --check` prints of others' texts."""

from __future__ import annotations

import pytest

from tests.support.jobs import some_settings
from tests.support.memory_bucket import MemoryBucket
from workers.check import _budgets, _tried


async def test_budgets_show_what_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    await _budgets(some_settings(seedance_max_usd_per_day=20.0), MemoryBucket())
    assert capsys.readouterr().out == (
        "used or reserved: 0.0000 USD of 20.0000 USD today: the day's budget of the account byteplus\n"
    )


async def test_failures_do_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    async def fail() -> None:
        raise RuntimeError("\x1b[2K\x1b[1A\x1b[32mprovider: ok\nprovider: ok \x1b]52;c;eA==\x07 the-secret-of-a-worker")

    assert not await _tried("provider", fail(), ("the-secret-of-a-worker",))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("provider: FAILED: ")
    assert "\x1b" not in line
    assert "the-secret-of-a-worker" not in line
