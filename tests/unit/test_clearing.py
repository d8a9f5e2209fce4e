"""Failures of activities reach Temporal without secrets, and otherwise unchanged."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

from workers.clearing import ClearedFailures

KEY = "ark-s3cret/key"


class Raising(ActivityInboundInterceptor):
    """An activity that raises."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        try:
            raise RuntimeError(f"https://{KEY}.example.com refused")
        except RuntimeError as inner:
            raise self.error from inner


async def raised_by(error: BaseException) -> BaseException:
    clearing = ClearedFailures((KEY,)).intercept_activity(Raising(error))
    with pytest.raises(BaseException) as raised:  # noqa: PT011 - which one is the question
        await clearing.execute_activity(None)  # type: ignore[arg-type]
    return raised.value


@pytest.mark.parametrize(
    "text",
    [
        f"HTTP 401 at https://{KEY}.evil.example/x",
        f"its URL is https://cdn.example.com/v.mp4?X-Tos-Signature={KEY}",
        repr(ValueError(f"{KEY}\n")),
        "https://cdn.example.com/callbacks/seedance-1/1/0123456789abcdef0123456789abcdef",
    ],
)
async def test_failure_loses_secrets(text: str) -> None:
    for error in (ApplicationError(text, type="StoreFailed"), ValueError(text)):
        cleared = await raised_by(error)
        assert isinstance(cleared, ApplicationError)
        assert KEY not in str(cleared)
        assert "0123456789abcdef" not in str(cleared)
        assert (cleared.__cause__, cleared.__suppress_context__) == (None, True)


async def test_failure_stays_what_it_is() -> None:
    given = ApplicationError(
        "it is gone", {"a": 1}, type="TaskGone", non_retryable=True, next_retry_delay=timedelta(seconds=9)
    )
    cleared = await raised_by(given)
    assert isinstance(cleared, ApplicationError)
    kept = ("message", "details", "type", "non_retryable", "next_retry_delay", "category")
    assert {name: getattr(cleared, name) for name in kept} == {name: getattr(given, name) for name in kept}
    other = await raised_by(KeyError("x"))
    assert isinstance(other, ApplicationError)
    assert (other.type, other.non_retryable) == ("KeyError", False)


@pytest.mark.parametrize("error", [CancelledError("x"), asyncio.CancelledError()])
async def test_cancellation_passes(error: BaseException) -> None:
    assert await raised_by(error) is error


async def test_endless_message_is_cut() -> None:
    assert len(str(await raised_by(ValueError("x" * 10_000_000)))) < 3_000
