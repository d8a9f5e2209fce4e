"""The local Ark's keys: which tasks each of them sees, and what it may create, while both change under way."""

from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dev.ark.control import ArkControl
from dev.ark.keys import Key
from tests.support.ark_api import Api, an_api
from tests.support.jobs import KEY

MODEL = "dreamina-seedance-2-0-260128"
FAST = "dreamina-seedance-2-0-fast-260128"
ENDPOINT = "ep-20260101-abc"  # MODEL is behind it
OTHER_ENDPOINT = "ep-20260101-xyz"


@pytest.fixture
async def ark(server: ArkControl) -> ArkControl:
    """With the one key that it starts with, which sees all of the default project."""
    await server.configure(create_per_minute=None, list_per_second=None)
    await server.set_key_valid("byteplus", True)
    await server.set_standing("byteplus", "ok")
    for known in await server.keys("byteplus"):
        await server.remove_key("byteplus", known.key)
    await server.set_key("byteplus", KEY)
    return server


async def seen(api: Api, task_ids: list[str], *models: str) -> set[str]:
    """Those of the tasks that LIST shows, filtered by model where one is given; its total must fit."""
    answer = await api.page(*task_ids, filter_model=models, page_size=500)
    assert answer.status_code == 200, answer.text
    listed = [item["id"] for item in answer.json()["items"]]
    assert answer.json()["total"] == len(listed)
    return set(listed)


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def without_ids(answer: httpx.Response, task_id: str) -> tuple[int, str]:
    """A refusal's status and body, without the ids that differ from call to call."""
    text = answer.text.replace(answer.headers["x-request-id"], "REQUEST").replace(task_id, "TASK")
    return answer.status_code, text


async def test_default_key_sees_default_project(ark: ArkControl) -> None:
    assert await ark.keys("byteplus") == [Key(key=KEY, project="default", models=None)]
    assert await ark.keys("volcengine") == [Key(key="local-ark-key-cn")]


async def test_tasks_of_another_project_are_unknown(ark: ArkControl, api: Api) -> None:
    await ark.set_key("byteplus", "films", project="films")
    ours, theirs = api, api.under("films")
    one, two, three = await ours.create(), await theirs.create(), await theirs.create()
    projects = {task["id"]: task["project"] for task in await ark.tasks()}
    assert [projects[task_id] for task_id in (one, two, three)] == ["default", "films", "films"]
    assert await seen(ours, [one, two, three]) == {one}
    assert await seen(theirs, [one, two, three]) == {two, three}
    for ask in (ours.get, ours.delete):
        hidden, unknown = await ask(two), await ask("cgt-none")
        assert refusal(hidden) == (404, "ResourceNotFound")
        assert without_ids(hidden, two) == without_ids(unknown, "cgt-none")
    assert (await theirs.get(two)).json()["status"] == "queued"  # and so it was not cancelled
    assert (await theirs.delete(two)).status_code == 204


async def test_two_keys_of_one_project_share_its_tasks(ark: ArkControl, api: Api) -> None:
    await ark.set_key("byteplus", "second")
    task_id = await api.create()
    assert (await api.under("second").get(task_id)).status_code == 200


async def test_custom_key_sees_named_models(ark: ArkControl, api: Api) -> None:
    await ark.set_key("byteplus", "narrow", models=[FAST, ENDPOINT])
    wide, narrow = api, api.under("narrow")
    preset, fast, endpoint, other = [await wide.create(model=m) for m in (MODEL, FAST, ENDPOINT, OTHER_ENDPOINT)]
    every = [preset, fast, endpoint, other]
    assert [(await narrow.get(one)).status_code for one in every] == [404, 200, 200, 404]
    assert [(await narrow.delete(one)).status_code for one in (preset, other)] == [404, 404]
    assert await seen(narrow, every, FAST) == {fast}
    assert await seen(narrow, every, ENDPOINT) == {endpoint}
    assert await seen(wide, every) == set(every)
    assert await seen(wide, every, MODEL) == {preset, endpoint, other}  # documents disagree; All takes it for the model


async def test_model_id_means_preset_endpoint(ark: ArkControl, api: Api) -> None:
    await ark.set_key("byteplus", "narrow", models=[MODEL])
    narrow = api.under("narrow")
    preset, endpoint = await api.create(model=MODEL), await api.create(model=ENDPOINT)
    assert await seen(narrow, [preset, endpoint], MODEL) == {preset}
    assert (await narrow.get(endpoint)).status_code == 404


async def test_custom_key_lists_one_named_model(ark: ArkControl, api: Api) -> None:
    await ark.set_key("byteplus", "narrow", models=[FAST, ENDPOINT])
    narrow = api.under("narrow")
    assert refusal(await narrow.page()) == (400, "MissingParameter")
    assert refusal(await narrow.page(filter_model="")) == (400, "MissingParameter")
    assert refusal(await narrow.page(filter_model=[FAST, ENDPOINT])) == (400, "InvalidParameter")
    for unnamed in (MODEL, OTHER_ENDPOINT):
        answer = await narrow.page(filter_model=unnamed)
        assert refusal(answer) == (404, "InvalidEndpointOrModel.NotFound")
        assert answer.json()["error"]["param"] == "filter.model"
    assert (await narrow.page(filter_model=FAST)).status_code == 200
    assert (await api.page()).status_code == 200  # a key with permission All needs none


async def test_create_with_unnamed_model_is_refused(ark: ArkControl, api: Api) -> None:
    await ark.set_key("byteplus", "narrow", models=[FAST, ENDPOINT])
    narrow = api.under("narrow")
    for unnamed in (MODEL, OTHER_ENDPOINT):
        assert refusal(await narrow.post(model=unnamed)) == (404, "InvalidEndpointOrModel.NotFound")
        entry = (await ark.ledger())[-1]
        assert (entry.committed, entry.answer, entry.code) == (False, 404, "InvalidEndpointOrModel.NotFound")
    for named in (FAST, ENDPOINT):
        assert (await narrow.post(model=named)).status_code == 200


async def test_key_is_narrowed_and_widened(ark: ArkControl, api: Api) -> None:
    task_id = await api.create()
    for _ in range(2):
        await ark.set_key("byteplus", KEY, models=[FAST])
        assert refusal(await api.get(task_id)) == (404, "ResourceNotFound")
        assert refusal(await api.page()) == (400, "MissingParameter")
        assert await seen(api, [task_id], FAST) == set()
        await ark.set_key("byteplus", KEY)
        assert (await api.get(task_id)).status_code == 200
        assert await seen(api, [task_id]) == {task_id}


async def test_moved_key_leaves_its_tasks(ark: ArkControl, api: Api) -> None:
    tasks: list[tuple[str, str]] = []
    for project in ("default", "films", "default", "films"):
        await ark.set_key("byteplus", KEY, project=project)
        before = {task_id for task_id, home in tasks if home == project}
        assert await seen(api, [task_id for task_id, _ in tasks] or ["cgt-none"]) == before
        for task_id, home in tasks:
            assert (await api.get(task_id)).status_code == (200 if home == project else 404)
        tasks.append((await api.create(), project))


async def test_total_counts_visible_tasks(ark: ArkControl, api: Api) -> None:
    await ark.set_key("byteplus", "crowd", project="crowd")
    await ark.set_key("byteplus", "narrow", project="crowd", models=[FAST])
    await ark.add_foreign("byteplus", project="crowd", count=5)
    fast = await ark.add_foreign("byteplus", project="crowd", count=3, fields={"model": FAST})
    await ark.add_foreign("byteplus", count=2)
    page = (await api.under("crowd").page(page_size=2)).json()
    assert (len(page["items"]), page["total"]) == (2, 8)
    page = (await api.under("narrow").page(filter_model=FAST, page_size=2, page_num=2)).json()
    assert (len(page["items"]), page["total"]) == (1, 3)
    assert (await api.get(fast[0])).status_code == 404  # the default project's key


async def test_foreign_tasks_are_of_the_default_project(ark: ArkControl, api: Api) -> None:
    await ark.set_key("byteplus", "films", project="films")
    (task_id,) = await ark.add_foreign("byteplus")
    assert [(await api.under(key).get(task_id)).status_code for key in (KEY, "films")] == [200, 404]


async def test_revoked_and_removed_keys_get_401(ark: ArkControl, api: Api) -> None:
    odd = "a key/with ?odd#parts%"
    await ark.set_key("byteplus", odd, project="films")
    clients = [api, api.under(odd)]

    async def statuses(client: Api) -> list[int]:
        calls = (client.post(), client.get("cgt-1"), client.delete("cgt-1"), client.page())
        return [(await call).status_code for call in calls]

    known, unknown = [200, 404, 404, 200], [401] * 4
    assert [await statuses(client) for client in clients] == [known, known]
    await ark.set_key_valid("byteplus", False)
    assert [await statuses(client) for client in clients] == [unknown, unknown]
    await ark.set_key_valid("byteplus", True)
    await ark.remove_key("byteplus", odd)
    assert [await statuses(client) for client in clients] == [known, unknown]
    assert [key.key for key in await ark.keys("byteplus")] == [KEY]
    with pytest.raises(httpx.HTTPStatusError, match="422"):
        await ark.remove_key("byteplus", odd)


async def test_standing_and_limits_are_per_account(ark: ArkControl, api: Api) -> None:
    await ark.set_key("byteplus", "films", project="films")
    clients = [api, api.under("films")]
    await ark.set_standing("byteplus", "AccountOverdueError")
    assert [(await client.post()).status_code for client in clients] == [403, 403]
    await ark.set_standing("byteplus", "ok")
    await ark.configure(list_per_second=0.001)
    assert sorted([(await client.page()).status_code for client in clients * 2]) == [200, 429, 429, 429]


@pytest.mark.parametrize("wrong", [{}, {"key": ""}, {"key": "x", "models": "all"}, {"key": "x", "modells": []}])
async def test_invalid_key_changes_nothing(ark: ArkControl, wrong: dict[str, Any]) -> None:
    before = await ark.keys("byteplus")
    async with httpx.AsyncClient(base_url=ark.url, trust_env=False) as http:
        answer = await http.post("/_ark/accounts/byteplus/keys", json=wrong)
        assert (await http.post("/_ark/accounts/nowhere/keys", json={"key": "x"})).status_code == 404
    assert (answer.status_code, await ark.keys("byteplus")) == (422, before)


PROJECTS = ("default", "films")
GIVEN = (MODEL, FAST, ENDPOINT, OTHER_ENDPOINT)
HOLDERS = st.builds(
    Key,
    key=st.just("drawn"),
    project=st.sampled_from(PROJECTS),
    models=st.none() | st.frozensets(st.sampled_from(GIVEN)),
)


@pytest.fixture(scope="module")
async def everywhere(server: ArkControl) -> dict[str, tuple[str, str]]:
    """A task of each project and each model or endpoint: its id, and both."""
    tasks = {}
    for project in PROJECTS:
        for model in GIVEN:
            (task_id,) = await server.add_foreign("byteplus", project=project, fields={"model": model})
            tasks[task_id] = (project, model)
    return tasks


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(holders=st.lists(HOLDERS, min_size=1, max_size=4))
async def test_get_and_list_show_the_same_tasks(
    ark: ArkControl, everywhere: dict[str, tuple[str, str]], holders: list[Key]
) -> None:
    """However one key is changed in place, it sees the tasks of its project and models: in GET, and in LIST."""
    async with an_api(ark, key="drawn") as client:
        for holder in holders:
            await ark.set_key("byteplus", holder.key, project=holder.project, models=holder.models)
            mine = {
                task_id: model
                for task_id, (project, model) in everywhere.items()
                if project == holder.project and (holder.models is None or model in holder.models)
            }
            assert {task_id for task_id in everywhere if (await client.get(task_id)).status_code == 200} == set(mine)
            if holder.models is None:
                assert await seen(client, list(everywhere)) == set(mine)
            for model in holder.models or ():
                of_model = {task_id for task_id, given in mine.items() if given == model}
                assert await seen(client, list(everywhere), model) == of_model
