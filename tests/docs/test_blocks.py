"""Every fenced block of the pages is run, or checked by what its language allows; Sybil evaluates them.

Of ``gcloud`` and ``docker`` commands only the syntax is checked. What is not run at all says so in a comment before it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from temporalio.envconfig import ClientConfig

from dev.stack import BUCKET, HOST, Stack
from seedance_temporal import VideoRequest
from seedance_temporal.identity import callback_token
from tests.docs import evaluators
from tests.docs.evaluators import EVALUATORS
from tests.docs.pages import PAGES, ROOT, Block, all_blocks, blocks, blocks_of, fields_of
from tests.e2e.requests import a_request

# Blocks that cannot be run are for what only an account, or somebody else's program, could run.
MOST_NOT_RUN = 4


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


async def run_python(block: Block, given: dict[str, Any] | None = None) -> dict[str, Any]:
    return await evaluators.run_python(block.text, str(block), given)


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
def test_language_of_block_is_checked(block: Block) -> None:
    assert block.not_run or block.language in EVALUATORS, "nothing here checks such a block"


def test_few_blocks_are_not_run() -> None:
    marked = [block for block in all_blocks() if block.not_run]
    assert len(marked) <= MOST_NOT_RUN, [f"{block}: {block.not_run}" for block in marked]
    comments = sum(page.read_text(encoding="utf-8").count("<!-- not run") for page in {b.page for b in marked})
    assert comments == len(marked), "a comment that precedes no block"


def test_examples_are_valid_requests() -> None:
    examples = sorted((ROOT / "examples").glob("*.json"))
    assert examples
    for example in examples:
        VideoRequest.from_json(example.read_bytes())


# What each language allows


@pytest.fixture(scope="module")
def done() -> set[str]:
    """Commands of this project that went well on another page: the same one is run once."""
    return set()


@pytest.fixture
def in_the_environment(monkeypatch: pytest.MonkeyPatch, shell_environment: dict[str, str]) -> None:
    for name, value in shell_environment.items():
        if name not in os.environ:
            monkeypatch.setenv(name, value)


SERVED = {"sh", "console", "python"}
WITHOUT_SERVERS = [block for block in all_blocks() if not block.not_run and block.language not in SERVED]


@pytest.mark.parametrize("block", WITHOUT_SERVERS, ids=by_place)
def test_block(block: Block) -> None:
    block.example.evaluate()


@pytest.mark.parametrize("block", blocks("python"), ids=by_place)
@pytest.mark.usefixtures("in_the_environment")
async def test_python(block: Block) -> None:
    await asyncio.to_thread(block.example.evaluate)


@pytest.mark.parametrize("block", [*blocks("sh"), *blocks("console")], ids=by_place)
async def test_shell(
    block: Block, stack: Stack, stored_job: str, shell_environment: dict[str, str], done: set[str], tmp_path: Path
) -> None:
    example = json.loads((ROOT / "examples" / "product-shot.json").read_text(encoding="utf-8"))
    (tmp_path / "requests.json").write_text(json.dumps([example]))
    (tmp_path / "batch.jsonl").write_text(json.dumps(example))
    block.example.namespace |= {
        "environment": shell_environment,
        "done": done,
        "replacements": {
            r"\bJOB\b": stored_job,
            r"\bNAMESPACE\b": stack.client.namespace,
            r"\brequests\.json\b": str(tmp_path / "requests.json"),
            r"\bbatch\.jsonl\b": str(tmp_path / "batch.jsonl"),
            r"\breport\.html\b": str(tmp_path / "report.html"),
            r"http://127\.0\.0\.1:8088\b": f"http://{HOST}:{stack.ports.relay}",
        },
    }
    await asyncio.to_thread(block.example.evaluate)


# What single blocks promise


def test_temporal_reads_cloud_variables() -> None:
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


@pytest.mark.parametrize("block", blocks_with("async def product_shot"), ids=by_place)
@pytest.mark.usefixtures("in_the_environment")
async def test_readme_backend_gets_its_video(block: Block, stack: Stack) -> None:
    uri = (await run_python(block))["product_shot()"]
    stored = await stack.bucket.stat(uri.removeprefix(f"gs://{BUCKET}/"))
    assert stored is not None
    assert stored.size > 0


@pytest.mark.usefixtures("in_the_environment")
async def test_mounted_relay_accepts_callbacks(stack: Stack, stored_job: str) -> None:
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
async def test_consumer_of_notices_reads_the_record(
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
    (notice,) = filter(None, heard)
    job_id, record = notice.split(" ", 1)
    assert job_id == stored_job
    assert json.loads(record)["job_id"] == stored_job


def fields(prompt: str) -> dict[str, Any]:
    return fields_of(a_request(prompt=prompt))


@pytest.mark.usefixtures("in_the_environment", "stack")
async def test_fastapi_streams_to_the_end() -> None:
    app = (await run_python(block_with("FastAPI(lifespan=lifespan)")))["app"]
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://page") as http:
        refused = await http.post("/videos", json=fields("A lake") | {"duration": 99, "resolution": "9k"})
        assert refused.status_code == 422
        assert {problem["at"] for problem in refused.json()["problems"]} == {"duration", "resolution"}
        submitted = await http.post("/videos", json=fields("A lake in the morning"))
        assert submitted.status_code == 202
        job_id = submitted.json()["job_id"]
        assert not submitted.json()["existing"]
        stream = await http.get(f"/videos/{job_id}/events", timeout=60)
        assert stream.headers["content-type"].startswith("text/event-stream")
        states = [json.loads(line.removeprefix("data: ")) for line in stream.text.splitlines() if line]
        assert states[-1]["phase"] == "stored"
        assert states[-1]["result"]["video_uri"].startswith("gs://")
        assert (await http.get(f"/videos/{job_id}")).json()["phase"] == "stored"
        assert (await http.post("/videos", json=fields("A lake in the morning"))).json()["existing"]
        assert (await http.delete(f"/videos/{job_id}")).json() == {"outcome": "already_closed"}
        for unknown in (f"seedance-{'0' * 64}", "x"):
            assert (await http.get(f"/videos/{unknown}")).status_code == 404
            assert (await http.get(f"/videos/{unknown}/events")).status_code == 404


@pytest.mark.usefixtures("in_the_environment", "stack")
async def test_django_submits_and_shows() -> None:
    from django.conf import settings
    from django.test import RequestFactory

    if not settings.configured:
        settings.configure(DEFAULT_CHARSET="utf-8")
    (connecting, *_) = [block for block in blocks_with("def jobs()") if block.page.name == "django.md"]
    names = await run_python(block_with("@require_POST"), await run_python(connecting))

    def post(body: str) -> Any:
        request = RequestFactory().post("/videos", body, content_type="application/json")
        request.user = SimpleNamespace(pk=42)
        return names["submit"](request)

    def call() -> None:
        assert post("[]").status_code == post("{").status_code == 400
        assert post(json.dumps(fields("A hill") | {"duration": 99})).status_code == 422
        answer = post(json.dumps(fields("A hill in the evening")))
        assert answer.status_code == 202
        job_id = json.loads(answer.content)["job_id"]
        shown = names["show"](RequestFactory().get("/"), job_id)
        assert json.loads(shown.content)["job_id"] == job_id
        assert names["show"](RequestFactory().get("/"), f"seedance-{'0' * 64}").status_code == 404
        names["jobs"]().close()

    await asyncio.to_thread(call)


@pytest.mark.usefixtures("in_the_environment", "stack")
async def test_celery_waits_for_the_video() -> None:
    names = await run_python(block_with("from celery import"))

    def call() -> None:
        made = names["make_video"].apply(args=[fields("A bay at noon") | {"user_id": "user-42"}]).get()
        assert made["video"].startswith("gs://")
        names["jobs"]().close()

    await asyncio.to_thread(call)
