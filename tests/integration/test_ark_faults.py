"""Each fault of the local Ark: that it fires, and what a client sees of it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from dev.ark.control import ArkControl
from dev.ark.faults import AFTER_COMMIT, BEFORE_COMMIT, DOWNLOAD, GATEWAY_PAGES, KNOWN, Operation
from dev.ark.ledger import CreateEntry
from dev.process import start_ark, stop
from tests.support.ark_api import PATH, Api
from tests.support.jobs import BODY

SOON = 0.3  # a client that gives up on an answer


OPTIONS = ("--queued-seconds", "0", "--running-seconds", "0", "--set", "get_per_second=null")


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ArkControl]:
    path = tmp_path_factory.mktemp("ark") / "stderr"
    with path.open("wb") as stderr:
        process, url = await start_ark(*OPTIONS, "--set", "list_per_second=null", stderr=stderr)
        try:
            async with ArkControl(url) as control:
                yield control
        finally:
            await stop(process)
    assert path.read_text() == ""  # a fault is no accident: nothing to complain of


@pytest.fixture
async def ark(server: ArkControl) -> ArkControl:
    await server.clear_faults()
    return server


async def last(ark: ArkControl) -> CreateEntry:
    """The newest create, once its outcome is known."""
    async with asyncio.timeout(10):
        while (entry := (await ark.ledger())[-1]).answer is None:
            await asyncio.sleep(0.02)
    return entry


async def assert_fired_once(ark: ArkControl, fault_id: int) -> None:
    assert len(await ark.fired(fault_id)) == 1
    assert fault_id not in [armed.id for armed in await ark.armed()]


# --- on create -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "close", "error", "committed"),
    [
        ("lost_after_commit", "rst", httpx.ReadError, True),
        ("lost_after_commit", "fin", httpx.RemoteProtocolError, True),
        ("reset_before_commit", "rst", httpx.ReadError, False),
        ("reset_before_commit", "fin", httpx.RemoteProtocolError, False),
    ],
)
async def test_dropped_connection_is_lost_answer(
    ark: ArkControl, api: Api, fault: str, close: str, error: type[Exception], committed: bool
) -> None:
    fault_id = await ark.fault("create", fault, close=close)
    with pytest.raises(error):
        await api.post()
    entry = await last(ark)
    assert (entry.answer, entry.fault, entry.committed) == ("lost", fault, committed)
    assert (entry.task_id is not None) is committed
    await assert_fired_once(ark, fault_id)
    assert (await api.post()).status_code == 200


@pytest.mark.parametrize(("fault", "committed"), [("hang_after_commit", True), ("hang_before_commit", False)])
async def test_hanging_answer_is_lost(ark: ArkControl, api: Api, fault: str, committed: bool) -> None:
    fault_id = await ark.fault("create", fault)
    with pytest.raises(httpx.ReadTimeout):
        await replace(api, timeout=SOON).post()
    entry = await last(ark)  # it notices that the client has gone
    assert (entry.answer, entry.committed) == ("lost", committed)
    await assert_fired_once(ark, fault_id)


async def test_hang_ends_with_dropped_connection(ark: ArkControl, api: Api) -> None:
    await ark.fault("create", "hang_after_commit", seconds=0.1)
    with pytest.raises(httpx.ReadError):
        await api.post()


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize(("phase", "committed"), [("", False), ("_before_commit", False), ("_after_commit", True)])
async def test_server_error_commits_by_phase(
    ark: ArkControl, api: Api, status: int, phase: str, committed: bool
) -> None:
    fault_id = await ark.fault("create", f"{status}{phase}")
    answer = await api.post()
    assert answer.status_code == status
    if status == 500:
        assert answer.json()["error"]["code"] == "InternalServiceError"
    else:
        assert answer.headers["content-type"].startswith("text/html")
        assert "error" not in answer.text
    entry = await last(ark)
    assert (entry.answer, entry.committed) == (status, committed)
    await assert_fired_once(ark, fault_id)


@pytest.mark.parametrize(
    ("status", "fields", "code"),
    [
        (429, {}, "RateLimitExceeded"),
        (429, {"code": "ServerOverloaded", "retry_after": 2}, "ServerOverloaded"),
        (429, {"code": "ModelAccountRpmRateLimitExceeded"}, "ModelAccountRpmRateLimitExceeded"),
        (429, {"code": "RequestBurstTooFast"}, "RequestBurstTooFast"),
        (429, {"code": "InflightBatchsizeExceeded"}, "InflightBatchsizeExceeded"),
        (429, {"code": "QuotaExceeded", "message": "The queue is full."}, "QuotaExceeded"),
        (429, {"code": "QuotaExceeded", "message": "The free trial has been used up."}, "QuotaExceeded"),
        (429, {"code": "SetLimitExceeded"}, "SetLimitExceeded"),
        (401, {}, "AuthenticationError"),
        (403, {}, "AccountOverdueError"),
        (403, {"code": "OperationDenied.ServiceOverdue"}, "OperationDenied.ServiceOverdue"),
        (400, {"code": "InputTextSensitiveContentDetected", "message": "No."}, "InputTextSensitiveContentDetected"),
        (404, {}, "ModelNotOpen"),
        (404, {"code": "InvalidEndpointOrModel.ModelIDAccessDisabled"}, "InvalidEndpointOrModel.ModelIDAccessDisabled"),
    ],
)
async def test_refusal_has_code(ark: ArkControl, api: Api, status: int, fields: dict[str, Any], code: str) -> None:
    fault_id = await ark.fault("create", str(status), **fields)
    answer = await api.post()
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert error["message"].startswith(fields.get("message", ""))
    assert answer.headers.get("retry-after") == ("2" if "retry_after" in fields else None)
    entry = await last(ark)
    assert (entry.committed, entry.code) == (False, code)
    await assert_fired_once(ark, fault_id)


@pytest.mark.parametrize("fault", GATEWAY_PAGES)
async def test_gateway_page_is_html(ark: ArkControl, api: Api, fault: str) -> None:
    fault_id = await ark.fault("create", fault)
    answer = await api.post()
    assert answer.status_code == int(fault[:3])
    assert answer.headers["content-type"].startswith("text/html")
    assert not (await last(ark)).committed
    await assert_fired_once(ark, fault_id)


async def test_dripping_answer_needs_total_limit(ark: ArkControl, api: Api) -> None:
    await ark.fault("create", "drip", seconds=0.3)
    answer = await api.post()
    assert answer.json()["id"] == (await last(ark)).task_id
    await ark.fault("create", "drip", seconds=30)
    got, key = b"", {"Authorization": f"Bearer {api.key}"}
    with pytest.raises(TimeoutError):  # noqa: PT012 - every byte comes in time; only a limit on the whole ends it
        async with asyncio.timeout(1), api.http.stream("POST", PATH, json=BODY, headers=key, timeout=5) as response:
            async for part in response.aiter_raw():
                got += part
    assert 0 < len(got) < 40
    entry = await last(ark)
    assert (entry.answer, entry.committed) == (200, True)


async def test_cut_body_breaks_read(ark: ArkControl, api: Api) -> None:
    fault_id = await ark.fault("create", "cut_body")
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
        await api.post()
    entry = await last(ark)
    assert (entry.answer, entry.committed) == (200, True)
    await assert_fired_once(ark, fault_id)


async def test_half_json_is_unreadable(ark: ArkControl, api: Api) -> None:
    await ark.fault("create", "cut_json")
    answer = await api.post()
    assert answer.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        answer.json()
    assert (await last(ark)).committed


async def test_answer_without_id_is_committed(ark: ArkControl, api: Api) -> None:
    await ark.fault("create", "no_id")
    answer = await api.post()
    assert (answer.status_code, answer.json()) == (200, {})
    assert (await last(ark)).committed


async def test_slow_answer_arrives(ark: ArkControl, api: Api) -> None:
    await ark.fault("create", "slow", seconds=0.2)
    answer = await api.post()
    assert answer.json()["id"] == (await last(ark)).task_id
    await ark.fault("create", "slow", seconds=30)
    with pytest.raises(httpx.ReadTimeout):
        await replace(api, timeout=SOON).post()
    assert (await last(ark)).answer == "lost"


def test_every_create_fault_is_tested() -> None:
    pages = {f"{s}{phase}" for s in (500, 502, 503, 504) for phase in ("", "_before_commit", "_after_commit")}
    drops = {"lost_after_commit", "reset_before_commit", "hang_after_commit", "hang_before_commit"}
    refusals = {"400", "401", "403", "404", "429"}
    rest = {"cut_body", "cut_json", "no_id", "slow", "drip"}
    assert {*BEFORE_COMMIT, *AFTER_COMMIT} == pages | {*GATEWAY_PAGES} | drops | refusals | rest


# --- how faults are chosen -------------------------------------------------------------------------------------


async def test_times_skip_and_removal(ark: ArkControl, api: Api) -> None:
    fault_id = await ark.fault("create", "503", times=2, skip=1)
    assert [(await api.post()).status_code for _ in range(4)] == [200, 503, 503, 200]
    assert len(await ark.fired(fault_id)) == 2

    endless = await ark.fault("create", "503", times=None)
    assert [(await api.post()).status_code for _ in range(3)] == [503] * 3
    await ark.clear_faults(endless)
    assert (await api.post()).status_code == 200
    assert len(await ark.fired(endless)) == 3


async def test_fault_waits_for_its_request(ark: ArkControl, api: Api) -> None:
    await ark.fault("create", "503", contains="job-7")
    await ark.fault("create", "502", route="volcengine")
    assert (await api.post(safety_identifier="job-6")).status_code == 200
    assert (await api.post(safety_identifier="job-7")).status_code == 503


async def test_refused_create_keeps_later_fault(ark: ArkControl, api: Api) -> None:
    fault_id = await ark.fault("create", "lost_after_commit")
    assert (await api.post(duration=99)).status_code == 400
    assert await ark.fired(fault_id) == []


@pytest.mark.parametrize(
    "fault",
    [
        {"on": "create", "fault": "nonsense"},
        {"on": "get", "fault": "lost_after_commit"},
        {"on": "create", "fault": "slow", "tims": 2},
        {"on": "create", "fault": "slow", "times": 0},
    ],
)
async def test_impossible_fault_is_refused(ark: ArkControl, fault: dict[str, Any]) -> None:
    async with httpx.AsyncClient(base_url=ark.url, trust_env=False) as http:
        answer = await http.post("/_ark/faults", json=fault)
    assert answer.status_code == 422
    assert answer.json()["problem"]


# --- on a task -------------------------------------------------------------------------------------------------


async def test_failed_task_has_error(ark: ArkControl, api: Api) -> None:
    await ark.fault("task", "fail", code="InternalServiceError", message="Oh.")
    task = await api.create_until("failed")
    assert task["error"] == {"code": "InternalServiceError", "message": "Oh."}


async def test_expired_task_has_no_content(ark: ArkControl, api: Api) -> None:
    fault_id = await ark.fault("task", "expire")
    task = await api.create_until("expired")
    assert "content" not in task
    assert (await ark.fired(fault_id))[0].task_id == task["id"]


@pytest.mark.parametrize(("fault", "status"), [("stay_queued", "queued"), ("stay_running", "running")])
async def test_held_task_waits_for_release(ark: ArkControl, api: Api, fault: str, status: str) -> None:
    await ark.fault("task", fault)
    held = await api.create()
    free = await api.create()
    await api.until(free, "succeeded")  # the other one went all the way meanwhile
    assert (await api.until(held, status))["status"] == status
    assert await ark.release() == [held]
    await api.until(held, "succeeded")
    assert await ark.release() == []


async def test_unknown_status_passes_or_stays(ark: ArkControl, api: Api) -> None:
    fault_id = await ark.fault("task", "unknown_status", seconds=0.05)
    await api.create_until("succeeded")
    assert len(await ark.fired(fault_id)) == 1
    await ark.fault("task", "unknown_status", status="dreaming")
    stays = await api.create()
    await api.until(stays, "dreaming")
    assert (await api.delete(stays)).status_code == 409
    assert await ark.release(stays) == [stays]
    await api.until(stays, "succeeded")


async def test_task_has_its_own_pace(ark: ArkControl, api: Api) -> None:
    await ark.fault("task", "seconds", running_seconds=3600)
    await ark.fault("task", "fail")  # a pace and an ending go together
    slow = await api.create()
    quick = await api.create()
    await api.until(quick, "succeeded")
    assert (await api.get(slow)).json()["status"] == "running"
    assert len(await ark.armed()) == 0


# --- on get, list, delete --------------------------------------------------------------------------------------


@pytest.mark.parametrize("on", ["get", "list", "delete"])
async def test_question_faults_fire(ark: ArkControl, api: Api, on: Operation) -> None:
    task_id = (await api.create_until("succeeded"))["id"]

    hasty = replace(api, timeout=SOON)

    async def ask() -> httpx.Response:
        return await (hasty.page() if on == "list" else hasty.get(task_id) if on == "get" else hasty.delete(task_id))

    for status in (400, 401, 403, 404, 429, 500, 502, 503, 504):
        await ark.fault(on, str(status))
        assert (await ask()).status_code == status
    await ark.fault(on, "hang")
    with pytest.raises(httpx.ReadTimeout):
        await ask()
    await ark.fault(on, "reset")
    with pytest.raises(httpx.ReadError):
        await ask()
    await ark.fault(on, "slow", seconds=0.05)
    assert (await ask()).is_success
    assert {firing.on for firing in (await ark.fired())[-12:]} == {on}

    for fault in GATEWAY_PAGES:
        await ark.fault(on, fault)
        page = await ask()
        assert page.status_code == int(fault[:3])
        assert page.headers["content-type"].startswith("text/html")
    for status, code in ((400, "InvalidParameter.TaskId"), (404, "NotFound.Task")):
        await ark.fault(on, str(status), code=code)
        refusal = await ask()
        assert (refusal.status_code, refusal.json()["error"]["code"]) == (status, code)
    for body in ("{}", "null", '{"id": 7}', "not json", ""):
        await ark.fault(on, "other_body", body=body)
        other = await ask()
        assert (other.status_code, other.text) == (200, body)
        assert other.headers["content-type"] == "application/json"


async def test_other_task_answer_has_other_id(ark: ArkControl, api: Api) -> None:
    true = await api.create_until("succeeded")
    task_id = true["id"]
    await ark.fault("get", "another_task")
    other = (await api.get(task_id)).json()
    assert other["id"] != task_id
    assert other | {"id": task_id} == true
    assert (await api.get(other["id"])).status_code == 404


@pytest.mark.parametrize("fields", [{}, {"size": 1000}])
async def test_long_answer_is_padded(ark: ArkControl, api: Api, fields: dict[str, int]) -> None:
    task_id = (await api.create_until("succeeded"))["id"]
    calls: dict[Operation, Callable[[str], Awaitable[httpx.Response]]] = {"get": api.get, "list": api.page}
    for on, call in calls.items():
        true = (await call(task_id)).json()
        await ark.fault(on, "long_body", **fields)
        long = await call(task_id)
        assert len(long.content) > fields.get("size", 16 * 1024 * 1024)
        padding = long.json().pop("padding")
        assert long.json() == true | {"padding": padding}


async def test_refusal_spares_spoilt_answer(ark: ArkControl, api: Api) -> None:
    fault_id = await ark.fault("get", "another_task")
    assert (await api.get("cgt-none")).status_code == 404
    assert await ark.fired(fault_id) == []


def test_every_question_fault_is_tested() -> None:
    statuses = {"400", "401", "403", "404", "429", "500", "502", "503", "504"}
    shared = statuses | {*GATEWAY_PAGES} | {"hang", "reset", "slow", "other_body"}
    assert set(KNOWN["delete"]) == shared
    assert set(KNOWN["list"]) == shared | {"long_body"}
    assert set(KNOWN["get"]) == shared | {"long_body", "another_task"}


async def test_fault_on_one_task_spares_others(ark: ArkControl, api: Api) -> None:
    one, other = [await api.create() for _ in range(2)]
    await ark.fault("get", "404", task_id=one)
    assert (await api.get(other)).status_code == 200
    assert (await api.get(one)).status_code == 404


# --- on download -----------------------------------------------------------------------------------------------


async def test_download_faults_fire(ark: ArkControl, api: Api) -> None:
    task = await api.create_until("succeeded")
    task_id, url = task["id"], task["content"]["video_url"]
    whole = await ark.video_bytes(task_id)
    seen = set()

    async def get(fault: str, **fields: Any) -> httpx.Response:
        seen.add(fault)
        await ark.fault("download", fault, task_id=task_id, **fields)
        return await api.http.get(url, timeout=httpx.Timeout(10, read=SOON))

    assert (await get("refuse")).status_code == 403
    assert (await get("404")).status_code == 404
    for status in ("500", "502", "503"):
        assert (await get(status)).status_code == int(status)
    not_ready = await get("not_ready")
    assert (not_ready.status_code, "video_not_ready" in not_ready.text) == (400, True)
    page = await get("html")
    assert (page.status_code, page.headers["content-type"].split(";")[0]) == (200, "text/html")
    half = await get("wrong_length")
    assert (half.status_code, half.content) == (200, whole[: len(whole) // 2])
    assert (await get("drip", seconds=0.5)).content == whole
    with pytest.raises(httpx.ReadError):
        await get("reset")
    with pytest.raises(httpx.ReadTimeout):
        await get("hang")

    seen.add("truncate")
    await ark.fault("download", "truncate")
    got = b""
    async with api.http.stream("GET", url) as answer:
        with pytest.raises(httpx.RemoteProtocolError):  # noqa: PT012 - what came before it counts
            assert answer.headers["content-length"] == str(len(whole))
            async for part in answer.aiter_raw():
                got += part
    assert got == whole[: len(whole) // 2]
    rest = await api.http.get(url, headers={"Range": f"bytes={len(got)}-"})
    assert (rest.status_code, got + rest.content) == (206, whole)

    assert seen == set(DOWNLOAD)
    assert await ark.armed() == []
