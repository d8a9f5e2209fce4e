"""The final of a draft: made of a draft that the provider still has, and refused before any claim otherwise."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dev.ark.control import ArkControl
from seedance_temporal.identity import job_id_of
from seedance_temporal.provider.model_rows import ModelRow
from seedance_temporal.provider.prices import Cost
from seedance_temporal.provider.task import parse_task
from seedance_temporal.request import VideoRequest
from tests.support.jobs import a_record, a_request, names, present
from tests.support.world import World

NEXT = "dreamina-seedance-2-5-260628"
QUICK = {"queued_seconds": 0, "running_seconds": 0}


@pytest.fixture
async def world(ark: ArkControl) -> World:
    await ark.configure(**QUICK)
    return await World.at(ark)


def a_draft(**fields: Any) -> VideoRequest:
    return a_request(model=NEXT, draft=True, **fields)


def a_final(draft_of: str, **fields: Any) -> VideoRequest:
    return VideoRequest(user_id="user-42", route="byteplus", model=NEXT, draft_of=draft_of, **fields)


async def made(world: World, request: VideoRequest, *, until: str = "succeeded") -> str:
    """Create a request's task, and return its id as soon as it has a status."""
    world.request = request
    result = await world.create()
    world.task_id = present(present(result.outcome).task_id)
    await world.until(until)
    return world.task_id


async def test_final_of_a_task(world: World) -> None:
    draft = await made(world, a_draft(ratio="9:16", duration=6, generate_audio=True))
    final = await made(world, a_final(draft, return_last_frame=True))
    post = (await world.posts())[-1]
    assert post.body.keys() == {
        *("model", "content", "resolution", "watermark", "return_last_frame", "safety_identifier")
    }
    assert post.body["content"] == [{"type": "draft_task", "draft_task": {"id": draft}}]
    payload = present(await world.client.get(final))
    shown = {name: payload[name] for name in ("resolution", "ratio", "duration", "generate_audio", "draft")}
    assert shown == {"resolution": "1080p", "ratio": "9:16", "duration": 6, "generate_audio": True, "draft": False}


async def test_final_of_a_job(world: World) -> None:
    draft = a_draft()
    task_id = await made(world, draft)
    await world.bucket.create(names(draft).record, a_record(task_id))
    await made(world, a_final(job_id_of(draft)))
    assert (await world.posts())[-1].body["content"][0]["draft_task"] == {"id": task_id}


async def refused(world: World, final: VideoRequest) -> str:
    """Return why nothing was sent for a final."""
    before = len(await world.posts())
    world.request = final
    result = await world.create()
    assert (result.kind, result.claim, len(await world.posts())) == ("impossible", None, before)
    assert await world.facts() == []
    error = present(result.error)
    assert (error.code, error.failure_class, error.attempt) == ("no_draft", "invalid", None)
    return error.message


async def test_final_without_a_draft_is_refused(world: World) -> None:
    unmade = a_draft()
    assert "has no video. Submit its final once it is stored" in await refused(world, a_final(job_id_of(unmade)))
    assert "does not know the draft cgt-nothing" in await refused(world, a_final("cgt-nothing"))
    plain = await made(world, a_request(model=NEXT))
    assert f"The task {plain} is no draft" in await refused(world, a_final(plain))
    await world.ark.fault("task", "fail")
    failed = await made(world, a_draft(), until="failed")
    assert f"The draft {failed} has no video: it is failed" in await refused(world, a_final(failed))


async def test_final_of_another_models_draft_is_refused(world: World) -> None:
    draft = await made(world, a_draft())
    await world.ark.configure(models={"dreamina-next": {"like": NEXT}})
    other = await World.at(world.ark, seedance_models={"dreamina-next": ModelRow(like=NEXT)})
    final = a_final(draft).model_copy(update={"model": "dreamina-next"})
    assert f"was made by {NEXT}, and a final has the model of its draft" in await refused(other, final)


@pytest.mark.parametrize("names_task", [True, False])
async def test_final_of_another_users_draft_is_refused(world: World, names_task: bool) -> None:
    draft = a_draft()
    task_id = await made(world, draft)
    final = a_final(task_id if names_task else job_id_of(draft)).model_copy(update={"user_id": "mallory"})
    assert "is another user's. Submit its final with the user_id of the draft" in await refused(world, final)


async def test_old_draft_is_refused(world: World) -> None:
    fields = {"model": NEXT, "draft": True, "resolution": "480p"}
    for age, reason in ((7 * 86_400 - 60, "over 7 days old"), (7 * 86_400 + 60, "does not know the draft")):
        (old,) = await world.ark.add_foreign("byteplus", status="succeeded", age_seconds=age, fields=fields)
        assert reason in await refused(world, a_final(old))


async def test_provider_away_sends_nothing(world: World) -> None:
    draft = await made(world, a_draft())
    await world.ark.fault("get", "503", times=None)
    world.request = a_final(draft)
    before = len(await world.posts())
    result = await world.create()
    assert (result.kind, present(result.outcome).code) == ("not_sent", "draft_unknown")
    assert (await world.facts(), len(await world.posts())) == ([], before)
    assert result.wait_seconds > 0


async def test_refused_key_at_draft_needs_operator(world: World) -> None:
    draft = await made(world, a_draft())
    await world.ark.fault("get", "401", times=None)
    world.request = a_final(draft)
    result = await world.create()
    assert (present(result.outcome).code, result.attention) == ("draft_unknown", "credentials")


async def test_final_counts_once(world: World) -> None:
    """Two submissions at once: the ledger lets one of them pay."""
    draft = await made(world, a_draft())
    world.request = a_final(draft)
    before = len(await world.posts())
    results = await asyncio.gather(world.create(), world.create())
    assert sorted(result.kind for result in results) == ["conflict", "created"]
    assert len(await world.posts()) == before + 1


@pytest.mark.parametrize(("references", "per_million"), [((), 11.7), (({"role": "reference_video"},), 7.0)])
async def test_final_is_priced_by_its_drafts_references(
    world: World, references: tuple[dict[str, str], ...], per_million: float
) -> None:
    """Its request does not show them; the provider bills the seconds of a reference video again."""
    shown = [reference | {"url": "asset://v-1"} for reference in references]
    final = a_final(await made(world, a_draft(duration=30, references=shown)))
    task = parse_task(present(await world.client.get(await made(world, final))))
    tokens = present(present(task.usage).total_tokens)
    estimate = world.settings.rules.estimate(final)
    assert present(estimate.least_tokens) <= tokens <= present(estimate.tokens)
    usd = present(world.settings.rules.cost_of(final, task).usd)
    assert usd == pytest.approx(tokens * per_million / 1e6, abs=1e-5)
    assert present(estimate.least_usd) <= usd <= present(estimate.usd)
    unknown = task.model_copy(update={"duration": None})
    assert world.settings.rules.cost_of(final, unknown) == Cost(), "nothing tells which price it has"
