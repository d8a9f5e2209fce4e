"""Every fenced block of the pages is run, or checked by what its language allows.

What is only parsed: ``gcloud`` and ``docker`` commands, by the shell's own parser. What is not run at all says so in a
comment before it.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import yaml
from temporalio.envconfig import ClientConfig

from dev.stack import BUCKET, HOST, Stack
from seedance_temporal import request_json as parsing
from seedance_temporal.identity import callback_token
from seedance_temporal.settings import Settings
from tests.docs.pages import PAGES, ROOT, Block, all_blocks, blocks, blocks_of

# Each language has its check in this folder; `text` is for drawings.
CHECKED = {"python", "sh", "json", "yaml", "js", "mermaid", "text"}
# Blocks that cannot be run are for what only an account, or somebody else's program, could run.
MOST_NOT_RUN = 4
# These need an account or a daemon, and are not run: `bash -n` sees whether they are commands at all.
ONLY_PARSED = ("gcloud", "docker")
# The stack runs exactly these, and would not be up without them.
RUN_BY_THE_STACK = ("python worker.py", "python relay.py")
_OTHERS_VARIABLES = re.compile(
    r"TEMPORAL_(ADDRESS|NAMESPACE|API_KEY|TLS|TLS_CLIENT_(CERT|KEY)_PATH|CONFIG_FILE)|GOOGLE_.+"
)


def by_place(block: Block) -> str:
    return str(block)


def blocks_with(word: str, language: str = "python") -> list[Block]:
    """Those that hold a word; there is at least one."""
    found = [block for block in blocks(language) if word in block.text]
    assert found, f"no page shows {word!r}"
    return found


def block_with(word: str, language: str = "python") -> Block:
    (block,) = blocks_with(word, language)
    return block


# The blocks themselves


def test_blocks_are_found() -> None:
    page = (
        "Text\n```sh\na\n```\n\n1. In a list\n\n   <!-- not run: no account -->\n   ```python\n   b\n     c\n   ```\n"
    )
    first, second = blocks_of(ROOT / "README.md", page)
    assert (first.language, first.text, first.line, first.not_run) == ("sh", "a\n", 2, None)
    assert (second.language, second.text, second.line, second.not_run) == ("python", "b\n  c\n", 9, "no account")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_fence_is_missed(page: Path) -> None:
    fences = re.findall(r"^\s*(?:```|~~~)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(fences) == 2 * sum(block.page == page for block in all_blocks())


@pytest.mark.parametrize("block", all_blocks(), ids=by_place)
def test_every_block_has_a_language_that_is_checked(block: Block) -> None:
    assert block.not_run or block.language in CHECKED, "nothing here checks such a block"


def test_few_blocks_are_not_run_and_each_says_why() -> None:
    marked = [block for block in all_blocks() if block.not_run]
    assert len(marked) <= MOST_NOT_RUN, [f"{block}: {block.not_run}" for block in marked]
    comments = sum(
        block.page.read_text(encoding="utf-8").count("<!-- not run") for block in {b.page: b for b in marked}.values()
    )
    assert comments == len(marked), "a comment that stands before no block"


@pytest.mark.parametrize("block", blocks("text"), ids=by_place)
def test_text_is_a_drawing(block: Block) -> None:
    assert set(block.text) & set("─│┌└├→"), "text that is no drawing has a language"


# Data


@pytest.mark.parametrize("block", [*blocks("json"), *blocks("yaml")], ids=by_place)
def test_data(block: Block) -> None:
    data = json.loads(block.text) if block.language == "json" else yaml.safe_load(block.text)
    assert data
    if isinstance(data, dict) and {"user_id", "route", "model"} <= data.keys():
        parsing.parse_request(data)


def test_examples_are_requests_that_may_be_sent() -> None:
    examples = sorted((ROOT / "examples").glob("*.json"))
    assert examples
    for example in examples:
        parsing.parse_request_json(example.read_bytes())


# Shell


def commands_of(block: Block) -> list[str]:
    """A block's commands, one a line, without comments."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if shlex.split(line, comments=True)]


async def bash(script: str, environment: dict[str, str], *flags: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *("bash", *flags, "-c", script),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=ROOT,
        env=environment,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 90)
    assert process.returncode is not None
    return process.returncode, output.decode()


@pytest.fixture(scope="module")
def run_already() -> set[str]:
    """Commands of this project that went well on another page: the same one is run once."""
    return set()


@pytest.mark.parametrize("block", blocks("sh"), ids=by_place)
async def test_shell(
    block: Block,
    stack: Stack,
    stored_job: str,
    shell_environment: dict[str, str],
    run_already: set[str],
    tmp_path: Path,
) -> None:
    example = json.loads((ROOT / "examples" / "product-shot.json").read_text())
    (tmp_path / "requests.json").write_text(json.dumps([example]))
    (tmp_path / "batch.jsonl").write_text(json.dumps(example))
    stands_for = {
        r"\bJOB\b": stored_job,
        r"\bNAMESPACE\b": stack.client.namespace,
        r"\brequests\.json\b": str(tmp_path / "requests.json"),
        r"\bbatch\.jsonl\b": str(tmp_path / "batch.jsonl"),
        r"\breport\.html\b": str(tmp_path / "report.html"),
        r"http://127\.0\.0\.1:8088\b": f"http://{HOST}:{stack.ports.relay}",
    }
    code, said = await bash(block.text, shell_environment, "-n")
    assert code == 0, said
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for command in commands_of(block):
        words = shlex.split(command, comments=True)
        if words[0] in ONLY_PARSED or shlex.join(words) in RUN_BY_THE_STACK:
            continue
        if words[0] == "make":
            assert set(words[1:]) <= targets, f"the Makefile has no {words[1:]}"
            continue
        if words[0] == "export":
            names = [word.split("=")[0] for word in words[1:] if "=" in word]
            assert names
            assert all(is_variable(name) for name in names), f"{names} are no settings"
        elif not re.fullmatch(r"[A-Z_]+=.*", words[0]):
            assert words[0] in {"python", "node", "curl", "temporal"}, f"nothing here checks {command!r}"
        for placeholder, value in stands_for.items():
            command = re.sub(placeholder, value, command)
        bare = shlex.join(shlex.split(command, comments=True))
        if words[0] == "python" and bare in run_already:
            continue
        code, said = await bash(command, shell_environment)
        assert code == 0, f"{command}\n{said}"
        run_already.add(bare)


def test_temporal_reads_the_variables_of_its_cloud() -> None:
    words = shlex.split(block_with("TEMPORAL_API_KEY", "sh").text)
    variables = dict(word.split("=", 1) for word in words if word != "export")
    read = ClientConfig.load_client_connect_config(disable_file=True, override_env_vars=variables)
    assert read == {
        "target_host": variables["TEMPORAL_ADDRESS"],
        "namespace": variables["TEMPORAL_NAMESPACE"],
        "api_key": variables["TEMPORAL_API_KEY"],
        "tls": read["tls"],
    }
    assert read["tls"]


def is_variable(name: str) -> bool:
    return name.lower() in Settings.model_fields or _OTHERS_VARIABLES.fullmatch(name) is not None


# Python


async def run_python(block: Block) -> dict[str, Any]:
    """Runs a block as a module, then its functions that need nothing; gives its names, with what those returned."""
    names: dict[str, Any] = {"__name__": "page"}
    code = compile(block.text, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if inspect.iscoroutine(running := eval(code, names)):  # noqa: S307 - our own pages
        await running
    for name, value in list(names.items()):
        if (
            inspect.iscoroutinefunction(value)
            and value.__module__ == "page"
            and not inspect.signature(value).parameters
        ):
            names[f"{name}()"] = await value()
    return names


@pytest.fixture
def in_the_environment(monkeypatch: pytest.MonkeyPatch, shell_environment: dict[str, str]) -> None:
    for name, value in shell_environment.items():
        if name not in os.environ:
            monkeypatch.setenv(name, value)


@pytest.mark.parametrize("block", blocks("python"), ids=by_place)
@pytest.mark.usefixtures("in_the_environment")
async def test_python(block: Block) -> None:
    await run_python(block)


@pytest.mark.parametrize("block", blocks_with("async def product_shot"), ids=by_place)
@pytest.mark.usefixtures("in_the_environment")
async def test_the_backend_of_the_readme_gets_its_video(block: Block, stack: Stack) -> None:
    uri = (await run_python(block))["product_shot()"]
    stored = await stack.bucket.stat(uri.removeprefix(f"gs://{BUCKET}/"))
    assert stored is not None
    assert stored.size > 0


@pytest.mark.usefixtures("in_the_environment")
async def test_the_mounted_relay_takes_callbacks_where_it_is_mounted(stack: Stack, stored_job: str) -> None:
    app = (await run_python(block_with("relay_app(")))["app"]
    token = callback_token(stack.environment["SEEDANCE_CALLBACK_SECRET"], stored_job, 1)
    body = {"id": "cgt-1", "status": "succeeded"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://page") as http:
        assert (await http.get("/seedance/healthz")).status_code == 200
        # The job is closed: 200, because there is nothing to do.
        path = f"/seedance/callbacks/{stored_job}/1/{token}"
        assert (await http.post(path, json=body)).status_code == 200
        assert (await http.post(path[:-1] + "x", json=body)).status_code == 404
        assert (await http.post(path.removeprefix("/seedance"), json=body)).status_code == 404


@pytest.mark.usefixtures("in_the_environment")
async def test_the_consumer_of_notices_reads_the_record_and_nothing_else(
    stack: Stack, stored_job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = await run_python(block_with("def on_message"))
    heard = []
    for stored in await stack.bucket.list(f"seedance/{stored_job.removeprefix('seedance-')}/"):
        attributes = {
            "eventType": "OBJECT_FINALIZE",
            "bucketId": BUCKET,
            "objectId": stored.name,
            "objectGeneration": str(stored.generation),
        }
        acknowledged: list[bool] = []
        message = SimpleNamespace(attributes=attributes, ack=lambda into=acknowledged: into.append(True))
        await asyncio.to_thread(names["on_message"], message)
        assert acknowledged == [True]
        heard.append(capsys.readouterr().out)
        assert names["job_of"](attributes | {"eventType": "OBJECT_DELETE"}) is None
    assert len(heard) >= 4
    (told,) = filter(None, heard)
    job_id, record = told.split(" ", 1)
    assert job_id == stored_job
    assert json.loads(record)["job_id"] == stored_job
