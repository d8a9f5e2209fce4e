"""The metrics of a worker and a relay, scraped over HTTP while things happen."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import httpx
import pytest

from dev.ark.faults import Operation
from dev.stack import CALLBACK_SECRET, HOST, Stack, running_stack
from seedance_temporal import VideoJob
from seedance_temporal.identity import callback_url
from seedance_temporal.metrics import METRICS
from seedance_temporal.relay import MAX_BODY_BYTES
from tests.docs.pages import ROOT, rows
from tests.e2e.requests import a_faulty_request, a_request, until
from tests.support import polling
from tests.support.metrics import Sample, Scrape, base_name, free_port, scrape
from tests.unit.test_alerts import OF_OTHERS

# On a busy machine a look can take long.
LOOK_SECONDS = 90
TWO_LOOKS_SECONDS = 150
PAGE = ROOT / "docs" / "reference" / "metrics.md"
# Labels that Temporal's meters add, and the bound of a bucket.
OF_TEMPORAL = {"namespace", "task_queue", "workflow_type", "activity_type", "le"}


@dataclass
class Watched:
    """A stack whose worker and relay expose metrics."""

    stack: Stack
    worker: int
    relay: int

    async def until(self, shows: Callable[[Scrape], bool], what: str, *, port: int | None = None) -> Scrape:
        async def shown() -> Scrape | None:
            found = await scrape(port or self.worker)
            return found if shows(found) else None

        found: Scrape = await polling.until(shown, what, seconds=LOOK_SECONDS, every=0.5)
        return found

    async def until_true(self, check: Callable[[Scrape], None]) -> None:
        """Wait until a check passes. A scrape in the middle of a look has parts of two looks."""
        end = time.monotonic() + TWO_LOOKS_SECONDS
        while True:
            try:
                return check(await scrape(self.worker))
            except AssertionError:
                if time.monotonic() > end:
                    raise
            await asyncio.sleep(0.5)


@pytest.fixture(scope="module")
async def watched() -> AsyncIterator[Watched]:
    worker, relay = free_port(), free_port()
    settings = {"SEEDANCE_TASKS_AT_ONCE": "2", "SEEDANCE_MAX_USD_PER_DAY": "50", "SEEDANCE_RECOVERY_SECONDS": "600"}
    settings["SEEDANCE_METRICS_LOOK_SECONDS"] = "2"
    async with running_stack(speed=60, workers=False, settings=settings) as stack:
        await asyncio.gather(
            stack.start_worker(SEEDANCE_METRICS_ADDRESS=f"{HOST}:{worker}"),
            stack.start_relay(SEEDANCE_METRICS_ADDRESS=f"{HOST}:{relay}"),
        )
        yield Watched(stack, worker, relay)


async def callbacks_of_all_kinds(stack: Stack, job_id: str) -> None:
    base = f"http://{HOST}:{stack.ports.relay}"
    url = callback_url(base, CALLBACK_SECRET, job_id, 1)
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.post(f"{url[:-4]}0000", json={})).status_code == 404
        assert (await http.post(url, json={})).status_code == 400
        assert (await http.post(url, content=b"x" * (MAX_BODY_BYTES + 1))).status_code == 413


@pytest.mark.timeout(900)
async def test_each_metric_changes_by_its_event(watched: Watched) -> None:
    """Trouble, more of it, then its end; each series is in the table of the docs, and each metric of it is seen."""
    stack = watched.stack
    seen = await watched.until(lambda seen: seen.value("seedance_collected_timestamp_seconds") is not None, "a look")
    assert seen.value("seedance_unstored_jobs") == 0
    assert seen.value("seedance_url_left_seconds") == 86_400
    assert seen.value("seedance_budget_left_usd", payer="account:byteplus", period="day") == 50
    assert seen.value("seedance_creates_total") is None

    request = a_request()
    stored = await stack.jobs.submit(request)
    result = await stored.result()
    refused = await a_faulty_job(stack, "create", "400")
    await until(stack, refused.id, lambda job: job.phase == "refused")
    # Two whose videos cannot be had; then two that hold both places, one of them for nobody knows which task.
    failing = await stack.ark.fault("download", "503", times=None)
    unstored = [await stack.jobs.submit(a_request()) for _ in range(2)]
    for job in unstored:
        await until(stack, job.id, lambda job: job.phase == "storing")
    unknown = await a_faulty_job(stack, "create", "reset_before_commit")
    await until(stack, unknown.id, lambda job: job.phase == "recovering")
    slow = a_request()
    await stack.ark.fault("task", "stay_running", contains=slow.prompt)
    running = await stack.jobs.submit(slow)
    await until(stack, running.id, lambda job: job.phase == "running")
    waiting = await stack.jobs.submit(a_request())
    estimated = (await stored.state()).estimated_usd or 0

    def in_trouble(seen: Scrape) -> None:
        assert seen.value("seedance_places", state="waiting") == 1
        assert seen.value("seedance_places", state="taken") == seen.value("seedance_places", state="limit") == 2
        assert seen.value("seedance_unstored_jobs") == 2
        assert 0 < (seen.value("seedance_unstored_age_seconds") or 0) < TWO_LOOKS_SECONDS + 60
        assert 86_400 - TWO_LOOKS_SECONDS - 60 < (seen.value("seedance_url_left_seconds") or 0) < 86_400
        assert seen.value("seedance_unknown_creates") == 1
        assert seen.value("seedance_exposed_jobs") == 4
        assert seen.value("seedance_exposure", currency="usd") == pytest.approx(4 * estimated)
        assert seen.value("seedance_open_jobs", phase="recovering") == 1
        assert (seen.value("seedance_budget_left_usd", period="day") or 50) < 50
        for outcome, count in {"created": 4, "refused": 1, "unknown": 1}.items():
            labels = {"route": "byteplus", "class": "ordinary", "outcome": outcome}
            assert seen.value("seedance_creates_total", **labels) == count
        assert seen.value("seedance_stored_bytes_total", route="byteplus") == result.size
        assert seen.value("seedance_store_delay_seconds_count", route="byteplus") == 1
        assert seen.value("seedance_tokens_total", model=request.model) == (
            result.usage and result.usage.completion_tokens
        )
        assert seen.value("seedance_cost_sum", model=request.model, currency="usd") == pytest.approx(result.cost_usd)
        assert (seen.value("seedance_looks_total", result="known") or 0) >= 3

    await watched.until_true(in_trouble)

    await stack.ark.clear_faults(failing)
    await stack.ark.release()
    for job in unstored:
        await job.result(60)
    await running.result(60)
    await waiting.result(60)
    await stack.ark.set_standing("byteplus", "AccountOverdueError")
    behind = await stack.jobs.submit(a_request())

    def closed(seen: Scrape) -> None:
        assert seen.value("seedance_gate_held", kind="closed") == 1
        assert seen.value("seedance_unstored_jobs") == 0
        assert seen.value("seedance_attentions", kind="account") == 1
        assert seen.value("seedance_attentions_raised_total", kind="account") == 1
        assert (seen.value("seedance_attention_age_seconds", kind="account") or 0) > 0
        assert (seen.value("seedance_gate_held_seconds", **{"class": "ordinary"}) or 0) > 0
        assert (seen.value("seedance_creates_total", outcome="not_sent") or 0) >= 1

    await watched.until_true(closed)

    await stack.ark.set_standing("byteplus", "ok")
    await behind.result(120)

    def opened(seen: Scrape) -> None:
        assert seen.value("seedance_attentions", kind="account") == 0
        assert seen.value("seedance_gate_held_seconds") == 0
        assert seen.value("seedance_attention_age_seconds", kind="account") == 0

    await watched.until_true(opened)

    await callbacks_of_all_kinds(stack, stored.id)
    relay = await scrape(watched.relay)
    assert (relay.value("seedance_callbacks_total", result="passed_on") or 0) >= 3
    for kind in ("not_ours", "no_task", "too_large"):
        assert relay.value("seedance_callbacks_total", result=kind) == 1

    await stack.children["bucket"].stop()
    seen = await watched.until(
        lambda seen: seen.value("seedance_collector_errors_total", part="budgets") is not None, "a look fails"
    )
    check_table(seen, relay)
    assert {each.name for each in seen} >= OF_OTHERS - {"up"}
    check_privacy([*seen, *relay], [stored.id, result.task_id, request.user_id, str(request.prompt)])


def check_table(worker: Scrape, relay: Scrape) -> None:
    """All of our series, and no others, are in the table of the docs, with their labels."""
    table = {row[0].strip("`"): set(re.findall(r"`(\w+)`", row[3])) for row in rows(PAGE, "# Metrics")}
    ours = [each for each in (*worker, *relay) if each.name.startswith("seedance_")]
    assert {base_name(each.name) for each in ours} == table.keys() == {metric.name for metric in METRICS}
    for each in ours:
        given = each.labels.keys() - OF_TEMPORAL
        assert given == table[base_name(each.name)], each


def check_privacy(samples: list[Sample], private: list[str]) -> None:
    for each in samples:
        for value in each.labels.values():
            assert not any(word in value or value in word for word in private if len(value) > 8), each
            assert "://" not in value, each


async def a_faulty_job(stack: Stack, on: Operation, fault: str) -> VideoJob:
    request, _ = await a_faulty_request(stack, on, fault)
    return await stack.jobs.submit(request)
