"""The meaning of the provider's refusals: who must act, when to ask again, and what to change.

Source: the provider's task API, section "errors".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from seedance_temporal.job import Attention

_LONGEST_PAUSE = 86_400.0
# A plan's quota is renewed within a month.
_LONGEST_RESET = timedelta(days=32)
# Where the provider asks a client not to send again at once.
_PAUSE_IF_ASKED = 60.0
_TRIAL = "trial"
# Not the provider's own name, ModelArk.
_NAMES_MODEL = re.compile(r"\b(model|endpoint)s?\b", re.IGNORECASE)
_CLOSED_ACCOUNT = ("AccountOverdueError", "OperationDenied.Service")
_RESET = re.compile(
    r"reset at (\d{4}-\d{2}-\d{2})[ T](\d{2}:\d{2}(?::\d{2})?)(?:\.\d{1,9})?\s?"
    r"(?:(Z|CST)\b|(?:UTC|GMT)?([+-]\d{1,2})?(?::?(\d{2}))?\b)",
    re.IGNORECASE,
)
_CHINA = 8
_NUMBER = re.compile(r"[0-9]{1,30}(\.[0-9]{1,9})?")
_DOWNLOAD_FAILED = ("resource download failed", "timeout while fetching resource", "failed to download")


def attention_of(status: int, code: str, message: str) -> Attention | None:
    """Return the attention that a refusal needs: for key and account an operator acts, load and rates pass alone."""
    if status == 401:
        return "credentials"
    used_up = code.startswith("QuotaExceeded") and _TRIAL in message.lower()
    if status == 403 or code.startswith(("SetLimitExceeded", "AccountQuotaExceeded")) or used_up:
        return "account"
    return "account" if status == 429 and reset_of(message) is not None else None


def is_for_all(status: int, code: str, message: str) -> bool:
    """Return whether a refusal of one create says that every other would be refused as well.

    A refused key does, an account that is overdue, and a quota or a spending cap that is used up. What a permission, a
    storage role, or a message that names a model is about, is not known: another create can pass, and must not wait.
    429s for the rate or the load do so only in a row: :class:`activities.create.CreateActivities` counts them.
    """
    if status == 401:
        return True
    if _NAMES_MODEL.search(message):
        return False
    if status == 403:
        return code.startswith(_CLOSED_ACCOUNT)
    return status == 429 and attention_of(status, code, message) is not None


def reset_of(message: str) -> datetime | None:
    """Return when a quota is renewed, by the words "It will reset at …", as UTC where they name no zone."""
    match = _RESET.search(message)
    if match is None:
        return None
    day, clock, zone, hours, minutes = match.groups()
    east = _CHINA if (zone or "").upper() == "CST" else int(hours or 0)
    offset = timedelta(hours=east, minutes=int(minutes or 0) * (-1 if (hours or "")[:1] == "-" else 1))
    try:
        return (datetime.fromisoformat(f"{day}T{clock}") - offset).replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def seconds_until_reset(message: str) -> float | None:
    """Return the seconds until a quota is renewed, a month at most; None where the message names no time to come."""
    at = reset_of(message)
    seconds = (at - datetime.now(UTC)).total_seconds() if at is not None else 0.0
    return min(seconds, _LONGEST_RESET.total_seconds()) if seconds > 0 else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that an answer asks to wait, a day at most; None where it does not.

    Read are the headers that the official SDKs obey: ``Retry-After-Ms``, ``Retry-After`` in either form of HTTP, and
    ``X-Should-Retry``.
    """
    asked = _named_pause(headers)
    if headers.get("X-Should-Retry", "")[:8].lower() == "false":
        return max(asked or 0.0, _PAUSE_IF_ASKED)
    return asked


def _named_pause(headers: Mapping[str, str]) -> float | None:
    milliseconds, value = headers.get("Retry-After-Ms", "")[:64], headers.get("Retry-After", "")[:64]
    if _NUMBER.fullmatch(milliseconds):
        return min(_LONGEST_PAUSE, float(milliseconds) / 1000)
    if _NUMBER.fullmatch(value):
        return min(_LONGEST_PAUSE, float(value))
    try:
        seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(_LONGEST_PAUSE, max(0.0, seconds))


def can_pass(code: str, message: str) -> bool:
    """Return whether a refused create can pass unchanged: the provider could not download a reference."""
    return code.startswith("InvalidParameter") and any(words in message.lower() for words in _DOWNLOAD_FAILED)


def is_closed_model(code: str) -> bool:
    """Return whether a refused create can pass unchanged once the account, or the key, may use the model."""
    return code.startswith(("ModelNotOpen", "InvalidEndpointOrModel"))


def advice_on(code: str, message: str) -> str:
    """Return what to change after a refusal or a failed task, in a sentence; empty where nothing is known of it."""
    if can_pass(code, message):
        return "Check that the host of the reference answers everybody."
    if code.startswith("OutputAudioSensitiveContentDetected"):
        return "The sound was refused: the same request with generate_audio: false may pass."
    if "PrivacyInformation" in code:
        return (
            "Real faces pass in three ways alone: as an asset:// id that the account is authorised for, as an own "
            "Seedance video of the last 30 days, byte for byte, or as the last frame of one."
        )
    return ""
