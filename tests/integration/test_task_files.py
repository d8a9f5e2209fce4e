"""Only bytes that were verified are committed, with any object under their name and any answer to GET."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from io import BytesIO
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from temporalio.exceptions import ApplicationError

from dev.ark.media import video
from seedance_temporal.ledger.checksummed_json import sealed
from seedance_temporal.ledger.record import RecordedObject
from seedance_temporal.ledger.task_files import TaskFiles, read_verified
from seedance_temporal.storage.bucket import Checksums, GoogleBucket, StoredObject, as_json
from tests.support.jobs import a_request, created, names, present
from tests.support.media_files import bottomless_video
from tests.support.memory_bucket import MemoryBucket
from tests.support.result_host import Answer, result_host
from tests.support.stores import CLIP, GET, PNG, TASK, VIDEO, StoreWorld, a_stored_request
from tests.support.world import World

# The bytes that another run was given for the same task, and those of another task.
OTHER = video(CLIP, f"{TASK} again")
FOREIGN = video(CLIP, "cgt-other")


@pytest.fixture
async def world(google: GoogleBucket, scratch: Path) -> AsyncIterator[StoreWorld]:
    """On a real bucket, without a last frame."""
    async with result_host() as host:
        yield StoreWorld(a_request(), google, host=host, scratch=scratch)


@pytest.fixture
async def in_memory(scratch: Path) -> AsyncIterator[StoreWorld]:
    async with result_host() as host:
        yield StoreWorld(a_request(), MemoryBucket(), host=host, scratch=scratch)


class SpoilingBucket(GoogleBucket):
    """Uploads other bytes of the same length."""

    async def upload(self, name: str, path: Path, content_type: str) -> StoredObject | None:
        await asyncio.to_thread(lambda: path.write_bytes(path.read_bytes()[:-1] + b"!"))
        return await super().upload(name, path, content_type)


class RecordlessBucket(GoogleBucket):
    """Accepts no record."""

    async def create(self, name: str, content: bytes, *, kind: str | None = None, seconds: float = 60) -> bool:
        if name.endswith("record.json"):
            raise RuntimeError("no record today")
        return await super().create(name, content, kind=kind, seconds=seconds)


# Answers to GET; fields are those of the task.
ANSWERS: dict[str, Answer | dict[str, Any]] = {
    "the task": {},
    "401": Answer(b'{"error": {"code": "AuthenticationError", "message": "no"}}', 401),
    "503": Answer(b"<html>", 503),
    "no answer": Answer(b"{}", cut_after=0),
    "404": Answer(b'{"error": {"code": "ResourceNotFound", "message": "no such task"}}', 404),
    "another 404": Answer(b"<html>", 404),
    "no content": {"content": None},
    "running": {"status": "running"},
    "another task": {"id": "cgt-other"},
    "no JSON": Answer(b"<html>"),
    "brackets": Answer(b"[" * 100_000),
}
OTHER_ANSWERS = [name for name in ANSWERS if name not in {"the task", "brackets"}]


def answer_get(world: StoreWorld, name: str) -> None:
    answer = ANSWERS[name]
    if isinstance(answer, Answer):
        world.host.answers[GET] = [answer]
    else:
        world.task(world.payload(**answer))


async def damage(world: StoreWorld, name: str, content: bytes | None) -> None:
    """Replace an object, as only an administrator of the bucket can; or remove it."""
    bucket = world.bucket
    if isinstance(bucket, MemoryBucket):
        bucket.stored.pop(name, None)
        bucket.contents.pop(name, None)
    else:
        assert isinstance(bucket, GoogleBucket)
        await asyncio.to_thread(bucket._bucket.blob(name).delete)
    if content is not None:
        await bucket.create(name, content)


async def uploaded(world: StoreWorld) -> None:
    """Let a run die between upload and record."""
    bucket = world.bucket
    if isinstance(bucket, MemoryBucket):
        await world.put("task.json", as_json(world.payload(content={"video_url": "https://example.com/v.mp4"})))
        await world.verify(VIDEO)
        await world.put("output.mp4", VIDEO)
        return
    assert isinstance(bucket, GoogleBucket)
    world.bucket = RecordlessBucket("videos", bucket._client)
    await world.fails("StoreFailed", "no record today")
    world.bucket = bucket
    world.host.requests.clear()


# Other content under the name


@pytest.mark.parametrize(
    "planted",
    [b"a text of another writer", b"", FOREIGN, VIDEO[:-1] + b"!", VIDEO[:-1]],
    ids=["text", "nothing", "another MP4", "the same length", "a part"],
)
async def test_foreign_object_is_never_video(world: StoreWorld, planted: bytes) -> None:
    await world.put("output.mp4", planted)
    says = rf"{world.name('output.mp4')} should hold {len(VIDEO)} bytes.* holds {len(planted)} bytes"
    await world.fails("ObjectConflict", says, final=True)
    world.host.requests.clear()
    await world.fails("ObjectConflict", says, final=True)

    assert world.host.requests == [], "a verified content needs no request"
    assert await world.bucket.read(world.name("output.mp4")) == planted
    assert await world.bucket.read(world.names.record) is None


async def test_damaged_upload_is_refused_in_every_try(world: StoreWorld) -> None:
    bucket = world.bucket
    assert isinstance(bucket, GoogleBucket)
    world.bucket = SpoilingBucket("videos", bucket._client)
    await world.fails("ObjectConflict", final=True)
    world.bucket = bucket
    world.host.requests.clear()
    await world.fails("ObjectConflict", final=True)
    assert world.host.requests == []
    assert await world.bucket.read(world.names.record) is None


async def test_video_is_stored_after_conflict_moved(world: StoreWorld) -> None:
    await world.put("output.mp4", FOREIGN)
    await world.fails("ObjectConflict", final=True)
    await damage(world, world.name("output.mp4"), None)
    assert (await world.store()).md5 == Checksums.of(BytesIO(VIDEO)).md5


async def test_large_object_is_not_overwritten(world: StoreWorld) -> None:
    """The bucket server ignores the precondition above 8 MiB, where the library uploads in parts."""
    large = VIDEO + b"\0\0\0\x08free" * (9 * 1024 * 1024 // 8)
    world.host.answers["/v.mp4"] = [Answer(large)]
    await world.put("output.mp4", FOREIGN)
    await world.fails("ObjectConflict", final=True)
    assert await world.bucket.read(world.name("output.mp4")) == FOREIGN


async def test_verified_picture_is_no_video(world: StoreWorld) -> None:
    await world.verify(PNG, "last_frame.png")
    await world.put("output.mp4", PNG)
    await world.fails("ObjectConflict", final=True)


async def test_older_upload_is_compared(world: StoreWorld) -> None:
    await world.put("output.mp4", VIDEO)
    assert (await world.store()).size == len(VIDEO)
    assert len(world.host.asked("/v.mp4")) == 1
    assert await world.bucket.read(world.verified(VIDEO)[0]) == world.verified(VIDEO)[1]


async def test_video_of_other_run_counts(world: StoreWorld) -> None:
    await uploaded(world)
    await world.verify(OTHER)
    world.host.answers["/v.mp4"] = [Answer(OTHER)]
    await world.store()
    assert world.host.requests == []
    record = await world.record()
    assert record["objects"]["video"]["md5"] == Checksums.of(BytesIO(VIDEO)).md5
    assert {one["name"] for one in record["objects"]["verified"]} == {world.verified(b)[0] for b in (VIDEO, OTHER)}


async def test_concurrent_upload_of_video_counts(in_memory: StoreWorld) -> None:

    async def other() -> None:
        in_memory.memory.before.clear()
        await in_memory.verify(OTHER)
        await in_memory.put("output.mp4", OTHER)

    in_memory.memory.before["output"] = other
    assert (await in_memory.store()).md5 == Checksums.of(BytesIO(OTHER)).md5


async def test_invalid_record_needs_operator(world: StoreWorld) -> None:
    await world.bucket.create(world.names.record, b'{"task_id": "cgt-1"}')
    await world.fails("ObjectConflict", "record.json is no record", final=True)
    assert world.host.requests == []


# The last frame


@pytest.mark.parametrize("planted", [b"a text", b"", PNG[:-1]], ids=["text", "nothing", "a part"])
@pytest.mark.parametrize("noted", [False, True], ids=["first try", "after a try"])
async def test_foreign_object_is_never_last_frame(world: StoreWorld, planted: bytes, noted: bool) -> None:
    world.request = a_stored_request()
    await world.put("last_frame.png", planted)
    if noted:
        await world.verify(PNG, "last_frame.png")
    await world.fails("ObjectConflict", "last_frame.png should hold")
    assert await world.bucket.read(world.names.record) is None

    world.attempt = 5
    result = await world.store()
    assert (result.size, result.last_frame_uri) == (len(VIDEO), None)
    assert "last_frame.png should hold" in (await world.record())["warnings"][0]
    assert await world.bucket.read(world.name("last_frame.png")) == planted


async def test_foreign_picture_of_other_format_is_ignored(world: StoreWorld) -> None:
    world.request = a_stored_request()
    await world.put("last_frame.jpg", b"a text")
    assert (await world.store()).last_frame_uri == f"gs://videos/{world.name('last_frame.png')}"


@pytest.mark.parametrize("answer", OTHER_ANSWERS)
async def test_missing_last_frame_stores_video(in_memory: StoreWorld, answer: str) -> None:
    in_memory.request = a_stored_request()
    await in_memory.put(
        "task.json", as_json(in_memory.payload(content={"last_frame_url": "https://example.com/f.png"}))
    )
    await in_memory.verify(VIDEO)
    await in_memory.put("output.mp4", VIDEO)
    answer_get(in_memory, answer)
    for in_memory.attempt in (1, 4):
        kind = {"404": "TaskGone", "no content": "NotReady", "running": "NotReady"}
        await in_memory.fails(kind.get(answer, "ProviderUnavailable"), "last frame")
    in_memory.attempt = 5
    assert (await in_memory.store()).last_frame_uri is None
    (warning,) = (await in_memory.record())["warnings"]
    assert "last frame" in warning


async def test_last_frame_of_stored_video_is_downloaded(world: StoreWorld) -> None:
    world.request = a_stored_request()
    await uploaded(world)
    await damage(world, world.name("last_frame.png"), None)
    assert (await world.store()).last_frame_uri == f"gs://videos/{world.name('last_frame.png')}"
    assert not world.host.asked("/v.mp4")


# A verified video, and a provider that fails


@pytest.mark.parametrize("answer", ANSWERS)
async def test_verified_video_needs_no_provider(world: StoreWorld, answer: str) -> None:
    await uploaded(world)
    answer_get(world, answer)
    world.host.answers.pop("/v.mp4")
    result = await world.store()
    assert (result.size, result.seed) == (len(VIDEO), 7)
    assert result.cost_usd == pytest.approx(0.284158)
    assert (await world.record())["warnings"] == []
    assert world.host.requests == []


BAD_TASKS = {
    "empty": b"",
    "cut": b'{"id": "',
    "a list": b"[]",
    "null": b"null",
    "of another task": b'{"id": "cgt-other", "status": "succeeded"}',
    "running": json.dumps({"id": TASK, "status": "running"}).encode(),
    "no text": b"\xff\xfe\xfd",
    "brackets": b"[" * 100_000,
}


@pytest.mark.parametrize("content", BAD_TASKS.values(), ids=BAD_TASKS)
async def test_damaged_payload_is_fetched_again(world: StoreWorld, content: bytes) -> None:
    await uploaded(world)
    await damage(world, world.name("task.json"), content)
    assert (await world.store()).seed == 7
    record = await world.record()
    assert (record["objects"]["task"], record["cost_usd"]) == (None, pytest.approx(0.284158))
    (warning,) = record["warnings"]
    assert world.name("task.json") in warning
    assert await world.bucket.read(world.name("task.json")) == content


async def test_missing_payload_is_written_again(world: StoreWorld) -> None:
    await uploaded(world)
    await damage(world, world.name("task.json"), None)
    await world.store()
    record = await world.record()
    assert (record["objects"]["task"]["name"], record["warnings"]) == (world.name("task.json"), [])


@pytest.mark.parametrize("answer", [answer for answer in ANSWERS if answer not in {"the task", "no content"}])
@pytest.mark.parametrize("content", [None, b"", BAD_TASKS["of another task"]], ids=["missing", "empty", "foreign"])
async def test_lost_payload_stores_video(in_memory: StoreWorld, answer: str, content: bytes | None) -> None:
    await uploaded(in_memory)
    await damage(in_memory, in_memory.name("task.json"), content)
    answer_get(in_memory, answer)
    kind = {"404": "TaskGone", "running": "NotReady"}.get(answer, "ProviderUnavailable")
    for in_memory.attempt in (1, 7):
        await in_memory.fails(kind)
    in_memory.attempt = 8
    result = await in_memory.store()
    assert (result.size, result.task_id, result.usage) == (len(VIDEO), TASK, None)
    assert "such as its tokens" in (await in_memory.record())["warnings"][0]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"media": {}}', b'{"media": [1]}', b"\xff", b"[" * 100_000], ids=range(7)
)
async def test_damaged_claim_stores_video(world: StoreWorld, content: bytes) -> None:
    await world.bucket.create(world.names.attempt(1, "claim"), content)
    await world.store()
    assert (await world.record())["references"] == []


async def test_record_names_a_damaged_claim(world: StoreWorld) -> None:
    await world.bucket.create(world.names.attempt(1, "claim"), b'{"media": [')
    await world.store()
    (warning,) = (await world.record())["warnings"]
    assert "0001.claim.json is not JSON" in warning


# Objects that should say that a content was verified


# Contents for the object of a verified content that must not be believed, by what a right one says.
BAD_NOTES: dict[str, Callable[[bytes, dict[str, Any]], bytes]] = {
    "empty": lambda right, said: b"",
    "text": lambda right, said: b"verified, believe me",
    "a list": lambda right, said: b"[]",
    "cut": lambda right, said: right[:-5],
    "without a seal": lambda right, said: as_json(said),
    "with a changed size": lambda right, said: right.replace(b'"size": ', b'"size": 1'),
    "of another task": lambda right, said: sealed(said | {"task_id": "cgt-other"}),
    "of another content": lambda right, said: sealed(said | {"crc32c": "AAAAAA=="}),
    "without base64": lambda right, said: sealed(said | {"crc32c": "?"}),
    "without fields": lambda right, said: sealed({}),
    "brackets": lambda right, said: b"[" * 100_000,
}


async def note_badly(world: StoreWorld, content: bytes, bad: str) -> None:
    name, right = world.verified(content)
    said = {key: value for key, value in json.loads(right).items() if key != "sha256"}
    await world.bucket.create(name, BAD_NOTES[bad](right, said))


@pytest.mark.parametrize("bad", BAD_NOTES)
async def test_damaged_note_is_ignored(in_memory: StoreWorld, bad: str) -> None:
    await in_memory.put("output.mp4", FOREIGN)
    await note_badly(in_memory, FOREIGN, bad)
    await in_memory.fails("ObjectConflict", "was ignored", final=True)
    assert await in_memory.bucket.read(in_memory.names.record) is None


@pytest.mark.parametrize("bad", BAD_NOTES)
async def test_damaged_note_stores_video(in_memory: StoreWorld, bad: str) -> None:
    await note_badly(in_memory, VIDEO, bad)
    assert (await in_memory.store()).size == len(VIDEO)
    record = await in_memory.record()
    (warning,) = record["warnings"]
    assert in_memory.verified(VIDEO)[0] in warning
    assert record["objects"]["verified"] == []


async def test_damaged_note_is_named_in_the_failure(in_memory: StoreWorld) -> None:
    await uploaded(in_memory)
    await damage(in_memory, in_memory.verified(VIDEO)[0], b"")
    in_memory.forgets()
    await in_memory.fails("TaskGone", rf"output\.mp4 exists.*{in_memory.verified(VIDEO)[0]} is not JSON")


JOB = World()


@given(st.binary(max_size=40), st.data())
def test_changed_note_is_refused(content: bytes, data: st.DataObject) -> None:
    name, said = JOB.verified(content)
    assert read_verified(JOB.names, name, said).size == len(content)
    at = data.draw(st.integers(0, len(said) - 1))
    changed = said[:at] + bytes([said[at] ^ data.draw(st.integers(1, 255))]) + said[at + 1 :]
    with pytest.raises(ValueError, match=r"^(is|carries|lacks|holds|does) "):
        read_verified(JOB.names, name, changed)


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_only_same_content_is_equal(one: bytes, other: bytes) -> None:
    said = read_verified(JOB.names, *JOB.verified(one))
    of = Checksums.of(BytesIO(other))
    stored = RecordedObject(name="x", generation=1, size=of.size, crc32c=of.crc32c, md5=of.md5)
    assert said.equals(stored) == (one == other)
    assert said.equals(stored.model_copy(update={"md5": None})) == (one == other)
    assert not said.equals(stored.model_copy(update={"md5": "AAAAAAAAAAAAAAAAAAAAAA=="}))


# Everything at once

OBJECTS = {
    "nothing": (None, ()),
    "a text": (b"a text", ()),
    "an empty object": (b"", ()),
    "another MP4": (FOREIGN, ()),
    "the video": (VIDEO, ()),
    "another run's video": (OTHER, ()),
    "a text, verified the video": (b"a text", (VIDEO,)),
    "another MP4, verified the video": (FOREIGN, (VIDEO,)),
    "the video, verified": (VIDEO, (VIDEO,)),
    "the video, verified with another's": (VIDEO, (VIDEO, OTHER)),
    "another run's video, verified": (OTHER, (OTHER,)),
    "another run's video, verified the video": (OTHER, (VIDEO,)),
    "nothing, verified": (None, (VIDEO,)),
}


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    objects=st.sampled_from(list(OBJECTS)),
    answer=st.sampled_from(list(ANSWERS)),
    damaged=st.booleans(),
    payload=st.sampled_from(["whole", "missing", "damaged"]),
)
async def test_record_names_verified_bytes_or_nothing(
    in_memory: StoreWorld, objects: str, answer: str, damaged: bool, payload: str
) -> None:
    in_memory.bucket, in_memory.request = MemoryBucket(), a_request()
    content, earlier = OBJECTS[objects]
    if content is not None:
        await in_memory.put("output.mp4", content)
    for one in earlier:
        name, said = in_memory.verified(one)
        await in_memory.bucket.create(name, said[:-9] if damaged else said)
    if payload != "missing":
        await in_memory.put("task.json", as_json(in_memory.payload(content=None)) if payload == "whole" else b"{")
    answer_get(in_memory, answer)
    believed = () if damaged else earlier
    end = None
    for in_memory.attempt in (1, 9):
        try:
            await in_memory.store()
        except ApplicationError as error:
            end = error.type

    record = await in_memory.bucket.read(in_memory.names.record)
    found = await in_memory.bucket.read(in_memory.name("output.mp4"))
    assert content is None or found == content, "nothing is overwritten"
    if record is None:
        assert end in {"ObjectConflict", "ProviderUnavailable", "TaskGone", "NotReady"}
        assert content not in believed, "a verified video is always committed"
        return
    # The provider gives the same bytes each time, and this run verified them where no valid object did.
    assert found in {VIDEO, *believed}
    named = json.loads(record)["objects"]
    stored = present(await in_memory.bucket.stat(in_memory.name("output.mp4")))
    assert named["video"] == RecordedObject.of(stored).model_dump()
    if not damaged:
        assert in_memory.verified(found)[0] in {one["name"] for one in named["verified"]}


@pytest.mark.parametrize("days", [1, 8], ids=lambda days: f"{days} days old")
async def test_verified_video_of_forgotten_task_is_stored(in_memory: StoreWorld, days: int) -> None:
    """The run was ended between upload and record; the next one asks for the task, and GET says 404."""
    await in_memory.claim(1, created(TASK))
    in_memory.make_older(days=days)
    in_memory.forgets()
    await in_memory.put("output.mp4", VIDEO)
    seen = await in_memory.poll()
    assert seen.next == ("wait" if days < 7 else "write_end"), "an unverified object is no video"
    await in_memory.verify(VIDEO)
    await in_memory.put("task.json", as_json({"id": TASK, "status": "succeeded"}))
    seen = await in_memory.poll()
    assert (seen.next, seen.copy_within) == ("copy", 86_400)


@pytest.mark.parametrize("depth", range(900, 1000, 7))
async def test_deep_damaged_note_blocks_no_read(depth: int) -> None:
    files = TaskFiles(MemoryBucket(), names(a_request()), TASK)
    await files.bucket.create(files.name("verified-00000000.json"), b'{"a":' * depth + b"1" + b"}" * depth)
    await files.read()
    assert (len(files.verified), len(files.damaged)) == (0, 1)


async def test_failed_picture_upload_stores_video(in_memory: StoreWorld) -> None:
    async def fail() -> None:
        raise ConnectionError("no pictures today")

    in_memory.request = a_stored_request()
    in_memory.memory.before["last_frame"] = fail
    for in_memory.attempt in (1, 4):
        await in_memory.fails("StoreFailed", "last frame")
    in_memory.attempt = 5
    assert (await in_memory.store()).last_frame_uri is None
    assert "no pictures today" in (await in_memory.record())["warnings"][0]


async def test_endless_video_uses_constant_memory(in_memory: StoreWorld) -> None:
    in_memory.host.answers["/v.mp4"] = [Answer(bottomless_video())]
    before = getrusage(RUSAGE_SELF).ru_maxrss
    await in_memory.fails("BadVideo")
    assert getrusage(RUSAGE_SELF).ru_maxrss - before < 300_000, "kilobytes; in this process it took 1.8 GB"


async def test_video_url_is_found_in_long_payload(in_memory: StoreWorld) -> None:
    content = in_memory.payload()["content"]
    in_memory.task(in_memory.payload(content={"frames": [{"at": n} for n in range(400)]} | content))
    assert (await in_memory.store()).size == len(VIDEO)


async def test_signed_url_as_name_is_redacted(in_memory: StoreWorld) -> None:
    """The in_memory searches each object for the signature."""
    content = in_memory.payload()["content"]
    in_memory.task(in_memory.payload(content=content | {"variants": {content["video_url"]: {"size": 1}}}))
    await in_memory.store()
    assert b"variants" in (await in_memory.bucket.read(in_memory.name("task.json")) or b"")
