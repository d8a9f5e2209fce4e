"""The provider's own SDK works with the local Ark: so the local Ark speaks the API, and not only our idea of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import volcenginesdkarkruntime._exceptions as errors

from dev.ark.catalog import Route
from dev.ark.control import ArkControl
from tests.sdk.official import MODELS, a_prompt, an_input, posts, sdk, text


async def until(tasks: Any, task_id: str, status: str) -> Any:
    async with asyncio.timeout(10):
        while (task := await tasks.get(task_id=task_id)).status != status:
            await asyncio.sleep(0.02)
    return task


@pytest.mark.parametrize("route", ["byteplus", "volcengine"])
async def test_video_from_create_to_delete(ark: ArkControl, route: Route) -> None:
    fields = an_input(
        route, resolution="480p", ratio="9:16", duration=4, return_last_frame=True, safety_identifier="me"
    )
    async with sdk(ark, route) as tasks:
        created = await tasks.create(**fields)
        task = await until(tasks, created.id, "succeeded")
        assert (task.id, task.model, task.error) == (created.id, MODELS[route], None)
        assert (task.resolution, task.ratio, task.duration, task.framespersecond) == ("480p", "9:16", 4, 24)
        assert (task.safety_identifier, task.service_tier, task.draft, task.priority) == ("me", "default", False, 0)
        assert task.content.video_url.startswith(f"{ark.url}/results/{created.id}/video.mp4")
        assert task.content.last_frame_url.startswith(f"{ark.url}/results/{created.id}/last_frame")
        assert task.usage.total_tokens == task.usage.completion_tokens == 496 * 864 * 97 // 1024
        assert task.updated_at >= task.created_at

        page = await tasks.list(page_num=1, page_size=500, task_ids=[created.id], status="succeeded")
        assert (page.total, [item.id for item in page.items]) == (1, [created.id])
        assert (await tasks.list(page_size=1, task_ids=created.id, status="running")).total == 0

        await tasks.delete(created.id)
        with pytest.raises(errors.ArkNotFoundError):
            await tasks.get(task_id=created.id)


async def test_failed_task_says_why(ark: ArkControl) -> None:
    await ark.fault("task", "fail", code="OutputVideoSensitiveContentDetected", message="No.")
    async with sdk(ark) as tasks:
        task = await until(tasks, (await tasks.create(**an_input())).id, "failed")
    assert (task.error.code, task.error.message) == ("OutputVideoSensitiveContentDetected", "No.")
    assert (task.content, task.usage) == (None, None)


async def test_queued_task_is_cancelled(ark: ArkControl) -> None:
    await ark.fault("task", "stay_queued")
    async with sdk(ark) as tasks:
        created = await tasks.create(**an_input())
        await tasks.delete(created.id)
        assert (await tasks.get(task_id=created.id)).status == "cancelled"


@pytest.mark.parametrize(
    ("fields", "kind", "status", "code", "param"),
    [
        ({"duration": 99}, errors.ArkBadRequestError, 400, "InvalidParameter", "duration"),
        ({"content": []}, errors.ArkBadRequestError, 400, "InvalidParameter", "content"),
        ({"seed": 1}, errors.ArkBadRequestError, 400, "InvalidParameter", "seed"),
        ({"model": MODELS["volcengine"]}, errors.ArkNotFoundError, 404, "InvalidEndpointOrModel.NotFound", "model"),
    ],
)
async def test_rule_refuses_create(
    ark: ArkControl, fields: dict[str, Any], kind: type[errors.ArkAPIStatusError], status: int, code: str, param: str
) -> None:
    async with sdk(ark) as tasks:
        with pytest.raises(kind) as caught:
            await tasks.create(**an_input() | fields)
    error = caught.value
    assert (error.status_code, error.code, error.param) == (status, code, param)
    assert error.response.headers["X-Request-Id"] in error.body["message"]


@pytest.mark.parametrize(
    ("fault", "code", "kind"),
    [
        ("400", "InputImageSensitiveContentDetected.PrivacyInformation", errors.ArkBadRequestError),
        ("401", "InvalidAccountStatus", errors.ArkAuthenticationError),
        ("403", "AccountOverdueError", errors.ArkPermissionDeniedError),
        ("404", "ModelNotOpen", errors.ArkNotFoundError),
        ("429", "ModelAccountRpmRateLimitExceeded", errors.ArkRateLimitError),
        ("429", "SetLimitExceeded", errors.ArkRateLimitError),
        ("500", "InternalServiceError", errors.ArkInternalServerError),
        ("502", None, errors.ArkInternalServerError),
    ],
)
async def test_refusal_by_status(
    ark: ArkControl, fault: str, code: str | None, kind: type[errors.ArkAPIStatusError]
) -> None:
    prompt = a_prompt()
    await ark.fault("create", fault, code=code)
    async with sdk(ark, max_retries=0) as tasks:
        with pytest.raises(kind) as caught:
            await tasks.create(**an_input(content=[text(prompt)]))
    assert (caught.value.status_code, caught.value.code) == (int(fault), code)
    (entry,) = await posts(ark, prompt)
    assert not entry.committed
    # What the SDK calls the request id is the one that it drew, and that the provider only echoes.
    assert caught.value.request_id == entry.client_request_id


async def test_foreign_key_is_refused(ark: ArkControl) -> None:
    async with sdk(ark, key="local-ark-key-cn") as tasks:
        calls = [tasks.create(**an_input()), tasks.get(task_id="cgt-1"), tasks.list(), tasks.delete("cgt-1")]
        for call in calls:
            with pytest.raises(errors.ArkAuthenticationError) as caught:
                await call
            assert caught.value.code == "AuthenticationError"


async def test_running_task_cannot_be_cancelled(ark: ArkControl) -> None:
    await ark.fault("task", "stay_running")
    async with sdk(ark, max_retries=0) as tasks:
        created = await tasks.create(**an_input())
        await until(tasks, created.id, "running")
        with pytest.raises(errors.ArkConflictError) as caught:
            await tasks.delete(created.id)
    assert caught.value.code == "InvalidAction.RunningTaskDeletion"
    await ark.release(created.id)
