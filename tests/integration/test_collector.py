"""The collector against a real Temporal server: ages by the history, and trouble that stays its own."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.client import Client

from seedance_temporal import contract
from seedance_temporal.identity import job_id_of
from seedance_temporal.metrics import metrics_runtime
from seedance_temporal.settings import Settings
from seedance_temporal.storage.bucket import StoredObject
from tests.support import polling
from tests.support.memory_bucket import MemoryBucket
from tests.support.metrics import Scrape, free_port, scrape
from tests.support.temporal_stub import request
from workers.collector import Collector

SETTINGS = Settings.model_validate({"seedance_max_usd_per_day": 10})


class HangingBucket(MemoryBucket):
    async def list(self, prefix: str) -> list[StoredObject]:
        await asyncio.sleep(3_600)
        return await super().list(prefix)


class Looking:
    """A collector, and the address that shows its gauges for as long as this lives."""

    def __init__(
        self, client: Client, bucket: MemoryBucket, *, later: timedelta = timedelta(), part_seconds: float = 20
    ):
        self._port = free_port()
        self._runtime = metrics_runtime(f"127.0.0.1:{self._port}")
        self._collector = Collector(
            client,
            SETTINGS,
            bucket,
            self._runtime.metric_meter,
            lambda: datetime.now(UTC) + later,
            part_seconds=part_seconds,
        )

    async def look(self) -> Scrape:
        await self._collector.look()
        return await scrape(self._port)


async def test_age_counts_from_raising(temporal: Client) -> None:
    """A collector that begins two hours later knows by the history when it was raised, seconds after the start."""
    of = request("aged", "attention:storage")
    run = await temporal.start_workflow(
        contract.WORKFLOW,
        contract.GenerateVideoInput(request=of),
        id=job_id_of(of),
        task_queue=contract.Queues(of.route).workflows,
        start_delay=timedelta(seconds=6),
    )
    looking = Looking(temporal, MemoryBucket(), later=timedelta(hours=2))

    async def sees_it() -> Scrape | None:
        seen = await looking.look()
        return seen if seen.value("seedance_attentions", kind="storage") == 1 else None

    seen: Scrape = await polling.until(sees_it, "visibility shows the Attention")
    since_start = (datetime.now(UTC) + timedelta(hours=2) - (await run.describe()).start_time).total_seconds()
    age = seen.value("seedance_attention_age_seconds", kind="storage") or 0
    assert 7_200 <= age < since_start - 5
    assert seen.value("seedance_attention_age_seconds", kind="account") == 0
    assert seen.value("seedance_exposed_jobs") == 1
    await run.terminate()


async def test_broken_bucket_spares_other_parts(temporal: Client, caplog: pytest.LogCaptureFixture) -> None:
    bucket = MemoryBucket()
    bucket.broken = OSError("the bucket is away")
    looking = Looking(temporal, bucket)
    with caplog.at_level(logging.WARNING):
        seen = await looking.look()
    assert "metrics: the budgets cannot be read: the bucket is away" in caplog.messages
    assert seen.value("seedance_collector_errors_total", part="budgets") == 1
    assert seen.value("seedance_collected_timestamp_seconds") is None
    assert seen.value("seedance_gate_held", kind="paused") == 0
    assert seen.value("seedance_unstored_jobs") == 0
    bucket.broken = None
    seen = await looking.look()
    assert seen.value("seedance_budget_left_usd", period="day") == 10
    assert seen.value("seedance_collected_timestamp_seconds") == pytest.approx(time.time(), abs=30)


async def test_hanging_bucket_ends_with_its_time(temporal: Client) -> None:
    async with asyncio.timeout(10):
        seen = await Looking(temporal, HangingBucket(), part_seconds=2).look()
    assert seen.value("seedance_collector_errors_total", part="budgets") == 1
