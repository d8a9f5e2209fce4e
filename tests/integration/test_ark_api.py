"""The local Ark: its routes, keys, list, delete, and what it shows of a task."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from dev.ark.catalog import Route
from dev.ark.control import ArkControl
from dev.process import running_ark, start_ark, stop
from tests.support.ark_api import Api, an_api
from tests.support.jobs import TODAY

MODELS: dict[Route, str] = {
    "byteplus": "dreamina-seedance-2-0-260128",
    "volcengine": "doubao-seedance-2-0-260128",
}
BASE = {"speed": 1, "queued_seconds": 0, "running_seconds": 0, "list_per_second": None, "get_per_second": None}


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[ArkControl]:
    async with running_ark("--set", TODAY) as control:
        yield control


@pytest.fixture
async def ark(server: ArkControl) -> ArkControl:
    await server.configure(**BASE, list_echo=True, running_limit=10, list_delay_seconds=0, list_order="newest")
    await server.configure(list_failure_reason=False, create_echo=False, extra_fields={}, delete_per_second=None)
    await server.clear_faults()
    return server


def body(route: Route = "byteplus") -> dict[str, Any]:
    return {"model": MODELS[route], "content": [{"type": "text", "text": "a cat"}]}


@pytest.fixture
async def api(ark: ArkControl) -> AsyncIterator[Api]:
    async with an_api(ark, body=body()) as api:
        yield api


@pytest.fixture
async def other(ark: ArkControl) -> AsyncIterator[Api]:
    """The API of the other route."""
    async with an_api(ark, "volcengine", body=body("volcengine")) as api:
        yield api


@pytest.mark.parametrize("route", ["byteplus", "volcengine"])
async def test_task_succeeds_on_either_route(ark: ArkControl, route: Route) -> None:
    given: dict[str, Any] = {"duration": 4, "resolution": "480p", "ratio": "1:1", "generate_audio": False}
    given |= {"safety_identifier": "user-1", "return_last_frame": True, "callback_url": "http://127.0.0.1:9/nowhere"}
    async with an_api(ark, route, body=body(route)) as api:
        task_id = await api.create(**given)
        task = await api.until(task_id, "succeeded")
    assert re.fullmatch(r"cgt-\d{14}-[a-z0-9]+", task_id)
    assert task["model"] == MODELS[route]
    assert task["safety_identifier"] == "user-1"
    assert task["usage"] == {"completion_tokens": 38_800, "total_tokens": 38_800}  # 640 * 640 * 97 / 1024
    assert (task["ratio"], task["resolution"], task["duration"]) == ("1:1", "480p", 4)
    assert task["framespersecond"] == 24
    assert task["generate_audio"] is False
    assert isinstance(task["seed"], int)
    assert isinstance(task["created_at"], int)
    assert set(task["content"]) == {"video_url", "last_frame_url"}
    assert not {"prompt", "text", "callback_url", "watermark"} & set(task)


async def test_unfinished_task_shows_no_result(ark: ArkControl, api: Api) -> None:
    await ark.configure(running_seconds=60)
    task = await api.create_until("running")
    assert not {"content", "usage", "seed", "ratio", "resolution", "duration"} & set(task)
    assert task["error"] is None


async def test_ratio_is_never_adaptive(ark: ArkControl, api: Api) -> None:
    await ark.configure(adaptive_ratio="9:16")
    task = await api.create_until("succeeded", duration=-1)
    await ark.configure(adaptive_ratio="16:9")
    assert (task["ratio"], task["resolution"], task["duration"]) == ("9:16", "720p", 5)


async def test_endpoint_id_shows_its_model(ark: ArkControl, other: Api) -> None:
    await ark.configure(endpoints={"ep-known": "doubao-seedance-2-0-fast-260128"})
    known, unknown = await other.create(model="ep-known"), await other.create(model="ep-20260101-abc")
    assert (await other.get(known)).json()["model"] == "doubao-seedance-2-0-fast-260128"
    assert (await other.get(unknown)).json()["model"] == MODELS["volcengine"]


@pytest.mark.parametrize("key", ["local-ark-key-cn", "wrong", "local-ark-key-"])
async def test_other_route_key_is_unknown(api: Api, key: str) -> None:
    api = api.under(key)
    answers = [await api.post(), await api.get("cgt-1"), await api.page(), await api.delete("cgt-1")]
    assert [answer.status_code for answer in answers] == [401] * 4
    assert answers[0].json()["error"]["code"] == "AuthenticationError"


async def test_other_route_model_is_not_found(api: Api) -> None:
    answer = await api.post(model=MODELS["volcengine"])
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "InvalidEndpointOrModel.NotFound"


async def test_refusal_has_envelope_and_request_id(ark: ArkControl, api: Api) -> None:
    answer = await replace(api, headers={"X-Client-Request-Id": "mine-1"}).ask("POST", json={})
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "param", "type"}
    assert error["code"] == "MissingParameter"
    assert error["message"].endswith(f"Request id: {answer.headers['x-request-id']}")
    assert answer.headers["x-client-request-id"] == "mine-1"
    entry = (await ark.ledger())[-1]
    assert (entry.client_request_id, entry.answer, entry.committed) == ("mine-1", 400, False)


async def test_ledger_has_bodies_and_tokens(ark: ArkControl, api: Api) -> None:
    fields = {"duration": 5, "typo_field": 1, "seed": None}
    task_id = (await api.create_until("succeeded", **fields))["id"]
    refused = await api.ask("POST", content=b"not json")
    assert refused.status_code == 400
    accepted, broken = (await ark.ledger())[-2:]
    assert accepted.body == body() | fields
    assert (accepted.task_id, accepted.committed, accepted.answer) == (task_id, True, 200)
    assert accepted.billed_tokens == 108_900
    assert (broken.body, broken.committed, broken.billed_tokens) == ("not json", False, None)


async def test_only_success_is_billed(ark: ArkControl, api: Api) -> None:
    await ark.fault("task", "fail")
    task = await api.create_until("failed")
    assert task["error"]["code"] == "OutputVideoSensitiveContentDetected"
    assert "usage" not in task
    assert [entry.billed_tokens for entry in await ark.ledger() if entry.task_id == task["id"]] == [None]


async def test_list_pages_newest_first_without_gaps(other: Api) -> None:
    ids = [await other.create() for _ in range(5)]
    pages = [(await other.page(*ids, page_num=number, page_size=2)).json() for number in (1, 2, 3, 4)]
    assert [page["total"] for page in pages] == [5] * 4
    listed = [[item["id"] for item in page["items"]] for page in pages]
    assert listed == [[ids[4], ids[3]], [ids[2], ids[1]], [ids[0]], []]


async def test_list_filters(api: Api) -> None:
    done = (await api.create_until("succeeded"))["id"]
    flex = await api.create(model="seedance-1-5-pro-251215", service_tier="flex")

    async def ids(**filters: str) -> list[str]:
        return [item["id"] for item in await api.items(page_size=500, **filters)]

    assert done in await ids()
    assert flex not in await ids()
    assert await ids(filter_service_tier="flex") == [flex]
    assert done in await ids(filter_status="succeeded", filter_model=MODELS["byteplus"])
    assert done not in await ids(filter_status="running")
    assert done not in await ids(filter_model="dreamina-seedance-2-0-fast-260128")
    bad = [{"page_size": "501"}, {"page_num": "0"}, {"filter_status": "done"}]
    assert [(await api.page(**params)).status_code for params in bad] == [400] * 3


async def test_list_shows_identifier_unless_off(ark: ArkControl, api: Api) -> None:
    task_id = await api.create(safety_identifier="who")
    assert (await api.items(task_id))[0]["safety_identifier"] == "who"
    await ark.configure(list_echo=False)
    assert "safety_identifier" not in (await api.items(task_id))[0]
    assert (await api.get(task_id)).json()["safety_identifier"] == "who"


async def test_list_can_lag_behind_creates(ark: ArkControl, api: Api) -> None:
    await ark.configure(list_delay_seconds=60)
    task_id = await api.create()
    assert (await api.page(task_id)).json()["total"] == 0


async def test_list_has_the_set_order(ark: ArkControl, other: Api) -> None:
    ids = [await other.create() for _ in range(8)]

    async def listed() -> list[str]:
        return [item["id"] for item in await other.items(*ids)]

    assert await listed() == ids[::-1]
    await ark.configure(list_order="oldest")
    assert await listed() == ids
    await ark.configure(list_order="shuffled")
    orders = [await listed() for _ in range(10)]
    assert all(sorted(order) == sorted(ids) for order in orders)
    assert len({tuple(order) for order in orders}) > 1  # anew each time: nobody can rely on the one before


async def test_list_may_say_failure_reason(ark: ArkControl, api: Api) -> None:
    await ark.configure(list_failure_reason=True)
    await ark.fault("task", "fail", code="InternalServiceError", message="Oh.")
    task = await api.create_until("failed")
    (item,) = await api.items(task["id"])
    assert "error" not in item
    assert item["failure_reason"] == task["error"] == {"code": "InternalServiceError", "message": "Oh."}


async def test_foreign_tasks_are_listed_only(ark: ArkControl, api: Api, other: Api) -> None:
    before = await ark.ledger()
    await ark.fault("task", "fail")  # for a task of ours
    silent = await ark.add_foreign("byteplus", count=3, status="running")
    (named,) = await ark.add_foreign("byteplus", age_seconds=3600, fields={"safety_identifier": "their-user"})
    model = "seedance-1-5-pro-251215"
    (flex,) = await ark.add_foreign("byteplus", fields={"model": model, "service_tier": "flex"})
    own = await api.create(safety_identifier="ours")
    items = {item["id"]: item for item in await api.items(page_size=500)}
    assert {*silent, named, own} <= set(items)
    assert flex not in items
    assert [items[one].get("safety_identifier") for one in (silent[0], named, own)] == [None, "their-user", "ours"]
    assert items[own]["created_at"] - items[named]["created_at"] in {3600, 3601}
    assert list(items)[-1] == named  # the oldest of all
    assert (await api.get(named)).json()["status"] == "succeeded"
    assert (await api.get(flex)).json()["model"] == model
    assert (await other.get(named)).status_code == 404
    await api.until(own, "failed")  # the fault waited for it, and the running ones took no room
    assert [items[one]["status"] for one in silent] == ["running"] * 3
    assert len(await ark.ledger()) == len(before) + 1
    for wrong in ({"count": 0}, {"nonsense": 1}, {"fields": {"model": "none"}}):
        with pytest.raises(httpx.HTTPStatusError, match="422"):
            await ark.add_foreign("byteplus", **wrong)


async def test_create_may_show_identifier(ark: ArkControl, api: Api) -> None:
    await ark.configure(create_echo=True)
    shown = (await api.post(safety_identifier="who")).json()
    without = (await api.post()).json()
    assert shown["safety_identifier"] == "who"
    assert set(without) == {"id"}


async def test_task_may_have_extra_fields(ark: ArkControl, api: Api) -> None:
    await ark.configure(extra_fields={"revised_prompt": "a dog", "status": "dreaming"})
    task = await api.create_until("succeeded")  # a known field is never replaced
    (item,) = await api.items(task["id"])
    assert task["revised_prompt"] == item["revised_prompt"] == "a dog"


async def test_client_request_id_is_no_idempotency_key(api: Api) -> None:
    api = replace(api, headers={"X-Client-Request-Id": "the same"})
    assert await api.create() != await api.create()


async def test_list_takes_one_request_a_second(ark: ArkControl, api: Api, other: Api) -> None:
    await ark.configure(list_per_second=0.001)  # so that no slow machine makes the second one legal
    before = (await ark.requests()).rate_limited.get("list", 0)
    answers = [await api.page(), await api.page(), await other.page()]
    assert [answer.status_code for answer in answers] == [200, 429, 200]  # each account has its own limit
    assert answers[1].json()["error"]["code"] == "RateLimitExceeded"
    assert (await ark.requests()).rate_limited["list"] == before + 1


async def test_get_takes_a_burst_and_then_refuses(ark: ArkControl, other: Api) -> None:
    await ark.configure(get_per_second=0.001)
    statuses = [(await other.get("cgt-none")).status_code for _ in range(21)]
    assert statuses == [404] * 20 + [429]


async def test_refused_requests_count_in_their_second(ark: ArkControl, api: Api) -> None:
    async def counted() -> int:
        return sum((await ark.requests()).seconds.get("byteplus", {}).get("get", {}).values())

    before = await counted()
    await ark.configure(get_per_second=0.001)
    for _ in range(3):
        await api.get("cgt-none")
    assert await counted() == before + 3


async def test_delete_has_a_limit_of_its_own(ark: ArkControl, other: Api) -> None:
    await ark.configure(delete_per_second=0.001)
    statuses = [(await other.delete("cgt-none")).status_code for _ in range(21)]
    assert (await other.get("cgt-none")).status_code == 404
    assert statuses == [404] * 20 + [429]


@pytest.mark.parametrize(("fault", "status"), [("fail", "failed"), ("expire", "expired")])
async def test_delete_erases_every_ended_task(ark: ArkControl, api: Api, fault: str, status: str) -> None:
    await ark.fault("task", fault)
    task_id = (await api.create_until(status))["id"]
    assert (await api.delete(task_id)).status_code == 204
    assert (await api.get(task_id)).status_code == 404


async def test_delete_follows_the_status(ark: ArkControl, api: Api) -> None:
    await ark.fault("task", "stay_queued")
    queued = await api.create()
    assert (await api.delete(queued)).status_code == 204
    assert (await api.get(queued)).json()["status"] == "cancelled"
    assert (await api.delete(queued)).status_code == 409

    await ark.fault("task", "stay_running")
    running = (await api.create_until("running"))["id"]
    refused = await api.delete(running)
    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "InvalidAction.RunningTaskDeletion"
    await ark.release(running)

    await api.until(running, "succeeded")
    assert (await api.delete(running)).status_code == 204
    assert (await api.get(running)).status_code == 404
    assert (await api.delete(running)).json()["error"]["code"] == "ResourceNotFound"
    assert (await api.page(running)).json()["total"] == 0
    counted = (await ark.requests()).tasks[running]
    assert counted.delete == 3
    assert counted.get >= 2


async def test_other_account_task_is_unknown(api: Api, other: Api) -> None:
    task_id = await api.create()
    assert (await other.get(task_id)).status_code == 404


async def test_keys_and_standing_change_at_runtime(ark: ArkControl, api: Api) -> None:
    task_id = await api.create()
    await ark.set_key_valid("byteplus", False)
    assert (await api.get(task_id)).status_code == 401
    await ark.set_key_valid("byteplus", True)
    assert (await api.get(task_id)).status_code == 200
    seen = []
    standings = ("AccountOverdueError", "OperationDenied.ServiceNotOpen", "SetLimitExceeded", "QuotaExceeded")
    for standing in (*standings, "InvalidAccountStatus", "ok"):
        await ark.set_standing("byteplus", standing)
        answers = [await api.post(), await api.get(task_id)]
        seen.append([answer.status_code for answer in answers])
    # Without money no task can be made, but those that are paid can still be seen.
    assert seen == [[403, 200], [403, 200], [429, 200], [429, 200], [401, 401], [200, 200]]
    with pytest.raises(httpx.HTTPStatusError, match="422"):
        await ark.set_standing("byteplus", "Nonsense")


async def test_options_keys_and_a_prompt_end() -> None:
    process, url = await start_ark("--api-key", "one", "--api-key", "two", "--set", "running_limit=3", "--speed", "60")
    try:
        async with ArkControl(url) as ark:
            await ark.wait_ready()
            settings = await ark.configure()
            assert (settings["running_limit"], settings["running_seconds"]) == (3, 2)
            async with an_api(ark, key="two", timeout=3600) as api:
                assert (await api.post()).status_code == 200
                assert (await api.under("local-ark-key").post()).status_code == 401
                await ark.fault("get", "hang")
                hanging = asyncio.create_task(api.get("cgt-1"))
                while not await ark.fired():
                    await asyncio.sleep(0.02)
                process.terminate()
                # Well below the time that the hanging request would take: for ever.
                await asyncio.wait_for(process.wait(), 10)
                with pytest.raises(httpx.TransportError):
                    await hanging
    finally:
        await stop(process)


async def test_wrong_option_starts_nothing() -> None:
    with pytest.raises(RuntimeError, match="exit code 2"):
        await start_ark("--set", "nonsense=1")


async def test_switches_are_checked_and_changed_as_one(ark: ArkControl) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="422"):
        await ark.configure(running_limit=1, nonsense=True)
    assert (await ark.configure())["running_limit"] == 10
    assert (await ark.configure(speed=10, running_seconds=1))["queued_seconds"] == 0.3
