"""A large batch that is interrupted and run again, checked by Temporal and by the provider."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from dev.stack import ROOT, Stack
from seedance_temporal import VideoRequest
from seedance_temporal.identity import job_id_of
from tests.e2e.requests import a_request

BAD, REPEATED = 10, 5


class Batch:
    """A file of requests of one user: good ones, bad ones, and some that it has twice."""

    def __init__(self, stack: Stack, folder: Path, good: int) -> None:
        self._stack = stack
        self.requests = [a_request(user_id=f"batch of {good}") for _ in range(good)]
        lines = [request.model_dump_json() for request in self.requests]
        lines += lines[:REPEATED]
        for number in range(BAD):
            lines.insert(number * good // BAD, '{"user_id": "somebody"}')
        self.path = folder / "requests.jsonl"
        self.path.write_text("\n".join(lines))

    @property
    def results(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.path.parent / "requests.results.jsonl").read_text().splitlines()]

    async def run(self, interrupt_at: int | None = None) -> tuple[int, dict[str, Any], str]:
        """Run it, with Ctrl-C as soon as Temporal has so many of its jobs."""
        before = await self._runs()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "starter.py", "batch", str(self.path), "--skip-invalid", "--yes", "--json"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._stack.environment,
            cwd=ROOT,
        )
        output = asyncio.create_task(process.communicate())
        if interrupt_at is not None:
            while not output.done() and await self._runs() < before + interrupt_at:
                await asyncio.sleep(0.02)
            process.send_signal(signal.SIGINT)
        out, err = await asyncio.wait_for(output, 600)
        assert process.returncode is not None
        return process.returncode, json.loads(out), err.decode()

    async def _runs(self) -> int:
        return (await self._stack.client.count_workflows("WorkflowType = 'GenerateVideo'")).count

    async def all_created(self) -> Counter[str]:
        """Return how often each prompt was created, as soon as all were."""
        prompts = {str(request.prompt) for request in self.requests}
        while True:
            ledger = [entry for entry in await self._stack.ark.ledger() if entry.committed]
            created = Counter(text for entry in ledger for text in _texts(entry.body) if text in prompts)
            if len(created) == len(prompts):
                return created
            await asyncio.sleep(0.5)


def _texts(body: dict[str, Any]) -> list[str]:
    return [item["text"] for item in body["content"] if item["type"] == "text"]


async def interrupted_and_run_again(stack: Stack, folder: Path, good: int, seconds: float) -> str:
    """Interrupt a batch, run it again, and assert that each good line is one job, created once, and stored.

    Args:
        stack: With a worker.
        folder: For the file and its results.
        good: How many good lines it has, besides bad ones and some that it has twice.
        seconds: The time for all jobs to be stored.

    Returns:
        How many jobs were new and known, for a report.
    """
    batch = Batch(stack, folder, good)
    code, document, messages = await batch.run(interrupt_at=good // 3)
    assert (code, document["error"]["code"]) == (1, "interrupted")
    assert f"of {good} jobs are known to be submitted, and go on" in messages
    assert "Traceback" not in messages
    first = batch.results
    assert len(first) == good + BAD + REPEATED
    submitted = sum(result.get("existing") is False for result in first)
    assert 0 < submitted < good, "the interruption did not happen in between"
    assert sum("error" in result for result in first) == BAD

    code, summary, messages = await batch.run()
    assert code == 0, messages
    assert (summary["jobs"], summary["invalid"], summary["repeated"]) == (good, BAD, REPEATED)
    assert summary["new"] + summary["existing"] == good
    # The submission that was cut off may have arrived as well.
    assert submitted <= summary["existing"] < good
    second = batch.results
    assert [result.get("job_id") for result in second] == [result.get("job_id") for result in first]
    assert [result["line"] for result in second] == list(range(1, len(second) + 1))
    assert all("error" in result or result["phase"] for result in second)

    wanted = Counter({job_id_of(request): 1 for request in batch.requests})
    assert await _runs_of(stack, batch.requests) == wanted
    async with asyncio.timeout(seconds):
        created = await batch.all_created()
        assert created == Counter({str(request.prompt): 1 for request in batch.requests})
        await asyncio.gather(*(stack.jobs.job(job_id).result() for job_id in wanted))
    assert await batch.all_created() == created, "another create came later"
    return f"submitted at Ctrl-C: {submitted}; then new: {summary['new']}, known already: {summary['existing']}"


async def _runs_of(stack: Stack, requests: list[VideoRequest]) -> Counter[str]:
    """Return how many runs Temporal has of each job."""
    job_ids = {job_id_of(request) for request in requests}
    runs = stack.client.list_workflows("WorkflowType = 'GenerateVideo'")
    return Counter([run.id async for run in runs if run.id in job_ids])
