"""What `worker.py --check` prints of others' texts."""

from __future__ import annotations

import pytest

from workers.check import _tried


async def test_failures_do_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    async def fail() -> None:
        raise RuntimeError("\x1b[2K\x1b[1A\x1b[32mprovider: ok\nprovider: ok \x1b]52;c;eA==\x07 the-secret-of-a-worker")

    assert not await _tried("provider", fail(), ("the-secret-of-a-worker",))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("provider: FAILED: ")
    assert "\x1b" not in line
    assert "the-secret-of-a-worker" not in line
