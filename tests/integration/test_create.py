"""The paid create against the local Ark: claim first, one POST, and a result that loses nothing."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from pydantic import SecretStr

import activities.create
import activities.deadline
from activities.limits import LimitActivities
from dev.ark.control import ArkControl
from seedance_temporal.identity import callback_token, job_id_of
from seedance_temporal.ledger.facts import Outcome
from seedance_temporal.provider.ark import Ark
from seedance_temporal.provider.model_rows import ModelRow
from seedance_temporal.provider.rules import Rules
from seedance_temporal.request import VideoRequest
from seedance_temporal.storage.signing import CannotSign
from tests.support.jobs import KEY, SECRET, a_request, absent, accepted, created, not_sent, present, refused
from tests.support.memory_bucket import LosingAnswers
from tests.support.world import NOWHERE, World

QUICK: dict[str, Any] = {"seedance_create_timeout_seconds": 2.5}  # for a create that runs out of time


async def fail() -> None:
    raise ConnectionError("no bucket")


@pytest.fixture
async def world(ark: ArkControl) -> World:
    return await World.at(ark)


# --- the outcome -----------------------------------------------------------------------------------------------------


async def test_created_task_is_returned(world: World) -> None:
    result = await world.create()

    (post,) = await world.posts()
    assert (result.kind, result.written, result.attention) == ("created", True, None)
    assert present(result.outcome).task_id == post.task_id
    assert await world.facts() == ["0001.claim.json", "0001.outcome.json"]
    assert (await world.fact("outcome")).items() >= {"kind": "created", "task_id": post.task_id}.items()
    assert result.claim is not None
    assert post.body["safety_identifier"] == result.claim.safety_identifier
    assert result.wait_seconds > 0
    (attempt,) = (await world.ledger.read(world.job_id)).attempts
    assert attempt.claim == result.claim
    assert (result.claim.namespace, result.claim.run_id) == ("default", "run-1")


@pytest.mark.parametrize(
    ("fault", "code", "failure_class"),
    [("400", "InputTextSensitiveContentDetected", "moderation"), ("404", "ModelNotOpen", "invalid")],
)
async def test_refused_request_is_settled(world: World, fault: str, code: str, failure_class: str) -> None:
    await world.ark.fault("create", fault, code=code)
    result = await world.create()
    outcome = await world.fact("outcome")
    assert (result.kind, result.written, len(await world.posts())) == ("refused", True, 1)
    assert (outcome["kind"], outcome["code"], outcome["failure_class"]) == ("refused", code, failure_class)
    # For audits: its writer, and the objects before it.
    assert present(result.claim).estimated_tokens
    assert outcome["run_id"] == "run-1"
    assert [one["name"] for one in outcome["ledger"]] == [world.names.attempt(1, "claim")]


@pytest.mark.parametrize(
    "fault",
    ["lost_after_commit", "reset_before_commit", "500", "500_after_commit", "502", "504_after_commit"],
)
async def test_unknown_outcome_is_sent_once(world: World, fault: str) -> None:
    fault_id = await world.ark.fault("create", fault, times=None)
    result = await world.create()
    assert (result.kind, result.outcome) == ("unknown", None)
    assert result.claim is not None
    assert len(await world.ark.fired(fault_id)) == 1
    assert len(await world.posts()) == 1
    assert await world.facts() == ["0001.claim.json"]
    assert (await world.decision()).next == "recover"


async def test_no_answer_in_time_is_unknown(ark: ArkControl) -> None:
    world = await World.at(ark, **QUICK)
    fault_id = await ark.fault("create", "hang_after_commit")
    result = await world.create()
    assert (result.kind, result.message.split(":")[0]) == ("unknown", "timed_out")
    assert len(await ark.fired(fault_id)) == 1
    assert len(await world.posts()) == 1
    assert await world.facts() == ["0001.claim.json"]


@pytest.mark.parametrize("fault", ["cut_body", "cut_json", "no_id"])
async def test_unreadable_task_id_is_accepted_without_id(world: World, fault: str) -> None:
    await world.ark.fault("create", fault)
    result = await world.create()
    assert (result.kind, result.written, len(await world.posts())) == ("unknown", True, 1)
    assert await world.facts() == ["0001.claim.json", "0001.taken.json"]


async def test_accepted_without_id_is_returned_when_bucket_fails(world: World) -> None:
    world.memory.before["taken"] = fail
    await world.ark.fault("create", "no_id")
    result = await world.create()
    assert (result.kind, result.written) == ("unknown", False)
    assert result.claim is not None
    assert result.outcome is not None
    assert result.outcome.kind == "accepted_without_id"
    # The workflow writes it.
    world.memory.before.clear()
    await world.write_outcome(result.claim, result.outcome)
    assert (await world.read_attempt()).accepted_without_id


async def test_second_temporal_attempt_sends_nothing(world: World) -> None:
    result = await world.create(temporal_attempt=2)
    assert (result.kind, result.claim) == ("unknown", None)
    assert (world.memory.writes, await world.posts()) == ([], [])


async def test_ended_model_is_not_claimed(ark: ArkControl) -> None:
    """It had not ended when the request was submitted."""
    rows = {"dreamina-seedance-2-0-260128": ModelRow(ends=date(2026, 1, 1), successor="another-model")}
    world = await World.at(ark, seedance_models=rows)
    result = await world.create()
    assert (result.kind, await world.facts(), await world.posts()) == ("impossible", [], [])
    assert "ended on 2026-01-01; use another-model" in present(result.error).message


@pytest.mark.parametrize(
    "limit", [{"usd_per_request": 0.01}, {"usd_per_user_day": 0.01}, {"jobs_per_user_day": 1}], ids=repr
)
async def test_limit_that_was_set_since_holds(ark: ArkControl, limit: dict[str, Any]) -> None:
    """A job can have waited for its create for weeks, and its run began when there was no limit."""
    world = await World.at(ark, **{f"seedance_max_{name}": most for name, most in limit.items()})
    if "jobs_per_user_day" in limit:
        other = a_request(prompt="another one")
        await LimitActivities(world.ledger, world.bucket, world.settings).reserve(job_id_of(other), other)
    result = await world.create()
    assert (result.kind, present(result.error).code) == ("impossible", "over_limit")
    assert (await world.facts(), await world.posts()) == ([], [])


async def test_budget_that_was_set_since_holds(ark: ArkControl) -> None:
    """By setting, the job waits for it, and that is no failure."""
    price = Rules().estimate(a_request()).usd
    world = await World.at(ark, seedance_max_usd_per_day=price)
    other = a_request(prompt="another one")
    await LimitActivities(world.ledger, world.bucket, world.settings).reserve(job_id_of(other), other)
    result = await world.create()
    assert (result.kind, present(result.error).code) == ("impossible", "over_budget")
    world.settings = world.settings.model_copy(update={"seedance_over_budget": "wait"})
    result = await world.create()
    assert (result.kind, result.over_budget, result.claim, result.error) == ("not_sent", True, None, None)
    assert (await world.facts(), await world.posts()) == ([], [])


async def test_claim_names_its_entry(ark: ArkControl) -> None:
    world = await World.at(ark, seedance_max_usd_per_day=9.0)
    await world.create()
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    assert (await world.fact("claim"))["reserved"] == f"{day}/000001"


async def test_refused_create_takes_nothing_of_budget(ark: ArkControl) -> None:
    world = await World.at(ark, seedance_max_usd_per_day=9.0)
    await ark.fault("create", "400", code="InputTextSensitiveContentDetected", contains=world.request.prompt)
    assert (await world.create()).kind == "refused"
    (cost,) = [stored for stored in await world.bucket.list("seedance/limits/") if "/actual/" in stored.name]
    assert cost.kind == "0"


async def test_unread_limits_send_nothing(ark: ArkControl) -> None:
    world = await World.at(ark, seedance_max_jobs_per_user_day=5)
    world.memory.broken = ConnectionError("down")
    result = await world.create()
    assert (result.kind, present(result.outcome).code) == ("not_sent", "limits_unknown")
    assert await world.posts() == []


async def test_invalid_request_is_not_claimed(ark: ArkControl) -> None:
    world = await World.at(ark, a_request(duration=99, resolution="8k"))
    result = await world.create()
    assert result.kind == "impossible"
    assert result.error is not None
    assert (result.error.code, result.error.failure_class, result.error.attempt) == ("invalid_request", "invalid", None)
    assert "duration" in result.error.message
    assert "resolution" in result.error.message
    assert (world.memory.writes, await world.posts()) == ([], [])


# --- the claim comes first -------------------------------------------------------------------------------------------


async def test_claim_precedes_post(world: World) -> None:
    posts_at_the_claim = []

    async def count_posts() -> None:
        posts_at_the_claim.append(len(await world.posts()))

    world.memory.before["claim"] = world.memory.after["claim"] = count_posts
    result = await world.create()
    assert (result.kind, posts_at_the_claim) == ("created", [0, 0])
    claim = world.memory.writes[0]
    assert claim.endswith("0001.claim.json")
    (post,) = await world.posts()
    assert world.memory.stored[claim].created_at.timestamp() <= post.time


async def test_no_claim_sends_nothing(world: World) -> None:
    world.memory.before["claim"] = fail
    result = await world.create()
    assert (result.kind, result.written, result.attention) == ("not_sent", False, None)
    assert result.message.startswith("bucket_unreachable")
    assert result.claim is not None
    assert result.outcome is not None
    assert (await world.facts(), await world.posts()) == ([], [])


async def test_claim_that_landed_with_error_is_settled(world: World) -> None:
    world.memory.after["claim"] = fail
    result = await world.create()
    assert (result.kind, result.written, await world.posts()) == ("not_sent", False, [])
    assert (await world.decision()).next == "recover"
    # The workflow settles it with the result, so that no recovery starts.
    world.memory.after.clear()
    await world.write_outcome(result.claim, result.outcome)
    decision = await world.decision()
    assert (decision.next, decision.attempt) == ("claim", 2)


async def test_unreadable_ledger_after_claim_sends_nothing(world: World) -> None:
    async def away() -> None:
        world.memory.broken = ConnectionError("no bucket")

    world.memory.after["claim"] = away
    result = await world.create()
    assert (result.kind, result.written, await world.posts()) == ("not_sent", False, [])


async def test_task_that_cannot_be_asked_for_holds_back_create(world: World) -> None:
    result = await world.create(doubt="Task cgt-1 could not be checked: 503")
    assert (result.kind, result.written, result.wait_seconds > 0) == ("not_sent", True, True)
    assert "Task cgt-1 could not be checked" in result.message
    assert (await world.memory.list(""), await world.posts()) == ([], [])


async def test_foreign_claim_is_conflict(world: World) -> None:
    await world.claim()
    result = await world.create()
    assert (result.kind, result.claim, result.outcome) == ("conflict", None, None)
    assert (await world.facts(), await world.posts()) == (["0001.claim.json"], [])


async def test_claim_that_met_itself_is_ours(world: World) -> None:
    """The library repeats a write whose answer was lost, and gets 412 on its own object."""
    world.bucket = LosingAnswers()
    result = await world.create()
    assert (result.kind, result.written, len(await world.posts())) == ("created", True, 1)
    assert await world.facts() == ["0001.claim.json", "0001.outcome.json"]


async def test_concurrent_executions_send_once(world: World) -> None:
    reports = await asyncio.gather(*(world.create() for _ in range(5)))
    assert sorted(result.kind for result in reports) == ["conflict"] * 4 + ["created"]
    assert len(await world.posts()) == 1
    assert len({result.claim.nonce for result in reports if result.claim}) == 1


# --- a stale decision ------------------------------------------------------------------------------------------------


BEFORE: dict[str, tuple[Outcome, ...]] = {
    "created": (created("cgt-1"),),
    "unknown": (),
    "refused": (refused(),),
    "accepted": (absent(), accepted()),
    "late": (not_sent(), created("cgt-1")),
}


@pytest.mark.parametrize("before", [*BEFORE, "stored"])
async def test_changed_ledger_sends_nothing(world: World, before: str) -> None:
    if before == "stored":
        await world.write_record()
    else:
        await world.claim(1, *BEFORE[before])
    result = await world.create(attempt=2)
    assert (result.kind, result.written, result.wait_seconds) == ("not_sent", True, 0)
    assert result.message.startswith("ledger_changed")
    assert ((await world.fact("outcome", 2))["kind"], await world.posts()) == ("not_sent", [])


async def test_past_attempt_sends_nothing(world: World) -> None:
    """Its own claim is gone, as after a lifecycle rule; the later attempts still exist."""
    await world.claim(2, not_sent())
    result = await world.create(attempt=1)
    assert (result.kind, await world.posts()) == ("not_sent", [])


async def test_facts_written_after_claim_count(world: World) -> None:
    """Another run claims the attempt just before our claim."""

    async def another_run() -> None:
        world.memory.after.clear()
        await world.claim()

    world.memory.after["claim"] = another_run
    assert ((await world.create(attempt=2)).kind, await world.posts()) == ("not_sent", [])


async def test_granted_resubmit_is_sent(world: World) -> None:
    await world.claim(1, refused())
    await world.grant()
    assert (await world.create(attempt=2)).kind == "created"
    assert len(await world.posts()) == 1


# --- an outcome that cannot be written -------------------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "kind"), [(None, "created"), ("400", "refused"), ("401", "not_sent")])
async def test_unwritten_outcome_is_returned(world: World, fault: str | None, kind: str) -> None:
    world.memory.before["outcome"] = fail
    if fault is not None:
        await world.ark.fault("create", fault)
    result = await world.create()
    assert (result.kind, result.written) == (kind, False)
    assert result.claim is not None
    assert result.outcome is not None
    assert result.outcome.kind == kind
    assert result.outcome.task_id == (await world.posts())[0].task_id


async def test_hanging_outcome_does_not_delay_result(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activities.create, "_OUTCOME_SECONDS", 0.2)
    world.memory.before["outcome"] = partial(asyncio.sleep, 60)
    result = await world.create()
    assert (result.kind, result.written) == ("created", False)


# --- not sent --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "fields", "attention"),
    [
        ("401", {}, "credentials"),
        ("403", {}, "account"),
        ("429", {"code": "SetLimitExceeded"}, "account"),
        ("429", {"code": "QuotaExceeded", "message": "The free trial is used up."}, "account"),
    ],
)
async def test_account_refusal_is_not_retried_at_once(
    world: World, fault: str, fields: dict[str, Any], attention: str
) -> None:
    await world.ark.fault("create", fault, **fields)
    result = await world.create()
    assert (result.kind, result.attention, result.written) == ("not_sent", attention, True)
    assert result.for_all
    assert (len(await world.posts()), (await world.fact("outcome"))["kind"]) == (1, "not_sent")
    assert result.wait_seconds >= 30


async def test_quota_is_waited_for(world: World) -> None:
    renewed = datetime.now(UTC) + timedelta(hours=5)
    message = f"You have exceeded the 5-hour usage quota. It will reset at {renewed:%Y-%m-%d %H:%M:%S} +0000 UTC."
    await world.ark.fault("create", "429", code="AccountQuotaExceeded", message=message)
    result = await world.create()
    assert (result.kind, result.attention) == ("not_sent", "account")
    assert 5 * 3600 - 60 <= result.wait_seconds <= 5 * 3600 + 60, "jitter is small beside it"
    assert result.for_all
    assert abs(present(result.reset_at) - renewed) < timedelta(seconds=60)
    assert "It will reset at" in result.message
    assert result.message.endswith(f"retry {world.job_id} ends the wait")


@pytest.mark.parametrize(("refusals", "for_all"), [(0, False), (1, False), (2, True), (3, True)])
async def test_third_429_in_a_row_concerns_all(world: World, refusals: int, for_all: bool) -> None:
    await world.ark.fault("create", "429", times=None, retry_after=0)
    result = await world.create(refusals=refusals)
    assert (result.kind, result.attention, result.for_all) == ("not_sent", None, for_all)


async def test_other_failure_in_a_row_concerns_nobody_else(world: World) -> None:
    await world.ark.fault("create", "403", code="AccessDenied")
    result = await world.create(refusals=5)
    assert (result.kind, result.attention, result.for_all) == ("not_sent", "account", False)


@pytest.mark.parametrize("message", ["Resource download failed: content[1].", "Timeout while fetching resource."])
async def test_failed_download_is_tried_again(world: World, message: str) -> None:
    await world.ark.fault("create", "400", times=None, code="InvalidParameter", message=message)
    for passing, wait in ((0, 120), (1, 300)):
        result = await world.create(passing + 1, passing=passing)
        assert (result.kind, result.passing) == ("not_sent", True)
        assert wait <= result.wait_seconds <= wait * 1.2
        assert (await world.fact("outcome", passing + 1))["kind"] == "not_sent"
    result = await world.create(3, passing=2)
    assert (result.kind, result.passing) == ("refused", False)
    decision = await world.decision()
    assert decision.next == "ended"
    error = present(decision.error)
    assert error.resubmit_could_help
    assert "a resubmit of attempt 3 is free" in error.message
    assert len(await world.posts()) == 3


@pytest.mark.parametrize("code", ["RateLimitExceeded", "ServerOverloaded"])
async def test_refusal_is_sent_once(world: World, code: str) -> None:
    """A re-send here would go round the rate of the queue: it counts at the provider, and the next create does, too."""
    await world.ark.fault("create", "429", times=None, code=code, retry_after=0)
    result = await world.create()
    assert (result.kind, result.attention, len(await world.posts())) == ("not_sent", None, 1)
    assert (await world.fact("outcome"))["code"] == code
    assert result.wait_seconds >= 2


async def test_unknown_answer_follows_refusal(world: World) -> None:
    await world.ark.fault("create", "429", retry_after=0)
    await world.ark.fault("create", "lost_after_commit")
    assert [(await world.create(attempt)).kind for attempt in (1, 2)] == ["not_sent", "unknown"]
    assert [post.answer for post in await world.posts()] == [429, "lost"]


async def test_long_pause_is_left_to_workflow(world: World) -> None:
    await world.ark.fault("create", "429", times=None, retry_after=120)
    result = await world.create()
    assert (result.kind, len(await world.posts())) == ("not_sent", 1)
    assert 120 <= result.wait_seconds <= 144


@pytest.mark.parametrize(("refusals", "least"), [(0, 2), (1, 4), (5, 64), (50, 900)])
async def test_wait_grows_with_each_unsent_create(world: World, refusals: int, least: float) -> None:
    world.memory.before["claim"] = fail
    result = await world.create(refusals=refusals)
    assert least <= result.wait_seconds <= least * 1.2


async def test_closed_port_is_not_sent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def no_pause(seconds: float) -> None:
        pauses.extend([seconds] if seconds else [])
        await sleep(0)

    world.client = Ark(NOWHERE, KEY)
    monkeypatch.setattr(asyncio, "sleep", no_pause)
    result = await world.create()
    monkeypatch.undo()
    assert (result.kind, result.written, result.attention) == ("not_sent", True, None)
    assert (await world.fact("outcome"))["code"] == "not_connected"
    assert [pause for pause in pauses if pause >= 1] == [1, 2], "no pause after the last try: nothing follows it"


# --- the total time --------------------------------------------------------------------------------------------------


async def test_nothing_is_sent_after_time_over(ark: ArkControl) -> None:
    world = await World.at(ark, **QUICK)
    world.memory.after["claim"] = partial(asyncio.sleep, 1.7)
    result = await world.create()
    assert (result.kind, result.written, await world.posts()) == ("not_sent", True, [])
    assert (await world.fact("outcome"))["code"] == "no_time_left"


@pytest.mark.parametrize("clock", ["time", "monotonic"])
async def test_clock_jump_ahead_ends_time(world: World, monkeypatch: pytest.MonkeyPatch, clock: str) -> None:
    """A machine that slept between claim and POST: one of the clocks may not have noticed."""
    clocks = {"time": time.time, "monotonic": time.monotonic}

    class Jumped:
        time = staticmethod(clocks["time"])
        monotonic = staticmethod(clocks["monotonic"])

    async def jump() -> None:
        setattr(Jumped, clock, staticmethod(lambda: clocks[clock]() + 3600))

    monkeypatch.setattr(activities.deadline, "time", Jumped)
    world.memory.after["claim"] = jump
    result = await world.create()
    assert (result.kind, await world.posts()) == ("not_sent", [])
    assert (await world.fact("outcome"))["code"] == "no_time_left"


async def test_clock_set_back_wins_no_time(ark: ArkControl, monkeypatch: pytest.MonkeyPatch) -> None:
    world = await World.at(ark, **QUICK)
    back = [0.0]

    class Clock:
        monotonic = staticmethod(time.monotonic)
        time = staticmethod(lambda: time.time() - back[0])

    async def set_back_and_slow() -> None:
        back[0] = 3600
        await asyncio.sleep(1.7)

    monkeypatch.setattr(activities.deadline, "time", Clock)
    world.memory.after["claim"] = set_back_and_slow
    assert ((await world.create()).kind, await world.posts()) == ("not_sent", [])


async def test_no_connection_is_tried_after_time_over(ark: ArkControl) -> None:
    tries: list[httpx.Request] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        tries.append(request)
        raise httpx.ConnectError("refused", request=request)

    world = await World.at(ark, **QUICK)
    world.client = Ark(NOWHERE, KEY, transport=lambda: httpx.MockTransport(refuse))
    assert ((await world.create()).kind, len(tries)) == ("not_sent", 2)


# --- the body --------------------------------------------------------------------------------------------------------


async def the_body(ark: ArkControl, request: VideoRequest, **settings: Any) -> tuple[World, dict[str, Any]]:
    world = await World.at(ark, request, **settings)
    assert (await world.create()).kind == "created"
    (post,) = await world.posts()
    return world, post.body


async def test_body_holds_only_required_fields(ark: ArkControl) -> None:
    _, body = await the_body(ark, a_request(resolution="720p", duration=5))
    identifier = body.pop("safety_identifier")
    assert body == {
        "model": "dreamina-seedance-2-0-260128",
        "content": [{"type": "text", "text": "a cat"}],
        "ratio": "16:9",
        "resolution": "720p",
        "duration": 5,
        "generate_audio": False,
        "watermark": False,
    }
    assert re.fullmatch("6d894aa3ee802549-[0-9a-f]{32}", identifier), "SHA-256 of the user id, and the nonce"
    assert identifier.isascii()
    assert len(identifier) <= 64


async def test_identifier_names_user_and_claim(ark: ArkControl) -> None:
    bodies = [(await the_body(ark, a_request(user_id="Jürgen")))[1] for _ in range(2)]
    other = (await the_body(ark, a_request(user_id="somebody else")))[1]
    users, nonces = zip(*(body["safety_identifier"].split("-") for body in [*bodies, other]), strict=True)
    assert users[0] == users[1] != users[2]
    assert len(set(nonces)) == 3


OF_1_5: dict[str, Any] = {"model": "seedance-1-5-pro-251215", "seed": 0, "camera_fixed": False, "service_tier": "flex"}
OF_2_5: dict[str, Any] = {
    "model": "dreamina-seedance-2-5-260628",
    "output_format": "mov",
    "draft": False,
    "omni_reference_task_type": "auto",
}


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"return_last_frame": True}, {"return_last_frame": True}),
        ({"generate_audio": True, "watermark": True}, {"generate_audio": True, "watermark": True}),
        ({"priority": 0}, {"priority": 0}),
        ({"priority": 9, "execution_expires_after": 3600}, {"priority": 9, "execution_expires_after": 3600}),
        ({"web_search": True}, {"tools": [{"type": "web_search"}]}),
        ({"duration": -1, "ratio": "21:9"}, {"duration": -1, "ratio": "21:9"}),
        (OF_1_5, OF_1_5),
        (OF_2_5, OF_2_5),
        ({"rights": {"depicts_real_person": True, "consent_reference": "contract 7"}}, {}),
        ({"take": 2}, {}),
    ],
)
async def test_optional_fields_are_sent(
    ark: ArkControl, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], sent: dict[str, Any]
) -> None:
    if "model" in given:  # a model that the catalogue does not know yet
        monkeypatch.setattr(Rules, "check_new", lambda *_, **__: [])
    _, plain = await the_body(ark, a_request())
    _, body = await the_body(ark, a_request(**given))
    del plain["safety_identifier"], body["safety_identifier"]
    assert body == plain | sent


async def test_declined_web_search_is_not_sent(ark: ArkControl) -> None:
    _, body = await the_body(ark, a_request(web_search=False))
    assert not {"tools", "web_search"} & set(body)


async def test_references_keep_roles_and_order(ark: ArkControl) -> None:
    references = [
        {"role": "reference_image", "url": "https://cdn.example.com/a.webp?sig=1", "asset_id": "sku-1"},
        {"role": "reference_video", "url": "asset://video-1"},
        {"role": "reference_audio", "url": "https://cdn.example.com/a.mp3"},
        {"role": "reference_image", "url": "https://cdn.example.com/b.png"},
    ]
    _, body = await the_body(ark, a_request(references=references))
    assert body["content"] == [
        {"type": "text", "text": "a cat"},
        {"type": "image_url", "image_url": {"url": "https://cdn.example.com/a.webp?sig=1"}, "role": "reference_image"},
        {"type": "video_url", "video_url": {"url": "asset://video-1"}, "role": "reference_video"},
        {"type": "audio_url", "audio_url": {"url": "https://cdn.example.com/a.mp3"}, "role": "reference_audio"},
        {"type": "image_url", "image_url": {"url": "https://cdn.example.com/b.png"}, "role": "reference_image"},
    ]
    assert body["ratio"] == "adaptive"


async def test_picture_needs_no_prompt(ark: ArkControl) -> None:
    frames = [{"role": role, "url": f"https://cdn.example.com/{role}.png"} for role in ("first_frame", "last_frame")]
    _, body = await the_body(ark, a_request(prompt=None, references=frames))
    sent = [(item["type"], item["role"]) for item in body["content"]]
    assert sent == [("image_url", "first_frame"), ("image_url", "last_frame")]


GS = [{"role": "first_frame", "url": "gs://private/pictures/a.png#17"}]


async def test_private_reference_is_signed(ark: ArkControl) -> None:
    world, body = await the_body(ark, a_request(references=GS))
    url = body["content"][1]["image_url"]["url"]
    assert url.startswith("https://")
    assert "X-Goog-Signature" in url
    ((bucket, name, generation, lifetime),) = world.memory.signed
    assert (bucket, name, generation) == ("private", "pictures/a.png", 17)
    assert lifetime.total_seconds() > world.settings.claim_is_young_seconds
    # A signed URL opens the picture for every reader; it belongs in the POST alone.
    assert not any(b"X-Goog-Signature" in stored for stored in world.memory.contents.values())


async def test_unsigning_credentials_are_found_before_claim(ark: ArkControl) -> None:
    world = await World.at(ark, a_request(references=GS))
    world.memory.signing_fails = CannotSign("the bucket's credentials cannot sign")
    result = await world.create()
    assert result.kind == "impossible"
    assert result.error is not None
    assert (result.error.code, result.error.attempt) == ("cannot_sign", None)
    assert (world.memory.writes, await world.posts()) == ([], [])


async def test_failed_signing_is_retried_later(ark: ArkControl) -> None:
    world = await World.at(ark, a_request(references=GS))
    world.memory.signing_fails = ConnectionError("https://iam.example.com/sign?token=5ec4e7")
    result = await world.create()
    assert (result.kind, result.attention, result.written) == ("not_sent", None, True)
    assert result.wait_seconds > 0
    assert "5ec4e7" not in result.model_dump_json()
    assert (world.memory.writes, await world.posts()) == ([], [])


CALLBACKS: dict[str, Any] = {
    "seedance_callback_url": "https://relay.example.com/base/",
    "seedance_callback_secret": SecretStr(SECRET),
    "seedance_callback_secret_previous": SecretStr("the secret before"),
}


async def test_callback_url_names_attempt_and_is_signed(ark: ArkControl) -> None:
    world = await World.at(ark, **CALLBACKS)
    await world.claim(1, not_sent())
    assert (await world.create(attempt=2)).kind == "created"
    (post,) = await world.posts()
    url = urlsplit(post.body["callback_url"])
    assert (url.scheme, url.netloc, url.query) == ("https", "relay.example.com", "")
    assert url.path == f"/base/callbacks/{world.job_id}/2/{callback_token(SECRET, world.job_id, 2)}"


async def test_no_callback_url_without_relay(ark: ArkControl) -> None:
    _, body = await the_body(ark, a_request(), seedance_callback_secret=SecretStr(SECRET))
    assert "callback_url" not in body


@pytest.mark.parametrize("fault", [None, "400", "401", "no_id"])
async def test_objects_and_results_hold_no_secret(ark: ArkControl, fault: str | None) -> None:
    world = await World.at(ark, **CALLBACKS)
    token = callback_token(SECRET, world.job_id, 1)
    url = f"https://relay.example.com/base/callbacks/{world.job_id}/1/{token}"
    if fault is not None:
        await ark.fault("create", fault, message=f"{KEY} may not call {url} or https://a.example.com/b?sig=5ec4e7")
    result = await world.create()
    written = b"\n".join(world.memory.contents.values()).decode() + result.model_dump_json()
    for secret in (KEY, SECRET, "the secret before", token, "5ec4e7"):
        assert secret not in written
