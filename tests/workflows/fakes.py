"""Fake activities, which give planned answers and record each call; and the answers that tests plan."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.create import CreateInput, CreateResult
from activities.gate import CreateRateInput, ReportCreateInput
from activities.ledger import EndInput, EndResult, OutcomeInput, ReadLedgerInput, ReadLedgerResult, RunContext
from activities.limits import QuotaInput, QuotaResult
from activities.places import CheckInput, CheckResult, TasksInput, TasksResult
from activities.poll import CancelResult, GetTaskInput, Observation
from activities.recover import AbsentInput, AskLaterInput, FollowInput, IdentifyInput, IdentifyResult, ResolveInput
from activities.references import ReferencesInput, ReferencesResult
from activities.store import StoreInput
from activities.task_list import AskListerInput, ListPageInput, Page
from seedance_temporal.contract import SEARCH_ATTRIBUTES, ResolveAnswer
from seedance_temporal.job import JobError, VideoResult
from seedance_temporal.ledger.decisions import Decision, Recovery
from seedance_temporal.ledger.facts import Claim, Listing, Outcome
from seedance_temporal.provider.task import FailureClass, Usage
from tests.support.jobs import a_result
from tests.support.polling import until

TASK = "cgt-20261122-first"
OTHER_TASK = "cgt-20261122-other"
NONCE = "0123456789abcdef0123456789abcdef"
# Longer than any test, so that no wait ends by its timer.
LONG = 3600.0
# The shortest wait that a real server supports.
SHORT = 0.2
RESULT = a_result(TASK, usage=Usage(completion_tokens=40, total_tokens=42))

Answer = Any
"""A model to return, an error to raise, or an async function of the input that does either."""


@dataclass(frozen=True)
class Call:
    """One execution of an activity. ``tries`` is Temporal's own count."""

    name: str
    input: Any
    tries: int


class Held:
    """An answer that is held back until it is released."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._go = asyncio.Event()
        self.reached = asyncio.Event()
        self.cancelled = False

    async def __call__(self, input: Any) -> Any:
        self.reached.set()
        try:
            await self._go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return await _give(self._answer, input)

    def release(self) -> None:
        self._go.set()


async def _give(answer: Answer, input: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return await answer(input) if callable(answer) else answer


def _planned(name: str, takes: type, gives: type | None) -> Callable[..., Awaitable[Any]]:
    """Return an activity of a name and types that gives the planned answers; Temporal converts by its annotations."""

    async def answer(self: FakeActivities, input: Any) -> Any:
        return await self._answer(input)

    answer.__annotations__ = {"input": takes, "return": gives}
    return activity.defn(name=name)(answer)


class FakeActivities:
    """The activities, by the names of the real ones. A call without a planned answer fails the test.

    Attributes:
        search_attributes: The names that the namespace knows.
    """

    def __init__(self) -> None:
        self.search_attributes = tuple(key.name for key in SEARCH_ATTRIBUTES)
        self.calls: list[Call] = []
        self.unexpected: list[str] = []
        self._answers: dict[str, list[Answer]] = {}
        self._for_ever: dict[str, Answer] = {}

    def plan(self, name: str, *answers: Answer) -> None:
        """Plan further answers of an activity, each given once."""
        self._answers.setdefault(name, []).extend(answers)

    def always(self, name: str, answer: Answer) -> None:
        """Set the answer of an activity for after its planned ones."""
        self._for_ever[name] = answer

    def create(self, *answers: Answer, **given: Any) -> None:
        """Plan that a job may claim an attempt, and the answers of its creates."""
        self.plan("read_ledger", claim(**given))
        self.plan("create_task", *answers)

    def follow(self, *answers: Answer, **given: Any) -> None:
        """Plan that a job has a task, and the answers of its polls."""
        self.plan("read_ledger", adopt(**given))
        self.plan("get_task", *answers)

    def finish(self) -> None:
        """Plan a poll that finds the video, and its copy."""
        self.plan("get_task", to_store())
        self.plan("store_video", RESULT)

    def not_ready(self, *answers: Answer) -> None:
        """Plan that a callback is ahead of GET, and the answers of the polls that follow."""
        self.plan("store_video", ApplicationError("it is running", type="NotReady"))
        self.plan("get_task", *answers)

    def find(self) -> None:
        """Plan that a task that is named is ours, and its video."""
        self.plan("identify_task", OURS)
        self.finish()

    def end(self, status: str, of: FailureClass) -> None:
        """Plan a poll that finds an end without a video, and the ledger's agreement."""
        self.plan("get_task", ending(status, of))
        self.plan("write_end", as_written)

    def cancel(self) -> None:
        """Plan that the provider cancels the task."""
        self.plan("cancel_task", CANCELLED)
        self.end("cancelled", "cancelled")

    def names(self) -> list[str]:
        return [call.name for call in self.calls]

    def of(self, name: str) -> list[Call]:
        return [call for call in self.calls if call.name == name]

    def input(self, name: str, index: int = -1) -> Any:
        return self.of(name)[index].input

    async def called(self, name: str, times: int = 1) -> None:
        """Wait until an activity was called this often."""
        await until(lambda: len(self.of(name)) >= times, f"{times} calls of {name}; there were {self.names()}")

    async def _answer(self, input: Any) -> Any:
        info = activity.info()
        name = info.activity_type
        self.calls.append(Call(name, input, info.attempt))
        planned = self._answers.get(name, [])
        if not planned and name not in self._for_ever:
            self.unexpected.append(f"call {len(self.calls)}: {name}")
            raise ApplicationError(f"no answer is planned: {name}", non_retryable=True)
        return await _give(planned.pop(0) if planned else self._for_ever[name], input)

    @activity.defn(name="read_ledger")
    async def read_ledger(self, input: ReadLedgerInput) -> ReadLedgerResult:
        planned: Planned = await self._answer(input)
        usual = {"search_attributes": self.search_attributes, "identifiers_listed": True, "create_seconds": 20}
        context = RunContext.model_validate(usual | planned.context) if input.with_context else None
        decision = Decision.model_validate(planned.model_dump(by_alias=True))
        return ReadLedgerResult(decision=decision, context=context)

    @activity.defn(name="list_page")
    async def list_page(self, input: ListPageInput) -> Page:
        asked_at = now()
        page: Page = await self._answer(input)
        return page.model_copy(update={"asked_at": max(asked_at, page.asked_at)})

    @activity.defn(name="is_key_accepted")
    async def is_key_accepted(self) -> bool:
        accepted: bool = await self._answer(None)
        return accepted

    report_create = _planned("report_create", ReportCreateInput, bool)
    set_create_rate = _planned("set_create_rate", CreateRateInput, None)
    write_outcome = _planned("write_outcome", OutcomeInput, None)
    write_end = _planned("write_end", EndInput, EndResult)
    reserve_quota = _planned("reserve_quota", QuotaInput, QuotaResult)
    check_references = _planned("check_references", ReferencesInput, ReferencesResult)
    create_task = _planned("create_task", CreateInput, CreateResult)
    identify_task = _planned("identify_task", IdentifyInput, IdentifyResult)
    ask_lister = _planned("ask_lister", AskListerInput, Decision)
    settle_absent = _planned("settle_absent", AbsentInput, Decision)
    resolve_attempt = _planned("resolve_attempt", ResolveInput, ResolveAnswer)
    ask_later = _planned("ask_later", AskLaterInput, None)
    follow_known_task = _planned("follow_known_task", FollowInput, None)
    open_tasks = _planned("open_tasks", TasksInput, TasksResult)
    check_places = _planned("check_places", CheckInput, CheckResult)
    get_task = _planned("get_task", GetTaskInput, Observation)
    cancel_task = _planned("cancel_task", GetTaskInput, CancelResult)
    store_video = _planned("store_video", StoreInput, VideoResult)


# Decisions by the ledger


class Planned(Decision):
    """A decision, and what is unusual in the context of a run that begins with it."""

    context: dict[str, Any]


def _decision(following: Any, attempt: int, **given: Any) -> Planned:
    decision = {name: given.pop(name) for name in Planned.model_fields if name in given}
    return Planned(next=following, attempt=attempt, context=given, **decision)


def claim(attempt: int = 1, **given: Any) -> Planned:
    return _decision("claim", attempt, **given)


def adopt(task_id: str = TASK, attempt: int = 1, **given: Any) -> Planned:
    return _decision("adopt", attempt, task_id=task_id, **given)


def stored(**given: Any) -> Planned:
    return _decision("stored", 1, result=RESULT, task_id=TASK, **given)


def recover(
    attempt: int = 1, seconds: float = LONG, *, needs_operator: bool = False, key: str = "", **given: Any
) -> Planned:
    recovery = Recovery(needs_operator=needs_operator, wait_seconds=seconds, key=key)
    return _decision("recover", attempt, recovery=recovery, **given)


def ended(error: JobError, **given: Any) -> Planned:
    return _decision("ended", error.attempt or 0, error=error, **given)


# Results of a create

Create = Callable[[CreateInput], Awaitable[CreateResult]]


def created(task_id: str = TASK, seconds: float = LONG, **given: Any) -> Create:
    outcome = Outcome(kind="created", source="create", at=now(), task_id=task_id)
    return create_result("created", outcome, seconds, **given)


def not_sent(seconds: float = 0, code: str = "ServerOverloaded", **given: Any) -> Create:
    outcome = Outcome(kind="not_sent", source="create", at=now(), code=code, message="busy")
    return create_result("not_sent", outcome, seconds, **{"message": f"{code}: busy"} | given)


def refused(**given: Any) -> Create:
    outcome = Outcome(kind="refused", source="create", at=now(), code="InvalidParameter", message="no")
    return create_result("refused", outcome, message="InvalidParameter no", **given)


def create_result(kind: Any, outcome: Outcome | None = None, seconds: float = 0, **given: Any) -> Create:
    async def answer(input: CreateInput) -> CreateResult:
        claim = Claim(
            job_id=input.job_id,
            attempt=input.attempt,
            nonce=NONCE,
            namespace="default",
            run_id="run",
            claimed_at=now(),
            request=input.request,
        )
        return CreateResult(kind=kind, claim=claim, outcome=outcome, wait_seconds=seconds, **given)

    return answer


# Results of an identification

OURS, OTHER, NOT_YET = (IdentifyResult(answer=answer) for answer in ("ours", "other", "not_yet"))

# Results of a cancel

CANCELLED = CancelResult(outcome="cancelled", status="cancelled")
TOO_LATE = CancelResult(outcome="running_will_finish", status="running")


# Results of a poll


def waiting(status: str = "queued", seconds: float = LONG, **given: Any) -> Observation:
    return Observation(next="wait", status=status, wait_seconds=seconds, **given)


def to_store(within: float = 86_400) -> Observation:
    usage, cost_usd = RESULT.usage, RESULT.cost_usd
    return Observation(next="copy", status="succeeded", usage=usage, cost_usd=cost_usd, copy_within=within)


def ending(status: str, of: FailureClass, **given: Any) -> Observation:
    return Observation(next="write_end", status=status, error=failure(of, code=status), **given)


def failure(of: FailureClass, code: str = "code", task_id: str | None = TASK, attempt: int | None = 1) -> JobError:
    return JobError(code=code, message=f"It ended: {of}.", failure_class=of, task_id=task_id, attempt=attempt)


async def as_written(input: EndInput) -> EndResult:
    """Answer that the end in the ledger is the given one."""
    return EndResult(error=input.error)


async def and_again(input: EndInput) -> EndResult:
    """Answer the same, and that the setting has another attempt left."""
    return EndResult(error=input.error, continues=True)


# Answers of the lister


def a_listing(attempt: int = 1, **given: Any) -> Listing:
    """A complete listing that does not show the attempt, unless `given` says otherwise."""
    usual = {"began_at": now(), "safety_identifier": "", "complete": True, "task_id": None, "unmarked": False}
    return Listing(attempt=attempt, **usual | given)


def now() -> datetime:
    return datetime.now(UTC)
