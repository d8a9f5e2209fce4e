"""What must hold after each step of a script, and once everything around the job is in order again."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

from seedance_temporal.contract import SIGNAL_LISTED, SIGNAL_RESOLVE, SIGNAL_TASK_CHANGED
from seedance_temporal.ledger.decisions import decide
from seedance_temporal.ledger.facts import Outcome
from seedance_temporal.ledger.store import Ledger
from tests.model.executions import Execution
from tests.model.provider import NAMES_ITS_TASK, NOT_SENT, REFUSALS, Post
from tests.model.server import Run, Server
from tests.model.world import LOOK_SECONDS, PREFIX, World
from workflows import policies

_HOUR = 3600.0
# Patience of an hour, and the pause before the try that ends it.
_SILENCE = 1.5 * _HOUR
# A task is polled at least every five minutes.
_POLLED_WITHIN = 1_200.0
# A named task is asked for during this time before a create.
_NAMED_WITHIN = 62.0
# And, though nothing waits for that, once more at the end of this.
_ASKED_WITHIN = 360.0
# A task that is hidden for longer can be missed.
_SEARCHED = 500.0
_SETTLED_WITHIN = 300.0
# After an outage, a task that was named in it is asked for again.
_ASKED_AGAIN_WITHIN = 900.0
# What an operator names is asked for so long, also where GET does not show it.
_VOUCHED_WITHIN = 300.0
_ASKED_AFTER_END_WITHIN = 24 * _HOUR
_MOST_NAMES = 50
_NAMING = {SIGNAL_TASK_CHANGED, SIGNAL_LISTED}
# A result URL can be opened so often.
_MOST_OPENINGS = 100
# A run that is kept from continuing as new ends what keeps it at twice the length at which it should.
_MOST_EVENTS = 2.5 * policies.MOST_EVENTS
_PATIENT_HOURS = 12


class Promises:
    """Checks a world."""

    def __init__(self) -> None:
        self._posts = 0
        self._known_at: dict[str, float] = {}
        self._still: dict[tuple[str, Any], float] = {}
        self.seen: Counter[str] = Counter()

    def look(self, world: World) -> None:
        """Check what must hold at every moment."""
        for post in world.provider.posts[self._posts :]:
            self._check_post(world, post)
        self._posts = len(world.provider.posts)
        self._check_bound(world)
        self._check_ledger(world)
        opened = max(world.provider.opened.values(), default=0)
        assert opened <= _MOST_OPENINGS, f"a result was opened {opened} times"
        longest = max((run.events for server in world.servers for run in server.runs if run.open), default=0)
        assert longest < _MOST_EVENTS, f"a run has {longest} events"
        for server in world.servers:
            self._check_silence(world, server)

    def _check_post(self, world: World, post: Post) -> None:
        """A create was authorised by the ledger as it was before its claim, and no named task was passed over."""
        self.seen[f"create: {post.fate}"] += 1
        nonce = post.identifier.split("-")[1]
        name, claim = next(
            (name, json.loads(content))
            for name, content in world.bucket.contents.items()
            if name.endswith(".claim.json") and json.loads(content)["nonce"] == nonce
        )
        facts = world.read(Ledger(world.bucket.claims[name], PREFIX))
        before = decide(facts)
        assert before.next == "claim", f"attempt {claim['attempt']} was sent over: {before}"
        assert before.attempt <= claim["attempt"], f"attempt {claim['attempt']} was sent out of turn: {before}"
        for attempt_number, task_id, at in _named(post.execution):
            task = world.provider.tasks.get(task_id)
            attempt = facts.attempt(attempt_number)
            mine = task is not None and world.attempt_of(task) == attempt_number
            if task is None or not mine or task.hidden_until > at + _NAMED_WITHIN:
                continue
            assert attempt is not None
            assert task_id in attempt.tasks, f"{task_id} was named at {at}, and attempt {claim['attempt']} was sent"

    def _check_bound(self, world: World) -> None:
        facts = world.facts()
        made = [post for post in world.provider.posts if post.tasks]
        nonces = Counter(post.identifier for post in made)
        assert max(nonces.values(), default=0) <= 1, f"one claim was paid twice: {nonces}"
        grants = sum(a.resubmit_grant is not None and a.counts for a in facts.attempts)
        claims = world.claims()
        paid = {number for number, claim in claims.items() if any(claim["nonce"] in each for each in nonces)}
        wrong = sum(a.number in paid and a.outcome is not None and a.outcome.kind == "absent" for a in facts.attempts)
        assert len(made) <= 1 + grants + wrong, f"{len(made)} creates were paid, {grants} granted, {wrong} written off"

    def _check_ledger(self, world: World) -> None:
        facts, claims = world.facts(), world.claims()
        for attempt in facts.attempts:
            for task_id in attempt.tasks:
                self._known_at.setdefault(task_id, world.loop.now())
        fates = {post.identifier.split("-")[1]: post for post in world.provider.posts}
        for attempt in facts.attempts:
            if attempt.outcome is None or attempt.number not in claims:
                continue
            post = fates.get(claims[attempt.number]["nonce"])
            if attempt.outcome.kind in {"not_sent", "refused"}:
                assert post is None or not post.tasks, f"attempt {attempt.number} is {attempt.outcome.kind}: {post}"
            if attempt.outcome.kind == "refused":
                assert post is not None
                assert post.fate in REFUSALS
            if attempt.outcome.kind == "absent" and post is not None and post.tasks:
                # Nobody but an operator, or a listing that hides a task, may say so.
                late = any(world.provider.tasks[made].hidden_until > post.at + _SEARCHED for made in post.tasks)
                allowed = {"operator": attempt.number in world.disowned, "list": world.lists_hid or late}
                assert allowed.get(world.source_of(attempt.number)), (
                    f"attempt {attempt.number} counts as absent: {post}, {attempt.outcome}"
                )
                self._check_disowned(world, attempt.number, attempt.outcome)
        for attempt in facts.attempts:
            for task_id in attempt.tasks:
                assert world.attempt_of(world.provider.tasks[task_id]) == attempt.number, f"{task_id} is not its task"

    def _check_disowned(self, world: World, attempt: int, outcome: Outcome) -> None:
        """No operator is believed over a task that was named before, and that GET would have shown.

        Nor over another operator who has just named it.
        """
        for run in (run for server in world.servers for run in server.runs if run.run_id == outcome.run_id):
            resolved_at, named = _named_before_resolution(run, outcome.at.timestamp())
            for number, task_id, at, patience in named[:_MOST_NAMES]:
                task = world.provider.tasks.get(task_id)
                if number != attempt or task is None or world.attempt_of(task) != attempt:
                    continue
                hidden = task.hidden_until > at + patience and resolved_at > at + patience
                assert hidden, f"{task_id} was named, and is disowned"

    def _check_silence(self, world: World, server: Server) -> None:
        """A job that does not get on for more than an hour says so."""
        run = world.job(server)
        now = world.loop.now()
        self._still = {key: since for key, since in self._still.items() if key[0] != server.namespace} | {
            key: since for key, since in self._still.items() if key[0] == server.namespace and run is not None
        }
        if run is None or not run.open or not (world.worker_up and world.sends):
            self._forget(server)
            return
        state = world.state(run)
        if state is None or state.attention is not None or self._is_awaited(world, state):
            self._forget(server)
            return
        sending = state.phase in {"checking", "waiting", "creating"}
        key = server.namespace, ("sending" if sending else state.phase, state.task_id)
        since = self._still.get(key, now)
        self._forget(server)
        self._still[key] = since
        assert now - since <= _SILENCE, f"nothing is said for {now - since:.0f} s: {state}"

    def _forget(self, server: Server) -> None:
        for key in [key for key in self._still if key[0] == server.namespace]:
            del self._still[key]

    def _is_awaited(self, world: World, state: Any) -> bool:
        """Return whether the job waits for the provider's work, and has just seen that it goes on."""
        task = world.provider.tasks.get(state.task_id or "")
        if state.phase not in {"queued", "running"} or task is None:
            return False
        now = world.loop.now()
        seen = now - world.provider.got_at.get(task.id, 0) <= _POLLED_WITHIN
        return seen and (not task.ended or now - task.updated_at <= _POLLED_WITHIN)

    # The end

    def end(self, world: World) -> None:
        """Lift all trouble, and check that the job ends as the provider's truth allows."""
        world.lift_trouble()
        for _ in range(_PATIENT_HOURS):
            world.go_on(_HOUR)
            jobs = [run for run in map(world.job, world.servers) if run is not None]
            if all(run.status in {"completed", "failed"} for run in jobs) and all(task.ended for task in world.tasks):
                break
            world.attend()
        # Callbacks that are under way, and small workflows that take late ones in.
        world.go_on(_HOUR)
        facts = world.facts()
        decision = decide(facts)
        for server in world.servers:
            run = world.job(server)
            if run is None:
                continue
            assert not run.open, f"{server.namespace} does not end: {world.state(run)}"
            self._check_end(world, run, decision)
        self._check_named(world)
        self._check_answered(world)

    def _check_second(self, world: World, server: Server, task_id: str) -> None:
        """A live task that was named, also after the end, is the one that is stored, or an operator knows of it."""
        run = world.job(server)
        if run is None or run.status != "completed":
            return
        state = world.state(run)
        if state.result.task_id != task_id:
            self.seen["second tasks"] += 1
            assert state.attention == "second_task", f"{task_id} is live beside {state.result.task_id}: {state}"

    def _check_answered(self, world: World) -> None:
        """A task that an answer to a create named is in the ledger, unless who was told died, or lost its run."""
        known = {task_id for attempt in world.facts().attempts for task_id in attempt.tasks}
        for post in world.provider.posts:
            lived = not post.execution.dead and post.execution.task.run.status != "terminated"
            if post.fate in NAMES_ITS_TASK and lived:
                assert post.tasks[-1] in known, f"{post.tasks[-1]} was answered, and is forgotten"

    def _check_named(self, world: World) -> None:
        """A task that a callback or a listing named is in the ledger, where GET and bucket could say so."""
        facts = world.facts()
        known = {task_id for attempt in facts.attempts for task_id in attempt.tasks}
        for server in world.servers:
            for run in server.runs:
                if run.status == "terminated":
                    continue
                for attempt, task_id, at in _names_told([run])[:_MOST_NAMES]:
                    task = world.provider.tasks.get(task_id)
                    if task is None or world.attempt_of(task) != attempt or task.hidden_until > at + _ASKED_WITHIN:
                        continue
                    self._check_asked_again(world, run, task_id, at)
                    if world.was_quiet(at, at + _SETTLED_WITHIN):
                        assert task_id in known, f"{task_id} was named to {run.workflow_id} at {at}, and is forgotten"
                        self.seen["named tasks"] += 1
                        if task_id in {live for a in facts.attempts for live in a.live}:
                            self._check_second(world, server, task_id)

    def _check_asked_again(self, world: World, run: Run, task_id: str, named_at: float) -> None:
        """A task that was named while something was out of order is found soon after that, if the job goes on."""
        last = run.server.chain(run)[-1]
        is_whole = run.workflow_id == world.job_id and last.status in {"completed", "failed"}
        # "The provider does not know it" is an answer, which lasts until the task is named again.
        if not is_whole or ("get", "lags") in world.script.moves:
            return
        due = world.quiet_for(_ASKED_AGAIN_WITHIN, named_at)
        if due < (last.closed_at or 0):
            self.seen["named in trouble"] += due > named_at + _ASKED_AGAIN_WITHIN
            known_at = self._known_at.get(task_id, world.loop.now())
            assert known_at < due + LOOK_SECONDS, f"{task_id} was named at {named_at}, and known at {known_at}"
        elif world.loop.now() - (last.closed_at or 0) < _ASKED_AFTER_END_WITHIN:
            assert task_id in self._known_at, f"{task_id} was named at {named_at}, and is forgotten after the end"

    def _check_end(self, world: World, run: Run, decision: Any) -> None:
        error = world.error_of(run)
        self.seen[f"end: {error.failure_class if error is not None else run.status}"] += 1
        if error is None:
            assert run.status == "completed", f"the run is {run.status}: {run.failure}"
            assert decision.next == "stored", f"the run is completed: {decision}"
            return
        assert decision.next != "adopt", f"the run ended, {error.message}, over a live task: {decision}"
        if error.failure_class == "unsettled" or error.code == "second_charge_not_accepted":
            return
        if error.attempt is None:
            assert error.failure_class == "cancelled", error
            assert world.cancelled, "the job was not cancelled"
            return
        if error.failure_class == "lost":
            assert error.attempt in world.given_up, error
            return
        if error.task_id is not None:
            task = world.provider.tasks[error.task_id]
            assert task.unpaid, f"{task} was given up: {error.message}"
            return
        nonce = world.claims()[error.attempt]["nonce"]
        fates = [post.fate for post in world.provider.posts if post.identifier.endswith(nonce)]
        assert fates, error
        assert fates[-1] in REFUSALS, f"{fates}: {error.message}"
        assert all(fate in NOT_SENT for fate in fates[:-1])


def _signals_to(runs: list[Run]) -> Iterator[tuple[str, dict[str, Any], float]]:
    """Yield each signal that came to runs: its name, its argument, and when, in Unix seconds."""
    for activation, _ in (step for run in runs for step in run.hosted.history):
        for job in activation.jobs:
            if job.HasField("signal_workflow") and job.signal_workflow.input:
                told = json.loads(job.signal_workflow.input[0].data)
                yield job.signal_workflow.signal_name, told, activation.timestamp.ToNanoseconds() / 1e9


def _names_told(runs: list[Run], before: float = math.inf) -> list[tuple[int, str, float]]:
    """Return the tasks that callbacks or listings named to runs, and when; ``before``: Unix seconds."""
    return [
        (told["attempt"], told["task_id"], at)
        for name, told, at in _signals_to(runs)
        if name in _NAMING and told["task_id"] is not None and at < before
    ]


def _named_before_resolution(run: Run, written_at: float) -> tuple[float, list[tuple[int, str, float, float]]]:
    """Return when the resolution came that a run wrote at some time, and the tasks that were named before.

    Those count, too, that were named to a run which it continues; each comes with how long its name counts where GET
    does not show it, in seconds.
    """
    named: list[tuple[int, str, float, float]] = []
    late = [
        (told["attempt"], told["task_id"], at, _VOUCHED_WITHIN if told.get("source") == "operator" else 0.0)
        for _, told, at in _signals_to(_late(run))
    ]
    before: tuple[float, list[tuple[int, str, float, float]]] = 0.0, []
    for name, told, at in _signals_to(run.server.origins(run)):
        if at > written_at:
            break
        if name == SIGNAL_RESOLVE and told["action"] != "adopt":
            before = at, [*(each for each in late if each[2] < at), *named]
        elif name in {*_NAMING, SIGNAL_RESOLVE} and told["task_id"] is not None:
            patience = _VOUCHED_WITHIN if name == SIGNAL_RESOLVE else 0.0
            named.append((told["attempt"], told["task_id"], at, patience))
    return before


def _named(execution: Execution | None) -> list[tuple[int, str, float]]:
    """Return the tasks that had been named to a run, or to those that it continues, when a worker began an activity."""
    if execution is None:
        return []
    run = execution.task.run
    told = _names_told([*_late(run), *run.server.origins(run)], execution.began_at)
    return told[:_MOST_NAMES]


def _late(run: Run) -> list[Run]:
    """Return the runs that take in names while the job of a run has none."""
    return [each for each in run.server.runs if each.workflow_id.startswith(f"{run.workflow_id}-late-")]
