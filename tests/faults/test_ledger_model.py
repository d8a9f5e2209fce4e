"""Promise 1, tested with every interleaving that hypothesis can find.

Several runs of one job, which Temporal would never run at once, execute the workflow's steps around the real create,
the real ledger and the real decision. Each write, listing and POST waits at a gate. The machine decides which one
goes on, and how it ends: well, with its answer lost, never arrived, or arriving later. Workers are killed and runs
terminated anywhere in between.

The exact assertion: the provider commits at most one task for a job, one more for each resubmit grant of an attempt
that may have been paid, and one for each attempt that counted as ``absent`` although a task of it exists, or came to
exist.

``LEDGER_MODEL_EXAMPLES`` makes the search larger, ``LEDGER_MODEL_SHRINK=0`` leaves its findings as they are.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import activities.create
import activities.deadline
from activities.create import CreateActivities, CreateInput, CreateResult
from activities.ledger import LedgerActivities, OutcomeInput, ReadLedgerInput
from seedance_temporal.audit.bucket_evidence import read_bucket_evidence
from seedance_temporal.contract import Resubmit
from seedance_temporal.identity import job_id_of
from seedance_temporal.ledger.decisions import Decision, decide
from seedance_temporal.ledger.facts import Attempt, Facts
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.provider.ark import Ark
from tests.faults.ledger_gates import Call, GatedBucket, Gates, Loop, Provider
from tests.support.jobs import a_request, absent, an_end, created, in_activity, some_settings
from tests.support.memory_bucket import MemoryBucket

EXAMPLES = int(os.environ.get("LEDGER_MODEL_EXAMPLES", "60"))
SHRINK = os.environ.get("LEDGER_MODEL_SHRINK") != "0"
STEPS = 60
RUNS = 3
# Longer than a create waits before it sends once more.
PAUSE = 12.0
# Longer than a create can take, and than the recovery window.
WINDOW = timedelta(hours=1)
SETTINGS = some_settings()

# How a write to the bucket ends, by weight: most of them go well, or no job would get far.
WRITES = ["ok"] * 6 + ["lost_answer", "lost_answer", "never_arrived", "lands_later"]
LISTINGS = ["ok"] * 6 + ["never_arrived"]
POSTS = (
    ["created"] * 4
    + ["lost_answer", "lost_answer", "500_after", "no_id", "commits_later"]
    + ["never_arrived", "500_before", "refused", "429_at_once", "429_soon", "429_later", "401"]
)


@dataclass
class Run:
    """A run: its worker's clients, and its progress.

    Attributes:
        create: The create under way, which a crash kills.
        decision: The last decision that the run was given.
    """

    number: int
    ledger: Ledger
    bookkeeping: LedgerActivities
    creating: CreateActivities
    steps: asyncio.Task[None] | None = None
    create: asyncio.Task[CreateResult] | None = None
    decision: Decision | None = None

    @property
    def busy(self) -> bool:
        return self.steps is not None and not self.steps.done()

    @property
    def creates(self) -> bool:
        return self.create is not None and not self.create.done()


class LedgerModel(RuleBasedStateMachine):
    """Runs, workers, bucket and provider of one job, moved one call at a time."""

    @initialize()
    def start(self) -> None:
        self.loop = Loop()
        self.clock = 1_000_000.0
        # The create's total time is measured on these clocks; an hour has to pass without waiting for it.
        vars(activities.deadline)["time"] = SimpleNamespace(monotonic=lambda: self.clock, time=lambda: self.clock)
        self.request = a_request()
        self.job_id = job_id_of(self.request)
        self.gates = Gates()
        self.provider = Provider()
        self.shared = MemoryBucket()
        self.known_tasks: set[str] = set()
        self.cached: tuple[tuple[int, float], Facts] | None = None
        self.ledger = Ledger(self.shared, "seedance")
        self.runs = [self._run(number) for number in range(RUNS)]

    def _run(self, number: int) -> Run:
        shared = self.shared
        bucket = GatedBucket(
            contents=shared.contents, stored=shared.stored, writes=shared.writes, gates=self.gates, run=number
        )
        ledger = Ledger(bucket, "seedance")

        async def answer(request: httpx.Request) -> httpx.Response:
            return await self._post(number, json.loads(request.content))

        ark = Ark("https://provider.example", "key", transport=lambda: httpx.MockTransport(answer))
        return Run(number, ledger, LedgerActivities(ledger, SETTINGS), CreateActivities(ledger, bucket, ark, SETTINGS))

    async def _post(self, run: int, body: dict[str, Any]) -> httpx.Response:
        nonce = body["safety_identifier"].split("-")[1]
        claims = [json.loads(c) for name, c in self.shared.contents.items() if name.endswith(".claim.json")]
        assert nonce in {claim["nonce"] for claim in claims}, "a POST without its claim in the ledger"
        assert nonce not in self.provider.closed, "a second POST for one nonce, after one that may have been accepted"
        self.provider.posts.append(nonce)
        self.provider.closed.add(nonce)
        answer: httpx.Response = await self.gates(run, "POST", lambda: self.provider.commit(nonce))
        if answer.status_code in {400, 401, 429}:
            self.provider.closed.discard(nonce)
        return answer

    # The steps of a run, as in the workflow

    async def _steps(self, run: Run, resubmit: Resubmit | None) -> None:
        while True:
            input = ReadLedgerInput(job_id=self.job_id, request=self.request, resubmit=resubmit)
            answer = await _repeated(run.bookkeeping.read_ledger, input)
            run.decision = decision = answer.decision
            if decision.next != "claim":
                return
            create = CreateInput(job_id=self.job_id, request=self.request, attempt=decision.attempt)
            run.create = asyncio.ensure_future(in_activity(run.creating.create_task, create))
            await asyncio.wait([run.create])
            if run.create.cancelled():
                return  # its worker was killed: unknown
            result = run.create.result()
            if result.claim is not None and result.outcome is not None and not result.written:
                outcome = OutcomeInput(claim=result.claim, outcome=result.outcome)
                await _repeated(run.bookkeeping.write_outcome, outcome)
            if result.outcome is not None and result.outcome.task_id is not None:
                self.known_tasks.add(result.outcome.task_id)
            if result.kind in {"created", "unknown"}:
                return

    # The machine

    def _step(self, do: Callable[[], object] = lambda: None) -> None:
        """Execute a call inside the loop, and let all tasks go on to their next gate."""

        async def step() -> None:
            do()
            for _ in range(40):
                await asyncio.sleep(0)

        self.loop.run_until_complete(step())
        for run in self.runs:
            for task in (run.steps, run.create):
                if task is not None and task.done() and not task.cancelled():
                    task.result()  # raises its failure

    def _at_once(self, call: Awaitable[Any]) -> Any:
        """Execute what another worker does between two steps of all others, without faults."""
        return self.loop.run_until_complete(call)

    @property
    def facts(self) -> Facts:
        now = len(self.shared.writes), self.clock
        if self.cached is None or self.cached[0] != now:
            whole = self._at_once(read_bucket_evidence(self.shared, "seedance", self.job_id)).facts
            read = self._at_once(self.ledger.read(self.job_id))
            assert decide(read) == decide(whole), "what was not read decides"
            self.cached = now, whole
        return self.cached[1]

    @precondition(lambda self: not all(run.busy for run in self.runs))
    @rule(data=st.data(), answered=st.sampled_from([None, None, "last"]))
    def submit(self, data: st.DataObject, answered: str | None) -> None:
        """Start a run, or have one read the ledger again; or grant a resubmit of the newest attempt that failed."""
        run = data.draw(st.sampled_from([run for run in self.runs if not run.busy]), label="run")
        failed = [a.number for a in self.facts.attempts if a.error is not None]
        resubmit = Resubmit(attempt=failed[-1], accept_second_charge=True) if answered and failed else None

        def begin() -> None:
            run.steps = self.loop.create_task(self._steps(run, resubmit))

        self._step(begin)

    @precondition(lambda self: self.gates.waiting)
    @rule(data=st.data(), calls=st.integers(1, 4))
    def go_on(self, data: st.DataObject, calls: int) -> None:
        for _ in range(calls):
            if self.gates.waiting:
                self._go_on(data, data.draw(st.sampled_from(self.gates.waiting), label="call"))

    @precondition(lambda self: self.gates.waiting)
    @rule(data=st.data())
    def one_run_goes_on(self, data: st.DataObject) -> None:
        """Go as far as the next POST, without faults, and then with them: so that others find more than beginnings."""
        run = data.draw(st.sampled_from(sorted({call.run for call in self.gates.waiting})), label="run")
        for _ in range(8):
            call = next((call for call in self.gates.waiting if call.run == run), None)
            if call is None or call.kind == "POST":
                break
            self._step(lambda call=call: self.gates.answer(call, "ok"))  # type: ignore[misc]
        if call in self.gates.waiting:
            self._go_on(data, call)

    def _go_on(self, data: st.DataObject, call: Call) -> None:
        fates = POSTS if call.kind == "POST" else LISTINGS if call.kind == "listing" else WRITES
        fate = data.draw(st.sampled_from(fates), label="fate")
        self._step(lambda: self.gates.answer(call, fate))

    @precondition(lambda self: self.gates.travelling)
    @rule(data=st.data())
    def land(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.gates.travelling), label="call")
        self.gates.travelling.remove(call)
        call.effect()

    @precondition(lambda self: any(run.creates for run in self.runs))
    @rule(data=st.data())
    def kill_a_worker(self, data: st.DataObject) -> None:
        """Kill a worker in a create: its calls on the way may land or not. The run goes on without a result."""
        run = data.draw(st.sampled_from([run for run in self.runs if run.creates]), label="run")
        self._abandon(data, run)
        assert run.create is not None
        self._step(run.create.cancel)

    @precondition(lambda self: any(run.busy for run in self.runs))
    @rule(data=st.data())
    def terminate(self, data: st.DataObject) -> None:
        """Terminate or reset a run. A create under way ends by itself, without a reader."""
        run = data.draw(st.sampled_from([run for run in self.runs if run.busy]), label="run")
        if not run.creates:
            self._abandon(data, run)
        assert run.steps is not None
        self._step(run.steps.cancel)

    def _abandon(self, data: st.DataObject, run: Run) -> None:
        for call in [call for call in self.gates.waiting if call.run == run.number and call.kind != "listing"]:
            fate = data.draw(st.sampled_from(["lands", "lands_later", "never"]), label=f"{call}")
            if fate == "lands":
                call.effect()
            elif fate == "lands_later":
                self.gates.travelling.append(call)

    def _asleep(self) -> bool:
        """Return whether a create waits before it sends once more."""
        at_gates = {call.run for call in self.gates.waiting}
        return any(run.creates and run.number not in at_gates for run in self.runs)

    @precondition(lambda self: self._asleep())
    @rule()
    def a_pause_passes(self) -> None:
        self.loop.ahead += PAUSE
        self.clock += PAUSE
        self._step()

    @precondition(lambda self: self._open() or self.gates.waiting)
    @rule(data=st.data())
    def the_window_passes(self, data: st.DataObject) -> None:
        """Let time pass: no POST is older than this. Frozen processes wake up later, and so do writes to the bucket."""
        for post in [call for call in (*self.gates.waiting, *self.gates.travelling) if call.kind == "POST"]:
            if data.draw(st.booleans(), label=f"{post} was accepted"):
                post.effect()
            if post in self.gates.travelling:
                self.gates.travelling.remove(post)
            else:
                self._step(lambda post=post: self.gates.answer(post, "never_arrived"))  # type: ignore[misc]
        self.clock += WINDOW.total_seconds()
        for name, stored in self.shared.stored.items():
            self.shared.stored[name] = replace(stored, created_at=stored.created_at - WINDOW)

    def _open(self) -> list[Attempt]:
        return [a for a in self.facts.attempts if a.outcome is None and not a.tasks and a.claim is not None]

    def _old_enough(self, attempt: Attempt) -> bool:
        """Return whether it may be called absent: claimed before the last window passed, and not known as accepted."""
        if attempt.claim is None or attempt.claimed_at is None or attempt.accepted_without_id:
            return False
        return (attempt.claim.claimed_at - attempt.claimed_at) > WINDOW / 2

    @precondition(lambda self: any(self._old_enough(attempt) for attempt in self._open()))
    @rule(data=st.data(), honest=st.booleans())
    def written_off(self, data: st.DataObject, honest: bool) -> None:
        """Count an attempt as ``absent``, by listings or an operator: rightly, or although a task exists."""
        ids = set(self.provider.tasks.values())
        candidates = [
            a
            for a in self._open()
            if self._old_enough(a) and a.claim is not None and (not honest or a.claim.nonce not in ids)
        ]
        if candidates:
            attempt = data.draw(st.sampled_from(candidates), label="attempt")
            self._at_once(self.ledger.write_outcome(self.job_id, attempt.number, absent()))

    @precondition(lambda self: any(attempt.error is None for attempt in self._open()))
    @rule(data=st.data())
    def given_up(self, data: st.DataObject) -> None:
        """Give an attempt up as ``lost``, as an operator."""
        attempt = data.draw(st.sampled_from([a for a in self._open() if a.error is None]), label="attempt")
        self._at_once(self.ledger.end(self.job_id, attempt.number, an_end(attempt.number, None, "lost")))

    @precondition(lambda self: self.provider.tasks)
    @rule(data=st.data())
    def found(self, data: st.DataObject) -> None:
        """Show a task, early or late, with the nonce of its claim, by LIST, a callback or an operator."""
        task_id = data.draw(st.sampled_from(sorted(self.provider.tasks)), label="task")
        for attempt in self.facts.attempts:
            if attempt.claim is not None and attempt.claim.nonce == self.provider.tasks[task_id]:
                self._at_once(self.ledger.write_outcome(self.job_id, attempt.number, created(task_id, "list")))
                self.known_tasks.add(task_id)

    @precondition(lambda self: decide(self.facts).next == "adopt")
    @rule()
    def ends(self) -> None:
        """End the followed task without a video."""
        decision = decide(self.facts)
        self._at_once(self.ledger.end(self.job_id, decision.attempt, an_end(decision.attempt, decision.task_id)))

    def teardown(self) -> None:
        """Let all calls arrive; the assertion still holds."""
        if not hasattr(self, "runs"):
            return
        try:
            for _ in range(200):
                if self._asleep():
                    self.a_pause_passes()
                if not self.gates.waiting:
                    break
                call = self.gates.waiting[0]
                self._step(lambda call=call: self.gates.answer(call, "created" if call.kind == "POST" else "ok"))  # type: ignore[misc]
            while self.gates.travelling:
                self.gates.travelling.pop().effect()
            self.no_unauthorised_task_is_paid()
            self.no_known_task_is_dropped()
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self._step()
            self.loop.close()
            vars(activities.deadline)["time"] = TIME

    @invariant()
    def no_unauthorised_task_is_paid(self) -> None:
        attempts = self.facts.attempts
        tasks = Counter(self.provider.tasks.values())
        assert max(tasks.values(), default=0) <= 1, "two tasks of one claim"
        nonces = {a.claim.nonce for a in attempts if a.claim is not None}
        assert set(tasks) <= nonces, "a task whose claim is not in the ledger"
        # Of an attempt without a task, a grant allows no second payment.
        grants = sum(a.resubmit_grant is not None and a.counts for a in attempts)
        wrong = sum(
            a.outcome is not None and a.outcome.kind == "absent" and a.claim is not None and a.claim.nonce in tasks
            for a in attempts
        )
        assert tasks.total() <= 1 + grants + wrong, f"{tasks.total()} paid, {grants} asked for, {wrong} written off"

    @invariant()
    def no_known_task_is_dropped(self) -> None:
        facts = self.facts
        known = {task for attempt in facts.attempts for task in attempt.tasks}
        assert self.known_tasks <= known, "a task that a run knows is not in the ledger"
        assert known <= set(self.provider.tasks), "a task that does not exist"
        decision = decide(facts)
        ended = {end.error.task_id for a in facts.attempts for end in a.ends}
        assert decision.next in {"stored", "adopt"} or known <= ended, "a live task is not followed"
        loose = known - ended - {decision.task_id}
        assert (decision.second_task in loose) if loose else (decision.second_task is None)


async def _repeated(activity: Callable[..., Awaitable[Any]], input: Any) -> Any:
    """Retry an activity for ever, as the ledger's retry policy does."""
    while True:
        try:
            return await in_activity(activity, input)
        except ConnectionError:
            await asyncio.sleep(0)


TIME = vars(activities.deadline)["time"]

LedgerModel.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    derandomize=EXAMPLES <= 60,
    phases=[phase for phase in Phase if SHRINK or phase is not Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
TestLedgerModel = LedgerModel.TestCase
TestLedgerModel.pytestmark = [pytest.mark.timeout(3600 if EXAMPLES > 60 else 240)]  # type: ignore[attr-defined]
