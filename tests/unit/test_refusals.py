"""The meaning of the provider's refusals."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedance_temporal.ledger.facts import refusal
from seedance_temporal.provider.refusals import (
    advice_on,
    attention_of,
    can_pass,
    is_for_all,
    reset_of,
    retry_after,
    seconds_until_reset,
)
from tests.support.jobs import refused

QUOTA = "You have exceeded the 5-hour usage quota. It will reset at {} Request id: 021"


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2026-11-30 08:00:00 +0800 CST.", datetime(2026, 11, 30, 0, 0, tzinfo=UTC)),
        ("2026-11-30 08:00:00 +08:00.", datetime(2026, 11, 30, 0, 0, tzinfo=UTC)),
        ("2026-11-30 08:00:00 UTC+8.", datetime(2026, 11, 30, 0, 0, tzinfo=UTC)),
        ("2026-11-30 08:00:00 GMT+08:00", datetime(2026, 11, 30, 0, 0, tzinfo=UTC)),
        ("2026-11-30 08:00:00 +8", datetime(2026, 11, 30, 0, 0, tzinfo=UTC)),
        ("2026-11-30 08:00:00 -0330", datetime(2026, 11, 30, 11, 30, tzinfo=UTC)),
        ("2026-11-30 08:00:00 CST.", datetime(2026, 11, 30, 0, 0, tzinfo=UTC)),
        ("2026-11-30 08:00:00 +99:99", datetime(2026, 11, 26, 3, 21, tzinfo=UTC)),
        ("2026-11-30T08:00:00Z.", datetime(2026, 11, 30, 8, 0, tzinfo=UTC)),
        ("2026-11-30 08:00:00.123456 UTC", datetime(2026, 11, 30, 8, 0, tzinfo=UTC)),
        ("2026-11-30 08:00", datetime(2026, 11, 30, 8, 0, tzinfo=UTC)),
        ("2026-13-30 08:00:00", None),
        ("2026-11-30 25:00:00 UTC", None),
        ("tomorrow", None),
        ("2026-11-30", None),
    ],
)
def test_time_of_reset(time: str, expected: datetime | None) -> None:
    assert reset_of(QUOTA.format(time)) == expected


def test_wait_until_reset_is_bounded() -> None:
    now = datetime.now(UTC)

    def wait(after: timedelta) -> float | None:
        return seconds_until_reset(QUOTA.format((now + after).strftime("%Y-%m-%d %H:%M:%S +0000 UTC")))

    assert wait(timedelta(hours=5)) == pytest.approx(5 * 3600, abs=5)
    assert wait(timedelta(days=400)) == timedelta(days=32).total_seconds()
    assert wait(timedelta(hours=-1)) is None, "what is over says nothing"
    assert seconds_until_reset("The queue is full.") is None


@pytest.mark.parametrize(
    ("status", "code", "message", "attention"),
    [
        (401, "AuthenticationError", "", "credentials"),
        (403, "OperationDenied.ArkAccessRoleNotFound", "", "account"),
        (403, "OperationDenied.TosAccessDenied", "", "account"),
        (429, "SetLimitExceeded", "", "account"),
        (429, "QuotaExceeded", "The free trial is used up.", "account"),
        (429, "QuotaExceeded", "The queue is full.", None),
        (429, "QuotaExceeded", QUOTA.format("2026-11-30 08:00:00 +0800"), "account"),
        (429, "QuotaExceeded.AgentPlanQuotaExceeded", QUOTA.format("2026-11-30 08:00:00 +0800"), "account"),
        (429, "AccountQuotaExceeded", "", "account"),
        (429, "RequestBurstTooFast", "", None),
        (500, "InternalServiceError", "It will reset at 2026-11-30 08:00:00", None),
    ],
)
def test_attention_of_a_refusal(status: int, code: str, message: str, attention: str | None) -> None:
    assert attention_of(status, code, message) == attention


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "30"}, 30),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "1e9"}, None),
        ({"Retry-After": "99999999999999"}, 86_400),
        ({"Retry-After-Ms": "1500"}, 1.5),
        ({"Retry-After-Ms": "1500", "Retry-After": "30"}, 1.5),
        ({"Retry-After-Ms": "soon", "Retry-After": "30"}, 30),
        ({"Retry-After-Ms": "\u0661"}, None),
        ({"X-Should-Retry": "true"}, None),
        ({"X-Should-Retry": "false"}, 60),
        ({"X-Should-Retry": "FALSE", "Retry-After": "5"}, 60),
        ({"X-Should-Retry": "false", "Retry-After": "500"}, 500),
    ],
)
def test_pause_that_is_asked_for(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_pause_by_a_date() -> None:
    at = datetime.now(UTC) + timedelta(minutes=3)
    assert retry_after({"Retry-After": format_datetime(at, usegmt=True)}) == pytest.approx(180, abs=5)


@pytest.mark.parametrize(
    ("code", "message", "passes"),
    [
        ("InvalidParameter", "Resource download failed: content[1].image_url.", True),
        ("InvalidParameter.Image", "Timeout while fetching resource.", True),
        ("InvalidParameter", "The parameter `ratio` is not valid.", False),
        ("InputImageSensitiveContentDetected", "resource download failed", False),
    ],
)
def test_failed_download_can_pass(code: str, message: str, passes: bool) -> None:
    assert can_pass(code, message) == passes
    assert bool(advice_on(code, message)) == passes


@pytest.mark.parametrize(
    ("code", "opens"),
    [("ModelNotOpen", True), ("InvalidEndpointOrModel.NotFound", True), ("InvalidParameter", False)],
)
def test_closed_model_can_be_resubmitted(code: str, opens: bool) -> None:
    error = refusal(3, refused(code))
    assert error.resubmit_could_help == opens
    assert ("a resubmit of attempt 3 is free" in error.message) == opens
    assert error.message.startswith(f"The provider refused the request ({code})")


def test_advice_on_moderation() -> None:
    assert "generate_audio: false" in advice_on("OutputAudioSensitiveContentDetected", "")
    assert "generate_audio" not in advice_on("OutputVideoSensitiveContentDetected", "")
    for code in ("InputImageSensitiveContentDetected", "InputVideoSensitiveContentDetected"):
        assert "asset:// id" in advice_on(f"{code}.PrivacyInformation", "")
        assert advice_on(code, "") == ""


@given(st.text(), st.dictionaries(st.sampled_from(["Retry-After", "Retry-After-Ms", "X-Should-Retry"]), st.text()))
def test_any_answer_has_a_meaning(message: str, headers: dict[str, str]) -> None:
    pause, reset = retry_after(headers), seconds_until_reset(f"It will reset at {message}")
    assert pause is None or 0 <= pause <= 86_400
    assert reset is None or 0 < reset <= timedelta(days=32).total_seconds()
    assert attention_of(429, message, message) in {None, "account"}
    assert isinstance(advice_on(message, message), str)


@pytest.mark.parametrize(
    ("status", "code", "message", "expected"),
    [
        (401, "AuthenticationError", "The API key is missing or invalid.", True),
        (401, "InvalidAccountStatus", "no", True),
        (403, "AccountOverdueError", "Your ModelArk account has an overdue balance.", True),
        (403, "OperationDenied.ServiceOverdue", "no", True),
        (403, "OperationDenied.TosAccessDenied", "no", False),
        (403, "AccessDenied", "no", False),
        (429, "SetLimitExceeded", "The account has reached its limit.", True),
        (429, "SetLimitExceeded", "Your account has reached the limit for the [seedance] model.", False),
        (429, "AccountQuotaExceeded", "no", True),
        (429, "QuotaExceeded", QUOTA.format("2126-11-30 08:00:00 UTC."), True),
        (429, "QuotaExceeded", "The queue is full.", False),
        (429, "RateLimitExceeded", "no", False),
        (429, "ServerOverloaded", "no", False),
        (404, "ModelNotOpen", "no", False),
        (400, "InvalidParameter", "no", False),
    ],
)
def test_refusal_for_all(status: int, code: str, message: str, expected: bool) -> None:
    assert is_for_all(status, code, message) is expected
