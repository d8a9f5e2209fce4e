"""The result of a paid POST."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from seedance_temporal.job import Attention
from seedance_temporal.provider.task import FailureClass


@dataclass(frozen=True)
class CreateAnswer:
    """The result of one POST.

    Attributes:
        kind: ``created`` with a task id; ``refused`` for good; ``not_sent``: no task exists, and another POST is safe;
            ``accepted_without_id``: a task was accepted, and its id could not be read or used; ``unknown``: a task may
            exist.
        code: The provider's code, or ours in snake case.
        message: The provider's message, or ours; without secrets, and short, as the code is.
        task_id: With ``created``.
        failure_class: With ``refused``.
        attention: With ``not_sent``, where an operator must act.
        passing: With ``refused``: whether the same request can pass a few minutes later.
        retry_after: Seconds, where the provider names them.
        reset_in: Seconds until a quota is renewed, where the provider names that time.
        for_all, over_rate: With ``not_sent``: whether all creates are refused; whether by a 429 for rate or load.
    """

    kind: Literal["created", "refused", "not_sent", "accepted_without_id", "unknown"]
    code: str = ""
    message: str = ""
    task_id: str | None = None
    failure_class: FailureClass | None = None
    attention: Attention | None = None
    passing: bool = False
    retry_after: float | None = None
    reset_in: float | None = None
    for_all: bool = False
    over_rate: bool = False

    @property
    def reached_nobody(self) -> bool:
        """Whether there was no connection, so that the create counts against no rate."""
        return (self.kind, self.code) == ("not_sent", "not_connected")
