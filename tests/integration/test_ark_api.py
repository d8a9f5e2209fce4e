"""The local Ark: its routes, keys, list, delete, and what it shows of a task."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from dev.ark.catalog import Route
from dev.ark.control import ArkControl
from dev.process import running_ark, start_ark, stop

PATH = "/contents/generations/tasks"
KEYS: dict[Route, str] = {"byteplus": "local-ark-key", "volcengine": "local-ark-key-cn"}
MODELS: dict[Route, str] = {
    "byteplus": "dreamina-seedance-2-0-260128",
    "volcengine": "doubao-seedance-2-0-260128",
}
BASE = {"speed": 1, "queued_seconds": 0, "running_seconds": 0, "list_per_second": None, "get_per_second": None}


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[ArkControl]:
    async with running_ark() as control:
        yield control


@pytest.fixture
async def ark(server: ArkControl) -> ArkControl:
    await server.configure(**BASE, list_echo=True, running_limit=10, list_delay_seconds=0, list_order="newest")
    await server.configure(list_failure_reason=False, create_echo=False, extra_fields={}, delete_per_second=None)
    await server.clear_faults()
    return server


def api(ark: ArkControl, route: Route = "byteplus", key: str | None = None) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {key or KEYS[route]}"}
    return httpx.AsyncClient(base_url=ark.base_url(route), headers=headers, trust_env=False, verify=False)  # noqa: S501 - it is http


def body(route: Route = "byteplus", **fields: Any) -> dict[str, Any]:
    return {"model": MODELS[route], "content": [{"type": "text", "text": "a cat"}]} | fields


async def create(client: httpx.AsyncClient, request: dict[str, Any]) -> str:
    answer = await client.post(PATH, json=request)
    assert answer.status_code == 200, answer.text
    task_id: str = answer.json()["id"]
    return task_id


async def until(client: httpx.AsyncClient, task_id: str, *statuses: str) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while True:
            task: dict[str, Any] = (await client.get(f"{PATH}/{task_id}")).json()
            if task["status"] in statuses:
                return task
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("route", ["byteplus", "volcengine"])
async def test_a_task_succeeds_on_either_route(ark: ArkControl, route: Route) -> None:
    request = body(
        route,
        duration=4,
        resolution="480p",
        ratio="1:1",
        generate_audio=False,
        safety_identifier="user-1",
        return_last_frame=True,
        callback_url="http://127.0.0.1:9/nowhere",
    )
    async with api(ark, route) as client:
        task_id = await create(client, request)
        task = await until(client, task_id, "succeeded")
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


async def test_before_success_nothing_of_the_result_is_shown(ark: ArkControl) -> None:
    await ark.configure(running_seconds=60)
    async with api(ark) as client:
        task = await until(client, await create(client, body()), "running")
    assert not {"content", "usage", "seed", "ratio", "resolution", "duration"} & set(task)
    assert task["error"] is None


async def test_the_ratio_is_never_adaptive(ark: ArkControl) -> None:
    await ark.configure(adaptive_ratio="9:16")
    async with api(ark) as client:
        task = await until(client, await create(client, body(duration=-1)), "succeeded")
    await ark.configure(adaptive_ratio="16:9")
    assert (task["ratio"], task["resolution"], task["duration"]) == ("9:16", "720p", 5)


async def test_an_endpoint_id_shows_the_model_behind_it(ark: ArkControl) -> None:
    await ark.configure(endpoints={"ep-known": "doubao-seedance-2-0-fast-260128"})
    async with api(ark, "volcengine") as client:
        known = await create(client, body("volcengine") | {"model": "ep-known"})
        other = await create(client, body("volcengine") | {"model": "ep-20260101-abc"})
        assert (await client.get(f"{PATH}/{known}")).json()["model"] == "doubao-seedance-2-0-fast-260128"
        assert (await client.get(f"{PATH}/{other}")).json()["model"] == MODELS["volcengine"]


@pytest.mark.parametrize("key", ["local-ark-key-cn", "wrong", "local-ark-key-"])
async def test_a_key_of_another_route_is_no_key(ark: ArkControl, key: str) -> None:
    async with api(ark) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        answers = [
            await client.post(PATH, json=body()),
            await client.get(f"{PATH}/cgt-1"),
            await client.get(PATH),
            await client.delete(f"{PATH}/cgt-1"),
        ]
    assert [answer.status_code for answer in answers] == [401] * 4
    assert answers[0].json()["error"]["code"] == "AuthenticationError"


async def test_a_model_of_the_other_route_is_not_found(ark: ArkControl) -> None:
    async with api(ark) as client:
        answer = await client.post(PATH, json=body("volcengine"))
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "InvalidEndpointOrModel.NotFound"


async def test_refusals_come_in_the_envelope_with_a_request_id(ark: ArkControl) -> None:
    async with api(ark) as client:
        answer = await client.post(PATH, json={}, headers={"X-Client-Request-Id": "mine-1"})
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "param", "type"}
    assert error["code"] == "MissingParameter"
    assert error["message"].endswith(f"Request id: {answer.headers['x-request-id']}")
    assert answer.headers["x-client-request-id"] == "mine-1"
    entry = (await ark.ledger())[-1]
    assert (entry.client_request_id, entry.answer, entry.committed) == ("mine-1", 400, False)


async def test_ledger_has_bodies_and_tokens(ark: ArkControl) -> None:
    request = body(duration=5, typo_field=1, seed=None)
    async with api(ark) as client:
        task_id = await create(client, request)
        await until(client, task_id, "succeeded")
        refused = await client.post(PATH, content=b"not json")
    assert refused.status_code == 400
    accepted, broken = (await ark.ledger())[-2:]
    assert accepted.body == request
    assert (accepted.task_id, accepted.committed, accepted.answer) == (task_id, True, 200)
    assert accepted.billed_tokens == 108_900
    assert (broken.body, broken.committed, broken.billed_tokens) == ("not json", False, None)


async def test_only_success_is_billed(ark: ArkControl) -> None:
    await ark.fault("task", "fail")
    async with api(ark) as client:
        task_id = await create(client, body())
        task = await until(client, task_id, "failed")
    assert task["error"]["code"] == "OutputVideoSensitiveContentDetected"
    assert "usage" not in task
    assert [entry.billed_tokens for entry in await ark.ledger() if entry.task_id == task_id] == [None]


async def test_list_pages_newest_first_without_gaps(ark: ArkControl) -> None:
    async with api(ark, "volcengine") as client:
        ids = [await create(client, body("volcengine")) for _ in range(5)]
        wanted = [("filter.task_ids", task_id) for task_id in ids]
        pages = [
            (await client.get(PATH, params=[*wanted, ("page_num", str(n)), ("page_size", "2")])).json()
            for n in (1, 2, 3, 4)
        ]
    assert [page["total"] for page in pages] == [5] * 4
    assert [[item["id"] for item in page["items"]] for page in pages] == [
        [ids[4], ids[3]],
        [ids[2], ids[1]],
        [ids[0]],
        [],
    ]


async def test_list_filters(ark: ArkControl) -> None:
    async with api(ark) as client:
        done = await create(client, body())
        await until(client, done, "succeeded")
        flex = await create(
            client, {"model": "seedance-1-5-pro-251215", "service_tier": "flex"} | {"content": body()["content"]}
        )

        async def ids(**filters: str) -> list[str]:
            params = {"page_size": "500"} | {f"filter.{name}": value for name, value in filters.items()}
            return [item["id"] for item in (await client.get(PATH, params=params)).json()["items"]]

        assert done in await ids()
        assert flex not in await ids()
        assert await ids(service_tier="flex") == [flex]
        assert done in await ids(status="succeeded", model=MODELS["byteplus"])
        assert done not in await ids(status="running")
        assert done not in await ids(model="dreamina-seedance-2-0-fast-260128")
        bad = [{"page_size": "501"}, {"page_num": "0"}, {"filter.status": "done"}]
        assert [(await client.get(PATH, params=params)).status_code for params in bad] == [400] * 3


async def test_list_echoes_the_identifier_unless_switched_off(ark: ArkControl) -> None:
    async with api(ark) as client:
        task_id = await create(client, body(safety_identifier="who"))
        params = {"filter.task_ids": task_id}
        assert (await client.get(PATH, params=params)).json()["items"][0]["safety_identifier"] == "who"
        await ark.configure(list_echo=False)
        assert "safety_identifier" not in (await client.get(PATH, params=params)).json()["items"][0]
        assert (await client.get(f"{PATH}/{task_id}")).json()["safety_identifier"] == "who"


async def test_list_can_lag_behind_creates(ark: ArkControl) -> None:
    await ark.configure(list_delay_seconds=60)
    async with api(ark) as client:
        task_id = await create(client, body())
        assert (await client.get(PATH, params={"filter.task_ids": task_id})).json()["total"] == 0


async def test_list_has_the_set_order(ark: ArkControl) -> None:
    async with api(ark, "volcengine") as client:
        ids = [await create(client, body("volcengine")) for _ in range(8)]
        wanted = {"filter.task_ids": ids}

        async def listed() -> list[str]:
            return [item["id"] for item in (await client.get(PATH, params=wanted)).json()["items"]]

        assert await listed() == ids[::-1]
        await ark.configure(list_order="oldest")
        assert await listed() == ids
        await ark.configure(list_order="shuffled")
        orders = [await listed() for _ in range(10)]
        assert all(sorted(order) == sorted(ids) for order in orders)
        assert len({tuple(order) for order in orders}) > 1  # anew each time: nobody can rely on the one before


async def test_list_may_say_failure_reason(ark: ArkControl) -> None:
    await ark.configure(list_failure_reason=True)
    await ark.fault("task", "fail", code="InternalServiceError", message="Oh.")
    async with api(ark) as client:
        task_id = await create(client, body())
        task = await until(client, task_id, "failed")
        (item,) = (await client.get(PATH, params={"filter.task_ids": task_id})).json()["items"]
    assert "error" not in item
    assert item["failure_reason"] == task["error"] == {"code": "InternalServiceError", "message": "Oh."}


async def test_tasks_of_other_applications_are_listed_and_nothing_else(ark: ArkControl) -> None:
    before = await ark.ledger()
    await ark.fault("task", "fail")  # for a task of ours
    silent = await ark.add_foreign("byteplus", count=3, status="running")
    (named,) = await ark.add_foreign("byteplus", age_seconds=3600, fields={"safety_identifier": "their-user"})
    model = "seedance-1-5-pro-251215"
    (flex,) = await ark.add_foreign("byteplus", fields={"model": model, "service_tier": "flex"})
    async with api(ark) as client, api(ark, "volcengine") as other:
        own = await create(client, body(safety_identifier="ours"))
        items = {item["id"]: item for item in (await client.get(PATH, params={"page_size": 500})).json()["items"]}
        assert {*silent, named, own} <= set(items)
        assert flex not in items
        assert [items[one].get("safety_identifier") for one in (silent[0], named, own)] == [None, "their-user", "ours"]
        assert items[own]["created_at"] - items[named]["created_at"] in {3600, 3601}
        assert list(items)[-1] == named  # the oldest of all
        assert (await client.get(f"{PATH}/{named}")).json()["status"] == "succeeded"
        assert (await client.get(f"{PATH}/{flex}")).json()["model"] == model
        assert (await other.get(f"{PATH}/{named}")).status_code == 404
        await until(client, own, "failed")  # the fault waited for it, and the running ones took no room
        assert [items[one]["status"] for one in silent] == ["running"] * 3
    assert len(await ark.ledger()) == len(before) + 1
    for wrong in ({"count": 0}, {"nonsense": 1}, {"fields": {"model": "none"}}):
        with pytest.raises(httpx.HTTPStatusError, match="422"):
            await ark.add_foreign("byteplus", **wrong)


async def test_a_create_may_show_the_identifier(ark: ArkControl) -> None:
    await ark.configure(create_echo=True)
    async with api(ark) as client:
        shown = (await client.post(PATH, json=body(safety_identifier="who"))).json()
        without = (await client.post(PATH, json=body())).json()
    assert shown["safety_identifier"] == "who"
    assert set(without) == {"id"}


async def test_task_may_have_extra_fields(ark: ArkControl) -> None:
    await ark.configure(extra_fields={"revised_prompt": "a dog", "status": "dreaming"})
    async with api(ark) as client:
        task = await until(client, await create(client, body()), "succeeded")  # a known field is never replaced
        (item,) = (await client.get(PATH, params={"filter.task_ids": task["id"]})).json()["items"]
    assert task["revised_prompt"] == item["revised_prompt"] == "a dog"


async def test_a_client_request_id_is_no_idempotency_key(ark: ArkControl) -> None:
    async with api(ark) as client:
        client.headers["X-Client-Request-Id"] = "the same"
        assert await create(client, body()) != await create(client, body())


async def test_list_takes_one_request_a_second(ark: ArkControl) -> None:
    await ark.configure(list_per_second=0.001)  # so that no slow machine makes the second one legal
    before = (await ark.requests()).rate_limited.get("list", 0)
    async with api(ark, "byteplus") as client, api(ark, "volcengine") as other:
        answers = [await client.get(PATH), await client.get(PATH), await other.get(PATH)]
    assert [answer.status_code for answer in answers] == [200, 429, 200]  # each account has its own limit
    assert answers[1].json()["error"]["code"] == "RateLimitExceeded"
    assert (await ark.requests()).rate_limited["list"] == before + 1


async def test_get_takes_a_burst_and_then_refuses(ark: ArkControl) -> None:
    await ark.configure(get_per_second=0.001)
    async with api(ark, "volcengine") as client:
        statuses = [(await client.get(f"{PATH}/cgt-none")).status_code for _ in range(21)]
    assert statuses == [404] * 20 + [429]


async def test_delete_has_a_limit_of_its_own(ark: ArkControl) -> None:
    await ark.configure(delete_per_second=0.001)
    async with api(ark, "volcengine") as client:
        statuses = [(await client.delete(f"{PATH}/cgt-none")).status_code for _ in range(21)]
        assert (await client.get(f"{PATH}/cgt-none")).status_code == 404
    assert statuses == [404] * 20 + [429]


@pytest.mark.parametrize(("fault", "status"), [("fail", "failed"), ("expire", "expired")])
async def test_delete_erases_every_ended_task(ark: ArkControl, fault: str, status: str) -> None:
    await ark.fault("task", fault)
    async with api(ark) as client:
        task_id = await create(client, body())
        await until(client, task_id, status)
        assert (await client.delete(f"{PATH}/{task_id}")).status_code == 204
        assert (await client.get(f"{PATH}/{task_id}")).status_code == 404


async def test_delete_follows_the_status(ark: ArkControl) -> None:
    async with api(ark) as client:
        await ark.fault("task", "stay_queued")
        queued = await create(client, body())
        assert (await client.delete(f"{PATH}/{queued}")).status_code == 204
        assert (await client.get(f"{PATH}/{queued}")).json()["status"] == "cancelled"
        assert (await client.delete(f"{PATH}/{queued}")).status_code == 409

        await ark.fault("task", "stay_running")
        running = await create(client, body())
        await until(client, running, "running")
        refused = await client.delete(f"{PATH}/{running}")
        assert refused.status_code == 409
        assert refused.json()["error"]["code"] == "InvalidAction.RunningTaskDeletion"
        await ark.release(running)

        await until(client, running, "succeeded")
        assert (await client.delete(f"{PATH}/{running}")).status_code == 204
        assert (await client.get(f"{PATH}/{running}")).status_code == 404
        assert (await client.delete(f"{PATH}/{running}")).json()["error"]["code"] == "ResourceNotFound"
        assert (await client.get(PATH, params={"filter.task_ids": running})).json()["total"] == 0
    counted = (await ark.requests()).tasks[running]
    assert counted.delete == 3
    assert counted.get >= 2


async def test_a_task_of_the_other_account_is_unknown(ark: ArkControl) -> None:
    async with api(ark) as client, api(ark, "volcengine") as other:
        task_id = await create(client, body())
        assert (await other.get(f"{PATH}/{task_id}")).status_code == 404


async def test_keys_and_standing_change_while_it_runs(ark: ArkControl) -> None:
    async with api(ark) as client:
        task_id = await create(client, body())
        await ark.set_key_valid("byteplus", False)
        assert (await client.get(f"{PATH}/{task_id}")).status_code == 401
        await ark.set_key_valid("byteplus", True)
        assert (await client.get(f"{PATH}/{task_id}")).status_code == 200
        seen = []
        standings = ("AccountOverdueError", "OperationDenied.ServiceNotOpen", "SetLimitExceeded", "QuotaExceeded")
        for standing in (*standings, "InvalidAccountStatus", "ok"):
            await ark.set_standing("byteplus", standing)
            answers = [await client.post(PATH, json=body()), await client.get(f"{PATH}/{task_id}")]
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
            async with api(ark, key="two") as client, api(ark) as stranger:
                assert (await client.post(PATH, json=body())).status_code == 200
                assert (await stranger.post(PATH, json=body())).status_code == 401
                await ark.fault("get", "hang")
                hanging = asyncio.create_task(client.get(f"{PATH}/cgt-1", timeout=None))
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
