"""The plan of a campaign of chaos: every event, its job and its time, drawn from a seed before anything starts."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from dev.ark.faults import KNOWN, Operation
from seedance_temporal import VideoRequest
from seedance_temporal.identity import job_id_of
from tests.e2e.requests import a_request

Route = Literal["byteplus", "volcengine"]
ROUTES: tuple[Route, ...] = ("byteplus", "volcengine")
WORKERS: dict[Route, tuple[str, dict[str, str]]] = {
    # One route receives callbacks, the other one only polls.
    "byteplus": ("worker", {}),
    "volcengine": ("worker-polling", {"ARK_ROUTE": "volcengine", "SEEDANCE_CALLBACK_URL": ""}),
}
# These cost a minute of waiting or more: the smoke leaves them out.
SLOW: dict[Operation, tuple[str, ...]] = {"get": ("401", "403"), "delete": ("401", "403")}
SWITCHES: tuple[dict[str, Any], ...] = (
    {"callbacks": "off"},
    {"callbacks": "repeated"},
    {"callbacks": "reversed"},
    {"callbacks": "ends"},
    {"callback_queued": True},
    {"list_order": "shuffled"},
    {"list_order": "oldest"},
    {"list_delay_seconds": 3.0},
    {"list_echo": False},
    {"resign_urls": True},
    {"create_echo": True},
    {"extra_fields": {"nobody": "knows this"}},
)
USUAL: dict[str, Any] = {
    "callbacks": "on",
    "callback_queued": False,
    "list_order": "newest",
    "list_delay_seconds": 0.0,
    "list_echo": True,
    "resign_urls": False,
    "create_echo": False,
    "extra_fields": {},
}


@dataclass(frozen=True)
class Trouble:
    """A fault of the local Ark, armed for one job's create or task, or for the next one on a route."""

    on: Operation
    fault: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Event:
    """An event of a job or of the stack, in seconds from the start (of the job, or of the run)."""

    at: float
    kind: str
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PlannedJob:
    at: float
    request: VideoRequest
    troubles: tuple[Trouble, ...]
    events: tuple[Event, ...]
    resubmit: bool

    @property
    def job_id(self) -> str:
        return job_id_of(self.request)


@dataclass(frozen=True)
class Plan:
    """All that is drawn from the seed."""

    seed: int
    minutes: float
    jobs: tuple[PlannedJob, ...]
    events: tuple[Event, ...]


def make_plan(seed: int, jobs: int, minutes: float, *, quick: bool = False) -> Plan:
    """Draw the faults.

    Args:
        quick: Leave out faults that take minutes to be noticed: killed workers, a restarted server, refused keys.
    """
    draw = random.Random(seed)
    seconds = minutes * 60
    planned = tuple(_plan_job(draw, seed, number, seconds, jobs) for number in range(jobs))
    return Plan(seed, minutes, planned, tuple(_plan_world(draw, seconds, jobs, quick=quick)))


def _plan_job(draw: random.Random, seed: int, number: int, seconds: float, jobs: int) -> PlannedJob:
    prompt = f"A paper boat on a pond, chaos {seed}-{number}."
    request = a_request(
        draw.choice(ROUTES), prompt=prompt, return_last_frame=draw.random() < 0.2, user_id=f"user-{number % 7}"
    )
    troubles = []
    if draw.random() < 0.5:
        # Each kind in its turn, so that even a small run sees many kinds.
        fault = KNOWN["create"][(number + seed) % len(KNOWN["create"])]
        troubles.append(Trouble("create", fault, _fields(draw, "create", fault) | {"contains": prompt}))
    if draw.random() < 0.2:
        fault = draw.choice(KNOWN["task"])
        troubles.append(Trouble("task", fault, _fields(draw, "task", fault) | {"contains": prompt}))
    kinds = {"cancel": 0.08, "terminate": 0.06, "reset": 0.06, "submit": 0.1, "forge": 0.06, "cancel_run": 0.03}
    events = [Event(draw.uniform(0, 8), kind) for kind, share in kinds.items() if draw.random() < share]
    if any(event.kind.startswith("cancel") for event in events) and draw.random() < 0.6:
        # Only queued tasks are deleted.
        troubles.append(Trouble("task", "stay_queued", _fields(draw, "task", "stay_queued") | {"contains": prompt}))
    return PlannedJob(
        at=seconds * 0.6 * number / max(1, jobs),
        request=request,
        troubles=tuple(troubles),
        events=tuple(sorted(events, key=lambda event: event.at)),
        resubmit=draw.random() < 0.5,
    )


def _fields(draw: random.Random, on: Operation, fault: str) -> dict[str, Any]:
    fields: dict[str, Any] = {"close": draw.choice(("rst", "fin"))}
    if on == "task":
        return fields | {"seconds": draw.uniform(1, 4), "queued_seconds": 0.5, "running_seconds": draw.uniform(0, 5)}
    if fault.startswith("hang"):
        fields["seconds"] = draw.choice((3.0, 12.0)) if on == "create" else 3.0
    if fault in {"slow", "drip"}:
        fields["seconds"] = draw.uniform(0.5, 2)
    if fault == "429":
        fields["retry_after"] = draw.choice((None, 0.0, 1.0, 12.0))
    if on == "create" and fault == "400":
        fields["code"] = draw.choice(("InvalidParameter", "InputTextSensitiveContentDetected"))
    return {name: value for name, value in fields.items() if value is not None}


def _plan_world(draw: random.Random, seconds: float, jobs: int, *, quick: bool) -> Iterable[Event]:
    asked: list[Operation] = ["get", "list", "delete", "download"]
    for number in range(max(16, jobs // 3)):
        on = asked[number % len(asked)]
        fault = draw.choice([name for name in KNOWN[on] if not quick or name not in SLOW.get(on, ())])
        fields = _fields(draw, on, fault) | {"times": draw.randint(1, 2)}
        if on != "download":  # the result host serves both routes alike
            fields["route"] = draw.choice(ROUTES)
        yield Event(draw.uniform(0, seconds), "fault", {"on": on, "fault": fault, "fields": fields})
    for _ in range(max(6, int(seconds / 6))):
        yield Event(draw.uniform(0, seconds), "switch", {"switch": draw.choice(SWITCHES)})
    for _ in range(max(2, int(seconds / 20))):
        yield Event(draw.uniform(0, seconds), "foreign", {"route": draw.choice(ROUTES), "count": draw.randint(1, 30)})
        yield Event(draw.uniform(0, seconds), "relay", {"how": draw.choice(("SIGKILL", "SIGTERM"))})
        yield Event(draw.uniform(0, seconds), "worker", {"route": draw.choice(ROUTES), "how": "SIGTERM"})
        name = draw.choice(("bucket", "relay", *(name for name, _ in WORKERS.values())))
        # Shorter than the recovery window: docs/promises.md says why longer freezes are not covered.
        yield Event(draw.uniform(0, seconds), "freeze", {"name": name, "seconds": draw.uniform(2, 8)})
        yield Event(draw.uniform(0, seconds), "pause", {"route": draw.choice(ROUTES)})
    if quick:
        return
    for _ in range(max(2, int(seconds / 20))):
        yield Event(draw.uniform(0, seconds), "worker", {"route": draw.choice(ROUTES), "how": "SIGKILL"})
        standing = draw.choice(("key", "AccountOverdueError", "SetLimitExceeded", "AccessDenied"))
        yield Event(draw.uniform(0, seconds), "account", {"route": draw.choice(ROUTES), "standing": standing})
    yield Event(seconds / 2, "temporal")
