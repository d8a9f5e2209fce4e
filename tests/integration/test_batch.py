"""``batch``: all lines or none, each job once, and a result file that is whole at any time."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from dev.stack import ROOT
from seedance_temporal.cli.batch import _Batch, _Line
from seedance_temporal.client import VideoJobs
from seedance_temporal.identity import job_id_of, request_hash
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings
from seedance_temporal.storage.bucket import GoogleBucket
from tests.support.command_line import CommandResult, run_command, script_process
from tests.support.media_files import picture
from tests.support.polling import until
from tests.support.temporal_stub import address, request


class File:
    """A file of requests, and the results beside it."""

    def __init__(self, folder: Path, *lines: VideoRequest | str) -> None:
        self.path = folder / "requests.jsonl"
        texts = [line if isinstance(line, str) else line.model_dump_json() for line in lines]
        self.path.write_text("\n".join(texts))
        self.results_path = folder / "requests.results.jsonl"

    @property
    def results(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.results_path.read_text().splitlines()]

    async def batch(self, temporal: Client | None, *options: str, **variables: str) -> CommandResult:
        return await run_command(temporal, "batch", str(self.path), "--json", *options, **variables)


def a_result(line: int, of: VideoRequest, phase: str | None, existing: bool | None, **more: Any) -> dict[str, Any]:
    result = {"line": line, "job_id": job_id_of(of), "request_hash": request_hash(of), "phase": phase}
    return result | {"existing": existing} | more


async def is_known(temporal: Client, of: VideoRequest) -> bool:
    return any(job.job_id == job_id_of(of) for job in await VideoJobs(temporal).list(user=of.user_id))


async def test_repeated_batch_returns_same_jobs(temporal: Client, tmp_path: Path) -> None:
    requests = [request(f"batch {number}") for number in range(3)]
    file = File(tmp_path, requests[0], "", requests[1], "   ", requests[2], "")
    first = await file.batch(temporal, "--yes")
    assert first.code == 0, first.err
    assert first.document == {
        "results": str(file.results_path),
        "lines": 3,
        "jobs": 3,
        "new": 3,
        "existing": 0,
        "repeated": 0,
        "invalid": 0,
        "estimated_usd": pytest.approx(3 * 0.7623, abs=0.01),
        "estimated_cny": 0,
        "unpriced": 0,
        "phases": {"checking": 3},
    }
    lines = zip((1, 3, 5), requests, strict=True)
    assert file.results == [a_result(number, of, "checking", False) for number, of in lines]
    again = await file.batch(temporal, "--yes")
    assert (again.document["new"], again.document["existing"]) == (0, 3)
    assert [result["existing"] for result in file.results] == [True] * 3


async def test_one_bad_line_refuses_all_of_them(temporal: Client, tmp_path: Path) -> None:
    good = request("batch good")
    file = File(tmp_path, good, '{"user_id": "u"}', "{", good.model_copy(update={"duration": 99}))
    refused = await file.batch(temporal, "--yes")
    assert refused.code == 2
    places = [problem["at"] for problem in refused.document["error"]["problems"]]
    assert {"line 2: route", "line 2: model", "line 3", "line 4: duration"} <= {*places}
    assert not file.results_path.exists()
    assert not await is_known(temporal, good)


async def test_bad_lines_can_be_skipped(temporal: Client, tmp_path: Path) -> None:
    good = request("batch skipping")
    file = File(tmp_path, "[]", good, good.model_copy(update={"duration": 99}))
    done = await file.batch(temporal, "--yes", "--skip-invalid")
    assert done.code == 0
    assert (done.document["invalid"], done.document["new"]) == (2, 1)
    assert "line 3: duration" in done.err
    first, second, third = file.results
    assert first["line"] == 1
    assert first["error"]["problems"] == [{"at": "", "problem": "the request must be a JSON object"}]
    assert second == a_result(2, good, "checking", False)
    assert (third["line"], third["error"]["code"]) == (3, "invalid_request")


async def test_equal_lines_are_one_job(temporal: Client, tmp_path: Path) -> None:
    of, other = request("batch twice"), request("batch once")
    file = File(tmp_path, of, other, of.model_copy(update={"priority": 3}))
    done = await file.batch(temporal, "--yes")
    assert (done.document["jobs"], done.document["repeated"], done.document["new"]) == (2, 1, 2)
    assert "The same job as an earlier line: 1 line." in done.err
    assert file.results == [
        a_result(1, of, "checking", False),
        a_result(2, other, "checking", False),
        a_result(3, of, "checking", True, same_as=1),
    ]


async def test_sum_names_unpriced_jobs(temporal: Client, tmp_path: Path) -> None:
    file = File(tmp_path, request("batch sum"), request("batch sum 2").model_copy(update={"model": "ep-1"}))
    done = await file.batch(temporal, "--yes")
    assert "2 jobs, at most about 0.76 USD together" in done.err
    assert "price is not known: 1 job." in done.err
    assert "1 job: The model behind" in done.err
    assert done.document["unpriced"] == 1


async def test_batch_without_terminal_needs_yes(temporal: Client, tmp_path: Path) -> None:
    of = request("batch unasked")
    refused = await File(tmp_path, of).batch(temporal)
    assert refused.code == 2
    assert [problem["at"] for problem in refused.document["error"]["problems"]] == ["--yes"]
    assert "at most about 0.76 USD" in refused.err
    assert not await is_known(temporal, of)


@pytest.mark.parametrize(
    ("prompts", "code"), [(["stored"], 0), (["stored", "refused"], 3), (["failed", "attention:account"], 4)]
)
async def test_waiting_for_all(temporal: Client, tmp_path: Path, prompts: list[str], code: int) -> None:
    requests = [request(f"batch waits {code}", prompt) for prompt in prompts]
    file = File(tmp_path, *requests)
    waited = await file.batch(temporal, "--yes", "--wait")
    assert waited.code == code, waited.err
    phases = {"stored": "stored", "refused": "refused", "failed": "failed", "attention:account": "running"}
    assert [result["phase"] for result in file.results] == [phases[prompt] for prompt in prompts]


async def test_results_go_to_the_named_file(temporal: Client, tmp_path: Path) -> None:
    file = File(tmp_path, request("batch elsewhere"))
    other = tmp_path / "other.jsonl"
    assert (await file.batch(temporal, "--yes", "--results", str(other))).code == 0
    assert len(other.read_text().splitlines()) == 1
    assert not file.results_path.exists()


@pytest.mark.parametrize(
    ("results", "says"), [("requests.jsonl", "cannot be the same"), ("none/results.jsonl", "cannot be written")]
)
async def test_unwritable_results_stop_the_batch(temporal: Client, tmp_path: Path, results: str, says: str) -> None:
    of = request(f"batch {says}")
    file = File(tmp_path, of)
    refused = await file.batch(temporal, "--yes", "--results", str(tmp_path / results))
    assert refused.code == 2
    assert says in refused.err
    assert file.path.read_text() == of.model_dump_json()
    assert not await is_known(temporal, of)


@pytest.mark.parametrize("lines", [(), ("", " "), ("{",)])
async def test_no_request_at_all(tmp_path: Path, lines: tuple[str, ...]) -> None:
    assert (await File(tmp_path, *lines).batch(None, "--yes", "--skip-invalid")).code == 2


@pytest.mark.parametrize("loop", [False, True])
async def test_odd_path_is_wrong_usage(tmp_path: Path, loop: bool) -> None:
    path = tmp_path / "loop"
    path.symlink_to(path)
    refused = await run_command(None, "batch", str(path) if loop else ".", "--yes", "--json")
    assert refused.code == 2
    assert "Traceback" not in refused.err


async def test_lost_results_leave_the_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The jobs are submitted by then, and the summary is all that says so."""
    of = request("batch without a disk")
    folder = tmp_path / "gone"
    folder.mkdir()
    work = _Batch([_Line(1, of, job_id_of(of))], folder / "r.jsonl", Settings())
    with work.recorded():
        shutil.rmtree(folder)
    said = capsys.readouterr().err
    assert "cannot be written" in said
    assert "The jobs go on" in said
    assert work.exit_code == 1
    assert work.summary()["results"] is None
    assert not any("r.jsonl" in sentence for sentence in work.outcome())


async def test_other_kinds_of_file_are_not_replaced(tmp_path: Path) -> None:
    file = File(tmp_path, request("batch beside a FIFO"))
    os.mkfifo(tmp_path / "fifo")
    refused = await file.batch(None, "--yes", "--results", str(tmp_path / "fifo"))
    assert refused.code == 2
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)


@pytest.mark.parametrize("waits", ["for stdin", "for an answer"])
async def test_ctrl_c_ends_a_wait_for_the_user(tmp_path: Path, waits: str) -> None:
    """On a terminal of its own; the thread that reads what is typed is not waited for."""
    file = File(tmp_path, request("batch on a terminal"))
    arguments = [sys.executable, "starter.py", "batch", "-" if waits == "for stdin" else str(file.path)]
    ours, theirs = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *arguments, stdin=theirs, stdout=asyncio.subprocess.PIPE, stderr=theirs, cwd=ROOT, start_new_session=True
    )
    try:
        if waits == "for an answer":
            said = b""
            while b"Submit them?" not in said:
                said += await asyncio.wait_for(asyncio.to_thread(os.read, ours, 4096), 60)
        else:
            await until(lambda: _reads_stdin(process.pid), "it reads stdin")
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 20) == 1
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(theirs)
        os.close(ours)


async def test_temporal_outage_leaves_whole_results(tmp_path: Path) -> None:
    down = await File(tmp_path, request("batch down")).batch(None, "--yes")
    assert down.code == 1
    assert "cannot be reached" in down.document["error"]["message"]


async def test_local_files_are_relative_to_batch_file(tmp_path: Path) -> None:
    fields = request("batch local").model_dump(exclude_none=True)
    line = json.dumps(fields | {"ratio": "adaptive", "references": [{"role": "first_frame", "url": "none.png"}]})
    refused = await File(tmp_path, line).batch(None, "--yes", SEEDANCE_BUCKET="videos")
    (problem,) = refused.document["error"]["problems"]
    assert problem["at"] == "line 1: references[0].url"
    assert str(tmp_path / "none.png") in problem["problem"]


async def test_good_lines_go_on_beside_foreign_files(
    temporal: Client, tmp_path: Path, google: GoogleBucket, bucket_env: dict[str, str]
) -> None:
    shot = tmp_path / "shot.png"
    shot.write_bytes(picture())
    (tmp_path / "notes.png").write_text("no picture at all")
    (tmp_path / "link.png").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "fifo.png")
    urls = ["/etc/passwd", "notes.png", "shot.png", "link.png", "../x.png", "fifo.png", "."]
    fields = request("batch foreign").model_dump(exclude_none=True) | {"ratio": "adaptive"}
    lines = [json.dumps(fields | {"references": [{"role": "reference_image", "url": url}]}) for url in urls]
    file = File(tmp_path, *lines)
    refused = await file.batch(temporal, "--yes", **bucket_env)
    assert (refused.code, await google.list("")) == (2, [])
    done = await file.batch(temporal, "--yes", "--skip-invalid", **bucket_env)
    assert done.code == 0, done.err
    stored = [stored.name for stored in await google.list("")]
    assert (done.document["new"], done.document["invalid"]) == (1, 6)
    assert stored == [f"seedance/media/{hashlib.sha256(picture()).hexdigest()}.png"]
    assert {result["error"]["problems"][0]["at"] for result in file.results if "error" in result} == {
        "references[0].url"
    }
    (job,) = await VideoJobs(temporal).list(user=fields["user_id"])
    assert job.job_id == file.results[2]["job_id"]


async def test_link_beside_results_is_not_followed(temporal: Client, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("precious")
    file = File(tmp_path, request("batch linked"))
    for name in (".requests.results.jsonl.new", "requests.results.jsonl"):
        (tmp_path / name).symlink_to(other)
    assert (await file.batch(temporal, "--yes")).code == 0
    assert other.read_text() == "precious"
    assert file.results[0]["existing"] is False


async def test_batch_asks_before_it_submits(temporal: Client, tmp_path: Path) -> None:
    of = request("batch asked")
    file = File(tmp_path, of)
    assert await _on_a_terminal(temporal, file, "n") == 2
    assert not await is_known(temporal, of)
    assert await _on_a_terminal(temporal, file, "y") == 0
    assert file.results[0]["existing"] is False


async def _on_a_terminal(temporal: Client, file: File, answer: str) -> int | None:
    """The exit code after an answer is typed."""
    keyboard, terminal = os.openpty()
    streams = {"stdin": terminal, "stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
    command = ("starter.py", "batch", str(file.path))
    async with script_process(*command, streams=streams, TEMPORAL_ADDRESS=address(temporal)) as process:
        os.write(keyboard, f"{answer}\n".encode())
        _, stderr = await asyncio.wait_for(process.communicate(), 30)
    os.close(keyboard)
    os.close(terminal)
    assert b"Submit them?" in stderr
    return process.returncode


def _reads_stdin(pid: int) -> bool:
    """Say whether a thread of the process is in read(0, …), as Linux shows it."""
    calls = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/syscall")]
    return any(call.startswith("0 0x0 ") for call in calls)
