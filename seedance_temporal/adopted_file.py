"""Store a paid video from a file that an operator brings, such as from the provider's own copy of its results."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from seedance_temporal.errors import InvalidRequest, Problem
from seedance_temporal.events import Timeline
from seedance_temporal.identity import hash_of_job
from seedance_temporal.job import VideoResult
from seedance_temporal.ledger.checksummed_json import sealed
from seedance_temporal.ledger.facts import Attempt, Claim, Facts
from seedance_temporal.ledger.record import Record, RecordedObject, RecordedObjects, result_of_record
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.ledger.task_files import OtherContent, TaskFiles
from seedance_temporal.media.probe import BadMedia, Unreadable, probed
from seedance_temporal.provider.models import MODEL_CHOOSES
from seedance_temporal.provider.rules import Rules
from seedance_temporal.provider.task import SUCCEEDED, Task, Usage, parse_task
from seedance_temporal.storage.bucket import Bucket, Checksums
from seedance_temporal.urls import printable

_VIDEO, _TASK = "output.mp4", "task.json"
# As for a copy: a whole video of the largest size is read in some seconds.
_PROBE_SECONDS = 120.0


async def adopt_file(
    ledger: Ledger,
    bucket: Bucket,
    rules: Rules,
    job_id: str,
    path: Path,
    task_id: str | None = None,
    *,
    task_succeeded: bool = False,
    timeline: Timeline = (),
) -> tuple[Claim, VideoResult]:
    """Verify a file, upload it as the video of a job's task, and write the record.

    Args:
        ledger: Of the bucket's prefix.
        bucket: Of the job.
        rules: For the price of the task, where its payload is kept.
        job_id: The job.
        path: An absolute path.
        task_id: The task that made it; may be left out where the job has one task.
        task_succeeded: Whether the console shows that the task succeeded. Needed where no worker saw it.
        timeline: The job's events so far, for the record.

    Returns:
        The claim of the task's attempt, and the result.

    Raises:
        InvalidRequest: The job has a video already, no such task, or another one that can still get a video; another
            object is in its place; or the file is no video.
    """
    facts = await ledger.read(job_id)
    if facts.record is not None:
        raise _refusal("JOB", f"has a video already: {facts.record.video_uri}")
    attempt, task_id = _attempt_of(facts, job_id, task_id)
    assert attempt.claim is not None
    _refuse_beside_others(facts, task_id)
    try:
        seen = await probed("result", path, _PROBE_SECONDS)
    except Unreadable as error:
        raise _refusal("FILE", str(error)) from None
    except BadMedia as error:
        raise _refusal("FILE", f"{error}: it is no whole video") from None
    content = await asyncio.to_thread(Checksums.of_file, path)
    files = TaskFiles(bucket, ledger.names(job_id), task_id)
    await files.read()
    end = attempt.end_of(task_id)
    was_seen = files.get(_TASK) is not None or (end is not None and end.error.code == "copy_failed")
    if not task_succeeded and not was_seen:
        raise _refusal(
            "JOB",
            f"no worker has seen task {task_id} succeed, and it may still run. If the console shows that it succeeded, "
            "say so with --task-succeeded",
        )
    verified = [one for one in files.verified.values() if one.file == _VIDEO]
    if verified and not any((one.size, one.crc32c) == (content.size, content.crc32c) for one in verified):
        raise _refusal(
            "FILE",
            f"has {content.size} bytes with CRC32C {content.crc32c}, and the video of {task_id} that a worker "
            f"verified has {verified[0].size} with {verified[0].crc32c}",
        )
    try:
        files.refuse_unverified(_VIDEO)
        stored = await files.put(path, _VIDEO, content, "video/mp4")
    except OtherContent as error:
        raise _refusal("FILE", str(error)) from None
    if stored is None:
        raise _refusal("FILE", f"was removed from {files.uri(_VIDEO)} during its upload")
    await files.read()
    payload = files.get(_TASK)
    objects = RecordedObjects(
        video=RecordedObject.of(stored),
        task=RecordedObject.of(payload) if payload is not None else None,
        verified=tuple(RecordedObject.of(files.objects[each]) for each in files.verified),
        ledger=tuple(RecordedObject.of(each) for each in await bucket.list(files.names.ledger)),
    )
    claim = attempt.claim
    record = Record.of_task(
        claim.request,
        await _task(files, end.usage if end is not None else None),
        rules,
        job_id=job_id,
        request_hash=hash_of_job(job_id),
        attempt=claim.attempt,
        timeline=timeline,
        references=[medium.model_dump(mode="json") for medium in claim.media],
        objects=objects,
        warnings=[*claim.warnings, *_warnings(claim, path, seen, has_payload=payload is not None)],
    )
    if end is not None and (end.cost_usd, end.cost_cny) != (None, None):
        # By the prices of its time.
        record = record.model_copy(update={"cost_usd": end.cost_usd, "cost_cny": end.cost_cny})
    # What was claimed or found while the file was uploaded.
    _refuse_beside_others(await ledger.read(job_id), task_id)
    name = files.names.record
    if not await bucket.create(name, sealed(record.model_dump(mode="json"))):
        existing = await ledger.record(job_id)
        if existing is None or existing.task_id != task_id:
            raise _refusal("JOB", "was stored meanwhile, with the video of another task")
        record = existing
    return claim, result_of_record(record, bucket.name, name)


def _refusal(at: str, problem: str) -> InvalidRequest:
    return InvalidRequest([Problem(at=at, problem=problem)])


def _refuse_beside_others(facts: Facts, task_id: str) -> None:
    """Refuse to adopt a task's file while another task of the job can get its video: a job has one record.

    With that of this task, the video of the other would be paid for, and not stored.
    """
    for attempt in facts.attempts:
        if live := [task for task in attempt.live if task != task_id]:
            raise _refusal("JOB", f"follows task {live[0]}, and stores its video: {task_id} has to wait for its end")
        if attempt.unknown:
            raise _refusal("JOB", f"has attempt {attempt.number}, which may have made a task as well: resolve it first")


def _attempt_of(facts: Facts, job_id: str, task_id: str | None) -> tuple[Attempt, str]:
    """Return the attempt of a task, and the task's id."""
    of_tasks = {task: attempt for attempt in facts.attempts for task in attempt.tasks if attempt.claim is not None}
    if not of_tasks:
        raise _refusal("JOB", f"the ledger of {job_id} knows no task that a video could be of")
    if task_id is None and len(of_tasks) > 1:
        raise _refusal("--task-id", f"is needed, to name the one of {', '.join(of_tasks)} that made the video")
    task_id = task_id or next(iter(of_tasks))
    if task_id not in of_tasks:
        raise _refusal("--task-id", f"{task_id} is none of the job; it has {', '.join(of_tasks)}")
    end = of_tasks[task_id].end_of(task_id)
    if end is not None and end.error.failure_class != "lost":
        raise _refusal("JOB", f"task {task_id} made no video: {end.error.message}")
    return of_tasks[task_id], task_id


def _warnings(claim: Claim, path: Path, seen: Mapping[str, object], *, has_payload: bool) -> Iterator[str]:
    yield (
        "The video was not downloaded by a worker: it was adopted by an operator from the file "
        f"{printable(path.name)}, and nothing proves that the provider made it for this task."
    )
    if not has_payload:
        yield "No worker had kept the provider's payload: its tokens are not known here, but for what an end says."
    asked, seconds = claim.request.duration, seen.get("seconds")
    is_open = claim.request.draft_of is not None or asked == MODEL_CHOOSES
    if not is_open and isinstance(seconds, int | float) and abs(seconds - asked) > 1:
        yield f"The adopted video has {seconds:.1f} s, and {asked} s were asked for."
    if claim.request.return_last_frame:
        yield "The last frame was asked for, and was not adopted with the video."


async def _task(files: TaskFiles, usage: Usage | None) -> Task:
    """Read the task's payload, where a worker has kept it; else little but its id is known."""
    content = await files.bucket.read(files.name(_TASK))
    try:
        task = parse_task(json.loads(content)) if content is not None else None
    except (ValueError, RecursionError, AttributeError):
        task = None
    return (
        task if task is not None and task.id == files.task_id else Task(id=files.task_id, status=SUCCEEDED, usage=usage)
    )
