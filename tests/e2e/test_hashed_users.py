"""With SEEDANCE_HASH_USERS, Temporal's list and the heading of a run show no user id."""

from __future__ import annotations

from typing import Any

import pytest
from temporalio.client import Client

from dev.stack import Stack
from seedance_temporal.contract import SEEDANCE_USER
from seedance_temporal.identity import user_hash
from tests.e2e.command import starter
from tests.e2e.operator import new_namespace
from tests.e2e.requests import a_request

NAMESPACE = "discreet"
USER = "user-42@example.com"


@pytest.mark.faults
async def test_user_is_shown_as_hash(stack: Stack) -> None:
    client = await new_namespace(stack, NAMESPACE)
    changes = {"TEMPORAL_NAMESPACE": NAMESPACE, "SEEDANCE_HASH_USERS": "true"}
    worker = await stack.start_worker("worker-discreet", **changes)
    request = a_request(user_id=USER)

    async def run_command(*words: str, stdin: str = "") -> Any:
        ran = await starter(stack, *words, stdin=stdin, **changes)
        assert ran.code == 0, ran.messages
        return ran.answer

    submitted = await run_command("submit", "-", "--wait", stdin=request.model_dump_json())
    shown = await everything_shown(client, submitted["job_id"])
    assert USER not in shown
    assert shown.count(user_hash(USER)) == 3, shown

    listed = await run_command("list", "--user", USER)
    assert [job["job_id"] for job in listed] == [submitted["job_id"]]
    assert await run_command("list", "--user", "user-43@example.com") == []
    await worker.stop()


async def everything_shown(client: Client, job_id: str) -> str:
    """Return the text of a run in the list and in its heading, without its input."""
    run = await client.get_workflow_handle(job_id).describe()
    attributes = {pair.key.name: pair.value for pair in run.typed_search_attributes}
    assert attributes[SEEDANCE_USER.name] == user_hash(USER)
    shown = [await run.static_summary(), await run.static_details(), attributes, await run.memo()]
    return " ".join(map(str, shown))
