"""One job in a world of its own: namespaces, workers, bucket, provider, relay, and the moves of a script."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from typing import Any

import httpx
from pydantic import SecretStr
from temporalio.contrib.pydantic import pydantic_data_converter

from seedance_temporal import contract
from seedance_temporal.contract import GenerateVideoInput, NamedTask, Queues, Resolve, Resubmit
from seedance_temporal.identity import callback_url, job_id_of
from seedance_temporal.job import JobError
from seedance_temporal.late_tasks import ask_later
from seedance_temporal.ledger.facts import Facts
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.provider.ark import Ark
from seedance_temporal.relay import relay_app
from seedance_temporal.settings import Settings
from tests.model.bucket import BucketWeather, ModelBucket
from tests.model.client import ModelClient
from tests.model.clock import JumpingLoop
from tests.model.executions import Executions, activities_of
from tests.model.provider import GetWeather, ListWeather, MadeTask, Provider, ResultWeather
from tests.model.script import Move, Script
from tests.model.server import Run, Server
from tests.support.jobs import KEY, SECRET, a_request

RELAY = "https://relay.example"
PREFIX = "seedance"
# How long the world goes on between two looks at it.
LOOK_SECONDS = 600.0
_CONVERTER = pydantic_data_converter.payload_converter


class World:
    """All parts, moved by a script, and looked at after each move."""

    def __init__(self, script: Script, loop: JumpingLoop, look: Callable[[World], None], **settings: Any) -> None:
        self.script = script
        self.loop = loop
        self._look = look
        self.request = a_request(take=1)
        self.job_id = job_id_of(self.request)
        self.bucket = ModelBucket()
        self.provider = Provider(loop)
        with_callbacks: dict[str, Any] = {
            "seedance_callback_url": RELAY,
            "seedance_callback_secret": SecretStr(SECRET),
        }
        self.settings = Settings.model_validate(
            {"ark_api_key": SecretStr(KEY), "seedance_automatic_resubmits": script.automatic_resubmits}
            | (with_callbacks if script.callbacks else {})
            | settings
        )
        self._steps = itertools.count()
        # One for all workers: it reads the certificate store, and remembers no more than when it listed.
        self._ark = Ark(self.settings.base_url, KEY, self.settings.secrets, transport=self.provider.transport)
        self.servers = [self._server(f"n{number}") for number in range(2)]
        app = relay_app(self._connect, [SECRET])
        self._relay = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=RELAY)
        self.provider.send = self._call_back
        self.worker_up = True
        self.sends = True
        # When everything around the workflow was last out of order, and all such times.
        self.troubled_at = loop.now()
        self.troubles: list[tuple[float, float]] = []
        # What people asked for, as far as it explains an end.
        self.cancelled = False
        self.given_up: set[int] = set()
        self.disowned: set[int] = set()
        self.lists_hid = False
        self.terminated_at = 0.0
        self._facts: tuple[int, Facts] | None = None

    # Parts

    def _server(self, namespace: str) -> Server:
        executions = Executions()
        server = Server(namespace, self.loop, executions, single_batch=self.script.single_batch)
        server.client = ModelClient(server)
        server.renew_after = self.script.renew_after
        server.paused = lambda: not self.worker_up
        server.serves = lambda task: self.worker_up and (self.sends or task.name != "create_task")
        # Each replay costs as much as the run so far: every few steps are enough.
        server.evicts = lambda: self.script.evicts and next(self._steps) % 4 == 0
        self._start_worker(server)
        return server

    def _start_worker(self, server: Server) -> None:
        """Make the activities of a new worker process: the old one's memory is gone."""
        server.executions.activities = activities_of(self.bucket, self._ark, self.settings, self.provider.results)

    async def _connect(self) -> Any:
        return self.servers[0].client

    async def _call_back(self, url: str, payload: dict[str, Any]) -> int:
        return (await self._relay.post(url, json=payload)).status_code

    # What the world knows

    @property
    def quiet(self) -> bool:
        """Whether a named task can be identified: GET, bucket and workers are in order."""
        weathers = self.provider.get_weather, self.bucket.weather
        deaths = any(server.executions.deaths for server in self.servers)
        slow = any(server.task_seconds > 1 for server in self.servers)
        return weathers == ("fine",) * 2 and not (deaths or slow) and self.worker_up

    @property
    def tasks(self) -> list[MadeTask]:
        return list(self.provider.tasks.values())

    def facts(self) -> Facts:
        """Return what the ledger holds now."""
        if self._facts is None or self._facts[0] != len(self.bucket.writes):
            self._facts = len(self.bucket.writes), self.read(Ledger(self.bucket.copy(), PREFIX))
        return self._facts[1]

    def read(self, ledger: Ledger) -> Facts:
        return self.loop.run_until_complete(ledger.read(self.job_id))

    def job(self, server: Server) -> Run | None:
        return server.newest(self.job_id)

    def attempt_of(self, task: MadeTask) -> int | None:
        """Return the attempt whose claim holds the task's identifier."""
        attempts = self.facts().attempts
        # Of an attempt that is settled, the ledger does not read the claim.
        claims = {
            number: claim for number, claim in self.claims().items() if claim["nonce"] == task.identifier.split("-")[1]
        }
        return next((attempt.number for attempt in attempts if attempt.number in claims), None)

    def source_of(self, attempt: int) -> str:
        """Return who wrote the outcome of an attempt; of a settled one, the ledger does not read that."""
        name = Ledger(self.bucket, PREFIX).names(self.job_id).attempt(attempt, "outcome")
        return str(json.loads(self.bucket.contents[name])["source"])

    def claims(self) -> dict[int, dict[str, Any]]:
        """Return all claims of the job by their attempt."""
        return {
            int(name.rpartition("/")[2].partition(".")[0]): json.loads(content)
            for name, content in self.bucket.contents.items()
            if name.endswith(".claim.json")
        }

    # Time

    def go_on(self, seconds: float) -> None:
        """Let time pass, and look at the world meanwhile."""
        while seconds > 0:
            step = min(seconds, LOOK_SECONDS)
            began, quiet = self.loop.now(), self.quiet
            self.loop.run_until_complete(asyncio.sleep(step))
            if not (quiet and self.quiet):
                self._trouble(began)
            seconds -= step
            self._look(self)

    def do(self, move: Move) -> None:
        """Do one move of the script. One that has no object does nothing."""
        name, *arguments = move
        getattr(self, f"_{name}")(*arguments)
        self.go_on(0.1)

    def _trouble(self, began: float) -> None:
        self.troubled_at = self.loop.now()
        self.troubles.append((began, self.troubled_at))

    def was_quiet(self, began: float, ended: float) -> bool:
        """Return whether everything around the workflow was in order all the time."""
        return all(last < began or first > ended for first, last in self.troubles)

    def quiet_for(self, seconds: float, since: float) -> float:
        """Return when everything around the workflow had first been in order for so long."""
        for began, ended in sorted(self.troubles):
            if began - since >= seconds:
                break
            since = max(since, ended)
        return since + seconds

    # The moves

    def _pass(self, seconds: float) -> None:
        self.go_on(seconds)

    def _submit(self, of: int) -> None:
        """Submit the request, as the client does: to a job that is known nothing happens."""
        run = self.job(self.servers[of])
        error = self.error_of(run) if run is not None else None
        again = error is not None and (error.failure_class == "unsettled" or error.attempt is None)
        if run is None or run.status == "terminated" or again:
            self._start(of)

    def _start(self, of: int, resubmit: Resubmit | None = None) -> None:
        argument = GenerateVideoInput(request=self.request, resubmit=resubmit)
        self.servers[of].start(contract.WORKFLOW, self.job_id, Queues(self.request.route).workflows, argument)

    def _resubmit(self, of: int, accept: bool) -> None:
        run = self.job(self.servers[of])
        error = self.error_of(run) if run is not None else None
        if error is not None and error.attempt is not None:
            self._start(of, Resubmit(attempt=error.attempt, accept_second_charge=accept))

    def _creates(self, fate: Any) -> None:
        self.provider.fates.append(fate)

    def _get(self, weather: GetWeather) -> None:
        self.provider.get_weather = weather

    def _list(self, weather: ListWeather) -> None:
        self.provider.list_weather = weather
        self.lists_hid = self.lists_hid or weather in {"hides", "lags"}

    def _results(self, weather: ResultWeather) -> None:
        self.provider.result_weather = weather

    def _bucket(self, weather: BucketWeather) -> None:
        self.bucket.weather = weather

    def _callbacks(self, mode: Any) -> None:
        self.provider.callbacks = mode

    def _lag(self, seconds: float) -> None:
        self.provider.lag_seconds = seconds

    def _task(self, which: int, status: str) -> None:
        """Move one of the tasks on, the newest first."""
        if which < len(self.tasks):
            self.provider.move(self.tasks[-1 - which], status)

    def _hide(self, which: int, seconds: float) -> None:
        """Have GET and LIST not show a task for a while, as where they read a copy that is behind."""
        if which < len(self.tasks):
            self.tasks[-1 - which].hidden_until = self.loop.now() + seconds

    def _callback(self, which: int, status: str) -> None:
        """Send a callback of a task again; a number without a task stands for another application's task."""
        claims = self.claims()
        if not claims:
            return
        if which < len(self.tasks):
            task = self.tasks[-1 - which]
            payload = self.provider.payload(task) | {"status": status}
            attempt = self.attempt_of(task) or max(claims)
        else:
            payload = {"id": f"cgt-foreign-{which}", "status": status}
            attempt = max(claims)
            if which % 2:
                self.provider.foreign.append(payload["id"])
        url = callback_url(RELAY, SECRET, self.job_id, attempt)
        self.loop.run_until_complete(self._call_back(url, payload))

    def _dies(self, activity: str, gate: int) -> None:
        """Have the next execution of an activity die at one of its calls."""
        for server in self.servers:
            server.executions.deaths[activity] = gate

    def _crash(self) -> None:
        """Kill the worker, and start another one."""
        for server in self.servers:
            server.executions.kill_all()
            for run in server.runs:
                run.hosted.evict()
            self._start_worker(server)
        self._trouble(self.loop.now())

    def _worker(self, up: bool) -> None:
        self.worker_up = up

    def _sending(self, on: bool) -> None:
        """Stop the worker of creates alone, or start it again."""
        self.sends = on

    def _evict(self) -> None:
        for server in self.servers:
            for run in server.runs:
                if run.open:
                    run.hosted.evict()

    def _slow(self, seconds: float) -> None:
        for server in self.servers:
            server.task_seconds = seconds

    def _reset(self, of: int, percent: int) -> None:
        run = self.job(self.servers[of])
        if run is not None and run.hosted.history:
            self.servers[of].reset(run, len(run.hosted.history) * percent // 100)
            self.terminated_at = self.loop.now()

    def _terminate(self, of: int) -> None:
        run = self.job(self.servers[of])
        if run is not None:
            self.servers[of].terminate(run)
            self.terminated_at = self.loop.now()

    def _cancel(self, of: int, how: str) -> None:
        run = self.job(self.servers[of])
        if run is None or not run.open:
            return
        self.cancelled = True
        if how == "signal":
            run.signal(contract.SIGNAL_CANCEL)
        else:
            run.request_cancel()

    def _retry(self, of: int) -> None:
        run = self.job(self.servers[of])
        if run is not None and run.open:
            run.signal(contract.SIGNAL_RETRY)

    def _resolve(self, of: int, action: str) -> None:
        """Resolve the newest attempt: with ``truth`` as it really is, else as the move says."""
        run, claims = self.job(self.servers[of]), self.claims()
        if run is None or not claims:
            return
        attempt = max(claims)
        mine = [task for task in self.tasks if task.identifier.endswith(claims[attempt]["nonce"])]
        if action == "truth":
            # Of a create that the provider says it accepted, nobody can say that it made no task.
            taken = any(name.endswith(f"/{attempt:04d}.taken.json") for name in self.bucket.contents)
            action = "adopt" if mine else "lost" if taken else "not_created"
        task_id = mine[0].id if mine else "cgt-app"
        if not run.open:
            if action == "adopt":
                # As the command line does.
                named = NamedTask(task_id=task_id, status="", attempt=attempt, source="operator")
                asking = ask_later(self.servers[of].client, self.job_id, self.request.route, named)
                self.loop.run_until_complete(asking)
            return
        if action == "not_created":
            self.disowned.add(attempt)
        if action == "lost":
            self.given_up.add(attempt)
        resolution: Any = {"attempt": attempt, "action": action, "task_id": task_id if action == "adopt" else None}
        resolution["sent_at"] = self.loop.now()
        run.signal(contract.SIGNAL_RESOLVE, Resolve.model_validate(resolution))

    # The end

    def error_of(self, run: Run) -> JobError | None:
        """Return how a run ended without a video; None where it is open, or stored it."""
        if run.failure is None:
            return None
        details = run.failure.application_failure_info.details.payloads
        return _CONVERTER.from_payloads(details, [JobError])[0] if details else None

    def lift_trouble(self) -> None:
        """Let everything around the workflow be in order again, and stay so."""
        provider = self.provider
        provider.get_weather = provider.list_weather = provider.result_weather = self.bucket.weather = "fine"
        provider.fates.clear()
        provider.lag_seconds = 0.0
        # Callbacks may stay lost: the provider promises none.
        self.worker_up = self.sends = True
        for server in self.servers:
            server.executions.deaths.clear()
            server.task_seconds = 0.01
        self._trouble(self.loop.now())

    def attend(self) -> None:
        """Do what people would do in an hour: end the provider's tasks, resolve what is unknown, submit again."""
        for task in self.tasks:
            if not task.ended:
                self.provider.move(task, "succeeded")
        for number, server in enumerate(self.servers):
            run = self.job(server)
            if run is None:
                continue
            if run.status == "terminated":
                self._submit(number)
            elif run.open and (state := self.state(run)) is not None and state.attention == "unknown_create":
                self._resolve(number, "truth")

    def state(self, run: Run) -> Any:
        shown = run.hosted.object
        return shown.state() if shown is not None else None

    def close(self) -> None:
        """End all that still runs."""
        for server in self.servers:
            for run in server.runs:
                run.hosted.evict()
        left = asyncio.all_tasks(self.loop)
        for task in left:
            task.cancel()
        if left:
            self.loop.run_until_complete(asyncio.wait(left))
        self.loop.run_until_complete(self._relay.aclose())
