"""The one-shots: the namespace's is run against the real server, the schema's against a tool that takes notes."""

from __future__ import annotations

import uuid
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest

from dev.stack import Ports, Stack
from seedance_temporal.contract import SEARCH_ATTRIBUTES
from tests.compose.compose_file import local_variables, seconds, services
from tests.compose.running import Loopback


async def run_namespace_job(
    stack: Stack, folder: Path, namespace: str, retention: str = "", **changes: str
) -> tuple[int, str]:
    """Run it with the user's retention; ``changes`` are for the container's environment alone."""
    given = {"TEMPORAL_NAMESPACE": namespace, "TEMPORAL_RETENTION": retention}
    found = services(local_variables() | given, ["local"])
    return await Loopback.of(stack, found).run_job(found["temporal-namespace"], folder, **changes)


async def retention(stack: Stack, namespace: str) -> timedelta:
    answer = await stack.client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=namespace))
    return answer.config.workflow_execution_retention_ttl.ToTimedelta()


async def attributes(stack: Stack, namespace: str) -> dict[str, str]:
    answer = await stack.client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=namespace)
    )
    return {name: IndexedValueType.Name(kind) for name, kind in answer.custom_attributes.items()}


@pytest.fixture
def namespace() -> str:
    return f"compose-{uuid.uuid4().hex[:8]}"


async def test_namespace_job_is_repeatable(stack: Stack, tmp_path: Path, namespace: str) -> None:
    default = services(local_variables())["temporal-namespace"].environment["NAMESPACE_RETENTION"]
    for days in ("", "", "4000d"):
        code, output = await run_namespace_job(stack, tmp_path, namespace, days)
        assert code == 0, output
        assert (await retention(stack, namespace)).total_seconds() == seconds(days or default)
        kinds = {key.name: IndexedValueType.ValueType(int(key.indexed_value_type)) for key in SEARCH_ATTRIBUTES}
        expected = {name: IndexedValueType.Name(kind) for name, kind in kinds.items()}
        assert await attributes(stack, namespace) == expected


async def test_refusal_stops_the_namespace_job(stack: Stack, tmp_path: Path, namespace: str) -> None:
    code, output = await run_namespace_job(stack, tmp_path, namespace, "soon", TRIES="1")
    assert code == 1
    assert "soon" in output


async def test_wait_for_server_is_bounded(stack: Stack, tmp_path: Path, namespace: str) -> None:
    nobody = f"127.0.0.1:{Ports.free().temporal}"
    code, output = await run_namespace_job(stack, tmp_path, namespace, TRIES="2", TEMPORAL_ADDRESS=nobody)
    assert code == 1
    assert nobody in output


@pytest.mark.parametrize("breaks_at", [None, 2, 5])
async def test_both_schemas_are_set_up_in_order(stack: Stack, tmp_path: Path, breaks_at: int | None) -> None:
    notes = tmp_path / "notes"
    tool = tmp_path / "temporal-sql-tool"
    tool.write_text(
        f'#!/bin/sh\necho "$SQL_PLUGIN $SQL_USER:$SQL_PASSWORD@$SQL_HOST:$SQL_PORT $*" >> {notes}\n'
        f'[ "$(wc -l < {notes})" -ne {breaks_at or 99} ]\n'
    )
    tool.chmod(0o755)
    found = services(local_variables())
    code, output = await Loopback.of(stack, found).run_job(
        found["temporal-schema"], tmp_path, PATH=f"{tmp_path}:/usr/bin:/bin"
    )
    folder = "/etc/temporal/schema/postgresql/v12"
    expected = [
        "--db temporal create",
        "--db temporal setup-schema -v 0.0",
        f"--db temporal update-schema -d {folder}/temporal/versioned",
        "--db temporal_visibility create",
        "--db temporal_visibility setup-schema -v 0.0",
        f"--db temporal_visibility update-schema -d {folder}/visibility/versioned",
    ]
    assert notes.read_text().splitlines() == [
        f"postgres12 temporal:local@postgres:5432 {words}" for words in expected[:breaks_at]
    ]
    assert (code == 0) == (breaks_at is None), output
    server = found["temporal"].environment
    assert {server["DBNAME"], server["VISIBILITY_DBNAME"]} == {words.split()[1] for words in expected}
