"""Jobs of every path, each through an outage that begins at any of its requests.

A healthy run of a path counts its requests to bucket, provider and result host. Each of them is a point at which an
outage can begin; so a step that is added to the workflow is covered by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError

from seedance_temporal import contract
from seedance_temporal.contract import Resolve, TaskChanged
from seedance_temporal.events import Event
from seedance_temporal.job import Attention, JobError, JobState
from tests.faults.simulated import (
    MAY_EXIST,
    Life,
    SimulatedBucket,
    SimulatedProvider,
    SimulatedTask,
    Trouble,
    simulated_now,
)
from tests.model.client import ModelClient
from tests.support.jobs import detail_of

HOUR = timedelta(hours=1)
# A step is tried once a minute, and ends within another.
SLACK = timedelta(minutes=2)
MOST_EVENTS = 2_000
MOST_BYTES = 2_000_000
MOST_DOWNLOADS = 120
# Of a longer timeline, the middle is left out.
WHOLE_TIMELINE = 100
# Requests that no step waits for, by a part of their labels.
_BESIDE = ("identify_task", "task times")


@dataclass(frozen=True)
class Path:
    """A way through a job's life.

    Attributes:
        provider: What is special about its provider.
        calls_back: Seconds after its creation at which the provider calls back, with its status.
        is_cancelled: Whether the caller cancels it, while it is polled first.
        resolves: Whether an operator adopts its task.
        foreign: Whether a callback names a task of somebody else as well.
        lists: Whether LIST is known to show identifiers, so that absence can be proven.
        ends: The class of its failure, or None where it ends with a video.
    """

    name: str
    provider: dict[str, Any] = field(default_factory=dict)
    calls_back: float | None = None
    is_cancelled: bool = False
    resolves: bool = False
    foreign: bool = False
    lists: bool = True
    ends: str | None = None


UNLISTED = {"listed_after": 1e9}
PATHS = {
    path.name: path
    for path in (
        Path("called back", calls_back=100, foreign=True),
        Path("polled"),
        Path("failed", {"end": "failed"}, ends="provider"),
        Path("cancelled", {"runs_after": 40 * 3600, "ends_after": 41 * 3600}, is_cancelled=True, ends="cancelled"),
        Path("found by LIST", {"answering": "unknown, exists"}),
        Path("found by callback", {"answering": "unknown, exists"} | UNLISTED, calls_back=1200, lists=False),
        Path("proven absent", {"answering": "unknown, absent"}),
        Path("resolved", {"answering": "unknown, exists"} | UNLISTED, resolves=True, lists=False),
    )
}


@dataclass
class Job:
    """A job after its end, with all that it left.

    Attributes:
        callbacks: The times at which callbacks were sent.
        answers: What an operator was told, who resolved the attempt.
        raised: Each Attention that was raised: when, which, and in which words.
    """

    path: Path
    state: JobState
    error: JobError | None
    trouble: Trouble | None
    life: Life
    provider: SimulatedProvider
    bucket: SimulatedBucket
    callbacks: list[datetime]
    answers: list[str]
    raised: list[tuple[datetime, str, str]]
    histories: list[tuple[int, int]]
    closed_at: datetime

    @property
    def timeline(self) -> tuple[Event, ...]:
        return detail_of(self.state).timeline

    def check_spending(self) -> None:
        """Check that nothing was paid for twice: a POST after one that may have created a task needs its absence."""
        may_exist = [p for p in self.provider.posts if p.answered in MAY_EXIST | {"created", "unknown, exists"}]
        absent = [n for n in self.bucket.inner.contents if n.endswith("outcome.json") and self._kind(n) == "absent"]
        assert len(self.provider.tasks) <= 1, f"two tasks: {self.provider.posts}"
        unknown = len(may_exist) + sum(p.answered == "unknown, absent" for p in self.provider.posts)
        assert unknown <= 1 + len(absent), f"a POST after an unknown one: {self.provider.posts}"

    def _kind(self, name: str) -> str | None:
        return self.bucket.inner.stored[name].kind

    def check_end(self, *, lost: bool = False, refused: bool = False) -> None:
        """Check how it ended, and that nothing of the trouble is left."""
        ends = "lost" if lost else "invalid" if refused else self.path.ends
        assert (self.error.failure_class if self.error is not None else None) == ends, self.error
        assert self.state.attention is None
        assert all(len_ < MOST_EVENTS and size < MOST_BYTES for len_, size in self.histories), self.histories
        assert self.provider.downloads <= MOST_DOWNLOADS
        if ends is None:
            assert any(name.endswith("/record.json") for name in self.bucket.inner.contents)

    def check_attention(self, kinds: set[Attention], cause: str) -> None:
        """Check that an operator was called within the hour, in words that name the cause, if it lasted so long.

        A callback's question is asked beside the job's next step, and task times are a help: no job waits for either.
        """
        assert self.trouble is not None
        began = next((at for at, label in self.trouble.failed if not any(of in label for of in _BESIDE)), None)
        if began is None or self.closed_at - began < HOUR + SLACK:
            return
        assert self.raised, f"no Attention; {[(e.at - began, e.event, e.detail) for e in self.timeline]}"
        at, kind, _ = self.raised[0]
        assert kind in kinds, self.raised
        assert at - began <= HOUR + SLACK, f"the Attention came after {at - began}"
        told = [words for _, _, words in self.raised] + self.answers
        assert any(cause in words for words in told), f"{cause!r} is not named in {told}"

    def check_callbacks(self) -> None:
        """Check that each callback was taken in, where the timeline is so short that it holds all of them."""
        received = [event for event in self.timeline if event.event == "callback_received"]
        is_whole = len(self.timeline) < WHOLE_TIMELINE
        assert not is_whole or sum(event.count for event in received) >= len(self.callbacks), self.callbacks


class Errands:
    """What others do during a job's life: the provider's callbacks, the caller's cancel, the operator's resolution."""

    def __init__(self, client: Client | ModelClient, path: Path, job_id: str, provider: SimulatedProvider) -> None:
        self._path = path
        self._handle: Any = client.get_workflow_handle(job_id)
        self._provider = provider
        self._task: SimulatedTask | None = None
        self._resolving: asyncio.Task[None] | None = None
        self._resolve_at: datetime | None = None
        self._called_back = False
        self._cancelled = False
        self.callbacks: list[datetime] = []
        self.answers: list[str] = []
        self.failed: list[str] = []

    async def after_post(self, task: SimulatedTask | None) -> None:
        self._task = self._task or task
        if self._path.foreign and not self.callbacks:
            await self._call_back("cgt-foreign", "succeeded", 1, simulated_now())
        if self._path.resolves:
            self._resolve_at = simulated_now() + timedelta(minutes=30)

    async def run(self, now: datetime | None = None) -> None:
        """Do what is due. ``now``: by default, the time of the activity that asks."""
        polls = now is None and activity.info().activity_type == "get_task"
        now, task = now or simulated_now(), self._task
        if self._path.is_cancelled and not self._cancelled and polls:
            # Not during the create: this server mistakes the end of an activity whose cancel was requested.
            self._cancelled = True
            await self._handle.cancel()
        due = self._path.calls_back
        is_due = due is not None and task is not None and now >= task.created_at + timedelta(seconds=due)
        if is_due and not self._called_back:
            assert task is not None
            self._called_back = True
            await self._call_back(task.id, task.status(now), task.attempt, now)
        if self._resolve_at is not None and now >= self._resolve_at and self._resolving is None:
            self._resolve_at = now + timedelta(minutes=30)
            self._resolving = asyncio.create_task(self._resolve())

    async def _call_back(self, task_id: str, status: str, attempt: int, now: datetime) -> None:
        self.callbacks.append(now)
        try:
            await self._handle.signal(
                contract.SIGNAL_TASK_CHANGED, TaskChanged(task_id=task_id, status=status, attempt=attempt)
            )
        except RPCError as error:
            self.failed.append(f"the callback was not taken: {error}")

    async def _resolve(self) -> None:
        assert self._task is not None
        resolution = Resolve(
            id=f"{self._resolve_at}", attempt=self._task.attempt, action="adopt", task_id=self._task.id
        )
        asked = contract.QUERY_RESOLUTION, resolution.id
        try:
            await self._handle.signal(contract.SIGNAL_RESOLVE, resolution)
            while (answer := await self._handle.query(*asked, result_type=contract.ResolveAnswer | None)) is None:
                await asyncio.sleep(1)
            self.answers.append(answer.message)
            if answer.accepted:
                self._resolve_at = None
        except Exception as error:
            self.failed.append(f"the resolution was not taken: {error!r}")
        finally:
            self._resolving = None


def raised_in(timeline: Iterable[Event]) -> list[tuple[datetime, str, str]]:
    """Return each Attention that a timeline shows: when it was raised, which, and in which words."""
    raised = [event for event in timeline if event.event == "attention_raised"]
    return [(event.at, *_split(event.detail or "")) for event in raised]


def _split(detail: str) -> tuple[str, str]:
    attention, _, words = detail.partition(": ")
    return attention, words


def points(labels: list[str]) -> dict[str, int]:
    """Return the requests at which an outage is to begin, by label: the first of each."""
    return {label: labels.index(label) for label in dict.fromkeys(labels)}
