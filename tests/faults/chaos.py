"""Chaos: many jobs on the embedded stack under every fault at once, then quiet, and then the invariants.

``make chaos`` takes ``SEED``, ``JOBS`` and ``MINUTES`` (of faults). The seed decides the plan (``chaos_plan.py``); how
it interleaves is up to the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import os
import random
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
from temporalio.service import RPCError

from dev.stack import CALLBACK_SECRET, Stack, running_stack, start_temporal
from seedance_temporal import JobState
from seedance_temporal.contract import Queues, Resubmit
from seedance_temporal.errors import SeedanceError
from seedance_temporal.events import sentence
from seedance_temporal.identity import callback_token
from tests.e2e.crowd import place_counts
from tests.e2e.invariants import check_invariants
from tests.e2e.operator import reset
from tests.faults.chaos_plan import ROUTES, USUAL, WORKERS, Event, Plan, PlannedJob, Route, Trouble, make_plan
from tests.faults.chaos_report import Report
from tests.faults.chaos_truth import Truth

SETTINGS = {
    "SEEDANCE_CREATE_TIMEOUT_SECONDS": "6",
    "SEEDANCE_RECOVERY_SECONDS": "15",
    "SEEDANCE_POLL_WITH_CALLBACKS_SECONDS": "6",
    "SEEDANCE_CREATES_PER_MINUTE": "1200",
    # Few places, and budgets that are never used up.
    "SEEDANCE_TASKS_AT_ONCE": "15",
    "SEEDANCE_MAX_USD_PER_DAY": "100000",
    "SEEDANCE_MAX_USD_PER_MONTH": "1000000",
    "SEEDANCE_CNY_PER_USD": "7",
    "SEEDANCE_OVER_BUDGET": "wait",
}
ARK_OPTIONS = tuple(
    resolution
    for switch in ("running_limit=200", "create_per_minute=null", "delete_per_second=null")
    for resolution in ("--set", switch)
)
# One job at a time costs little; all at once would only measure this machine.
_AT_ONCE = 12
# Each round has a stack of its own: the local bucket server lists a large bucket slowly, and each step of a job lists.
_JOBS_OF_A_ROUND = 1_000
# Logs, and the server's database with each job's history, of a round that broke off.
_KEPT = Path("build/chaos")


class Chaos:
    """Run a plan on a stack.

    Args:
        patience: Seconds that jobs are given to end once it is quiet.
    """

    def __init__(self, stack: Stack, plan: Plan, patience: float) -> None:
        self._stack = stack
        self._plan = plan
        self._patience = patience
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._processes = asyncio.Lock()
        self._truth = Truth(stack)
        self._start = time.monotonic()
        self._ended: dict[str, JobState] = {}
        self._open: dict[str, JobState] = {}
        self.report = Report.of(plan)

    async def run(self) -> Report:
        """Run the faults, wait for quiet, check the invariants; problems are listed in the report."""
        async with self._timed("trouble"):
            await asyncio.gather(*map(self._job, self._plan.jobs), *map(self._world, self._plan.events))
        async with self._timed("quiet"):
            await self._be_quiet()
            await self._until_all_ended()
            await self._resubmit_some()
            if len(self._ended) < len(self._plan.jobs):
                await self._until_all_ended()
        async with self._timed("invariants"):
            await self._count()
            try:
                await check_invariants(self._stack)
            except AssertionError as error:
                self.report.problems.append(f"invariant: {error}")
            await self._check_places()
            await self._check_videos()
        return self.report

    @contextlib.asynccontextmanager
    async def _timed(self, name: str) -> AsyncIterator[None]:
        since = time.monotonic()
        try:
            yield
        finally:
            self.report.seconds[name] = time.monotonic() - since
            _say(f"chaos: {name} took {self.report.seconds[name]:.0f} s")

    async def _until(self, at: float) -> None:
        await asyncio.sleep(max(0.0, self._start + at - time.monotonic()))

    async def _persist(self, call: Callable[[], Awaitable[Any]], seconds: float = 300) -> Any:
        """Repeat a call until it succeeds, over restarts of servers. The time begins with the first try."""
        deadline: float | None = None
        while True:
            try:
                async with self._slots:
                    deadline = deadline or time.monotonic() + seconds
                    return await call()
            except (SeedanceError, RPCError, httpx.TransportError):
                assert deadline is not None
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.5)

    # Faults

    async def _arm(self, trouble: Trouble) -> None:
        await self._stack.ark.fault(trouble.on, trouble.fault, **trouble.fields)
        self.report.armed[f"{trouble.on}: {trouble.fault}"] += 1

    async def _job(self, job: PlannedJob) -> None:
        await self._until(job.at)
        for trouble in job.troubles:
            await self._arm(trouble)
        await self._persist(lambda: self._stack.jobs.submit(job.request))
        for event in job.events:
            await self._until(job.at + event.at)
            self.report.done[f"job: {event.kind}"] += 1
            # The server can be away, and the job can have ended: then this has no effect, as it would for a caller.
            with contextlib.suppress(SeedanceError, RPCError, httpx.TransportError):
                async with self._slots:
                    await self._apply(job, event.kind)

    async def _apply(self, job: PlannedJob, kind: str) -> None:
        handle = self._stack.client.get_workflow_handle(job.job_id)
        match kind:
            case "cancel":
                await self._stack.jobs.job(job.job_id).cancel()
            case "cancel_run":
                await handle.cancel()
            case "terminate":
                await handle.terminate("chaos")
                await self._stack.jobs.submit(job.request)
            case "reset":
                with contextlib.suppress(LookupError):  # it has not begun
                    await reset(self._stack, job.job_id)
            case "submit":
                await asyncio.gather(*(self._stack.jobs.submit(job.request) for _ in range(3)))
            case "forge":
                await self._forge(job.job_id)

    async def _forge(self, job_id: str) -> None:
        """Send a callback with a wrong token, and a false one by a sender who knows the URL."""
        base = f"{self._stack.environment['SEEDANCE_CALLBACK_URL']}/callbacks/{job_id}/1"
        tasks = await self._stack.ark.tasks()
        body = {"id": tasks[-1]["id"] if tasks else "cgt-forged", "status": "succeeded"}
        async with httpx.AsyncClient() as http:
            answer = await http.post(f"{base}/{'0' * 64}", json=body)
            if answer.status_code != httpx.codes.NOT_FOUND:
                self.report.problems.append(f"a forged callback was answered {answer.status_code}")
            await http.post(f"{base}/{callback_token(CALLBACK_SECRET, job_id, 1)}", json=body)

    async def _world(self, event: Event) -> None:
        await self._until(event.at)
        ark, fields = self._stack.ark, event.fields
        match event.kind:
            case "fault":
                await self._arm(Trouble(**fields))
                return
            case "switch":
                await ark.configure(**fields["switch"])
                await asyncio.sleep(4)
                await ark.configure(**{name: USUAL[name] for name in fields["switch"]})
                action = "switch: " + " ".join(f"{name}={value}" for name, value in fields["switch"].items())
            case "foreign":
                await ark.add_foreign(fields["route"], count=fields["count"])
                action = "tasks of other applications"
            case "relay":
                await self._restart("relay", fields["how"])
                action = f"relay: {fields['how']}"
            case "worker":
                await self._restart(WORKERS[fields["route"]][0], fields["how"])
                action = f"worker: {fields['how']}"
            case "freeze":
                await self._freeze(fields["name"], fields["seconds"])
                action = f"{fields['name']}: frozen and thawed"
            case "pause":
                await self._pause(fields["route"])
                action = "route paused"
            case "account":
                await self._suspend(fields["route"], fields["standing"])
                action = f"account: {fields['standing']}"
            case _:
                await self._restart("temporal", "SIGTERM")
                action = "Temporal's server restarted"
        self.report.done[action] += 1

    async def _pause(self, route: Route) -> None:
        await self._persist(lambda: self._stack.jobs.pause(route, why="chaos"))
        await asyncio.sleep(3)
        await self._persist(lambda: self._stack.jobs.unpause(route))

    async def _suspend(self, route: Route, standing: str) -> None:
        ark = self._stack.ark
        if standing == "key":
            await ark.set_key_valid(route, False)
        else:
            await ark.set_standing(route, standing)
        await asyncio.sleep(3)
        await ark.set_key_valid(route, True)
        await ark.set_standing(route, "ok")

    async def _freeze(self, name: str, seconds: float) -> None:
        async with self._processes:
            pid = self._stack.children[name].process.pid
            os.kill(pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(seconds)
            finally:
                os.kill(pid, signal.SIGCONT)

    async def _restart(self, name: str, how: str) -> None:
        async with self._processes:
            await self._stack.children[name].stop(signal.Signals[how])
            await asyncio.sleep(1)
            await self._bring_up(name)

    async def _bring_up(self, name: str) -> None:
        if name == "relay":
            await self._stack.start_relay()
        elif name == "temporal":
            self._stack.children[name] = await start_temporal(self._stack.ports, self._stack.folder)
        else:
            variables = next(variables for of, variables in WORKERS.values() if of == name)
            await self._stack.start_worker(name, **variables)

    # Quiet

    async def _be_quiet(self) -> None:
        """End all faults, restore the accounts, and start every process that is down."""
        ark = self._stack.ark
        await ark.clear_faults()
        await ark.configure(**USUAL)
        for route in ROUTES:
            await ark.set_key_valid(route, True)
            await ark.set_standing(route, "ok")
        await ark.release()
        for name, child in list(self._stack.children.items()):
            if child.process.returncode is not None:
                self.report.problems.append(f"{name} had ended by itself with {child.process.returncode}")
                await self._bring_up(name)

    async def _until_all_ended(self) -> None:
        """Wait until each job has ended; resolve those that need an operator by the provider's own ledger."""
        deadline = time.monotonic() + self._patience
        waiting = [job for job in self._plan.jobs if job.job_id not in self._ended]
        self._open = {}
        while waiting and time.monotonic() < deadline:
            await self._stack.ark.release()
            await asyncio.gather(*map(self._check, waiting))
            waiting = [job for job in waiting if job.job_id not in self._ended]
            await asyncio.sleep(2)
        for job in waiting:
            seen = self._open.get(job.job_id)
            if seen is None or seen.attention is None:
                detail = seen.detail if seen is not None else None
                timeline = [sentence(event) for event in detail.timeline] if detail is not None else ""
                phase = seen.phase if seen is not None else "unseen"
                self.report.problems.append(f"{job.job_id} has neither ended nor an Attention: {phase} {timeline}")

    async def _check(self, planned: PlannedJob) -> None:
        job_id = planned.job_id
        job: JobState = await self._persist(lambda: self._stack.jobs.job(job_id).state())
        if job.error is not None and job.error.failure_class == "unsettled":
            # Terminated, and not submitted again yet: its caller does so now.
            await self._persist(lambda: self._stack.jobs.submit(planned.request))
            return
        if job.result is not None or job.error is not None:
            self._ended[job_id] = job
            return
        self._open[job_id] = job
        if job.attention == "unknown_create" and job.attempt is not None:
            resolution = await self._truth.of(job_id, job.attempt)
            if resolution is not None:
                answer = await self._persist(
                    lambda: self._stack.jobs.job(job_id).resolve(
                        **resolution.model_dump(include={"attempt", "action", "task_id"})
                    )
                )
                result = "accepted" if answer.accepted else f"refused, {re.split('[:.]', answer.message)[0]}"
                self.report.resolved[f"{resolution.action}: {result}"] += 1

    async def _resubmit_some(self) -> None:
        """Resubmit half of those whose task failed, twice each."""
        for planned in self._plan.jobs:
            job = self._ended.get(planned.job_id)
            error = job.error if job is not None else None
            if error is None or error.attempt is None or not planned.resubmit:
                continue
            resubmit = Resubmit(attempt=error.attempt, accept_second_charge=error.failure_class == "lost")
            for _ in range(2):
                await self._persist(
                    lambda planned=planned, resubmit=resubmit: self._stack.jobs.submit(
                        planned.request, resubmit=resubmit
                    )  # type: ignore[misc]
                )
            del self._ended[planned.job_id]
            self.report.done["job: resubmit, twice"] += 1

    async def _check_places(self) -> None:
        """Check that no place is left behind, once all jobs have ended."""
        if len(self._ended) < len(self._plan.jobs):
            return
        for route in ROUTES:
            queue = Queues(route).create
            counts = await place_counts(self._stack, queue)
            if counts != (0, 0):
                self.report.problems.append(f"{queue}: of (taken places, jobs that wait) there are {counts} at the end")

    # Results

    async def _count(self) -> None:
        for job in self._ended.values():
            end = f"{job.phase}" if job.error is None else f"{job.phase}, class {job.error.failure_class}"
            self.report.outcomes[end] += 1
        for job_id, job in self._open.items():
            if job_id not in self._ended:
                self.report.outcomes[f"open: {job.phase}, Attention {job.attention}"] += 1
        entries = await self._stack.ark.ledger()
        self.report.posts = len(entries)
        self.report.paid = sum(entry.committed for entry in entries)
        self.report.billed = sum(entry.billed_tokens is not None for entry in entries)
        self.report.grants = sum(
            stored.name.endswith(".again.json") for stored in await self._stack.bucket.list("seedance/")
        )
        for firing in await self._stack.ark.fired():
            self.report.fired[f"{firing.on}: {firing.fault}"] += 1

    async def _check_videos(self) -> None:
        """Check that every billed task is stored, or its job says why not; and that no job stores another's task."""
        results = {job.result.task_id: job_id for job_id, job in self._ended.items() if job.result is not None}
        by_prompt = {str(job.request.prompt): job.job_id for job in self._plan.jobs}
        for entry in await self._stack.ark.ledger():
            owner = by_prompt.get(entry.body["content"][0]["text"])
            if entry.task_id in results and results[entry.task_id] != owner:
                self.report.problems.append(f"{entry.task_id} is stored for another job than its own")
            if entry.billed_tokens is None or entry.task_id in results:
                continue
            job = self._ended.get(owner or "")
            named = job is not None and job.error is not None and job.error.task_id == entry.task_id
            if not named:
                self.report.problems.append(f"{entry.task_id} was billed, and {owner} has not stored it")


async def run_chaos(plan: Plan, patience: float) -> Report:
    """Run a plan on a stack of its own."""
    # 60 times as fast as the real provider: a task runs for two seconds.
    async with running_stack(speed=60, settings=SETTINGS, ark_options=ARK_OPTIONS) as stack:
        name, variables = WORKERS["volcengine"]
        await stack.start_worker(name, **variables)
        chaos = Chaos(stack, plan, patience)
        try:
            return await chaos.run()
        except BaseException:
            kept = _KEPT / f"seed-{plan.seed}"
            shutil.copytree(stack.folder, kept, dirs_exist_ok=True)
            _say(f"chaos: logs and histories are in {kept}")
            raise


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Run the command line of ``make chaos``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=None, help="of faults; by default, a minute for 150 jobs")
    parser.add_argument("--quick", action="store_true", help="leave out faults that take minutes to be noticed")
    parser.add_argument("--patience", type=float, default=600, help="seconds that jobs get to end when it is quiet")
    parser.add_argument("--markdown", type=Path, default=None, help="write the tables here, too")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(1_000_000)
    rounds = math.ceil(given.jobs / _JOBS_OF_A_ROUND)
    report: Report | None = None
    for number in range(rounds):
        jobs = given.jobs // rounds + (number < given.jobs % rounds)
        minutes = given.minutes / rounds if given.minutes is not None else max(0.5, jobs / 150)
        which = f"round {number + 1} of {rounds}, seed {seed + number}"
        _say(f"chaos: {which}, {jobs} jobs, {minutes:.1f} minutes of trouble")
        plan = make_plan(seed + number, jobs, minutes, quick=given.quick)
        try:
            done = asyncio.run(run_chaos(plan, given.patience))
        except Exception as error:
            # The other rounds have something to say all the same.
            traceback.print_exc()
            done = Report.of(plan)
            done.problems.append(f"{which}, broke off: {error!r}")
        for problem in done.problems:
            _say(f"BROKEN: {problem}")
        if report is None:
            report = done
        else:
            report.add(done)
        if given.markdown is not None:
            given.markdown.write_text(report.markdown(), encoding="utf-8")
    assert report is not None
    _say(report.markdown())
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
