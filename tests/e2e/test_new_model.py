"""A model that only settings know, through the whole stack; a draft and its final; a job that is billed in CNY."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dev.stack import Stack
from tests.e2e.command import Ran, starter
from tests.e2e.requests import a_request, creates_of

NEW = "dreamina-seedance-3-0-270101"
LIKE = "dreamina-seedance-2-5-260628"
ROW = {"like": LIKE, "name": "Seedance 3.0", "longest": 60, "prices": {"480p": [20, 10], "1080p": [30, 15]}}
SETTINGS = {"SEEDANCE_MODELS": json.dumps({NEW: ROW}), "SEEDANCE_MAX_USD_PER_REQUEST": "100"}


@pytest.fixture
async def grown(stack: Stack) -> AsyncIterator[Stack]:
    """A worker that knows the new model, in place of the one without it; the local Ark makes it by its own option."""
    await stack.children["worker"].stop()
    await stack.ark.configure(models={NEW: {"like": LIKE, "longest": 60}})
    await stack.start_worker("worker-new-model", **SETTINGS)
    yield stack
    await stack.children["worker-new-model"].stop()
    await stack.ark.configure(models={})
    await stack.start_worker()


async def run(stack: Stack, *words: str, request: dict[str, Any] | None = None) -> Ran:
    return await starter(stack, *words, stdin=json.dumps(request) if request is not None else "", **SETTINGS)


def fields(**changes: Any) -> dict[str, Any]:
    request = a_request(model=NEW, user_id="user-of-new", **changes)
    return request.model_dump(mode="json", exclude_none=True)


@pytest.mark.faults
async def test_new_model_needs_settings_alone(grown: Stack) -> None:
    known = {model["id"]: model for model in (await run(grown, "models")).answer}
    assert (known[NEW]["name"], known[NEW]["from_settings"], known[LIKE]["from_settings"]) == (
        "Seedance 3.0",
        True,
        False,
    )
    without = await starter(grown, "submit", "-", stdin=json.dumps(fields()))
    assert (without.code, without.answer["error"]["problems"][0]["at"]) == (2, "model")

    draft = await run(grown, "submit", "-", "--wait", request=fields(draft=True, duration=4))
    assert (draft.code, draft.answer["phase"]) == (0, "stored")
    result = draft.answer["result"]
    tokens = result["usage"]["total_tokens"]
    assert result["cost_usd"] == pytest.approx(tokens * 20 / 1e6)
    assert draft.answer["estimated_usd"] >= result["cost_usd"]

    too_dear = fields(duration=60, resolution="1080p", ratio="21:9") | {"take": 2}
    limited = {**SETTINGS, "SEEDANCE_MAX_USD_PER_REQUEST": "1"}
    refused = await starter(grown, "submit", "-", stdin=json.dumps(too_dear), **limited)
    assert (refused.code, "can cost up to" in str(refused.answer)) == (2, True), refused.answer

    final = {"user_id": "user-of-new", "route": "byteplus", "model": NEW, "draft_of": draft.answer["job_id"]}
    made = await run(grown, "submit", "-", "--wait", request=final)
    assert (made.code, made.answer["result"]["resolution"], made.answer["result"]["duration"]) == (0, "1080p", 4)
    again = await run(grown, "submit", "-", "--wait", request=final)
    assert (again.code, again.answer["existing"], again.answer["job_id"]) == (0, True, made.answer["job_id"])

    total = (await run(grown, "report", "--model", NEW, "--user", "user-of-new")).answer["total"]
    spent = [job["result"]["cost_usd"] for job in (draft.answer, made.answer)]
    assert (total["jobs"], total["cost_usd"]) == (2, pytest.approx(sum(spent)))


async def test_final_of_an_unmade_draft_spends_nothing(grown: Stack) -> None:
    draft_of = "seedance-" + "0" * 64
    final = {"user_id": "user-without-draft", "route": "byteplus", "model": NEW, "draft_of": draft_of}
    ended = await run(grown, "submit", "-", "--wait", request=final)
    assert (ended.code, ended.answer["error"]["code"]) == (3, "no_draft")
    assert "Nothing was sent" in ended.answer["error"]["message"]


async def test_volcengine_is_billed_in_cny(stack: Stack) -> None:
    request = a_request("volcengine", user_id="user-of-cny")
    done = await starter(stack, "submit", "-", "--wait", stdin=request.model_dump_json())
    assert done.code == 0, done.messages
    assert "CNY" in done.messages
    tokens = done.answer["result"]["usage"]["total_tokens"]
    cny = pytest.approx(tokens * 23 / 1e6)
    assert (done.answer["cost_cny"], done.answer["result"]["cost_cny"], done.answer["cost_usd"]) == (cny, cny, None)
    (create,) = await creates_of(stack, request)
    assert create.billed_tokens == tokens
    for rate, total_usd in (
        ({}, None),
        ({"SEEDANCE_CNY_PER_USD": "7.1"}, pytest.approx(tokens * 23 / 1e6 / 7.1, abs=1e-6)),
    ):
        report = await starter(stack, "report", "--user", "user-of-cny", **rate)
        total = report.answer["total"]
        assert (total["cost_cny"], total["cost_usd"], total["total_usd"]) == (cny, 0, total_usd)
    from_bucket = await starter(stack, "report", "--user", "user-of-cny", "--from-bucket")
    assert from_bucket.answer["total"]["cost_cny"] == cny
    no_rate = {"SEEDANCE_MAX_USD_PER_REQUEST": "5"}
    refused = await starter(stack, "check", "-", stdin=a_request("volcengine").model_dump_json(), **no_rate)
    assert (refused.code, "SEEDANCE_CNY_PER_USD" in str(refused.answer)) == (2, True), refused.answer
