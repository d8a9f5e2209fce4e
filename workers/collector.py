"""Set the gauges that need a look at Temporal and at the bucket, by default once a minute.

A look reads visibility, memos, gates, places and budgets, within bounds that docs/reference/metrics.md states. It
changes nothing, and never disturbs the worker: each part has a time limit, and its errors are logged and counted.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, get_args

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryReverseRequest
from temporalio.client import Client
from temporalio.common import MetricMeter, SearchAttributeKey
from temporalio.service import RPCError

from seedance_temporal import contract, metrics
from seedance_temporal.connection import is_unknown_workflow
from seedance_temporal.contract import Queues
from seedance_temporal.gate import hold_of
from seedance_temporal.job import Attention, JobState
from seedance_temporal.ledger.spending import Spending
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.places import Place, places_in
from seedance_temporal.provider.task import RESULT_URL_LIFE
from seedance_temporal.settings import Settings
from seedance_temporal.storage.bucket import Bucket
from seedance_temporal.visibility import described, queries

PART_SECONDS = 20.0
_QUERY_WITHIN = timedelta(seconds=5)
# Five pages of a listing; more jobs than these are not counted.
MOST_JOBS = 5_000
_PAGE = 1_000
# Histories that are read in a look, to learn since when a job is as it is; each is read once.
MOST_HISTORIES = 20
_NEWEST_EVENTS = 200
_HOLDS = ("paused", "closed", "ramping")
# From the create to the record.
_EXPOSED = ("creating", "recovering", "queued", "running", "storing")
_PHASES = ("checking", "waiting", *_EXPOSED)

_log = logging.getLogger(__name__)


class _Since(NamedTuple):
    """A search attribute of a job, by its value."""

    job_id: str
    key: SearchAttributeKey[str]
    value: str


class _Open(NamedTuple):
    state: JobState
    started_at: datetime


class Collector:
    """Set the gauges of a route.

    Args:
        meter: Of the runtime that exposes the metrics.
        part_seconds: The most that each part of a look may take.
        clock: Returns the time, in UTC.
    """

    def __init__(
        self,
        client: Client,
        settings: Settings,
        bucket: Bucket,
        meter: MetricMeter,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        part_seconds: float = PART_SECONDS,
    ) -> None:
        self._client = client
        self._settings = settings
        self._meter = meter
        self._part_seconds = part_seconds
        self._clock = clock
        self._route = settings.ark_route
        self._queues = Queues(settings.ark_route)
        self._spending = Spending(Ledger(bucket, settings.seedance_prefix), bucket, settings, clock)
        self._known: dict[_Since, datetime] = {}

    async def run(self) -> None:
        """Look again and again, until this is cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._settings.seedance_metrics_look_seconds)

    async def look(self) -> None:
        """Read all parts, and set their gauges; one that cannot be read keeps its values."""
        parts: dict[str, Callable[[], Awaitable[None]]] = {
            "jobs": self._look_at_jobs,
            "gate": self._look_at_gate,
            "places": self._look_at_places,
            "budgets": self._look_at_budgets,
        }
        complete = True
        for part, read in parts.items():
            try:
                async with asyncio.timeout(self._part_seconds):
                    await read()
            except Exception as error:
                complete = False
                metrics.COLLECTOR_ERRORS.add(self._meter, route=self._route, part=part)
                _log.warning("metrics: the %s cannot be read: %s", part, str(error) or type(error).__name__)
        if complete:
            metrics.COLLECTED.set(self._meter, self._clock().timestamp(), route=self._route)

    # Jobs

    async def _look_at_jobs(self) -> None:
        listed = await self._list()
        now = self._clock()
        phases = Counter(state.phase for state, _ in listed)
        for phase in _PHASES:
            metrics.OPEN_JOBS.set(self._meter, phases[phase], route=self._route, phase=phase)
        exposed = [state for state, _ in listed if state.phase in _EXPOSED]
        metrics.EXPOSED_JOBS.set(self._meter, len(exposed), route=self._route)
        for currency in ("usd", "cny"):
            amount = sum(getattr(state, f"estimated_{currency}") or 0.0 for state in exposed)
            metrics.EXPOSURE.set(self._meter, amount, route=self._route, currency=currency)
        unknown = sum(state.phase == "recovering" or state.attention == "unknown_create" for state, _ in listed)
        metrics.UNKNOWN_CREATES.set(self._meter, unknown, route=self._route)
        await self._show_ages(listed, now)

    async def _list(self) -> list[_Open]:
        """List the open jobs that have an Attention, or can have a task."""
        phases = ", ".join(f"'{phase}'" for phase in _EXPOSED)
        further = f"({contract.SEEDANCE_ATTENTION.name} IS NOT NULL OR {contract.SEEDANCE_PHASE.name} IN ({phases}))"
        (query,) = queries(further, route=self._route, is_open=True)
        runs = self._client.list_workflows(query, page_size=_PAGE, limit=MOST_JOBS)
        return [_Open(await described(run), run.start_time) async for run in runs]

    async def _show_ages(self, listed: Iterable[_Open], now: datetime) -> None:
        wanted: dict[_Since, datetime] = {}
        for state, started_at in listed:
            if state.attention is not None:
                wanted[_Since(state.job_id, contract.SEEDANCE_ATTENTION, state.attention)] = started_at
            if state.phase == "storing":
                wanted[_Since(state.job_id, contract.SEEDANCE_PHASE, state.phase)] = started_at
        self._known = {each: since for each, since in self._known.items() if each in wanted}
        unread = sorted(wanted.keys() - self._known.keys(), key=lambda each: wanted[each])
        for each in unread[:MOST_HISTORIES]:
            self._known[each] = await self._since(each) or wanted[each]
        for kind in get_args(Attention):
            of_kind = [each for each in wanted if (each.key, each.value) == (contract.SEEDANCE_ATTENTION, kind)]
            metrics.ATTENTIONS.set(self._meter, len(of_kind), route=self._route, kind=kind)
            metrics.ATTENTION_AGE.set(self._meter, self._age(of_kind, now), route=self._route, kind=kind)
        storing = [each for each in wanted if each.key == contract.SEEDANCE_PHASE]
        age = self._age(storing, now)
        metrics.UNSTORED_JOBS.set(self._meter, len(storing), route=self._route)
        metrics.UNSTORED_AGE.set(self._meter, age, route=self._route)
        metrics.URL_LEFT.set(self._meter, max(0.0, RESULT_URL_LIFE.total_seconds() - age), route=self._route)

    def _age(self, of: Iterable[_Since], now: datetime) -> float:
        """Return the seconds since the first of these; 0 where there is none."""
        return max(
            (max(0.0, (now - self._known[each]).total_seconds()) for each in of if each in self._known), default=0.0
        )

    async def _since(self, of: _Since) -> datetime | None:
        """Return when a search attribute was set, by the newest events of the job's run."""
        request = GetWorkflowExecutionHistoryReverseRequest(
            namespace=self._client.namespace,
            execution=WorkflowExecution(workflow_id=of.job_id),
            maximum_page_size=_NEWEST_EVENTS,
        )
        answer = await self._client.workflow_service.get_workflow_execution_history_reverse(request, retry=True)
        for event in answer.history.events:
            fields = event.upsert_workflow_search_attributes_event_attributes.search_attributes.indexed_fields
            if of.key.name in fields and json.loads(fields[of.key.name].data) in (of.value, [of.value]):
                return event.event_time.ToDatetime(UTC)
        return None

    # Creates

    async def _look_at_gate(self) -> None:
        for queue in self._queues.creates:
            hold = await hold_of(self._client, queue)
            labels = {"route": self._route, "class": self._class_of(queue)}
            for kind in _HOLDS:
                held = hold is not None and hold.kind == kind
                metrics.GATE.set(self._meter, float(held), kind=kind, **labels)
            since = hold.since if hold is not None and hold.kind != "ramping" else None
            age = max(0.0, (self._clock() - since).total_seconds()) if since is not None else 0.0
            metrics.GATE_AGE.set(self._meter, age, **labels)

    async def _look_at_places(self) -> None:
        for queue in self._queues.creates:
            limit = places_in(queue, self._settings)
            if limit is None:
                continue
            place = await self._places(queue)
            for state, count in (("limit", limit), ("taken", place.taken), ("waiting", place.waiting)):
                labels = {"route": self._route, "class": self._class_of(queue), "state": state}
                metrics.PLACES.set(self._meter, count, **labels)

    async def _places(self, queue: str) -> Place:
        handle = self._client.get_workflow_handle(contract.places_id(queue))
        try:
            # Of no job: the numbers are the same for each.
            place: Place = await handle.query(contract.QUERY_PLACE, "", result_type=Place, rpc_timeout=_QUERY_WITHIN)
        except RPCError as error:
            if is_unknown_workflow(error):  # no job has asked for a place yet
                return Place()
            raise
        return place

    async def _look_at_budgets(self) -> None:
        for use in await self._spending.figures(self._clock()) if self._settings.has_budgets else []:
            labels = {"route": self._route, "payer": use.budget.payer, "period": use.budget.period}
            metrics.BUDGET.set(self._meter, use.budget.usd, **labels)
            metrics.BUDGET_LEFT.set(self._meter, max(0.0, use.budget.usd - use.used), **labels)

    def _class_of(self, queue: str) -> str:
        return metrics.class_of("4k" if queue == self._queues.create_4k else "")
