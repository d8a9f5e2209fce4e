"""Following many: the list's filters, ``show --follow``, and ``watch``, on a terminal and without."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from temporalio.client import Client

from seedance_temporal.client import VideoJobs
from tests.support.command_line import run_command, script_process
from tests.support.polling import until
from tests.support.servers import dev_server
from tests.support.temporal_stub import MODELS, TASK_ID, address, handle, request, worker


async def _submit(temporal: Client, user: str, *prompts: str) -> list[str]:
    """Jobs of a user, as soon as the list shows them."""
    jobs = VideoJobs(temporal)
    ids = [(await jobs.submit(request(user, prompt))).id for prompt in prompts]

    async def listed() -> bool:
        return len(await jobs.list(user=user)) == len(prompts)

    await until(listed)
    return ids


# list


async def test_list_filters_by_model_route_and_time(temporal: Client) -> None:
    (job_id,) = await _submit(temporal, "o'hara", "listed")

    async def listed(*options: str) -> list[str]:
        said = await run_command(temporal, "list", "--user", "o'hara", "--json", *options)
        assert said.code == 0, said
        return [job["job_id"] for job in said.document]

    fits = ["--model", MODELS["byteplus"], "--route", "byteplus", "--since", "2026-01-01", "--open"]
    assert await listed(*fits) == [job_id]
    for wrong in (["--model", "x"], ["--route", "volcengine"], ["--since", "2199-01-01"], ["--until", "2026-01-02"]):
        assert await listed(*fits, *wrong) == []
    assert (await run_command(temporal, "list", "--since", "soon")).code == 2
    assert (await run_command(temporal, "list", "--since", "2026-02-01", "--until", "2026-01-01")).code == 2
    assert (await run_command(temporal, "list", "--route", "aws")).code == 2


async def test_filter_by_missing_attribute_is_clear_error() -> None:
    async with dev_server(attributes=()) as client, worker(client):
        (job_id,) = [(await VideoJobs(client).submit(request("bare", "no-attributes"))).id]
        await until(VideoJobs(client).list)
        for command in ("list", "watch", "report"):
            said = await run_command(client, command, "--user", "bare")
            assert said.code == 1
            assert "lacks search attributes that this filter needs" in said.err
        assert job_id in (await run_command(client, "list", "--route", "byteplus", "--open")).out
        assert job_id in (await run_command(client, "watch", "--once")).out
        assert (await run_command(client, "report", "--json")).document["total"]["jobs"] == 1


# show --follow


async def test_show_follow_continues_under_attention(temporal: Client) -> None:
    of = request("followed", "attention:account")
    job_id = (await VideoJobs(temporal).submit(of)).id
    assert (await run_command(temporal, "wait", job_id)).code == 4
    following = asyncio.create_task(run_command(temporal, "show", job_id, "--follow", "--json"))
    await asyncio.sleep(1)
    assert not following.done()
    await handle(temporal, of).signal("end", "stored")
    said = await following
    assert (said.code, said.document["phase"]) == (0, "stored")
    assert [line.split()[2] for line in said.err.splitlines()] == ["running", "stored"], "a line for each change"


async def test_follow_is_drawn_live_on_a_terminal(temporal: Client) -> None:
    of = request("drawn", "attention:second_task")
    job_id = (await VideoJobs(temporal).submit(of)).id
    async with _on_a_terminal(temporal, "wait", job_id) as (process, screen):
        await screen.until("0:00:02", TASK_ID, "running")
        await handle(temporal, of).signal("end", "stored")
        assert await asyncio.wait_for(process.wait(), 20) == 0


# watch


async def test_watch_once_shows_attention_first(temporal: Client) -> None:
    calm, needy, _ = await _submit(temporal, "watcher", "hold", "attention:account", "stored")
    said = await run_command(temporal, "watch", "--user", "watcher", "--once")
    assert said.code == 0
    shown = [line for line in said.out.splitlines() if "seedance-" in line]
    assert [line.split()[-1] for line in shown] == [needy, calm], "not the one that is stored"
    assert shown[0].split()[:2] == ["account", "running"]
    assert TASK_ID in shown[1]
    assert "2 open, 1 of them need an operator" in said.out


async def test_watch_of_batch_ends_with_its_jobs(temporal: Client, tmp_path: Path) -> None:
    ids = await _submit(temporal, "batcher", "hold one", "hold two", "hold another")
    results = tmp_path / "requests.results.jsonl"
    lines = [{"line": 1, "job_id": ids[0]}, {"line": 2, "error": "invalid"}, {"line": 3, "job_id": ids[1]}]
    results.write_text("".join(json.dumps(line) + "\n" for line in lines))
    watching = asyncio.create_task(run_command(temporal, "watch", str(results)))
    await asyncio.sleep(3)
    for prompt in ("hold one", "hold two"):
        assert not watching.done()
        await handle(temporal, request("batcher", prompt)).signal("end", "stored")
        await asyncio.sleep(3)
    said = await asyncio.wait_for(watching, 20)
    assert said.code == 0
    counts = [line for line in said.out.splitlines() if "open" in line]
    assert [count.partition(";")[0] for count in counts] == ["2 open", "1 open", "No job is open."], (
        "one for each change"
    )
    assert "; 2 can still be billed, with at most 1.5" in counts[0]
    assert ids[2] not in said.out


@pytest.mark.parametrize("text", [None, "[1]\n", "no json\n"])
async def test_watch_refuses_other_files(temporal: Client, tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "x.jsonl"
    if text is not None:
        file.write_text(text)
    said = await run_command(temporal, "watch", str(file))
    assert said.code == 2
    assert "RESULTS" in said.err


async def test_watch_refreshes_until_ctrl_c(temporal: Client) -> None:
    of = request("terminal watcher", "attention:credentials")
    await _submit(temporal, "terminal watcher", "attention:credentials")
    async with _on_a_terminal(temporal, "watch", "--user", "terminal watcher") as (process, screen):
        await screen.until("credentials", "0:00:0", "1 open")
        # The cursor goes up again: the same table, and not another one below it.
        await screen.until("\x1b[1A")
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 20) == 1
    assert (await VideoJobs(temporal).job((await handle(temporal, of).describe()).id).state()).phase == "running"


class _Screen:
    """What a process has written on a terminal of its own."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._written = ""

    async def until(self, *words: str) -> None:
        async with asyncio.timeout(30):
            while not all(word in self._written for word in words):
                self._written += (await asyncio.to_thread(os.read, self._terminal, 65536)).decode(errors="replace")


@asynccontextmanager
async def _on_a_terminal(
    temporal: Client, *arguments: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, _Screen]]:
    screen, terminal = os.openpty()
    streams = {"stdin": asyncio.subprocess.DEVNULL, "stdout": terminal, "stderr": terminal}
    variables = {"TEMPORAL_ADDRESS": address(temporal), "TERM": "xterm", "COLUMNS": "160", "LINES": "40"}
    async with script_process("starter.py", *arguments, streams=streams, **variables) as process:
        os.close(terminal)
        yield process, _Screen(screen)
    os.close(screen)
