"""Four runs in Temporal's UI, for a reader who knows Temporal and not this project.

What happened, what did it cost, and what is to be done?

``make screenshots`` renews the pictures of docs/how-to/inspecting.md with this test.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from dev.stack import ROOT, Stack, running_stack
from seedance_temporal import VideoRequest
from tests.browser.ui import COLUMNS, TemporalUi, temporal_ui
from tests.e2e.requests import until
from tests.support.jobs import detail_of, present

IMAGES = ROOT / "docs" / "images"
LARGEST_IMAGE = 200_000
PICTURES = (*("list", "finished-timeline", "finished-details", "waiting-details", "failed-details", "in-need-details"),)
# Short enough to be waited for; the run that needs an operator is then one after some ten seconds.
SETTINGS = {
    "SEEDANCE_CREATE_TIMEOUT_SECONDS": "5",
    "SEEDANCE_CLOCK_SKEW_SECONDS": "1",
    "SEEDANCE_RECOVERY_SECONDS": "12",
}
CODE = "InputTextSensitiveContentDetected"
REFUSAL = "The request failed because the input text may contain sensitive information."


def a_request(prompt: str, **given: object) -> VideoRequest:
    fields = {"user_id": "user-42", "route": "byteplus", "model": "dreamina-seedance-2-0-260128", "prompt": prompt}
    return VideoRequest.model_validate(fields | given)


@dataclass
class Runs:
    """The job ids of one run of each kind."""

    finished: str
    waiting: str
    failed: str
    in_need: str


async def four_runs(stack: Stack) -> Runs:
    """One run that is stored, one whose task runs, one that was refused, and one that needs an operator."""
    # On a route of its own, where nothing is known yet of what LIST shows: its absence cannot be proved.
    lost = a_request("A lighthouse at dusk", route="volcengine", model="doubao-seedance-2-0-260128", user_id="user-7")
    slow = a_request("A paper boat on a pond", user_id="user-7", duration=10)
    refused = a_request("Something that may not be shown", resolution="480p")
    finished = a_request("A quiet product demo shot, slow camera move, clean studio light", return_last_frame=True)
    faults = [
        await stack.ark.fault("create", "reset_before_commit", contains=str(lost.prompt)),
        await stack.ark.fault("task", "stay_running", contains=str(slow.prompt), seconds=3600),
        await stack.ark.fault("create", "400", contains=str(refused.prompt), code=CODE, message=REFUSAL),
    ]
    runs = Runs(*[(await stack.jobs.submit(r)).id for r in (finished, slow, refused, lost)])
    await stack.jobs.job(runs.finished).result()
    await until(stack, runs.waiting, lambda job: job.phase == "running" and detail_of(job).continues_at is not None)
    await until(stack, runs.in_need, lambda job: job.attention == "unknown_create")
    for fault in faults:
        assert len(await stack.ark.fired(fault)) == 1, "the fault did not happen"
    return runs


async def test_ui_shows_timeline_cost_and_advice(chromium: str, pictures: Path) -> None:
    async with running_stack(speed=60, settings=SETTINGS) as stack:
        await stack.start_worker("worker-polling", ARK_ROUTE="volcengine", SEEDANCE_CALLBACK_URL="")
        runs = await four_runs(stack)
        async with temporal_ui(stack, chromium, pictures) as ui:
            await read_list(ui, runs)
            await read_finished_run(ui, runs.finished)
            await read_waiting_run(ui, runs.waiting)
            await read_failed_run(ui, runs.failed)
            command = await read_run_in_need(ui, runs.in_need)
        await do_what_it_says(stack, command)
        await stack.jobs.job(runs.in_need).result()
    assert {picture.stem for picture in pictures.glob("*.png")} >= set(PICTURES)
    assert all(picture.stat().st_size < LARGEST_IMAGE for picture in pictures.glob("*.png"))


async def read_list(ui: TemporalUi, runs: Runs) -> None:
    await ui.open_list()
    finished = present((await ui.stack.jobs.job(runs.finished).state()).result)
    # A row reads in the order of its columns.
    await ui.until_it_shows(
        " ".join(COLUMNS),
        f"COMPLETED stored user-42 {finished.task_id} {finished.cost_usd} {runs.finished}",
        f"FAILED refused user-42 {runs.failed}",
        f"RUNNING recovering unknown_create user-7 {runs.in_need}",
        "RUNNING running user-7 cgt-",
    )
    await ui.photograph("list", least=560)


async def read_finished_run(ui: TemporalUi, job_id: str) -> None:
    result = present((await ui.stack.jobs.job(job_id).state()).result)
    await ui.open_run(job_id, "timeline")
    await ui.until_it_shows(
        "read the ledger",
        "POST create: attempt 1, paid at most once",
        "callback, or poll in",
        "copy MP4 to gs://seedance-local, verified, and write the record",
    )
    await ui.photograph("finished-timeline")
    await ui.open_run(job_id, "user-metadata")
    await ui.until_it_shows(
        "Seedance 2.0 720p 16:9 5 s for user-42",
        "prompt: A quiet product demo shot, slow camera move, clean studio light",
        "Stored. The video is in the bucket, verified, and on record.",
        f"cost: {result.cost_usd} USD, 108,900 tokens (expected: at most",
        f"video: {result.video_uri}, {result.size / 1000:.1f} kB",
        f"record: {result.record_uri}",
        f"python starter.py show {job_id}",
    )
    await ui.photograph("finished-details")


async def read_waiting_run(ui: TemporalUi, job_id: str) -> None:
    task_id = (await ui.stack.jobs.job(job_id).state()).task_id
    await ui.open_run(job_id, "user-metadata")
    read = await ui.until_it_shows(
        "Running. The provider is making the video.",
        f"task: {task_id} attempt: 1",
        "provider says: running",
        "USD, 216,900 tokens, if it succeeds",
        "awaited: callback, or poll at",
    )
    assert re.search(r"awaited: callback, or poll at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", read)
    await ui.photograph("waiting-details")


async def read_failed_run(ui: TemporalUi, job_id: str) -> None:
    await ui.open_run(job_id, "timeline")
    await ui.until_it_shows(
        f'"message": "The provider refused the request ({CODE}): {REFUSAL}',
        "nothing is billed. Submit a request that is changed accordingly.",
        "POST create: attempt 1, paid at most once",
    )
    await ui.open_run(job_id, "user-metadata")
    await ui.until_it_shows(
        "No video: refused (moderation). The provider refused the request",
        "cost: nothing is billed for attempt 1",
        f"ledger: gs://seedance-local/seedance/{job_id.removeprefix('seedance-')}/attempts/",
    )
    await ui.photograph("failed-details")


async def read_run_in_need(ui: TemporalUi, job_id: str) -> str:
    """Return the command for a task that certainly does not exist, as the UI shows it."""
    await ui.open_run(job_id, "user-metadata")
    resolve = f"python starter.py resolve {job_id} --attempt 1"
    await ui.until_it_shows(
        "Needs an operator: unknown_create. Whether the provider accepted attempt 1 is not known, so nothing is sent",
        f"The task exists: {resolve} --task-id ID",
        f"It cannot be known any more, and the search is to end: {resolve} --lost",
        "Nothing is sent meanwhile, and nothing is paid for twice.",
    )
    read = await ui.until_it_shows("No task exists, and another one is to be paid: ", "awaited: callback or listing")
    await ui.photograph("in-need-details")
    command = re.search(
        r"No task exists, and another one is to be paid: (python starter\.py [\w -]+--not-created)",
        read,
    )
    assert command is not None, read
    return command[1]


async def do_what_it_says(stack: Stack, command: str) -> None:
    _, *words = shlex.split(command)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *words), cwd=ROOT, env=stack.environment, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, said
    assert said.startswith(b"Accepted")


def test_the_pictures_of_the_docs_are_small() -> None:
    pictures = list(IMAGES.glob("*.png"))
    assert {picture.stem for picture in pictures} == {*PICTURES, "report"}
    assert all(picture.stat().st_size < LARGEST_IMAGE for picture in pictures)
