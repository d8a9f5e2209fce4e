"""The processes as people start them: ``starter.py``, ``worker.py --check``, ``make demo`` and ``make stack``."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from pathlib import Path

import httpx
import pytest

from dev.stack import FIXED_PORTS, HOST, ROOT, Stack, _is_taken
from tests.e2e.command import python, starter
from tests.e2e.requests import a_faulty_request, a_request, creates_of
from tests.support.jobs import present


def _as_if_real(stack: Stack, **changes: str) -> dict[str, str]:
    """The environment of an account: the programs cannot tell this provider and bucket from the real ones."""
    account = {"ARK_API_KEY": "local-ark-key", "ARK_BASE_URL": stack.ark.base_url("byteplus")}
    return stack.environment | account | changes


async def test_submit_show_and_list(stack: Stack) -> None:
    request = a_request(user_id="user-of-the-command-line")
    code, job, _ = await starter(stack, "submit", "-", "--wait", stdin=request.model_dump_json())
    assert code == 0
    assert job["phase"] == "stored"
    assert job["existing"] is False
    assert job["result"]["size"] > 0
    code, shown, _ = await starter(stack, "show", job["job_id"])
    assert code == 0
    assert shown["result"] == job["result"]
    code, listed, _ = await starter(stack, "list", "--user", "user-of-the-command-line", "--phase", "stored")
    assert code == 0
    assert [one["job_id"] for one in listed] == [job["job_id"]]


async def test_invalid_request_costs_nothing(stack: Stack) -> None:
    wrong = a_request().model_dump(mode="json") | {"duration": 99, "seed": 7, "prompt": "a boat --dur 15", "colour": 1}
    before = len(await stack.ark.ledger())
    code, answer, _ = await starter(stack, "submit", "-", stdin=json.dumps(wrong))
    assert code == 2
    assert answer["error"]["code"] == "invalid_request"
    assert {problem["at"] for problem in answer["error"]["problems"]} >= {"duration", "seed", "prompt", "colour"}
    assert len(await stack.ark.ledger()) == before


async def test_failed_job_exits_3(stack: Stack) -> None:
    request, _ = await a_faulty_request(stack, "task", "fail")
    code, job, _ = await starter(stack, "submit", "-", "--wait", stdin=request.model_dump_json())
    assert code == 3
    assert job["phase"] == "failed"
    assert job["error"]["class"] == "moderation"
    assert job["error"]["task_id"] == (await creates_of(stack, request))[0].task_id


async def test_job_needing_operator_exits_4(stack: Stack) -> None:
    request, armed = await a_faulty_request(stack, "create", "401", times=None)
    code, job, _ = await starter(stack, "submit", "-", "--wait", stdin=request.model_dump_json())
    assert code == 4
    assert job["attention"] == "credentials"
    await stack.ark.clear_faults(armed)
    assert (await starter(stack, "cancel", job["job_id"]))[0] == 0


async def test_check_tries_all_parts_for_free(stack: Stack) -> None:
    environment = _as_if_real(stack)
    before = len(await stack.ark.ledger())
    code, out, err = await python("worker.py", "--check", env=environment)
    assert code == 0, out + err
    assert out.count(": ok") == 5
    assert "local-ark-key" not in out + err
    assert environment["SEEDANCE_CALLBACK_SECRET"] not in out + err
    assert len(await stack.ark.ledger()) == before


async def test_check_passes_rate_limited_listing(stack: Stack) -> None:
    armed = await stack.ark.fault("list", "429", times=2)
    code, out, err = await python("worker.py", "--check", env=_as_if_real(stack))
    assert len(await stack.ark.fired(armed)) == 2
    assert code == 0, out + err


async def test_check_reports_wrong_key(stack: Stack) -> None:
    code, out, _ = await python("worker.py", "--check", env=_as_if_real(stack, ARK_API_KEY="a-wrong-key"))
    assert code == 1
    assert re.search(r"provider .*FAILED: HTTP 401 AuthenticationError", out)


async def test_demo_ends_with_video(tmp_path: Path) -> None:
    environment = dict(os.environ) | {"ARK_API_KEY": "must-not-be-used"}
    code, out, err = await python("-m", "dev.demo", env=environment)
    assert code == 0, out + err
    video = present(re.search(r"Video\s+(\S+\.mp4)", out))
    assert Path(video[1]).stat().st_size > 0
    ui = present(re.search(r"Temporal UI: http://127.0.0.1:(\d+)", out))
    assert not _is_taken(int(ui[1]))


async def _demo_on_a_terminal(stack: Stack, answer: str) -> tuple[int, str]:
    keyboard, terminal = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dev.demo"),
        stdin=terminal,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=_as_if_real(stack, SEEDANCE_CALLBACK_URL=""),
        cwd=ROOT,
    )
    os.write(keyboard, f"{answer}\n".encode())
    out, _ = await asyncio.wait_for(process.communicate(), 120)
    os.close(keyboard)
    os.close(terminal)
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_demo_asks_before_real_costs(stack: Stack) -> None:
    before = len(await stack.ark.ledger())
    code, out = await _demo_on_a_terminal(stack, "n")
    assert code == 0
    assert "This spends money" in out
    assert "0.28 USD" in out
    assert len(await stack.ark.ledger()) == before
    code, out, err = await python("-m", "dev.demo", env=_as_if_real(stack, SEEDANCE_CALLBACK_URL=""))
    assert (code, "no terminal to ask on" in err) == (1, True)
    assert len(await stack.ark.ledger()) == before

    for _ in range(2):  # the second time, the bucket has the video
        code, out = await _demo_on_a_terminal(stack, "y")
        assert code == 0, out
        assert "plays: 864x496" in out
        assert len(await stack.ark.ledger()) == before + 1


@pytest.mark.parametrize(
    "number",
    [*(pytest.param(number, marks=pytest.mark.faults) for number in (signal.SIGINT, signal.SIGTERM)), signal.SIGKILL],
)
async def test_interrupted_demo_leaves_no_process(number: signal.Signals) -> None:
    demo = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dev.demo", stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert demo.stdout is not None
    async with asyncio.timeout(120):
        async for line in demo.stdout:
            if b"Job" in line:
                break
    children = _children_of(demo.pid)
    assert len(children) == 5
    demo.send_signal(number)
    await asyncio.wait_for(demo.wait(), 30)
    async with asyncio.timeout(10):
        while any(Path(f"/proc/{child}").exists() and not _is_zombie(child) for child in children):
            await asyncio.sleep(0.05)


def _children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def test_stack_prints_submit_command(tmp_path: Path) -> None:
    stack = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dev.stack", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert stack.stdout is not None
    printed = ""
    async with asyncio.timeout(120):
        async for line in stack.stdout:
            printed += line.decode()
            if "Ctrl-C" in printed:
                break
    command = re.search(r"^  (.*starter\.py submit .*)$", printed, re.MULTILINE)
    assert command is not None, printed
    shell = await asyncio.create_subprocess_shell(
        command[1].replace(".venv/bin/python", sys.executable), stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    out, _ = await asyncio.wait_for(shell.communicate(), 120)
    assert shell.returncode == 0
    assert b"output.mp4" in out
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"http://{HOST}:{FIXED_PORTS.ui}")).is_success
    stack.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(stack.wait(), 30) == 0
    assert not [port for port in vars(FIXED_PORTS).values() if _is_taken(port)]
