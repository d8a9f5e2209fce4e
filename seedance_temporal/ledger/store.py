"""Read and write the objects of the ledger in the bucket."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote

from pydantic import BaseModel, ValidationError
from temporalio import activity

from seedance_temporal.contract import Resubmit
from seedance_temporal.identity import ObjectNames, hash_of_job, limits_folder
from seedance_temporal.ledger.checksummed_json import is_sealed, opened, sealed
from seedance_temporal.ledger.facts import ActualCost, Attempt, Claim, End, Fact, Facts, Outcome, ResubmitGrant
from seedance_temporal.ledger.record import Record, RecordedObject, result_of_record
from seedance_temporal.ledger.task_files import TaskFiles
from seedance_temporal.ledger.task_times import TaskTimes
from seedance_temporal.storage.bucket import Bucket, StoredObject, as_json

_M = TypeVar("_M", bound=BaseModel)

# Object names are fixed: buckets hold such objects for years. These three are older than the words of the code.
ACCEPTED_WITHOUT_ID = "taken"
RESUBMIT_GRANT = "again"
_IDENTIFIERS_LISTED = "echo"
# What a listing says of an end that names its task; one without gave the attempt up.
END_OF_TASK = "task"
# The kinds of an attempt's objects, besides the tasks and ends that name a task. Other objects there are no facts.
KINDS = {"claim", "outcome", ACCEPTED_WITHOUT_ID, "end", RESUBMIT_GRANT}


class LedgerDamaged(ValueError):
    """An object of the ledger cannot be read as what it should be. Nothing is sent while that is so."""

    def __init__(self, bucket: str, name: str, why: str) -> None:
        super().__init__(f"gs://{bucket}/{name} {why}")


class Ledger:
    """The facts of all jobs, in a bucket, where all object names start with a prefix.

    Attributes:
        task_times: How long tasks took.
    """

    def __init__(self, bucket: Bucket, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._listed: set[str] = set()
        self.task_times = TaskTimes(bucket, prefix)

    def names(self, job_id: str) -> ObjectNames:
        return ObjectNames(self._prefix, hash_of_job(job_id))

    def folder(self, job_id: str) -> str:
        """Return the common start of the names of all objects of a job, to be shown."""
        return f"gs://{self._bucket.name}/{self.names(job_id).root}"

    async def read(self, job_id: str, attempt: int | None = None) -> Facts:
        """Read the facts that decide a job, from one strongly consistent listing.

        A closed account can leave an attempt an hour for weeks, of which nothing was created. Of those the listing says
        enough, so the objects of the first and the newest alone are read.

        Args:
            attempt: The number of another one to read.

        Raises:
            LedgerDamaged: An object cannot be read as what it should be.
        """
        names = self.names(job_id)
        objects = await self._bucket.list(names.root)
        record = await self.record(job_id) if any(stored.name == names.record for stored in objects) else None
        found = by_attempt(names, objects)
        read = {attempt, *list(found)[:1], *list(found)[-1:]}
        attempts = await asyncio.gather(
            *(
                self._attempt(number, of, settled=None if number in read else _nothing_created(of))
                for number, of in found.items()
            )
        )
        open_claims = [a.claim for a in attempts if a.claim and a.outcome is None and not a.allows_another]
        requests = [(claim.request, claim.key) for claim in open_claims]
        listed = all([await self.identifiers_listed(of.route, key, of.model) for of, key in requests])
        return Facts(
            record=result_of_record(record, self._bucket.name, names.record) if record is not None else None,
            attempts=tuple(attempts),
            identifiers_listed=listed,
            objects=tuple(map(RecordedObject.of, objects)),
            stored_at=record.stored_at if record is not None else None,
        )

    async def objects(self, job_id: str) -> tuple[RecordedObject, ...]:
        """List the objects that a job has now."""
        return tuple(RecordedObject.of(stored) for stored in await self._bucket.list(self.names(job_id).root))

    async def identifiers_listed(self, route: str, key: str, model: str) -> bool:
        """Return whether a LIST of this route has ever shown an identifier of ours.

        Args:
            route: Of the provider.
            key: Fingerprint of the API key that read it.
            model: As a request names it: a Custom key lists the tasks of one model or endpoint at a time.
        """
        for name in (self._identifiers_listed(route, key), self._identifiers_listed(route, key, model)):
            if name in self._listed or await self._bucket.stat(name) is not None:
                self._listed.add(name)
                return True
        return False

    async def note_identifiers_listed(self, route: str, key: str, model: str = "") -> None:
        """Write that a LIST of this route has shown an identifier of ours; of one model alone, where it is given."""
        name = self._identifiers_listed(route, key, model)
        if name not in self._listed:
            await self._bucket.create(name, as_json({"at": datetime.now(UTC).isoformat(), "key": key, "model": model}))
            self._listed.add(name)

    def _identifiers_listed(self, route: str, key: str, model: str = "") -> str:
        return f"{self._prefix}/{_IDENTIFIERS_LISTED}-{'-'.join(filter(None, [route, key, model]))}.json"

    async def has_verified_video(self, job_id: str, task_id: str) -> bool:
        """Return whether the bucket holds a verified video of the task, so that only its record is missing."""
        files = TaskFiles(self._bucket, self.names(job_id), task_id)
        await files.read()
        return files.find_verified("output.mp4") is not None

    async def record(self, job_id: str) -> Record | None:
        """Return the record of a job; None if no video is stored."""
        return await self._read(self.names(job_id).record, Record)

    async def _attempt(self, number: int, objects: Mapping[str, StoredObject], *, settled: Outcome | None) -> Attempt:
        if settled is not None:
            return Attempt(number, outcome=settled)
        # The listing says everything about the other kinds.
        kinds = ("claim", "outcome", *end_kinds(objects), RESUBMIT_GRANT)
        names = [objects[kind].name for kind in kinds if kind in objects]
        contents = dict(zip(names, await asyncio.gather(*map(self._bucket.read, names)), strict=True))

        def read(name: str, model: type[_M]) -> _M | None:
            return self._parsed(name, contents[name], model)

        return read_attempt(number, objects, read)

    async def _read(self, name: str, model: type[_M]) -> _M | None:
        return self._parsed(name, await self._bucket.read(name), model)

    async def claim(self, claim: Claim, *, seconds: float = 60) -> bool:
        """Create the claim object; return whether the claim in the bucket is this very one.

        The storage library may repeat its own write and report a 412, so the nonce decides.
        """
        name = self.names(claim.job_id).attempt(claim.attempt, "claim")
        if await self._write(name, claim, seconds):
            return True
        existing = await self._read(name, Claim)
        return existing is not None and existing.nonce == claim.nonce

    async def write_outcome(self, job_id: str, attempt: int, outcome: Outcome, *, seconds: float = 60) -> None:
        """Write the outcome of a claim.

        An outcome that exists already is obeyed, but no task is dropped: the id of another one is written beside it.
        A create that was accepted without an id leaves the outcome open, and is noted as an object of its own.
        """
        names = self.names(job_id)
        if outcome.kind == "accepted_without_id":
            content = sealed({"at": datetime.now(UTC).isoformat(), "message": outcome.message})
            await self._bucket.create(names.attempt(attempt, ACCEPTED_WITHOUT_ID), content, seconds=seconds)
            return
        name = names.attempt(attempt, "outcome")
        if await self._write(name, outcome, seconds, kind=outcome.kind) or outcome.task_id is None:
            return
        existing = await self._read(name, Outcome)
        if existing is None or existing.task_id != outcome.task_id:
            await self._write(names.late(attempt, outcome.task_id), outcome, seconds)

    async def end(self, job_id: str, attempt: int, end: End) -> End:
        """Write how a task ended; return the end that counts for it, which is the first one written.

        Each task of an attempt has an end of its own: the end of a late task is written beside the first one.
        """
        names = self.names(job_id)
        name = names.attempt(attempt, "end")
        if await self._write(name, end, kind=END_OF_TASK if end.error.task_id is not None else None):
            return end
        existing = await self._read(name, End) or end
        if end.error.task_id in {None, existing.error.task_id}:
            return existing
        assert end.error.task_id is not None
        name = names.end_of_task(attempt, end.error.task_id)
        return end if await self._write(name, end) else await self._read(name, End) or end

    async def grant_resubmit(self, job_id: str, resubmit: Resubmit, *, automatic: bool = False) -> None:
        """Allow another attempt after this one, once."""
        grant = ResubmitGrant(
            accept_second_charge=resubmit.accept_second_charge, at=datetime.now(UTC), automatic=automatic
        )
        await self._write(self.names(job_id).attempt(resubmit.attempt, RESUBMIT_GRANT), grant)

    async def write_actual(self, reference: str, usd: float) -> None:
        """Write, once, what the create has cost that a quota entry allowed. ``reference``: as claims name the entry."""
        day, _, number = reference.partition("/")
        name = f"{limits_folder(self._prefix, day)}actual/{number}.json"
        # A listing then says it.
        await self._write(name, ActualCost(usd=usd, at=datetime.now(UTC)), kind=str(round(usd * 1_000_000)))

    async def _write(self, name: str, fact: Fact, seconds: float = 60, *, kind: str | None = None) -> bool:
        content = sealed(fact.model_dump(mode="json", by_alias=True))
        return await self._bucket.create(name, content, kind=kind, seconds=seconds)

    def _parsed(self, name: str, content: bytes | None, model: type[_M]) -> _M | None:
        if content is None:
            return None
        try:
            if is_sealed(content):
                opened(content)
            return model.model_validate_json(content)
        except ValidationError:
            raise LedgerDamaged(self._bucket.name, name, "is empty, cut, or another object") from None
        except ValueError as error:
            raise LedgerDamaged(self._bucket.name, name, str(error)) from None


def _nothing_created(objects: Mapping[str, StoredObject]) -> Outcome | None:
    """Return the outcome of an attempt, if the listing shows that nothing was sent for it.

    Not that of an absent one: who says that no task exists, LIST or an operator, stands in the object alone.
    """
    if objects.keys() != {"claim", "outcome"} or objects["outcome"].kind != "not_sent":
        return None
    return Outcome(kind="not_sent", source="ledger", at=objects["outcome"].created_at)


def by_attempt(names: ObjectNames, objects: Iterable[StoredObject]) -> dict[int, dict[str, StoredObject]]:
    """Sort a job's objects by attempt, and by kind, such as ``claim``; the first attempt comes first."""
    found: dict[int, dict[str, StoredObject]] = {}
    for stored in objects:
        number, dot, kind = stored.name.removeprefix(names.ledger).partition(".")
        kind = kind.removesuffix(".json")
        is_fact = kind in KINDS or kind.startswith(("late-", "end-"))
        if stored.name.startswith(names.ledger) and dot and number.isdecimal() and is_fact:
            found.setdefault(int(number), {})[kind] = stored
    return dict(sorted(found.items()))


class ReadFact(Protocol):
    """Read an object of the ledger as a model; return None if it is missing."""

    def __call__(self, name: str, model: type[_M], /) -> _M | None: ...


def read_attempt(number: int, objects: Mapping[str, StoredObject], read: ReadFact) -> Attempt:
    """Read an attempt from its objects, which are given by their kind."""

    def fact(kind: str, model: type[_M]) -> _M | None:
        return read(objects[kind].name, model) if kind in objects else None

    # In the order in which they were found.
    late = sorted((kind for kind in objects if kind.startswith("late-")), key=lambda kind: objects[kind].created_at)
    return Attempt(
        number=number,
        claim=fact("claim", Claim),
        claimed_at=objects["claim"].created_at if "claim" in objects else None,
        outcome=fact("outcome", Outcome),
        accepted_without_id=ACCEPTED_WITHOUT_ID in objects,
        late=tuple(unquote(kind.removeprefix("late-")) for kind in late),
        ends=tuple(end for kind in end_kinds(objects) if (end := fact(kind, End)) is not None),
        resubmit_grant=fact(RESUBMIT_GRANT, ResubmitGrant),
    )


def end_kinds(objects: Iterable[str]) -> list[str]:
    """Return the kinds that are ends: the first one, and those of late tasks."""
    return sorted(kind for kind in objects if kind == "end" or kind.startswith("end-"))


def written_by() -> dict[str, Any]:
    """Return the namespace and the run of the current activity, for a fact that it writes."""
    info = activity.info()
    return {"namespace": info.namespace, "run_id": info.workflow_run_id or ""}
