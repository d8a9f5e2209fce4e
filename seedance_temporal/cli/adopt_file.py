"""``adopt-file``: store a paid video from a file that an operator brings."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from seedance_temporal.cli.local_files import spinner
from seedance_temporal.cli.options import JobArgument, JsonOption
from seedance_temporal.cli.output import DONE, SHOW, out, plain, print_json
from seedance_temporal.cli.runtime import BucketRefused, agree, command, open_bucket
from seedance_temporal.client import VideoJobs
from seedance_temporal.errors import InvalidRequest, Problem, UnknownJob
from seedance_temporal.identity import id_prefix_from
from seedance_temporal.job import JobState
from seedance_temporal.settings import Settings
from seedance_temporal.urls import printable, redacted


@command
async def adopt_file(
    job: JobArgument,
    file: Annotated[Path, Argument(metavar="FILE", help="The video, byte for byte as the provider made it.")],
    task_id: Annotated[str | None, Option(help="The task that made it, where the job has several.")] = None,
    task_succeeded: Annotated[
        bool, Option("--task-succeeded", help="The console shows that the task succeeded; no worker has seen it.")
    ] = False,
    yes: Annotated[bool, Option("--yes", help="Adopt it without asking.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Store a paid video from a file, where no worker could copy it: verified and recorded, never overwriting."""
    from seedance_temporal.adopted_file import adopt_file as adopt
    from seedance_temporal.ledger.store import Ledger, LedgerDamaged
    from seedance_temporal.storage.bucket import BucketError

    settings = Settings.from_environment("SEEDANCE_BUCKET")
    if file.is_dir():
        raise InvalidRequest([Problem(at="FILE", problem=f"{printable(str(file))} is a folder; name the video")])
    if not file.is_file():
        raise InvalidRequest([Problem(at="FILE", problem=f"there is no file {printable(str(file))}")])
    id_prefix_from(job)  # what is no job id is refused before Temporal is asked
    jobs = await VideoJobs.connect()
    found = await jobs.find(job)
    state: JobState | None = None
    with suppress(UnknownJob):  # the ledger knows a job that Temporal has forgotten
        state = await found.state()
    # A run that stores has seen its own task succeed, and no other one.
    is_storing = state is not None and state.phase == "storing" and task_id in {None, state.task_id}
    if not yes:
        await agree(f"{file.name} becomes the video of {found.id}, and cannot be replaced. Adopt it?", "adopted")
    bucket = await open_bucket(settings)
    ledger = Ledger(bucket, settings.seedance_prefix)
    with spinner() as progress:
        progress.add_task("verifying and uploading the file", total=None)
        try:
            claim, result = await adopt(
                ledger,
                bucket,
                settings.rules,
                found.id,
                file.absolute(),
                task_id,
                task_succeeded=task_succeeded or is_storing,
                timeline=state.detail.timeline if state is not None and state.detail is not None else (),
            )
        except (LedgerDamaged, BucketError, OSError) as error:
            raise BucketRefused(f"The file was not adopted: {redacted(str(error))}") from None
    # The run shows it from its next look at the ledger on; where none goes on, another one does.
    await jobs.take_over(claim.request)
    if as_json:
        print_json({"job_id": found.id, "result": result.model_dump(mode="json")})
    else:
        out.print(f"Adopted: {plain(result.video_uri)}, {result.size:,} bytes. To see the job: {SHOW} {found.id}")
    return DONE
