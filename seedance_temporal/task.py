"""The provider's task: statuses, payload, and what a failure of it means.

Source: the provider's task API, as GET, LIST and the callback's body show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

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


class _Payload(BaseModel):
    """Part of a payload. Unknown fields are kept: the provider adds some without notice, and the record wants them."""

    model_config = ConfigDict(extra="allow", frozen=True)


class TaskError(_Payload):
    code: str = ""
    message: str = ""


class TaskContent(_Payload):
    video_url: str | None = None
    last_frame_url: str | None = None


class Usage(_Payload):
    """What the provider counted, in tokens."""

    completion_tokens: int | None = None
    total_tokens: int | None = None


class Task(_Payload):
    """A task as the provider shows it. ``created_at`` and ``updated_at`` are Unix seconds."""

    id: str
    status: str
    model: str | None = None
    created_at: int | None = None
    updated_at: int | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    error: TaskError | None = None
    failure_reason: TaskError | str | None = None
    content: TaskContent | None = None
    usage: Usage | None = None
    seed: int | None = None
    ratio: str | None = None
    resolution: str | None = None
    duration: int | None = None
    generate_audio: bool | None = None

    @property
    def failure(self) -> TaskError:
        """The provider's own words for a failure. LIST sometimes says ``failure_reason`` where GET says ``error``."""
        if self.error is not None:
            return self.error
        if isinstance(self.failure_reason, TaskError):
            return self.failure_reason
        return TaskError(code=self.status, message=self.failure_reason or "")


def parse_task(payload: Mapping[str, Any]) -> Task:
    """A payload as a task. Only ``id`` and ``status`` have to be right: a field that came in another form than is
    known counts as absent, because a paid task must stay readable when the provider changes a detail.

    Raises:
        ValueError: It is not a task.
    """
    try:
        return Task.model_validate(payload)
    except ValidationError as error:
        odd = {str(e["loc"][0]) for e in error.errors() if e["loc"]}
        if not odd or odd & {"id", "status"}:
            raise ValueError("the payload is not a task: it has no id, or no status") from None
        return Task.model_validate({name: value for name, value in payload.items() if name not in odd})


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
