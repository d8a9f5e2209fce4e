"""A paid video that an operator brings as a file: verified, recorded as such, and never over anything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dev.ark import media
from dev.ark.media import Clip
from seedance_temporal.adopted_file import adopt_file
from seedance_temporal.errors import InvalidRequest
from seedance_temporal.job import VideoResult
from seedance_temporal.ledger.facts import Outcome
from seedance_temporal.provider.rules import Rules
from seedance_temporal.provider.task import Usage
from seedance_temporal.storage.bucket import Checksums
from tests.support.jobs import a_request, an_end, created, refused
from tests.support.world import World

CLIP = Clip(864, 496, 4, audio=False)


@pytest.fixture(scope="module")
def video() -> bytes:
    return media.video(CLIP, "cgt-1")


@pytest.fixture
def file(tmp_path: Path, video: bytes) -> Path:
    path = tmp_path / "from-tos.mp4"
    path.write_bytes(video)
    return path


@pytest.fixture
async def world() -> World:
    """A job whose task has succeeded, and whose copy was given up."""
    world = World()
    await world.claim(1, created("cgt-1"), an_end(1, "cgt-1", "lost", "copy_failed"))
    return world


async def adopt(world: World, file: Path, task_id: str | None = None) -> VideoResult:
    claim, result = await adopt_file(world.ledger, world.bucket, Rules(), world.job_id, file, task_id)
    assert claim == world.claims[-1]
    return result


async def refusal(world: World, file: Path, task_id: str | None = None) -> str:
    """Return why a file is not adopted; the bucket is as it was."""
    before = dict(world.memory.contents)
    with pytest.raises(InvalidRequest) as caught:
        await adopt_file(world.ledger, world.bucket, Rules(), world.job_id, file, task_id)
    assert world.memory.contents == before
    (problem,) = caught.value.problems
    return str(problem)


async def test_file_becomes_the_video(world: World, file: Path, video: bytes) -> None:
    payload = {"id": "cgt-1", "status": "succeeded", "resolution": "720p", "usage": {"total_tokens": 1000}, "seed": 7}
    await world.bucket.create(world.names.of_task("cgt-1", "task.json"), json.dumps(payload).encode())
    result = await adopt(world, file)
    assert (result.task_id, result.size, result.seed, result.cost_usd) == ("cgt-1", len(video), 7, 0.007)
    assert world.memory.contents[world.names.of_task("cgt-1", "output.mp4")] == video
    decision = await world.decision()
    assert (decision.next, decision.result) == ("stored", result), "the record wins over the end"
    record = await world.ledger.record(world.job_id)
    assert record is not None
    assert "adopted by an operator from the file from-tos.mp4" in record.warnings[-1]
    assert "nothing proves that the provider made it" in record.warnings[-1]
    assert [stored.name for stored in record.objects.verified] == [
        world.names.verified("cgt-1", Checksums.of_file(file).crc32c)
    ]
    assert "has a video already" in await refusal(world, file)


async def test_file_without_the_tasks_payload(world: World, file: Path) -> None:
    result = await adopt(world, file)
    assert (result.usage, result.cost_usd, result.resolution) == (None, None, None)


async def test_other_content_is_never_overwritten(world: World, file: Path) -> None:
    await world.bucket.create(*world.verified(b"another video"))
    assert "and the video of cgt-1 that a worker verified has 13" in await refusal(world, file)


@pytest.mark.parametrize("outcome", [created("cgt-2"), None], ids=["a live task", "an unknown attempt"])
async def test_video_of_another_task_comes_first(world: World, file: Path, outcome: Outcome | None) -> None:
    """With the record of this one, that video would be paid for, and not stored."""
    await world.claim(2, *[outcome] if outcome is not None else [])
    why = "follows task cgt-2" if outcome is not None else "attempt 2, which may have made a task"
    assert why in await refusal(world, file, "cgt-1")


async def test_task_that_turns_up_during_the_upload_comes_first(world: World, file: Path) -> None:
    upload = world.bucket.upload

    async def claimed_meanwhile(*args: Any, **given: Any) -> Any:
        await world.claim(2)
        return await upload(*args, **given)

    world.bucket.upload = claimed_meanwhile  # type: ignore[method-assign]
    with pytest.raises(InvalidRequest, match="attempt 2, which may have made a task"):
        await adopt_file(world.ledger, world.bucket, Rules(), world.job_id, file, "cgt-1")
    assert (await world.ledger.read(world.job_id)).record is None


@pytest.mark.parametrize("code", ["task_forgotten", "given_up"])
async def test_end_that_saw_no_success_needs_a_word(file: Path, code: str) -> None:
    world = World()
    await world.claim(1, created("cgt-1"), an_end(1, "cgt-1", "lost", code))
    assert "--task-succeeded" in await refusal(world, file)


async def test_cost_of_the_end_is_kept(file: Path) -> None:
    world = World()
    end = an_end(1, "cgt-1", "lost", "copy_failed").model_copy(
        update={"usage": Usage(total_tokens=1000), "cost_usd": 0.5}
    )
    await world.claim(1, created("cgt-1"), end)
    result = await adopt(world, file)
    assert (result.usage, result.cost_usd) == (Usage(total_tokens=1000), 0.5)


async def test_object_in_its_place_is_left(world: World, file: Path) -> None:
    await world.bucket.create(world.names.of_task("cgt-1", "output.mp4"), b"planted")
    with pytest.raises(InvalidRequest, match="Nothing was overwritten"):
        await adopt_file(world.ledger, world.bucket, Rules(), world.job_id, file)
    assert world.memory.contents[world.names.of_task("cgt-1", "output.mp4")] == b"planted"
    assert (await world.ledger.read(world.job_id)).record is None


@pytest.mark.parametrize("content", [b"", b"no video", b"<html>log in</html>"])
async def test_what_is_no_video_is_refused(world: World, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "v.mp4"
    path.write_bytes(content)
    assert (await refusal(world, path)).startswith("FILE: ")


async def test_cut_video_is_refused(world: World, tmp_path: Path, video: bytes) -> None:
    path = tmp_path / "v.mp4"
    path.write_bytes(video[: len(video) // 2])
    assert "it is no whole video" in await refusal(world, path)


async def test_job_without_a_paid_task_is_refused(file: Path) -> None:
    world = World()
    await world.claim(1, refused())
    assert "knows no task" in await refusal(world, file)
    failed = World()
    await failed.claim(1, created("cgt-1"), an_end(1, "cgt-1"))
    assert "task cgt-1 made no video" in await refusal(failed, file)


async def test_task_that_nobody_saw_succeed_needs_a_word(file: Path) -> None:
    """It may still run: its own video would then find another one in its place."""
    world = World()
    await world.claim(1, created("cgt-1"))
    assert "no worker has seen task cgt-1 succeed" in await refusal(world, file)
    _, result = await adopt_file(world.ledger, world.bucket, Rules(), world.job_id, file, task_succeeded=True)
    assert result.task_id == "cgt-1"


async def test_other_length_and_missing_frame_are_warned_of(tmp_path: Path) -> None:
    world = World(a_request(return_last_frame=True, duration=9))
    await world.claim(1, created("cgt-1"), an_end(1, "cgt-1", "lost", "copy_failed"))
    path = tmp_path / "caf\udce9.mp4"
    path.write_bytes(media.video(CLIP, "cgt-1"))
    await adopt(world, path)
    record = await world.ledger.record(world.job_id)
    assert record is not None
    assert len(record.warnings) == 4
    assert "has 4.0 s, and 9 s were asked for" in record.warnings[2]
    assert "last frame was asked for" in record.warnings[3]


async def test_task_is_named_where_there_are_several(world: World, file: Path) -> None:
    await world.grant(1, accept=True)
    await world.claim(2, created("cgt-2"), an_end(2, "cgt-2", "lost", "copy_failed"))
    assert "--task-id: is needed, to name the one of" in await refusal(world, file)
    assert "cgt-3 is none of the job" in await refusal(world, file, "cgt-3")
    assert (await adopt(world, file, "cgt-2")).task_id == "cgt-2"
