"""The names and messages of the gates: one for each queue of creates, which it holds while no create can succeed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from seedance_temporal.job import Attention, Shape

GATE = "CreateGate"
SIGNAL_REPORTED = "reported"
SIGNAL_PAUSE = "pause"
SIGNAL_UNPAUSE = "unpause"
# To a job: send the create now, as the probe.
SIGNAL_PROBE = "probe"
# Of a gate: the hold that it keeps.
MEMO_HOLD = "hold"
# A gate computes with what it is sent: a signal with other values is none.
_Time = Annotated[AwareDatetime, Field(ge=datetime(2000, 1, 1, tzinfo=UTC), lt=datetime(3000, 1, 1, tzinfo=UTC))]
_Seconds = Annotated[float, Field(gt=0, le=1_000_000_000, allow_inf_nan=False)]
_Text = Annotated[str, Field(max_length=10_000)]


def gate_id(queue: str) -> str:
    """Return the workflow id of the gate of a queue of creates."""
    return f"{queue}-gate"


def probe_queue(queue: str) -> str:
    """Return the queue of the one create that is sent while the queue of creates is held."""
    return f"{queue}-probe"


class GateReport(Shape):
    """How the create of a job behind the gate went.

    Attributes:
        answer: ``closed``: refused for a reason that concerns every create; ``opened``: the provider took it;
            ``unclear``: it says nothing about other creates.
        why: With ``closed``: the provider's code and message.
        attention: With ``closed``: what an operator must settle.
        reset_at: With ``closed``: when a quota is renewed, where the provider says so.
        probe_seconds: Seconds until the first probe, by the settings of the worker.
    """

    job_id: str
    answer: Literal["closed", "opened", "unclear"]
    why: _Text = ""
    attention: Attention | None = None
    reset_at: _Time | None = None
    probe_seconds: _Seconds = 30


class Pause(Shape):
    """An operator's pause.

    Attributes:
        why: The operator's reason; can be empty.
        by: The operator's process, as Temporal names it.
        since: Its beginning.
    """

    why: _Text = ""
    by: _Text = ""
    since: _Time


class Closing(Shape):
    """A refusal that concerns every create, and the next probe.

    Attributes:
        since: The first refusal.
        probe_at: The next probe.
    """

    why: str
    attention: Attention | None = None
    since: AwareDatetime
    probe_at: AwareDatetime


class GateState(Shape):
    """The state of a gate, which each of its runs gives to the next.

    Attributes:
        pause: The pause, while there is one.
        closing: The refusal, while creates are held for one.
        ramp: The step of the ramp after a reopening; None before and after it.
        step_ends: The end of that step; None before its rate is set.
        unproven: The first refusal, while the gate is open again without a create that was taken.
        refused: Probes that were refused since the last one that succeeded.
        probers: Jobs behind the gate that can probe; the first is the next.
        probe_seconds: Seconds until the first probe.
        shares: The share of its configured rate that each queue was set to last; None is all of it.
    """

    pause: Pause | None = None
    closing: Closing | None = None
    ramp: int | None = None
    step_ends: AwareDatetime | None = None
    unproven: AwareDatetime | None = None
    refused: int = 0
    probers: tuple[str, ...] = ()
    probe_seconds: float = 30
    shares: dict[str, float | None] = {}  # noqa: RUF012 - pydantic copies it


class GateInput(Shape):
    """The argument of a gate.

    Attributes:
        state: The state of the run before; for continue-as-new only.
    """

    route: str
    queue: str
    state: GateState = GateState()


class Hold(Shape):
    """Why creates of a queue are held or slowed down.

    Attributes:
        queue: The queue of creates; that of 4k is apart, as the provider counts them apart.
        kind: ``paused`` by an operator; ``closed`` by the provider; ``ramping``: open again, at a rate that rises.
        why: The operator's reason, or the provider's code and message.
        since: Since when.
        by: Who paused it, as Temporal names the process.
        prober: The job whose create is the next probe, or the one under way.
        probe_at: When the next probe is due.
        problem: Why the rate cannot be changed, while Temporal does not let the worker do it.
    """

    queue: str
    kind: Literal["paused", "closed", "ramping"]
    why: str = ""
    since: AwareDatetime
    by: str = ""
    prober: str | None = None
    probe_at: AwareDatetime | None = None
    problem: str = ""

    def __str__(self) -> str:
        """Say it in a sentence or two."""
        problem = f" {self.problem.rstrip('.')}; this is tried again." if self.problem else ""
        return self._cause() + problem

    def _cause(self) -> str:
        why = f": {self.why.rstrip('.')}" if self.why else ""
        since = f"since {self.since:%Y-%m-%d %H:%M} UTC"
        match self.kind:
            case "paused":
                return f"Creates of {self.queue} are paused {since}{f' by {self.by}' if self.by else ''}{why}."
            case "ramping":
                return f"Creates of {self.queue} are open again {since}; their rate rises step by step."
        by = f" by {self.prober}" if self.prober else ""
        next_probe = f" The next try{by} is due at {self.probe_at:%Y-%m-%d %H:%M:%S} UTC." if self.probe_at else ""
        return f"Creates of {self.queue} are held {since}{why}.{next_probe}"
