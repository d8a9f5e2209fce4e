"""One job with a bucket and a provider of its own, for tests of the activities."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from typing import Any

from temporalio.client import Client

from activities.create import CreateActivities, CreateInput, CreateResult
from activities.ledger import EndInput, EndResult, LedgerActivities, OutcomeInput, ReadLedgerInput, ReadLedgerResult
from activities.poll import CancelResult, GetTaskInput, Observation, PollActivities
from activities.recover import AbsentInput, IdentifyInput, RecoverActivities, ResolveInput
from activities.task_list import AskListerInput, TaskListActivities
from dev.ark.control import ArkControl
from dev.ark.ledger import CreateEntry, TaskRequests
from seedance_temporal.contract import Resolve, ResolveAnswer, Resubmit
from seedance_temporal.events import Event
from seedance_temporal.identity import ObjectNames, job_id_of
from seedance_temporal.job import JobError
from seedance_temporal.ledger.checksummed_json import sealed
from seedance_temporal.ledger.decisions import Decision, decide_at
from seedance_temporal.ledger.facts import Attempt, Claim, End, Listing, Outcome
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.ledger.task_files import Verified
from seedance_temporal.provider.ark import Ark
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings
from seedance_temporal.storage.bucket import Bucket, Checksums
from tests.support import jobs
from tests.support.jobs import BODY, KEY, a_claim, a_client, a_record, a_request, in_activity, names, some_settings
from tests.support.memory_bucket import MemoryBucket

NOWHERE = "http://127.0.0.1:1"


@dataclass
class World:
    """A job, and each activity as a method.

    Attributes:
        ark: The local Ark, where the test has one.
        client: The worker's client of the provider.
        claims: The claims that the test wrote.
        task_id: The task that the test created last.
    """

    request: VideoRequest = field(default_factory=a_request)
    bucket: Bucket = field(default_factory=MemoryBucket)
    settings: Settings = field(default_factory=some_settings)
    ark: ArkControl = field(default_factory=lambda: ArkControl(NOWHERE))
    client: Ark = field(default_factory=lambda: Ark(NOWHERE, KEY, (KEY,)))
    claims: list[Claim] = field(default_factory=list)
    task_id: str = "cgt-1"
    _posts_before: int = 0

    @classmethod
    async def at(cls, ark: ArkControl, request: VideoRequest | None = None, **settings: Any) -> World:
        """Return a job whose provider is the local Ark."""
        known = some_settings(ark, **settings)
        before = len(await ark.ledger())
        client = a_client(ark, *known.secrets)
        return cls(request or a_request(), settings=known, ark=ark, client=client, _posts_before=before)

    @property
    def job_id(self) -> str:
        return job_id_of(self.request)

    @property
    def names(self) -> ObjectNames:
        return names(self.request)

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.bucket, "seedance")

    @property
    def memory(self) -> MemoryBucket:
        """The bucket, where it is one in memory."""
        assert isinstance(self.bucket, MemoryBucket)
        return self.bucket

    # The bucket

    async def facts(self) -> list[str]:
        """Return the names of the ledger's objects."""
        return [stored.name.removeprefix(self.names.ledger) for stored in await self.bucket.list(self.names.ledger)]

    async def fact(self, kind: str, attempt: int = 1) -> dict[str, Any]:
        """Return the content of an object of the ledger."""
        value: dict[str, Any] = json.loads(await self.bucket.read(self.names.attempt(attempt, kind)) or b"")
        return value

    async def claim(self, attempt: int = 1, *facts: Outcome | End, **fields: Any) -> Claim:
        """Claim an attempt with other fields of the claim, and write facts about it."""
        claim = a_claim(self.request, attempt).model_copy(update=fields)
        assert await self.ledger.claim(claim)
        self.claims.append(claim)
        await self.write(*facts, attempt=attempt)
        return claim

    async def write(self, *facts: Outcome | End, attempt: int = 1) -> None:
        """Write facts about an attempt, one after another."""
        for fact in facts:
            if isinstance(fact, End):
                await self.ledger.end(self.job_id, attempt, fact)
            else:
                await self.ledger.write_outcome(self.job_id, attempt, fact)

    async def read_attempt(self, number: int = 1) -> Attempt:
        """Read the facts of an attempt."""
        attempt = (await self.ledger.read(self.job_id)).attempt(number)
        assert attempt is not None
        return attempt

    async def grant(self, attempt: int = 1, *, accept: bool = False) -> None:
        await self.ledger.grant_resubmit(self.job_id, Resubmit(attempt=attempt, accept_second_charge=accept))

    async def write_record(self, task_id: str = "cgt-1") -> None:
        await self.bucket.create(self.names.record, a_record(task_id))

    def make_older(self, attempt: int = 1, **by: float) -> None:
        jobs.make_older(self.memory, self.names.attempt(attempt, "claim"), **by)

    async def decision(self) -> Decision:
        return decide_at(await self.ledger.read(self.job_id), self.settings)

    def verified(self, content: bytes, file: str = "output.mp4") -> tuple[str, bytes]:
        """Return name and content of the object that says that a content was verified."""
        of = Checksums.of(BytesIO(content))
        said = Verified(task_id=self.task_id, file=file, size=of.size, crc32c=of.crc32c, md5=of.md5)
        return self.names.verified(self.task_id, of.crc32c), sealed(said.model_dump())

    # The provider

    async def create_task(self, identifier: str | None = None, **fields: Any) -> str:
        """Create a task at the provider, by default one of the first claim."""
        known = {"safety_identifier": identifier or self.claims[0].safety_identifier}
        answer = await self.client.create(BODY | known | fields)
        assert answer.task_id is not None
        self.task_id = answer.task_id
        return answer.task_id

    async def posts(self) -> list[CreateEntry]:
        """Return the creates that the provider received since the test began."""
        return (await self.ark.ledger())[self._posts_before :]

    async def asked(self, task_id: str | None = None) -> TaskRequests:
        """Return how often the provider was asked for a task."""
        return (await self.ark.requests()).tasks.get(task_id or self.task_id, TaskRequests())

    async def until(self, status: str) -> None:
        """Wait for the task, without a request as a client's: those are counted."""
        async with asyncio.timeout(10):
            while next(t for t in await self.ark.tasks() if t["id"] == self.task_id)["status"] != status:
                await asyncio.sleep(0.02)

    # The activities

    async def read_ledger(
        self, resubmit: int | None = None, *, accept: bool = False, search_attributes: Collection[str] = ()
    ) -> ReadLedgerResult:
        given = Resubmit(attempt=resubmit, accept_second_charge=accept) if resubmit is not None else None
        input = ReadLedgerInput(job_id=self.job_id, request=self.request, resubmit=given, with_context=True)
        activities = LedgerActivities(self.ledger, self.settings, search_attributes)
        return await in_activity(activities.read_ledger, input)

    async def read_decision(self, resubmit: int | None = None, *, accept: bool = False) -> Decision:
        return (await self.read_ledger(resubmit, accept=accept)).decision

    async def create(
        self, attempt: int = 1, *, temporal_attempt: int = 1, temporal: Client | None = None, **fields: Any
    ) -> CreateResult:
        activities = CreateActivities(self.ledger, self.bucket, self.client, self.settings)
        input = CreateInput(job_id=self.job_id, request=self.request, attempt=attempt, **fields)
        return await in_activity(activities.create_task, input, attempt=temporal_attempt, client=temporal)

    async def write_outcome(self, claim: Claim | None, outcome: Outcome | None) -> None:
        assert claim is not None
        assert outcome is not None
        activities = LedgerActivities(self.ledger, self.settings)
        await in_activity(activities.write_outcome, OutcomeInput(claim=claim, outcome=outcome))

    async def write_end(self, error: JobError, **fields: Any) -> EndResult:
        input = EndInput(job_id=self.job_id, error=error, **fields)
        return await in_activity(LedgerActivities(self.ledger, self.settings).write_end, input)

    def _task(self, **fields: Any) -> GetTaskInput:
        given = {"job_id": self.job_id, "request": self.request, "attempt": 1, "task_id": self.task_id}
        return GetTaskInput.model_validate(given | fields)

    async def poll(self, **fields: Any) -> Observation:
        activities = PollActivities(self.ledger, self.client, self.settings)
        return await in_activity(activities.get_task, self._task(**fields))

    async def cancel(self, *, attempt: int = 1, **fields: Any) -> CancelResult:
        activities = PollActivities(self.ledger, self.client, self.settings)
        return await in_activity(activities.cancel_task, self._task(**fields), attempt=attempt)

    @property
    def _recover(self) -> RecoverActivities:
        return RecoverActivities(self.ledger, self.client, self.settings)

    async def identify(self, task_id: str, attempt: int = 1) -> str:
        input = IdentifyInput(job_id=self.job_id, attempt=attempt, task_id=task_id)
        return (await in_activity(self._recover.identify_task, input)).answer

    async def settle_absent(
        self, listings: Iterable[Listing], attempt: int = 1, temporal: Client | None = None
    ) -> Decision:
        input = AbsentInput(job_id=self.job_id, attempt=attempt, listings=tuple(listings))
        return await in_activity(self._recover.settle_absent, input, client=temporal)

    async def resolve(
        self,
        action: str,
        task_id: str | None = None,
        attempt: int = 1,
        sent_at: datetime | None = None,
        temporal: Client | None = None,
    ) -> ResolveAnswer:
        given = {"attempt": attempt, "action": action, "task_id": task_id, "sent_at": sent_at}
        resolution = Resolve.model_validate(given)
        entry = Event(at=self.claims[0].claimed_at, event="outcome_unknown", source="create")
        input = ResolveInput(job_id=self.job_id, resolution=resolution, timeline=(entry,))
        return await in_activity(self._recover.resolve_attempt, input, client=temporal)

    async def ask_lister(self, temporal: Client, attempt: int | None = 1) -> Decision:
        activities = TaskListActivities(self.ledger, self.client, self.settings)
        input = AskListerInput(job_id=self.job_id, attempt=attempt)
        return await in_activity(activities.ask_lister, input, client=temporal)
