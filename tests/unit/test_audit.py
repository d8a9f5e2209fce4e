"""The audit of a job, and its verification, over objects and histories that tests make."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from activities.create import CreateResult
from seedance_temporal.audit.bucket_evidence import BucketEvidence, read_bucket_evidence
from seedance_temporal.audit.build import audit_of
from seedance_temporal.audit.document import Audit, RunHistory
from seedance_temporal.audit.temporal_evidence import ActivityCall, Run, TemporalEvidence
from seedance_temporal.audit.verify import verify
from seedance_temporal.events import Event, EventName, EventSource
from seedance_temporal.identity import ObjectNames, job_id_of
from seedance_temporal.job import JobError, JobState, VideoResult
from seedance_temporal.ledger.checksummed_json import sealed
from seedance_temporal.ledger.facts import End, Outcome
from seedance_temporal.ledger.record import Record, RecordedObject, RecordedObjects, result_of_record
from seedance_temporal.ledger.task_files import Verified
from seedance_temporal.provider.task import Usage
from seedance_temporal.request import VideoRequest
from seedance_temporal.storage.bucket import as_json
from tests.support.jobs import a_claim, a_request, an_end, present, refused
from tests.support.memory_bucket import MemoryBucket
from tests.support.world import World

FIRST, SECOND = "cgt-1", "cgt-2"
VIDEO = b"a video" * 1000
RIGHTS = {"depicts_real_person": True, "consent_reference": "contract 7"}
START = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=1)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def first(seconds: float, event: EventName, source: EventSource, detail: str | None = None, *, count: int = 1) -> Event:
    """Return an event of the first attempt."""
    ids: dict[str, Any] = {"task_id": FIRST, "attempt": 1}
    return Event(at=at(seconds), event=event, source=source, detail=detail, count=count, **ids)


def _state(of: ObjectNames, **fields: Any) -> JobState:
    known = {"job_id": f"seedance-{of.request_hash}", "request_hash": of.request_hash, "route": "byteplus"}
    return JobState.model_validate(known | {"started_at": START} | fields)


def second(
    seconds: float, event: EventName, source: EventSource, detail: str | None = None, *, count: int = 1
) -> Event:
    """Return an event of the second attempt."""
    ids = {"task_id": SECOND, "attempt": 2}
    return first(seconds, event, source, detail, count=count).model_copy(update=ids)


FIRST_TIMELINE = (
    first(1, "task_created", "create"),
    first(2, "status", "poll", "running", count=3),
    first(9, "status", "poll", "failed"),
)
SECOND_TIMELINE = (
    second(21, "task_created", "create"),
    second(22, "callback_received", "callback", "running"),
    second(23, "status", "poll", "running", count=2),
    second(30, "callback_received", "callback", "succeeded"),
    second(30.5, "status", "callback", "succeeded"),
)


@dataclass
class AuditWorld(World):
    """A job with two attempts: the first one failed, the video of the second one is stored."""

    request: VideoRequest = field(default_factory=lambda: a_request(rights=RIGHTS))

    task_id: str = SECOND

    async def attempt(self, number: int, task_id: str, seconds: float) -> None:
        """Claim, and create a task."""
        await self.claim(
            number,
            run_id=f"run-{number}",
            submitted_at=at(seconds - 0.5),
            claimed_at=at(seconds),
            estimated_tokens=40_000,
            estimated_usd=0.2,
            warnings=("The prompt is long.",),
        )
        outcome = Outcome(kind="created", source="create", at=at(seconds + 1), task_id=task_id)
        await self.write(outcome, attempt=number)

    async def write(self, *facts: Outcome | End, attempt: int = 1) -> None:
        for fact in facts:
            update = await self.written(attempt) if isinstance(fact, Outcome) else {}
            await super().write(fact.model_copy(update=update), attempt=attempt)

    async def written(self, number: int, timeline: Iterable[Event] = ()) -> dict[str, Any]:
        objects = await self.ledger.objects(self.job_id)
        run = {"namespace": "default", "run_id": f"run-{number}"}
        return run | {"ledger": objects, "timeline": tuple(timeline)}

    async def fail(self) -> None:
        """End the first attempt, and request another one."""
        update = {"source": "poll"} | await self.written(1, FIRST_TIMELINE)
        await self.write(an_end(1, FIRST).model_copy(update=update))
        await self.grant()

    async def store(self) -> None:
        await self.bucket.create(self.names.of_task(SECOND, "task.json"), as_json({"id": SECOND}))
        verified, said = self.verified(VIDEO)
        await self.bucket.create(verified, said)
        await self.bucket.create(self.names.of_task(SECOND, "output.mp4"), VIDEO)
        stored = {one.name: RecordedObject.of(one) for one in await self.bucket.list(self.names.root)}
        record = Record(
            job_id=self.job_id,
            request_hash=self.names.request_hash,
            namespace="default",
            run_id="run-2",
            attempt=2,
            task_id=SECOND,
            usage=Usage(total_tokens=39_000),
            cost_usd=0.19,
            request=self.request.model_dump(mode="json", exclude_none=True),
            timeline=SECOND_TIMELINE,
            objects=RecordedObjects(
                video=stored[self.names.of_task(SECOND, "output.mp4")],
                task=stored[self.names.of_task(SECOND, "task.json")],
                verified=(stored[verified],),
                ledger=tuple(one for name, one in stored.items() if name.startswith(self.names.ledger)),
            ),
            warnings=["The last frame was asked for, and the provider gave none."],
            stored_at=datetime.now(UTC),
        )
        await self.bucket.create(self.names.record, sealed(record.model_dump(mode="json")))

    async def evidence(self) -> BucketEvidence:
        return await read_bucket_evidence(self.bucket, "seedance", self.job_id)

    async def audit(self, temporal: TemporalEvidence | None = None, *missing: str) -> Audit:
        return present(audit_of(self.job_id, await self.evidence(), temporal, missing))

    async def problems(self, temporal: TemporalEvidence | None = None) -> dict[str, tuple[str, ...]]:
        """Return the problems of each object that has some, by the end of its name."""
        found = await verify(self.bucket, await self.evidence(), temporal)
        return {one.name.removeprefix(self.names.root): one.problems for one in found if one.problems}

    async def problems_of(self, name: str) -> str:
        """Return the problems of one object, or nothing."""
        return " ".join((await self.problems()).get(name.removeprefix(self.names.root), ()))

    @contextmanager
    def restored(self, name: str) -> Iterator[bytes]:
        """Yield the content of an object; afterwards it is as it was."""
        content, stored = self.memory.contents[name], self.memory.stored[name]
        yield content
        self.memory.contents[name], self.memory.stored[name] = content, stored

    def put(self, name: str, content: bytes, *, generation: int | None = None) -> None:
        """Rewrite an object; the bucket's own checksums fit."""
        before = self.memory.stored.pop(name)
        self.memory._put(name, content)
        self.memory.stored[name] = replace(
            self.memory.stored[name], generation=generation or before.generation, created_at=before.created_at
        )

    def change(self, name: str, change: Callable[[dict[str, Any]], object], *, generation: int | None = None) -> None:
        """Rewrite an object with a checksum that fits."""
        value = json.loads(self.memory.contents[name])
        del value["sha256"]
        change(value)
        self.put(name, sealed(value), generation=generation)

    def remove(self, name: str) -> None:
        del self.memory.stored[name]
        del self.memory.contents[name]

    def temporal(self, result: VideoResult) -> TemporalEvidence:
        """Return Temporal's evidence about both runs."""
        job = _state(self.names, phase="stored", result=result)
        end = {"error": json.loads(self.memory.contents[self.names.attempt(1, "end")])["error"]}
        calls = [
            [ActivityCall("write_end", 1, FIRST_TIMELINE, end)],
            [ActivityCall("store_video", 2, SECOND_TIMELINE, result.model_dump(mode="json"))],
        ]
        runs = []
        for number, (claim, of) in enumerate(zip(self.claims, calls, strict=True), 1):
            outcome = Outcome.model_validate_json(self.memory.contents[self.names.attempt(number, "outcome")])
            created = CreateResult(kind="created", claim=claim, outcome=outcome).model_dump(mode="json")
            shown = RunHistory(run_id=f"run-{number}", status="completed", started_at=at(20 * number), closed_at=at(60))
            argument = {"request": self.request.model_dump(mode="json")}
            runs.append(Run(shown, argument, [ActivityCall("create_task", number, (), created), *of]))
        return TemporalEvidence("default", job, runs)


@pytest.fixture
async def world() -> AuditWorld:
    world = AuditWorld()
    await world.attempt(1, FIRST, 0)
    await world.fail()
    await world.attempt(2, SECOND, 20)
    await world.store()
    return world


@pytest.fixture
async def temporal(world: AuditWorld) -> TemporalEvidence:
    record = Record.model_validate_json(world.memory.contents[world.names.record])
    return world.temporal(result_of_record(record, "videos", world.names.record))


# The audit


async def test_audit_from_the_objects(world: AuditWorld) -> None:
    audit = await world.audit()
    assert (audit.source, audit.phase, audit.missing) == ("record", "stored", ())
    assert (audit.polls, audit.callbacks) == (3 + 1 + 2 + 1, 2)
    assert audit.warnings == ("The prompt is long.", "The last frame was asked for, and the provider gave none.")
    assert audit.rights == RIGHTS
    assert "seed" not in audit.request
    first, second = audit.attempts
    assert (first.charge.billed, first.charge.tokens, first.asked_again_by) == (False, 0, "caller")
    assert (second.charge.tokens, second.charge.usd) == (39_000, 0.19)
    assert (second.create_seconds, second.task_seconds) == (1, 9.5)
    assert (audit.charge.estimated_tokens, audit.charge.tokens, audit.charge.billed) == (40_000, 39_000, True)
    assert audit.submitted_at == at(-0.5)
    assert audit.result is not None
    assert [stored.name for stored in audit.objects] == sorted(world.memory.stored)


async def test_events_come_once_in_order_of_time(world: AuditWorld) -> None:
    timeline = (await world.audit()).timeline
    found = [(step.event, step.source, step.task_id, step.attempt, step.detail) for step in timeline]
    assert len(found) == len(set(found))
    assert [step.event for step in timeline][:3] == ["run_started", "attempt_claimed", "task_created"]
    assert [step.event for step in timeline].count("task_created") == 2
    assert (timeline[2].attempt, timeline[2].task_id) == (1, FIRST)
    assert (timeline[-1].event, timeline[-1].source, timeline[-1].task_id) == ("stored", "copy", SECOND)
    assert ("ended", "poll", FIRST, 1, "failed (provider)") in found
    assert ("resubmit_granted", "caller", None, 1, None) in found
    assert [step.at for step in timeline] == sorted(step.at for step in timeline)
    assert timeline[1].after == 0.5


async def test_later_count_of_an_event_wins(world: AuditWorld) -> None:
    """The timeline of an automatic second attempt begins with that of the first one, by the same run."""
    early = (FIRST_TIMELINE[0], FIRST_TIMELINE[1].model_copy(update={"count": 1}))
    written = await world.written(1, early)
    await world.write(Outcome(kind="not_sent", source="create", at=at(5)), attempt=3)
    end = json.loads(world.memory.contents[world.names.attempt(1, "end")])
    world.change(
        world.names.attempt(3, "outcome"),
        lambda value: value.update(timeline=[one.model_dump(mode="json") for one in written["timeline"]]),
    )
    assert end["timeline"][1]["count"] == 3
    assert [step.count for step in (await world.audit()).timeline if step.at == at(2)] == [3]


async def test_temporal_and_objects_agree(world: AuditWorld, temporal: TemporalEvidence) -> None:
    by_temporal, by_objects = await world.audit(temporal), await world.audit()
    assert by_temporal.source == "temporal"
    assert by_temporal.model_copy(update={"source": "record"}) == by_objects


def statuses(audit: Audit) -> list[str | None]:
    return [step.detail for step in audit.timeline if step.event == "status"]


async def test_history_wins_while_temporal_has_it(world: AuditWorld, temporal: TemporalEvidence) -> None:
    temporal.runs[1].calls[-1].timeline = (*SECOND_TIMELINE[:-1], second(30.7, "status", "poll", "polishing"))
    audit = await world.audit(temporal)
    assert "polishing" in statuses(audit)
    assert "succeeded" not in statuses(audit)
    # Where the run is gone, or in another namespace, the object is used.
    for other in (replace(temporal, runs=temporal.runs[:1]), replace(temporal, namespace="other")):
        audit = await world.audit(other)
        assert audit.source == "record"
        assert "succeeded" in statuses(audit)


async def test_audit_from_temporal_alone(world: AuditWorld, temporal: TemporalEvidence) -> None:
    audit = present(audit_of(world.job_id, None, temporal, ["SEEDANCE_BUCKET is not set."]))
    assert (audit.source, audit.phase, audit.result) == ("temporal", "stored", present(temporal.job).result)
    assert audit.missing[0] == "SEEDANCE_BUCKET is not set."
    assert [one.task_ids for one in audit.attempts] == [(FIRST,), (SECOND,)]
    assert set(statuses(audit)) >= {"failed", "succeeded"}
    assert ("task_created", 2) in [(step.event, step.attempt) for step in audit.timeline]
    assert audit.request == (await world.audit()).request


async def test_unknown_job_has_no_audit() -> None:
    request = a_request()
    evidence = await read_bucket_evidence(MemoryBucket(), "seedance", job_id_of(request))
    assert audit_of(job_id_of(request), evidence, None) is None


async def test_open_attempt_without_temporal(world: AuditWorld) -> None:
    for name in [name for name in world.memory.stored if "/attempts/0001.outcome" not in name]:
        if not name.endswith("0001.claim.json"):
            world.remove(name)
    audit = await world.audit()
    assert (audit.phase, audit.result, audit.error, audit.charge.billed) == (None, None, None, None)
    assert "Nothing in the bucket says how the job ended" in audit.missing[0]
    problems = await world.problems()
    assert "no run is under way" in problems["attempts/0001.end.json"][0]


async def test_objects_of_older_versions_are_whole() -> None:
    world = AuditWorld()
    claim = a_claim(world.request)
    new = {"submitted_at", "estimated_tokens", "estimated_usd", "warnings", "media"}
    put = {"claim": claim.model_dump(mode="json", exclude=new)}
    outcome = Outcome(kind="created", source="create", at=at(1), task_id=FIRST)
    put["outcome"] = outcome.model_dump(mode="json", exclude={"namespace", "run_id", "timeline", "ledger"})
    end = an_end(1, FIRST).model_copy(update={"timeline": FIRST_TIMELINE})
    put["end"] = end.model_dump(mode="json", by_alias=True, exclude={"namespace", "run_id", "ledger", "source"})
    for kind, value in put.items():
        await world.bucket.create(world.names.attempt(1, kind), as_json(value))
    audit = await world.audit()
    assert (audit.phase, audit.source, audit.attempts[0].charge.billed) == ("failed", "end", False)
    assert ("ended", "ledger", "failed (provider)") in [
        (step.event, step.source, step.detail) for step in audit.timeline
    ]
    assert await world.problems() == {}


async def test_damaged_objects_are_named_and_skipped(world: AuditWorld) -> None:
    world.put(world.names.attempt(1, "end"), b"{")
    world.put(world.names.record, b'{"task_id": "cgt-2"}')
    audit = await world.audit()
    assert len([gap for gap in audit.missing if "cannot be read" in gap]) == 2
    assert len(audit.attempts) == 2
    assert audit.result is None


ODD_FIELDS = {
    "claim": ("claimed_at", "submitted_at", "estimated_usd"),
    "outcome": ("at",),
    "end": ("at", "cost_usd"),
    "again": ("at",),
    "record": ("stored_at", "cost_usd"),
}


@pytest.mark.parametrize("odd", ["2026-11-22T12:00:00", "0001-01-01T00:00:00+14:00"], ids=["no zone", "no UTC"])
@pytest.mark.parametrize(("kind", "field"), [(kind, field) for kind, fields in ODD_FIELDS.items() for field in fields])
async def test_odd_value_counts_as_damage(world: AuditWorld, kind: str, field: str, odd: str) -> None:
    """Such times cannot be compared, and NaN is no JSON; all can have a fitting checksum."""
    name = world.names.record if kind == "record" else world.names.attempt(1, kind)
    world.change(name, lambda value: value.update({field: odd if field.endswith("at") else float("nan")}))
    audit = await world.audit()
    assert [gap for gap in audit.missing if name in gap], audit.missing
    assert await world.problems_of(name)
    json.loads(audit.model_dump_json(), parse_constant=lambda word: pytest.fail(word))


@pytest.mark.parametrize("kind", ["claim", "record"])
async def test_request_without_hash_is_found(world: AuditWorld, kind: str) -> None:
    name = world.names.record if kind == "record" else world.names.attempt(1, kind)
    world.change(name, lambda value: value["request"].update(seed=2**60))
    assert await world.problems_of(name)


# The verification

EVERY = 23
"""Bytes between two that are flipped; tests/unit/test_checksummed_json.py flips each."""


async def test_untouched_job_is_whole(world: AuditWorld, temporal: TemporalEvidence) -> None:
    assert await world.problems() == {}
    assert await world.problems(temporal) == {}
    assert len(await verify(world.bucket, await world.evidence(), temporal)) == len(world.memory.stored) == 10


async def test_flipped_byte_is_found_by_objects_alone(world: AuditWorld) -> None:
    """Nothing else gives them away: generation and the bucket's own checksums fit."""
    for name in sorted(world.memory.stored):
        with world.restored(name) as content:
            for byte in range(0, len(content), EVERY if len(content) < 5000 else 1500):
                world.put(name, content[:byte] + bytes([content[byte] ^ 0x01]) + content[byte + 1 :])
                assert await world.problems_of(name), f"byte {byte} of {name}"


async def test_flipped_byte_in_the_checksum_name(world: AuditWorld) -> None:
    """Without its checksum, an object could be of an older version, except for a field that no such version had."""
    for name in (world.names.record, world.names.attempt(1, "end"), world.names.attempt(1, "claim")):
        with world.restored(name) as content:
            world.put(name, content.replace(b'"sha256"', b'"sha257"'))
            assert "no checksum" in await world.problems_of(name)


async def test_content_and_bucket_checksum_disagree(world: AuditWorld) -> None:
    for name, content in world.memory.contents.items():
        world.memory.contents[name] = content[:-2] + b"?" + content[-1:]
        (problems,) = [found for one, found in (await world.problems()).items() if name.endswith(one)]
        assert "the bucket says" in problems[0]
        world.memory.contents[name] = content


async def test_removed_object_is_missed(world: AuditWorld) -> None:
    for name in list(world.memory.stored):
        with world.restored(name):
            world.remove(name)
            assert "it is missing" in await world.problems_of(name)


async def test_rewritten_object_has_another_generation(world: AuditWorld) -> None:
    """Its checksum fits; later objects recorded another one."""
    for name in sorted(world.memory.stored):
        if name.endswith((".mp4", "task.json", "record.json")):
            continue
        with world.restored(name):
            world.change(name, lambda value: None, generation=99)
            assert "was replaced" in (await world.problems())[name.removeprefix(world.names.root)][0]


async def test_rewritten_record_differs_from_temporal_and_clock(world: AuditWorld, temporal: TemporalEvidence) -> None:
    """The objects alone cannot show it, as docs/how-to/auditing.md says."""
    world.change(world.names.record, lambda value: value.update(cost_usd=0.01), generation=99)
    assert await world.problems() == {}
    assert "another one" in (await world.problems(temporal))["record.json"][0]
    world.change(world.names.record, lambda value: value["timeline"].pop())
    assert "another timeline" in (await world.problems(temporal))["record.json"][0]
    stored = world.memory.stored[world.names.record]
    world.memory.stored[world.names.record] = replace(stored, created_at=stored.created_at + timedelta(hours=2))
    assert "the bucket made it at" in (await world.problems())["record.json"][0]


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("attempts/0001.claim.json", {"job_id": f"seedance-{'0' * 64}"}, "it is a claim of"),
        ("attempts/0001.claim.json", {"attempt": 2}, "it is a claim of"),
        ("attempts/0001.outcome.json", {"task_id": "cgt-other"}, "no outcome names its task"),
        ("attempts/0002.outcome.json", {"task_id": None}, "and names task None"),
        ("record.json", {"task_id": "cgt-other"}, "is none of attempt 2"),
        ("record.json", {"job_id": "seedance-0"}, "it is the record of"),
        ("record.json", {"attempt": 1}, "is none of attempt 1"),
    ],
)
async def test_contradictory_objects_are_found(
    world: AuditWorld, name: str, change: dict[str, Any], problem: str
) -> None:
    world.change(world.names.root + name, lambda value: value.update(change))
    assert problem in str(await world.problems())


async def test_unverified_video_is_found(world: AuditWorld) -> None:
    """The record was rewritten to fit another video, and nothing else."""
    name = world.names.of_task(SECOND, "output.mp4")
    world.put(name, b"another video")
    put = RecordedObject.of(world.memory.stored[name]).model_dump()
    world.change(world.names.record, lambda value: value["objects"].update(video=put))
    (problem,) = (await world.problems())[f"{SECOND}/output.mp4"]
    assert problem == "it equals no content that was verified"


async def test_planted_picture_is_found(world: AuditWorld) -> None:
    """No record names it."""
    name = world.names.of_task(SECOND, "last_frame.png")
    await world.bucket.create(name, b"a text")
    assert await world.problems() == {}
    said = Verified(task_id=SECOND, file="last_frame.png", size=1, crc32c="AAAAAA==", md5="")
    await world.bucket.create(world.names.verified(SECOND, said.crc32c), sealed(said.model_dump()))
    assert (await world.problems()) == {f"{SECOND}/last_frame.png": ("it equals no content that was verified",)}


async def test_unrecorded_payload_is_found(world: AuditWorld) -> None:
    world.change(world.names.record, lambda value: value["objects"].update(task=None))
    assert "the record does not name it" in (await world.problems())[f"{SECOND}/task.json"][0]


async def test_record_without_verified_objects_is_whole(world: AuditWorld) -> None:
    """As versions before them wrote it."""
    world.remove(world.verified(VIDEO)[0])
    world.change(world.names.record, lambda value: value["objects"].pop("verified"))
    assert await world.problems() == {}


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", sealed({}), sealed({"task_id": SECOND})])
async def test_damaged_verified_object_is_found(world: AuditWorld, content: bytes) -> None:
    """Also one that no record names."""
    name = world.names.of_task(SECOND, "verified-00000000.json")
    await world.bucket.create(name, content)
    (problem,) = (await world.problems())[f"{SECOND}/verified-00000000.json"]
    assert problem.startswith("it ")


async def test_changed_request_differs_from_job_id(world: AuditWorld) -> None:
    for name in (world.names.attempt(1, "claim"), world.names.record):
        with world.restored(name):
            world.change(name, lambda value: value["request"].update(prompt="a dog"))
            assert "the job id is the hash of" in await world.problems_of(name)


async def test_missing_end_is_found_by_temporal() -> None:
    world = AuditWorld()
    await world.claim()
    error = JobError(code="InvalidParameter", message="no", failure_class="invalid", attempt=1)
    job = _state(world.names, phase="refused", error=error)
    shown = RunHistory(run_id="run-1", status="failed", started_at=START)
    assert "the run in Temporal ended" in str(await world.problems(TemporalEvidence("default", job, [Run(shown)])))
    running = job.model_copy(update={"error": None, "phase": "creating"})
    assert await world.problems(TemporalEvidence("default", running, [Run(shown)])) == {}
    await world.write(refused())
    assert await world.problems() == {}


# The histories


def test_completed_call_is_preferred() -> None:
    calls = [
        ActivityCall("create_task", 1, (), {"kind": "created"}),
        ActivityCall("create_task", 1, ()),
        ActivityCall("write_end", 2, ()),
    ]
    run = Run(RunHistory(run_id="run-1", status="running", started_at=START), {}, calls)
    assert run.call("create_task", 1) is calls[0]
    assert run.call("write_end", 2) is calls[2]
    assert run.call("write_end", 1) is None
