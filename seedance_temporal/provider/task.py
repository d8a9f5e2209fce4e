"""The provider's task: statuses, payload, and what a failure of it means.

Source: the provider's task API, as GET, LIST and the callback's body show it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
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

QUEUED = "queued"
RUNNING = "running"
SUCCEEDED = "succeeded"
FAILED = "failed"
EXPIRED = "expired"
CANCELLED = "cancelled"

TERMINAL = frozenset({SUCCEEDED, FAILED, EXPIRED, CANCELLED})

FailureClass = Literal["moderation", "invalid", "provider", "expired", "cancelled", "lost", "unsettled"]
"""Why a job ended without a video.

``moderation`` and ``invalid`` name the request, ``provider`` the service; ``lost`` is a paid video that can no
longer be had, ``unsettled`` a run that was not allowed to claim.
"""


LONGEST_TASK_ID = 512
"""Bytes that a task id can have where it is percent-quoted: it stands in URLs, in names of objects, which have 1,024
bytes, and in search attributes, which have 2,048.
"""

# JSON's numbers are exact up to here, in all languages.
MOST = 2**53
# The last second that a calendar can show.
_END_OF_TIME = 253_402_300_799
_LONGEST_WORD = 200
_LONGEST_MESSAGE = 1000
_LONGEST_URL = 16 * 1024
# Of what the provider adds without notice, so much is kept: characters of JSON, and fields.
_LONGEST_EXTRA = 2000
_MOST_EXTRAS = 50


def is_task_id(text: str) -> bool:
    """Tell whether a text can be a task id. Ids are opaque: any characters, but not too many to be written down."""
    try:
        return 0 < len(text) <= LONGEST_TASK_ID and len(quoted_id(text)) <= LONGEST_TASK_ID
    except UnicodeEncodeError:
        return False


def usable_task_id(text: str) -> str:
    """Check a task id, for a field of a model.

    Raises:
        ValueError: See :func:`is_task_id`.
    """
    if not is_task_id(text):
        raise ValueError("is no task id")
    return text


def quoted_id(task_id: str) -> str:
    """Quote a task id as one part of a path or of an object's name, which nothing takes for a step up.

    Raises:
        UnicodeEncodeError: It holds half a character; see :func:`is_task_id`.
    """
    return task_id.replace(".", "%2E") if task_id in {".", ".."} else quote(task_id, safe="")


def _of_whole_characters(text: str) -> str:
    return text.encode(errors="replace").decode()


def _cut(text: str, length: int) -> str:
    return _of_whole_characters(text[:length])


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a truth value is no number")
    return value


def _or_absent(value: object, handler: ValidatorFunctionWrapHandler) -> Any:
    """One field in another form than is known must not make a paid task unreadable."""
    try:
        return handler(value)
    except ValidationError:
        return None


def _url(text: str) -> str:
    """A URL that is cut leads nowhere."""
    if len(text) > _LONGEST_URL or _of_whole_characters(text) != text:
        raise ValueError("no URL")
    return text


_Word = Annotated[str, AfterValidator(lambda text: _cut(text, _LONGEST_WORD))]
_Message = Annotated[str, AfterValidator(lambda text: _cut(text, _LONGEST_MESSAGE))]
_OR_ABSENT = WrapValidator(_or_absent)
_WordOrNone = Annotated[_Word | None, _OR_ABSENT]
_UrlOrNone = Annotated[Annotated[str, AfterValidator(_url)] | None, _OR_ABSENT]
_Count = Annotated[Annotated[int, BeforeValidator(_no_bool), Field(ge=0, le=MOST)] | None, _OR_ABSENT]
_Seconds = Annotated[Annotated[int, BeforeValidator(_no_bool), Field(ge=0, le=_END_OF_TIME)] | None, _OR_ABSENT]
_Number = Annotated[Annotated[int, BeforeValidator(_no_bool), Field(ge=-MOST, le=MOST)] | None, _OR_ABSENT]


class _Payload(BaseModel):
    """Part of a payload. A known field in another form than is known counts as absent. Unknown fields are kept, where
    they are small: the provider adds some without notice, and the record wants them.
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
    """Whether a value is JSON that can be passed on and written down anywhere."""
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


def _or_empty(value: object, handler: ValidatorFunctionWrapHandler) -> Any:
    try:
        return handler(value)
    except ValidationError:
        return ""


class TaskError(_Payload):
    code: Annotated[_Word, WrapValidator(_or_empty)] = ""
    message: Annotated[_Message, WrapValidator(_or_empty)] = ""


class TaskContent(_Payload):
    video_url: _UrlOrNone = None
    last_frame_url: _UrlOrNone = None


class Usage(_Payload):
    """What the provider counted, in tokens."""

    completion_tokens: _Count = None
    total_tokens: _Count = None


class Task(_Payload):
    """A task as the provider shows it. ``created_at`` and ``updated_at`` are Unix seconds."""

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
    duration: _Count = None
    generate_audio: Annotated[bool | None, _OR_ABSENT] = None

    @property
    def failure(self) -> TaskError:
        """The provider's own words for a failure. LIST sometimes says ``failure_reason`` where GET says ``error``."""
        if self.error is not None:
            return self.error
        if isinstance(self.failure_reason, TaskError):
            return self.failure_reason
        return TaskError(code=self.status, message=self.failure_reason or "")


def parse_task(payload: Mapping[str, Any]) -> Task:
    """Read a payload as a task. Only ``id`` and ``status`` have to be right: a field that came in another form than is
    known counts as absent, because a paid task must stay readable when the provider changes a detail. Texts are cut
    to what a history can hold.

    Raises:
        ValueError: It is not a task.
    """
    try:
        return Task.model_validate(payload)
    except ValidationError:
        raise ValueError("the payload is not a task: it has no id, or no status") from None


def progress(status: str) -> int:
    """How far a status is in a task's life. It never goes back; an unknown one ranks with running."""
    if status in TERMINAL:
        return 2
    return 0 if status == QUEUED else 1


def failure_class(status: str, code: str) -> FailureClass:
    """The class of a task that ended without a video.

    Args:
        status: The terminal status of the task.
        code: The provider's code, or an empty text.
    """
    if status == EXPIRED:
        return "expired"
    if status == CANCELLED:
        return "cancelled"
    return refusal_class(code, otherwise="provider")


def refusal_class(code: str, *, otherwise: FailureClass = "invalid") -> FailureClass:
    """The class of a code that names the request's fault, or else the given one."""
    if "SensitiveContentDetected" in code:
        return "moderation"
    if code.startswith(("InvalidParameter", "MissingParameter")):
        return "invalid"
    return otherwise


def new_attempt_could_help(of: FailureClass) -> bool:
    """Whether the same request, paid for once more, has a chance."""
    return of in {"provider", "expired", "cancelled", "lost"}
