"""The command line: its JSON, its exit codes and its text."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
import time
import tomllib
from asyncio.subprocess import Process
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from temporalio.client import Client

from seedance_temporal.client import VideoJobs
from seedance_temporal.identity import job_id_of, request_hash
from seedance_temporal.temporal_ui import COMMAND
from tests.support.command_line import run_command, script_process
from tests.support.polling import until
from tests.support.temporal_stub import RESULT, TASK_ID, address, handle, request

ROOT = Path(__file__).parents[2]
UNKNOWN = "seedance-" + "0" * 64
LONELY = "volcengine"
JOB_KEYS = {
    *("job_id", "request_hash", "phase", "attention", "task_id", "attempt", "result", "error", "user", "route"),
    *("model", "started_at", "closed_at", "expected_at", "tokens", "cost_usd", "cost_cny", "detail"),
    *("estimated_tokens", "estimated_usd", "estimated_cny"),
}
ERROR_KEYS = {"code", "message", "class", "task_id", "attempt", "resubmit_could_help"}
RESULT_KEYS = {
    *("video_uri", "size", "crc32c", "md5", "last_frame_uri", "record_uri", "task_id", "usage", "seed", "ratio"),
    *("resolution", "duration", "generate_audio", "cost_usd", "cost_cny"),
}


# submit


async def test_repeated_submit_returns_same_job(temporal: Client, tmp_path: Path) -> None:
    of = request("cli")
    file = tmp_path / "request.json"
    file.write_text(of.model_dump_json())
    first = await run_command(temporal, "submit", str(file), "--json")
    assert first.code == 0
    assert first.document == dict.fromkeys(JOB_KEYS) | {
        "job_id": job_id_of(of),
        "request_hash": request_hash(of),
        "phase": "checking",
        "route": "byteplus",
        "started_at": first.document["started_at"],
        "existing": False,
        "started": True,
    }
    assert "0.76 USD" in first.err
    await VideoJobs(temporal).job(job_id_of(of)).state()  # asks the worker, which has then begun
    again = await run_command(temporal, "submit", "-", "--json", stdin=of.model_dump_json())
    assert (again.document["existing"], again.document["phase"], again.document["user"]) == (True, "running", "cli")


@pytest.mark.parametrize(("prompt", "code"), [("stored", 0), ("refused", 3), ("attention:account", 4)])
async def test_submit_and_wait(temporal: Client, prompt: str, code: int) -> None:
    ended = await run_command(
        temporal, "submit", "-", "--wait", "--json", stdin=request("cli waits", prompt).model_dump_json()
    )
    assert ended.code == code
    job = ended.document
    assert job.keys() == JOB_KEYS | {"existing", "started"}
    if prompt == "stored":
        assert job["result"].keys() == RESULT_KEYS
        assert job["result"]["video_uri"] == RESULT.video_uri
        assert (job["phase"], job["error"]) == ("stored", None)
    elif prompt == "refused":
        error = {"code": "InvalidParameter", "message": "Refused.", "class": "invalid", "task_id": None, "attempt": 1}
        assert job["error"] == error | {"resubmit_could_help": False}
    else:
        assert (job["attention"], job["phase"]) == ("account", "running")


@pytest.mark.parametrize(
    ("text", "at"),
    [("{", ""), ('{"user_id": "u"}', "route"), (request("u", "x --dur 15").model_dump_json(), "prompt")],
    ids=["no json", "missing", "rule"],
)
async def test_invalid_request_is_refused_without_temporal(text: str, at: str) -> None:
    refused = await run_command(None, "submit", "-", "--json", stdin=text)
    assert refused.code == 2
    assert refused.document["error"]["code"] == "invalid_request"
    assert at in [problem["at"] for problem in refused.document["error"]["problems"]]
    refused = await run_command(None, "submit", "-", stdin=text)
    assert (refused.code, refused.out) == (2, "")
    assert "nothing was spent" in refused.err
    assert at in refused.err


@pytest.mark.parametrize("command", ["submit", "batch"])
async def test_missing_file_is_refused(tmp_path: Path, command: str) -> None:
    refused = await run_command(None, command, str(tmp_path / "none.json"), "--json")
    assert refused.code == 2
    assert refused.document["error"]["problems"][0]["at"] == "FILE"


async def test_insecure_hosts_come_from_the_environment(temporal: Client) -> None:
    fields = request("cli local").model_dump(exclude_none=True)
    text = json.dumps(fields | {"references": [{"role": "first_frame", "url": "http://127.0.0.1:9/p.png"}]})
    assert (await run_command(temporal, "submit", "-", "--json", stdin=text)).code == 2
    allowed = await run_command(temporal, "submit", "-", "--json", stdin=text, SEEDANCE_INSECURE_HOSTS="127.0.0.1")
    assert allowed.code == 0, allowed.err


async def test_unreachable_temporal_is_one_clear_error() -> None:
    stdin = request("cli down").model_dump_json()
    down = await run_command(None, "submit", "-", "--json", stdin=stdin)
    assert down.code == 1
    assert down.document["error"].keys() == ERROR_KEYS
    assert "cannot be reached at 127.0.0.1:1" in down.document["error"]["message"]
    assert "Traceback" not in down.err


async def test_bad_settings_are_named(temporal: Client) -> None:
    wrong = await run_command(
        temporal, "submit", "-", stdin=request("cli").model_dump_json(), SEEDANCE_RELAY_PORT="many"
    )
    assert wrong.code == 2
    assert "SEEDANCE_RELAY_PORT" in wrong.err


# show and wait


async def test_show_prints_the_timeline(temporal: Client) -> None:
    job_id = (await VideoJobs(temporal).submit(request("cli timeline"))).id
    shown = await run_command(temporal, "show", job_id)
    assert shown.code == 0
    for words in (job_id, "running", TASK_ID, f"attempt 1 created task {TASK_ID}", "create"):
        assert words in shown.out
    assert "No worker" not in shown.err


async def test_show_prints_failing_step(temporal: Client) -> None:
    job_id = (await VideoJobs(temporal).submit(request("cli failing", "failing"))).id

    async def shown() -> str:
        said = (await run_command(temporal, "show", job_id)).out
        return said if "failing" in said else ""

    said: str = await until(shown, "the step has failed")
    assert re.search(r"failing +write_outcome has failed, and is at try \d+: Forbidden: 403 POST", said)
    (failing,) = (await run_command(temporal, "show", job_id, "--json")).document["failing"]
    assert "storage.objects.create" in failing


async def test_show_prints_result_or_error(temporal: Client) -> None:
    stored = (await VideoJobs(temporal).submit(request("cli shown", "stored"))).id
    failed = (await VideoJobs(temporal).submit(request("cli shown", "failed"))).id
    await until(lambda: _ended(temporal, stored, failed))
    shown = await run_command(temporal, "show", stored)
    assert any(line.endswith(f" {RESULT.video_uri}") for line in shown.out.splitlines())
    shown = await run_command(temporal, "show", failed)
    assert shown.code == 0
    for words in (failed, TASK_ID, "InternalServiceError", "It broke.", f"attempt 1 created task {TASK_ID}"):
        assert words in shown.out
    assert "try again" not in shown.out.lower()


async def _ended(client: Client, *job_ids: str) -> bool:
    jobs = [await VideoJobs(client).job(job_id).state() for job_id in job_ids]
    return all(job.result or job.error for job in jobs)


async def test_show_reports_missing_worker_soon(temporal: Client) -> None:
    job_id = (await VideoJobs(temporal).submit(request("cli lonely", route=LONELY))).id
    started = time.monotonic()
    shown = await run_command(temporal, "show", job_id, "--json")
    assert time.monotonic() - started < 5
    assert (shown.code, shown.document["phase"]) == (0, "checking")
    assert "No worker answers" in shown.err


@pytest.mark.parametrize(
    "command", [["show"], ["wait"], ["cancel"], ["retry"], ["resolve", "--attempt", "1", "--lost"]]
)
async def test_no_job_id_and_unknown_job(temporal: Client, command: list[str]) -> None:
    wrong = await run_command(None, *command, "seedance-1", "--json")
    assert wrong.code == 2
    assert wrong.document["error"].keys() == ERROR_KEYS
    assert wrong.document["error"]["code"] == "invalid_job_id"
    assert "at least 6 hex digits" in wrong.err
    unknown = await run_command(temporal, *command, UNKNOWN, "--json")
    assert unknown.code == 1
    assert unknown.document["error"].keys() == ERROR_KEYS
    assert (unknown.document["error"]["code"], unknown.document["error"]["class"]) == ("unknown_job", None)
    assert UNKNOWN in unknown.err


async def test_hash_and_unique_prefix_name_a_job(temporal: Client) -> None:
    jobs = VideoJobs(temporal)
    job_id = (await jobs.submit(request("cli prefix"))).id
    await until(lambda: jobs.list(user="cli prefix"))
    for text in (job_id[9:], job_id[9:17], job_id[:20]):
        shown = await run_command(temporal, "show", text, "--json")
        assert (shown.code, shown.document["job_id"]) == (0, job_id)
        assert shown.document["detail"]["request"]["user_id"] == "cli prefix"
    audited = await run_command(temporal, "audit", job_id[9:17], "--json")
    assert (audited.code, audited.document["job_id"]) == (0, job_id)
    settled = await run_command(temporal, "resolve", job_id[9:17], "--attempt", "1", "--task-id", "cgt-1", "--json")
    assert settled.document["job_id"] == job_id
    ended = await run_command(temporal, "cancel", job_id[9:17], "--json")
    assert ended.document == {"job_id": job_id, "outcome": "cancelled"}
    waited = await run_command(temporal, "wait", job_id[9:17], "--json")
    assert (waited.code, waited.document["phase"]) == (3, "cancelled")
    again = await run_command(temporal, "resubmit", job_id[9:17], "--attempt", "1", "--json")
    assert (again.code, again.document["job_id"], again.document["existing"]) == (0, job_id, True)


@pytest.mark.parametrize("attention", ["second_task", "video_at_risk"])
async def test_wait_continues_under_passing_attention(temporal: Client, attention: str) -> None:
    of = request("cli calm", f"attention:{attention}")
    job_id = (await VideoJobs(temporal).submit(of)).id
    waiting = asyncio.create_task(run_command(temporal, "wait", job_id, "--json"))
    await asyncio.sleep(1)
    assert not waiting.done()
    await handle(temporal, of).signal("end", "stored")
    waited = await waiting
    assert (waited.code, waited.document["phase"]) == (0, "stored")
    assert "(by create)" in waited.err
    assert attention in waited.err


async def test_wait_ends_at_attention_with_advice(temporal: Client) -> None:
    job_id = (await VideoJobs(temporal).submit(request("cli stuck", "attention:unknown_create"))).id
    waited = await run_command(temporal, "wait", job_id)
    assert waited.code == 4
    for words in ("unknown_create", f"starter.py show {job_id}"):
        assert words in waited.out


# list, cancel, resolve


async def test_list_is_one_json_list(temporal: Client) -> None:
    of = request("cli listed", "attention:task_gone")
    job_id = (await VideoJobs(temporal).submit(of)).id
    jobs = VideoJobs(temporal)
    await until(lambda: jobs.list(user="cli listed"))
    options = ["--user", "cli listed", "--phase", "running", "--attention", "task_gone", "--limit", "5"]
    listed = await run_command(temporal, "list", *options, "--json")
    assert listed.code == 0
    assert [job["job_id"] for job in listed.document] == [job_id]
    assert listed.document[0].keys() == JOB_KEYS
    assert job_id in (await run_command(temporal, "list", *options)).out
    assert (await run_command(temporal, "list", "--user", "nobody", "--json")).document == []


async def test_retry(temporal: Client) -> None:
    job_id = (await VideoJobs(temporal).submit(request("cli retried"))).id
    asked = await run_command(temporal, "retry", job_id, "--json")
    assert (asked.code, asked.document) == (0, {"job_id": job_id, "requested": True})
    assert "tries at once" in (await run_command(temporal, "retry", job_id)).out
    await run_command(temporal, "cancel", job_id)
    assert "ended already" in (await run_command(temporal, "retry", job_id)).out


@pytest.mark.parametrize("option", ["--phase", "--attention"])
async def test_unknown_filter_is_refused(temporal: Client, option: str) -> None:
    listed = await run_command(temporal, "list", option, "foo")
    assert listed.code == 2
    assert "'foo'" in listed.err
    assert ("stored" if option == "--phase" else "task_gone") in listed.err


async def test_resubmit_of_unknown_attempt_is_refused(temporal: Client) -> None:
    job_id = (await VideoJobs(temporal).submit(request("cli resubmitted", "failed"))).id
    await run_command(temporal, "wait", job_id)
    again = await run_command(temporal, "resubmit", job_id, "--attempt", "3")
    assert again.code == 2
    assert "has no attempt 3" in again.err


async def test_cancel(temporal: Client) -> None:
    job_id = (await VideoJobs(temporal).submit(request("cli cancelled"))).id
    cancelled = await run_command(temporal, "cancel", job_id, "--json")
    assert cancelled.document == {"job_id": job_id, "outcome": "cancelled"}
    assert "nothing to cancel" in (await run_command(temporal, "cancel", job_id)).out


async def test_resolve(temporal: Client) -> None:
    job_id = (await VideoJobs(temporal).submit(request("cli resolved"))).id
    adopted = await run_command(temporal, "resolve", job_id, "--attempt", "1", "--task-id", "cgt-1", "--json")
    assert adopted.code == 0
    assert adopted.document == {"job_id": job_id, "accepted": True, "message": "adopt cgt-1"}
    refused = await run_command(temporal, "resolve", job_id, "--attempt", "2", "--not-created")
    assert (refused.code, refused.out) == (1, "Not accepted: not_created None\n")


WRONG = [
    *(["resolve", UNKNOWN, "--attempt", "1"], ["resolve", UNKNOWN, "--lost"], ["show"], ["nonsense"]),
    *(["resolve", UNKNOWN, "--attempt", "1", "--lost", "--not-created"], ["list", "--limit", "0"]),
    ["resolve", UNKNOWN, "--attempt", "0", "--lost"],
]


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
async def test_wrong_usage_is_2(arguments: list[str]) -> None:
    assert (await run_command(None, *arguments)).code == 2


# As a process


def starter(temporal: Client, *arguments: str) -> AbstractAsyncContextManager[Process]:
    streams = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
    return script_process("starter.py", *arguments, streams=streams, TEMPORAL_ADDRESS=address(temporal))


async def test_process_prints_one_document(temporal: Client) -> None:
    job_id = (await VideoJobs(temporal).submit(request("process"))).id
    async with starter(temporal, "show", job_id, "--json") as process:
        written, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0
    assert json.loads(written)["job_id"] == job_id


async def test_installed_command_has_the_same_help() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["seedance"].partition(":")
    # As the script that pip writes for it.
    installed = f"import sys; sys.argv[0] = 'seedance'; from {module} import {function}; sys.exit({function}())"

    async def help_of(*command: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *command, "--help"), cwd=ROOT, env={"COLUMNS": "120"}, stdout=asyncio.subprocess.PIPE
        )
        written, _ = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 0
        return written.decode()

    ours, theirs = await asyncio.gather(help_of("starter.py"), help_of("-c", installed))
    assert "Usage: starter.py " in ours
    assert "resubmit" in ours
    # The line with the name is as wide as the others.
    assert re.sub(r" +", " ", ours.replace("starter.py", "seedance")) == re.sub(r" +", " ", theirs)


def test_messages_name_one_command_form() -> None:
    rooms = ("seedance_temporal", "activities", "workflows", "workers")
    files = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    named = [(path, line) for path in files for line in path.read_text().splitlines() if "starter.py" in line]
    assert named == [(ROOT / "seedance_temporal/temporal_ui.py", f'COMMAND = "{COMMAND}"')]


async def test_ctrl_c_does_not_stop_the_job(temporal: Client) -> None:
    job_id = (await VideoJobs(temporal).submit(request("interrupted"))).id
    # Several, because a process that hangs at its end does so now and then only.
    for code, written, stderr in await asyncio.gather(*(_interrupted(temporal, job_id) for _ in range(5))):
        assert code == 1
        assert json.loads(written)["error"]["code"] == "interrupted"
        assert "does not stop the job: it continues" in stderr
        assert f"starter.py show {job_id}" in stderr
        assert "Traceback" not in stderr
    assert (await VideoJobs(temporal).job(job_id).state()).phase == "running"


async def _interrupted(temporal: Client, job_id: str) -> tuple[int | None, str, str]:
    async with starter(temporal, "wait", job_id, "--json") as process:
        assert process.stderr is not None
        assert b"running" in await asyncio.wait_for(process.stderr.readline(), 30)
        process.send_signal(signal.SIGINT)
        written, stderr = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, written.decode(), stderr.decode()
