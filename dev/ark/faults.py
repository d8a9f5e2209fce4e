"""Faults on demand, and the record of each that fired."""

import time
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.requests import Request
from starlette.responses import Response

from .catalog import Route
from .errors import ArkError, gateway_page
from .wire import Close, Drop, wait_while_connected

Operation = Literal["create", "get", "list", "delete", "download", "task"]

_DEFAULT_CODES = {
    "400": "InvalidParameter",
    "401": "AuthenticationError",
    "403": "AccountOverdueError",
    "404": "ResourceNotFound",
    "429": "RateLimitExceeded",
    "500": "InternalServiceError",
}
_PAGES = ("502", "503", "504")
_ANSWERS = (*_DEFAULT_CODES, *_PAGES)

# By something in between, which knows nothing of the envelope.
GATEWAY_PAGES = ("200_page", "400_page", "403_page", "404_page", "429_page")

# What each operation knows. On create, the first tuple fires before a task exists and the second after it does.
BEFORE_COMMIT = (
    "reset_before_commit",
    "hang_before_commit",
    *_ANSWERS,
    *(f"{status}_before_commit" for status in ("500", *_PAGES)),
    *GATEWAY_PAGES,
)
AFTER_COMMIT = (
    "lost_after_commit",
    "hang_after_commit",
    *(f"{status}_after_commit" for status in ("500", *_PAGES)),
    "cut_body",
    "cut_json",
    "no_id",
    "drip",
    "slow",
)
ASKING = (*_ANSWERS, *GATEWAY_PAGES, "other_body", "hang", "reset", "slow")
# What is wrong with the true answer: a request that is refused anyway does not use them up.
ON_ANSWER = ("long_body", "another_task")
DOWNLOAD = (
    *("truncate", "refuse", "not_ready", "404", "html", "reset", "drip", "wrong_length"),
    *("500", "502", "503", "hang"),
)
ENDINGS = ("fail", "expire", "stay_queued", "stay_running", "unknown_status")
KNOWN: dict[Operation, tuple[str, ...]] = {
    "create": (*BEFORE_COMMIT, *AFTER_COMMIT),
    "get": (*ASKING, *ON_ANSWER),
    "list": (*ASKING, "long_body"),
    "delete": ASKING,
    "download": DOWNLOAD,
    "task": (*ENDINGS, "seconds"),
}


class Fault(BaseModel):
    """A fault to arm. Fields that its kind does not use are ignored."""

    model_config = ConfigDict(extra="forbid")

    on: Operation
    fault: str = Field(description="one of KNOWN[on]")
    times: int | None = Field(1, ge=1, description="how often it fires; null: until it is removed")
    skip: int = Field(0, ge=0, description="let this many matching requests pass first")

    route: Route | None = Field(None, description="only on this route")
    task_id: str | None = Field(None, description="only for this task (get, delete, download)")
    contains: str | None = Field(None, description="only for creates whose body contains this text")

    seconds: float | None = Field(None, ge=0, description="how long to hang, to be slow, to drip, to be unknown")
    code: str | None = None
    message: str | None = None
    retry_after: float | None = Field(None, ge=0, description="seconds, for a Retry-After header")
    close: Close = Field("rst", description="how a connection is dropped")
    body: str = Field("{}", description="what other_body answers, with status 200 and as JSON, whether it is or not")
    size: int = Field(16 * 1024 * 1024, ge=0, description="bytes that long_body adds to the answer")
    status: str = Field("reviewing", description="what unknown_status shows")
    queued_seconds: float | None = Field(None, ge=0, description="for `seconds` on a task")
    running_seconds: float | None = Field(None, ge=0, description="for `seconds` on a task")

    @model_validator(mode="after")
    def _is_known(self) -> "Fault":
        if self.fault not in KNOWN[self.on]:
            raise ValueError(f"no fault {self.fault!r} on {self.on}; known: {', '.join(KNOWN[self.on])}")
        return self


class Armed(Fault):
    """A fault with its id and what is left of it."""

    id: int
    fired: int = 0

    def take(self) -> bool:
        """A matching request came: does the fault fire?"""
        if self.skip:
            self.skip -= 1
            return False
        self.fired += 1
        return True

    @property
    def spent(self) -> bool:
        return self.times is not None and self.fired >= self.times


class Firing(BaseModel):
    """One time that a fault fired."""

    fault_id: int
    on: Operation
    fault: str
    time: float  # Unix seconds
    route: Route | None
    task_id: str | None


class Faults:
    """The armed faults, in the order in which they were armed: the first that matches fires."""

    def __init__(self) -> None:
        self.armed: list[Armed] = []
        self.firings: list[Firing] = []
        self._next = 1

    def arm(self, fault: Fault) -> Armed:
        """Arm a fault."""
        armed = Armed(id=self._next, **fault.model_dump())
        self._next += 1
        self.armed.append(armed)
        return armed

    def remove(self, fault_id: int | None = None) -> None:
        """Remove one armed fault, or all. The record of firings stays."""
        self.armed = [armed for armed in self.armed if fault_id is not None and armed.id != fault_id]

    def take(
        self,
        on: Operation,
        names: Iterable[str],
        *,
        route: Route | None = None,
        task_id: str | None = None,
        body: bytes = b"",
    ) -> Armed | None:
        """Return the fault of these names that fires for this request, or None. It counts as fired."""
        for armed in self.armed:
            wanted = (
                armed.on == on
                and armed.fault in names
                and not armed.spent
                and armed.route in (None, route)
                and (armed.task_id is None or armed.task_id == task_id)
                and (armed.contains is None or armed.contains.encode() in body)
            )
            if wanted and armed.take():
                self.firings.append(
                    Firing(
                        fault_id=armed.id,
                        on=on,
                        fault=armed.fault,
                        time=time.time(),
                        route=route,
                        task_id=task_id,
                    )
                )
                return armed
        return None

    def report(self) -> dict[str, Any]:
        """Return the armed faults that can still fire, and all firings."""
        return {
            "armed": [armed.model_dump() for armed in self.armed if not armed.spent],
            "fired": [firing.model_dump() for firing in self.firings],
        }


async def act(fault: Armed, request: Request) -> Response | None:
    """Act as most operations do: refuse, fail, hang, drop. None: continue without a fault.

    Raises:
        ArkError: a refusal in the service's own words.
    """
    name = fault.fault.partition("_")[0]  # when it happens is the caller's business
    if name in _PAGES or fault.fault in GATEWAY_PAGES:
        return gateway_page(int(name))
    if name in _DEFAULT_CODES:
        code = _DEFAULT_CODES[name]
        if fault.on == "create" and name == "404":
            code = "ModelNotOpen"
        raise ArkError(
            int(name),
            fault.code or code,
            fault.message or "A fault that was asked for.",
            retry_after=fault.retry_after,
        )
    match name:
        case "lost" | "reset":
            return Drop(fault.close)
        case "hang":
            await wait_while_connected(request, fault.seconds)
            return Drop(fault.close)
        case "other":
            return Response(fault.body, media_type="application/json")
        case "slow":
            still_there = await wait_while_connected(request, 1 if fault.seconds is None else fault.seconds)
            return None if still_there else Drop()
        case _:
            raise AssertionError(f"{fault.fault} on {fault.on} is not a fault that operations share")
