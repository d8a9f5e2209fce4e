"""What ``docs/how-to/relay.md`` says to relays in other languages, compared with this package, Temporal, and Node."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from temporalio.api.common.v1 import Payload, Payloads, WorkflowExecution
from temporalio.api.workflowservice.v1 import SignalWorkflowExecutionRequest
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import default as default_converter

from dev.stack import Stack
from seedance_temporal import identity, relay
from seedance_temporal.contract import SIGNAL_TASK_CHANGED, TaskChanged
from tests.docs.pages import ROOT, blocks
from tests.e2e.requests import a_request, until_created
from tests.support.jobs import detail_of

_JSON = [json.loads(block.text) for block in blocks("json", "relay.md")]
(VECTOR,) = (data for data in _JSON if "payload" in data)
ARGUMENT = TaskChanged(task_id=VECTOR["body"]["id"], status=VECTOR["body"]["status"], attempt=VECTOR["attempt"])


def in_node(**changes: Any) -> Any:
    """What the page's script says of the vector; skips the test where nothing can run it."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node.js on this machine: the relay's example in JavaScript was not run")
    (script,) = blocks("js", "relay.md")
    vector = json.dumps(VECTOR | changes)
    done = subprocess.run(
        [node, "-e", script.text], input=vector, capture_output=True, encoding="utf-8", timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_url_and_token() -> None:
    secret, job_id, attempt = VECTOR["secret"], VECTOR["job_id"], VECTOR["attempt"]
    assert identity.callback_token(secret, job_id, attempt) == VECTOR["token"]
    assert identity.callback_url(VECTOR["base_url"], secret, job_id, attempt) == VECTOR["url"]


async def test_signal_and_payload() -> None:
    assert VECTOR["signal"] == SIGNAL_TASK_CHANGED
    assert VECTOR["argument"] == ARGUMENT.model_dump()
    payload = ParseDict(VECTOR["payload"], Payload())
    assert payload.metadata == {"encoding": b"json/plain"}
    assert await pydantic_data_converter.encode([ARGUMENT]) == [payload]
    assert await pydantic_data_converter.decode([payload], [TaskChanged]) == [ARGUMENT]
    # What an SDK makes of a plain object, in its default encoding, is understood as well.
    (plain,) = await default_converter().encode([VECTOR["argument"]])
    assert await pydantic_data_converter.decode([plain], [TaskChanged]) == [ARGUMENT]


def test_page_names_limits_of_the_relay() -> None:
    page = (ROOT / "docs" / "how-to" / "relay.md").read_text(encoding="utf-8")
    assert f"more\nthan {relay.MAX_BODY_BYTES // 1024} KiB" in page
    assert relay.ANSWER_WITHIN_SECONDS < 5
    assert "within 5 seconds" in page


async def test_running_job_accepts_the_payload(stack: Stack) -> None:
    """The bytes go to Temporal by its bare protocol, as from a relay in any language."""
    request = a_request()
    await stack.ark.fault("task", "stay_running", contains=str(request.prompt))
    job_id = (await stack.jobs.submit(request)).id
    own = (await until_created(stack, job_id)).task_id
    await stack.client.workflow_service.signal_workflow_execution(
        SignalWorkflowExecutionRequest(
            namespace=stack.client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=job_id),
            signal_name=VECTOR["signal"],
            input=Payloads(payloads=[ParseDict(VECTOR["payload"], Payload())]),
        )
    )
    state = await stack.jobs.job(job_id).state()
    heard = [
        (event.event, event.detail, event.task_id) for event in detail_of(state).timeline if event.source == "callback"
    ]
    assert ("callback_received", "succeeded", VECTOR["body"]["id"]) in heard
    assert state.task_id == own, "the named task is none of the job"


def test_node_script_gives_the_same() -> None:
    callback = {"jobId": VECTOR["job_id"], "attempt": VECTOR["attempt"]}
    assert in_node() == {"callback": callback, "argument": VECTOR["argument"]}


@pytest.mark.parametrize(
    "changes",
    [
        {"secret": "another secret"},
        {"url": VECTOR["url"][:-1] + "0"},
        {"url": VECTOR["url"][:-1]},
        {"url": VECTOR["url"].replace("/1/", "/2/")},
        {"url": VECTOR["url"].replace("/1/", "/01/")},
        {"url": VECTOR["url"] + "/"},
        {"url": re.sub("seedance-95", "seedance-96", VECTOR["url"])},
    ],
)
def test_node_script_refuses_wrong_urls(changes: dict[str, str]) -> None:
    assert in_node(**changes) == {"callback": None, "argument": None}


@pytest.mark.parametrize("body", [None, [], {"id": "", "status": "x"}, {"id": "cgt-1"}, {"id": 1, "status": "x"}])
def test_node_script_refuses_other_bodies(body: Any) -> None:
    assert in_node(body=body)["argument"] is None


def test_vector_bytes_are_its_argument() -> None:
    assert json.loads(base64.b64decode(VECTOR["payload"]["data"])) == VECTOR["argument"]
