"""Submit Seedance videos as durable jobs, follow them, and read their records.

Output is text; --json prints one JSON document on stdout, and everything else on stderr. Exit codes: 0 done,
1 any other failure, 2 wrong usage, or refused before anything was spent, 3 ended without a video, 4 needs an operator.
"""

from __future__ import annotations

import sys
from typing import Annotated, get_args

import typer
from typer import Option

from seedance_temporal.cli.adopt_file import adopt_file
from seedance_temporal.cli.audit import audit
from seedance_temporal.cli.batch import batch
from seedance_temporal.cli.check import check
from seedance_temporal.cli.local_files import RequestReader, Uploads, folder_of, spinner
from seedance_temporal.cli.models import models
from seedance_temporal.cli.options import (
    AnyPathOption,
    JobArgument,
    JsonOption,
    ModelOption,
    RequestArgument,
    RouteOption,
    SinceOption,
    UntilOption,
    UserOption,
    require_order,
)
from seedance_temporal.cli.output import (
    DONE,
    OTHER,
    SHOW,
    document,
    err,
    exit_code,
    finish,
    out,
    plain,
    print_json,
    print_outlook,
    print_timeline,
)
from seedance_temporal.cli.pause import holds_of, pause, print_holds, unpause
from seedance_temporal.cli.recover import recover
from seedance_temporal.cli.report import report
from seedance_temporal.cli.runtime import (
    UNWRITABLE,
    command,
    find_job,
    follow,
    job_goes_on,
    open_bucket,
    prepare_streams,
    read,
    unwritten,
)
from seedance_temporal.cli.watch import watch
from seedance_temporal.client import VideoJobs
from seedance_temporal.contract import ResolveAction
from seedance_temporal.handle import VideoJob
from seedance_temporal.identity import job_id_of
from seedance_temporal.job import Attention, Phase
from seedance_temporal.provider.prices import estimate_in
from seedance_temporal.settings import Settings
from seedance_temporal.temporal_ui import COMMAND

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


@app.command()
@command
async def submit(
    file: RequestArgument,
    wait: Annotated[bool, Option("--wait", help="Follow the job to its end.")] = False,
    allow_any_path: AnyPathOption = False,
    as_json: JsonOption = False,
) -> int:
    """Start the job of a request, or find the existing job of the same request."""
    settings = Settings.from_environment()
    reader = RequestReader(settings, allow_any_path=allow_any_path)
    request = await reader.read(await read(file), folder_of(file))
    say = err if as_json else out
    print_outlook(request, settings, say)
    bucket = await open_bucket(settings) if reader.files else None
    jobs = await VideoJobs.connect()
    with job_goes_on(job_id_of(request)):
        with spinner() as progress:
            request = await Uploads(bucket, reader.files, progress).uploaded(request)
        job = await jobs.submit(request)
    assert job.submitted is not None
    known = "known already, a new run was started" if job.started else "known already"
    say.print(f"{job.id}  {known if job.existing else 'new'}, {job.submitted.phase}")
    if not wait:
        return finish(job.submitted, as_json, DONE, existing=job.existing, started=job.started)
    state = await follow(job)
    return finish(state, as_json, exit_code(state), existing=job.existing, started=job.started)


@app.command()
@command
async def show(
    job: JobArgument,
    follow_it: Annotated[
        bool, Option("--follow", help="Follow the job to its end, also while it needs an operator.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Show the state and the timeline of a job."""
    found = await find_job(job)
    if follow_it:
        ended = await follow(found, until_attention=False)
        return finish(ended, as_json, exit_code(ended))
    state = await found.state()
    if state.detail is None and not state.ended:
        err.print(
            "[yellow]No worker answers for this job[/]: this state is from Temporal itself. Nothing is lost: the "
            f"job continues when a worker of {plain(state.route)} is back."
        )
    failing = await found.failing()
    # Without a worker, each question would wait for one.
    place = await found.place() if state.detail is not None and state.phase in {"waiting", "creating"} else None
    hold = await found.held()
    if not as_json:
        print_timeline(state)
        if place is not None and place.before is not None and place.limit is not None:
            out.print(
                f"[dim]place     [/] {place.taken:,} of {place.limit:,} are taken; jobs that get one before this job: "
                f"{place.before:,}"
            )
        print_holds([hold] if hold is not None else [], out)
        for step in failing:
            out.print(f"[yellow]failing    {plain(step)}[/]")
    more = {
        "failing": failing,
        "place": place.model_dump() if place is not None else None,
        "held": hold.model_dump(mode="json") if hold is not None else None,
    }
    return finish(state, as_json, DONE, names_show=False, **more)


@app.command()
@command
async def wait(job: JobArgument, as_json: JsonOption = False) -> int:
    """Follow a job to its end, or until it needs an operator."""
    state = await follow(await find_job(job))
    return finish(state, as_json, exit_code(state))


@app.command("list")
@command
async def list_jobs(
    user: UserOption = None,
    phase: Annotated[str | None, Option(help="Only jobs in this phase, such as running.")] = None,
    attention: Annotated[str | None, Option(help="Only jobs with this Attention, such as account.")] = None,
    model: ModelOption = None,
    route: RouteOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    is_open: Annotated[bool, Option("--open", help="Only jobs that have not ended.")] = False,
    limit: Annotated[int, Option(min=1, help="The most jobs to list.")] = 100,
    as_json: JsonOption = False,
) -> int:
    """List jobs from Temporal's visibility store, newest first."""
    for option, given, known in (("phase", phase, get_args(Phase)), ("attention", attention, get_args(Attention))):
        if given is not None and given not in known:
            raise typer.BadParameter(f"there is no {option} {given!r}; there are {', '.join(known)}")
    require_order(since, until)
    jobs = await VideoJobs.connect()
    found = await jobs.list(
        user=user,
        phase=phase,
        attention=attention,
        model=model,
        route=route,
        since=since,
        until=until,
        is_open=is_open,
        limit=limit,
    )
    print_holds(await holds_of(jobs, route), err if as_json else out)
    if as_json:
        print_json([document(job) for job in found])
    for job in () if as_json else found:
        needs = f"  [yellow]{plain(job.attention)}[/]" if job.attention else ""
        of = "  ".join(filter(None, [plain(job.task_id or ""), plain(job.user or "")]))
        out.print(f"{job.job_id}  {job.started_at:%Y-%m-%d %H:%M}  {job.phase:<10}{needs}  {of}")
    return DONE


@app.command()
@command
async def cancel(job: JobArgument, as_json: JsonOption = False) -> int:
    """Request the cancellation of a job. A task that runs already is billed, and so its video is still stored."""
    found = await find_job(job)
    outcome = (await found.cancel()).outcome
    if as_json:
        print_json({"job_id": found.id, "outcome": outcome})
    else:
        out.print(_CANCEL_OUTCOMES[outcome].format(job=found.id))
    return DONE


_CANCEL_OUTCOMES = {
    "cancelled": "Cancelled.",
    "running_will_finish": "The task runs already, so the provider bills it: it cannot be stopped, and will be stored.",
    "requested": f"Cancellation requested, not confirmed yet. To see the result: {SHOW} {{job}}",
    "already_closed": "The job has ended already: there is nothing to cancel.",
}


@app.command()
@command
async def retry(job: JobArgument, as_json: JsonOption = False) -> int:
    """Have a job try at once what it waits for, such as after you have fixed the account: also the next create."""
    found = await find_job(job)
    asked = await found.retry()
    if as_json:
        print_json({"job_id": found.id, "requested": asked})
    else:
        out.print(await _retry_answer(found) if asked else "The job has ended already: nothing is waited for.")
    return DONE


async def _retry_answer(job: VideoJob) -> str:
    if (await job.state()).detail is None:
        return "No worker answers at the moment. The job tries at once when one is back."
    hold = await job.held()
    if hold is not None and hold.kind == "paused":
        return f"{plain(str(hold))} The job tries at once when they are sent again."
    if hold is not None and hold.prober not in {None, job.id}:
        return f"{plain(str(hold))} To have it tried at once: {COMMAND} retry {hold.prober}"
    return "The job tries at once. A search waits for the lister's next try, a minute at most."


@app.command()
@command
async def resolve(
    job: JobArgument,
    attempt: Annotated[int, Option(min=1, help="The attempt whose outcome is unknown.")],
    task_id: Annotated[str | None, Option(help="Adopt this task of the provider as the attempt's.")] = None,
    not_created: Annotated[
        bool,
        Option(
            "--not-created", help="State that it made no task: the job sends another paid create, unless cancelled."
        ),
    ] = False,
    lost: Annotated[bool, Option("--lost", help="Give it up: the job ends, and the search with it.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Resolve an attempt whose outcome is unknown."""
    if (task_id is not None) + not_created + lost != 1:
        raise typer.BadParameter("give exactly one of --task-id, --not-created and --lost")

    found = await find_job(job)
    action: ResolveAction = "adopt" if task_id is not None else "not_created" if not_created else "lost"
    answer = await found.resolve(attempt=attempt, action=action, task_id=task_id and task_id.strip())
    if as_json:
        print_json({"job_id": found.id, **answer.model_dump()})
    else:
        out.print(f"{'Accepted' if answer.accepted else 'Not accepted'}: {plain(answer.message)}")
    return DONE if answer.accepted else OTHER


@app.command()
@command
async def resubmit(
    job: JobArgument,
    attempt: Annotated[int, Option(min=1, help="The attempt that ended without a video.")],
    accept_second_charge: Annotated[
        bool, Option("--accept-second-charge", help="Required after lost: the first may have been billed.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Request and pay for another attempt, after one that ended without a video. Repeating this changes nothing."""
    found = await find_job(job)
    state = await found.state()
    if state.attempt is not None and attempt > state.attempt:
        raise typer.BadParameter(f"{found.id} has no attempt {attempt}; its newest is {state.attempt}")
    if state.error is not None and state.error.failure_class == "lost" and not accept_second_charge:
        raise typer.BadParameter(f"attempt {attempt} may have been billed; add --accept-second-charge to pay again")
    again = await found.resubmit(attempt=attempt, accept_second_charge=accept_second_charge)
    assert again.submitted is not None
    if not as_json and again.started:
        cost = estimate_in(state).rounded()
        expected = f", for at most {cost} by estimate" if cost else ""
        out.print(
            f"A run was started; it claims, and pays for, another attempt{expected}, if the ledger allows that. "
            f"To see: {SHOW} {found.id}"
        )
    elif not as_json:
        out.print(f"Nothing new was requested: attempt {attempt} did not end the job, or was answered so before.")
    return finish(again.submitted, as_json, DONE, existing=again.existing, started=again.started)


def main() -> None:
    """Run the command line. Also its help may meet a stream that takes no more."""
    prepare_streams()
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        sys.exit(unwritten(error))


app.command("adopt-file")(adopt_file)
for each in (check, models, batch, audit, report, recover, watch, pause, unpause):
    app.command()(each)
