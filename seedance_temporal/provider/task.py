"""The provider's task: its statuses, its payload, and the class of its failure.

Source: the provider's task API, by the answers of GET and LIST and by the body of callbacks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

# How long the URL of a result lives, from the success on.
RESULT_URL_LIFE = timedelta(hours=24)
# How long the provider shows a task.
PROVIDER_FORGETS_AFTER = timedelta(days=7)

QUEUED = "queued"
RUNNING = "running"
SUCCEEDED = "succeeded"
FAILED = "failed"
EXPIRED = "expired"
CANCELLED = "cancelled"

TERMINAL = frozenset({SUCCEEDED, FAILED, EXPIRED, CANCELLED})
# What gateways in front of the provider write in place of its statuses. A word for a failure is left unknown, which
# calls an operator: it would end a job whose task may go on.
_MEANT = {
    **dict.fromkeys(("pending", "submitted", "waiting", "in_queue"), QUEUED),
    **dict.fromkeys(("processing", "in_progress", "in-progress", "generating", "executing"), RUNNING),
    **dict.fromkeys(("completed", "complete", "success", "successful", "succeed", "finished", "done"), SUCCEEDED),
    "canceled": CANCELLED,
}

FailureClass = Literal["moderation", "invalid", "provider", "expired", "cancelled", "lost", "unsettled"]
"""Why a job ended without a video.

``moderation`` and ``invalid`` name the request, ``provider`` the service; ``lost``: a video may be billed, and can no
longer be had; ``unsettled``: the run ended before the outcome was known.
"""

LONGEST_TASK_ID = 512
"""The most bytes of a task id, percent-quoted. It is part of URLs, of object names (1,024 bytes) and of search
attributes (2,048 bytes).
"""

# JSON's numbers are exact up to here, in all languages.
MOST = 2**53
# The last second that a calendar can show.
_END_OF_TIME = 253_402_300_799
_LONGEST_WORD = 200
_LONGEST_MESSAGE = 1000
_LONGEST_URL = 16 * 1024
# Limits of fields that the provider adds without notice: characters of JSON, and fields.
_LONGEST_EXTRA = 2000
_MOST_EXTRAS = 50


def is_task_id(text: str) -> bool:
    """Return whether a text can be a task id. Ids are opaque: any characters, up to a length that can be stored."""
    try:
        return 0 < len(text) <= LONGEST_TASK_ID and len(quoted_id(text)) <= LONGEST_TASK_ID
    except UnicodeEncodeError:
        return False


def usable_task_id(text: str) -> str:
    """Check a task id, as a validator of pydantic."""
    if not is_task_id(text):
        raise ValueError("is no task id")
    return text


def quoted_id(task_id: str) -> str:
    """Quote a task id, for which :func:`is_task_id` is true, as one part of a path or of an object's name."""
    return task_id.replace(".", "%2E") if task_id in {".", ".."} else quote(task_id, safe="")


def _cut(text: str, length: int) -> str:
    """Cut a text, and replace its half characters."""
    return text[:length].encode(errors="replace").decode()


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a truth value is no number")
    return value


def _or(default: str | None) -> WrapValidator:
    """Read a field of an unknown form as absent: it must not make a paid task unreadable."""

    def read(value: object, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            return default

    return WrapValidator(read)


def _url(text: str) -> str:
    """Refuse a URL that would have to be cut."""
    if _cut(text, _LONGEST_URL) != text:
        raise ValueError("no URL")
    return text


_Word = Annotated[str, AfterValidator(lambda text: _cut(text, _LONGEST_WORD))]
_Message = Annotated[str, AfterValidator(lambda text: _cut(text, _LONGEST_MESSAGE))]
_OR_ABSENT = _or(None)
_WordOrNone = Annotated[_Word | None, _OR_ABSENT]
_UrlOrNone = Annotated[Annotated[str, AfterValidator(_url)] | None, _OR_ABSENT]
_Int = Annotated[int, BeforeValidator(_no_bool)]
_Count = Annotated[Annotated[_Int, Field(ge=0, le=MOST)] | None, _OR_ABSENT]
_Seconds = Annotated[Annotated[_Int, Field(ge=0, le=_END_OF_TIME)] | None, _OR_ABSENT]
_Length = Annotated[Annotated[_Int | float, Field(ge=0, le=_END_OF_TIME)] | None, _OR_ABSENT]
_Number = Annotated[Annotated[_Int, Field(ge=-MOST, le=MOST)] | None, _OR_ABSENT]


class _Payload(BaseModel):
    """Part of a payload. A known field of an unknown form counts as absent. Small unknown fields are kept: the provider
    adds some without notice, and the record holds them.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _small_extras(cls, payload: object) -> object:
        if not isinstance(payload, Mapping):
            return payload
        known = {name: value for name, value in payload.items() if name in cls.model_fields}
        extras = {name: value for name, value in payload.items() if name not in known and _is_small({name: value})}
        return known | dict(list(extras.items())[:_MOST_EXTRAS])


def _is_small(value: object) -> bool:
    """Return whether a value is JSON that any language can read, and short."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
        return len(text) <= _LONGEST_EXTRA and _in_bounds(value)
    except (ValueError, TypeError, RecursionError):
        return False


def _in_bounds(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(name, str) for name in value) and all(map(_in_bounds, value.values()))
    if isinstance(value, list):
        return all(map(_in_bounds, value))
    return not isinstance(value, int | float) or abs(value) <= MOST


class TaskError(_Payload):
    code: Annotated[_Word, _or("")] = ""
    message: Annotated[_Message, _or("")] = ""


class TaskContent(_Payload):
    video_url: _UrlOrNone = None
    last_frame_url: _UrlOrNone = None


class Usage(_Payload):
    """The tokens that the provider counted. It counts searches of the web in ``tool_usage``, which is kept as it is."""

    completion_tokens: _Count = None
    total_tokens: _Count = None


class Task(_Payload):
    """The provider's payload of a task. ``created_at`` and ``updated_at`` are Unix seconds."""

    id: Annotated[str, AfterValidator(usable_task_id)]
    status: _Word
    model: _WordOrNone = None
    created_at: _Seconds = None
    updated_at: _Seconds = None
    safety_identifier: _WordOrNone = None
    service_tier: _WordOrNone = None
    error: Annotated[TaskError | None, _OR_ABSENT] = None
    failure_reason: Annotated[TaskError | _Message | None, _OR_ABSENT] = None
    content: Annotated[TaskContent | None, _OR_ABSENT] = None
    usage: Annotated[Usage | None, _OR_ABSENT] = None
    seed: _Number = None
    ratio: _WordOrNone = None
    resolution: _WordOrNone = None
    duration: _Length = None
    generate_audio: Annotated[bool | None, _OR_ABSENT] = None
    draft: Annotated[bool | None, _OR_ABSENT] = None

    @property
    def failure(self) -> TaskError:
        """The provider's own error. LIST sometimes names it ``failure_reason`` where GET has ``error``."""
        if self.error is not None:
            return self.error
        if isinstance(self.failure_reason, TaskError):
            return self.failure_reason
        return TaskError(code=self.status, message=self.failure_reason or "")


def parse_task(payload: Mapping[str, Any]) -> Task:
    """Read a payload as a task. Only ``id`` and ``status`` are required: another field of an unknown form counts as
    absent, because a paid task must stay readable when the provider changes a detail. Texts are cut to a length that
    a history can hold.

    A gateway's word for a status is translated. A task with an unknown status that shows its video has succeeded.

    Raises:
        ValueError: It is not a task.
    """
    try:
        task = Task.model_validate(payload)
    except ValidationError:
        raise ValueError("the payload is not a task: it has no id, or no status") from None
    status = known_status(task.status)
    shows_video = task.content is not None and task.content.video_url is not None
    if shows_video and status not in TERMINAL | {QUEUED, RUNNING}:
        status = SUCCEEDED
    return task if status == task.status else task.model_copy(update={"status": status})


def known_status(word: str) -> str:
    """Return the provider's status that a gateway's word means; any other word as it is."""
    lower = word[:_LONGEST_WORD].strip().lower()
    return lower if lower in TERMINAL | {QUEUED, RUNNING} else _MEANT.get(lower, word)


def rank(status: str) -> int:
    """Rank a status in a task's life, which never goes back: 0 queued, 1 running or unknown, 2 ended."""
    if status in TERMINAL:
        return 2
    return 0 if status == QUEUED else 1


def failure_class(status: str, code: str) -> FailureClass:
    """Classify a task that ended without a video, by its terminal status and the provider's code, if any."""
    if status == EXPIRED:
        return "expired"
    if status == CANCELLED:
        return "cancelled"
    return refusal_class(code, otherwise="provider")


def refusal_class(code: str, *, otherwise: FailureClass = "invalid") -> FailureClass:
    """Classify a code that blames the request; the class of any other code is given."""
    if "SensitiveContentDetected" in code:
        return "moderation"
    if code.startswith(("InvalidParameter", "MissingParameter")):
        return "invalid"
    return otherwise


def new_attempt_could_help(of: FailureClass) -> bool:
    """Return whether another attempt of the same request could succeed."""
    return of in {"provider", "expired", "cancelled", "lost"}
