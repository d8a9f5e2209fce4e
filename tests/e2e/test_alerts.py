"""Alerts of a real Prometheus that scrapes a real worker and relay; the time that a cause must last is left out."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import httpx
import pytest
import yaml

from dev.process import start
from dev.stack import CALLBACK_SECRET, HOST, running_stack
from seedance_temporal.identity import callback_url
from seedance_temporal.settings import Settings
from tests.docs.pages import ROOT
from tests.e2e.requests import a_faulty_request, a_request
from tests.support import polling
from tests.support.metrics import free_port

PROMETHEUS = shutil.which("prometheus")
JOB = "seedance-" + "0" * 64


def configure(folder: Path, worker: int, relay: int) -> Path:
    """Write Prometheus's configuration, with the rules of ``deploy/`` but for how long their causes must last."""
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())
    for rule in rules["groups"][0]["rules"]:
        rule.pop("for", None)
    (folder / "alerts.yml").write_text(yaml.safe_dump(rules))
    scrapes = {"seedance-worker": worker, "seedance-relay": relay}
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["alerts.yml"],
        "scrape_configs": [
            {"job_name": name, "static_configs": [{"targets": [f"{HOST}:{port}"]}]} for name, port in scrapes.items()
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    return folder / "prometheus.yml"


@pytest.mark.faults
@pytest.mark.skipif(PROMETHEUS is None, reason="no prometheus on this machine: no alert fired by a real scrape")
@pytest.mark.timeout(500)
async def test_real_causes_fire_alerts(tmp_path: Path) -> None:
    assert PROMETHEUS is not None
    worker, relay, port = free_port(), free_port(), free_port()
    # An unknown create that nothing settles; a budget below is one of three videos.
    settings = {
        "SEEDANCE_METRICS_ADDRESS": f"{HOST}:{worker}",
        "SEEDANCE_RECOVERY_SECONDS": "15",
        "SEEDANCE_CALLBACK_URL": "",
        "SEEDANCE_METRICS_LOOK_SECONDS": "2",
    }
    request = a_request()
    estimated = Settings.model_validate({}).rules.estimate(request).most
    assert estimated.usd is not None
    async with running_stack(speed=60, workers=False, settings=settings) as stack:
        budget = {"SEEDANCE_MAX_USD_PER_DAY": str(3.05 * estimated.usd)}
        await stack.start_worker(**budget)
        await stack.start_relay(SEEDANCE_METRICS_ADDRESS=f"{HOST}:{relay}")
        command = [
            PROMETHEUS,
            f"--config.file={configure(tmp_path, worker, relay)}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address={HOST}:{port}",
        ]
        stack.children["prometheus"] = await start("prometheus", command, {}, tmp_path, cwd=tmp_path)
        alerts = Alerts(f"http://{HOST}:{port}")
        await polling.until(alerts.are_read, "Prometheus answers", seconds=60, every=0.5)
        await alerts.until_quiet("SeedanceWorkerMissing")

        await stack.ark.configure(list_echo=False)
        unknown, _ = await a_faulty_request(stack, "create", "reset_before_commit")
        await stack.jobs.submit(unknown)
        await (await stack.jobs.submit(request)).result()
        await alerts.until_fires("SeedanceUnknownCreate", route="byteplus")

        await stack.ark.set_standing("byteplus", "AccountOverdueError")
        await stack.children["worker"].stop()
        await alerts.until_fires("SeedanceWorkerMissing")
        await stack.start_worker(**budget)
        await alerts.until_quiet("SeedanceWorkerMissing")
        await stack.jobs.submit(a_request())
        await alerts.until_fires("SeedanceAccountClosed", kind="account")
        await alerts.until_fires("SeedanceBudgetNearlyUsed", payer="account:byteplus", period="day")

        url = callback_url(f"http://{HOST}:{stack.ports.relay}", CALLBACK_SECRET, JOB, 1)
        await stack.children["temporal"].stop()
        async with httpx.AsyncClient(trust_env=False, timeout=20) as http:
            for _ in range(2):
                body = {"id": "cgt-20261122-alert", "status": "running"}
                answers = await asyncio.gather(*(http.post(url, json=body) for _ in range(8)))
                assert {answer.status_code for answer in answers} == {503}
                await asyncio.sleep(3)
        await alerts.until_fires("SeedanceCallbacksFailing")


class Alerts:
    """The alerts of a Prometheus."""

    def __init__(self, base: str) -> None:
        self._base = base

    async def firing(self) -> list[dict[str, str]]:
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = (await http.get(f"{self._base}/api/v1/alerts")).json()
        return [alert["labels"] for alert in answer["data"]["alerts"] if alert["state"] == "firing"]

    async def are_read(self) -> bool:
        try:
            await self.firing()
        except httpx.TransportError:
            return False
        return True

    async def until_fires(self, name: str, **labels: str) -> None:
        async def fires() -> bool:
            return any({"alertname": name, **labels}.items() <= alert.items() for alert in await self.firing())

        await polling.until(fires, f"{name} fires", seconds=100, every=0.5)

    async def until_quiet(self, name: str) -> None:
        async def is_quiet() -> bool:
            return all(alert["alertname"] != name for alert in await self.firing())

        await polling.until(is_quiet, f"{name} is quiet", seconds=60, every=0.5)
