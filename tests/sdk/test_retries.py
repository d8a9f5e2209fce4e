"""Why the paid create does not go through the provider's own SDK: for an answer that was lost, that one pays again."""

from __future__ import annotations

import asyncio

import pytest
from volcenginesdkarkruntime._exceptions import ArkAPIError

from dev.ark.control import ArkControl
from seedance_temporal.provider.ark import Ark
from tests.sdk.official import KEYS, a_prompt, an_input, posts, sdk, text

# How the answer gets lost, after the provider has accepted the create.
LOST = ("lost_after_commit", "hang_after_commit", "cut_body", "500_after_commit", "504_after_commit")


async def test_sdk_retries_pay_three_tasks(ark: ArkControl) -> None:
    async def pay(fault: str) -> None:
        prompt = f"{a_prompt()} {fault}"
        await ark.fault("create", fault, contains=prompt, times=None)
        async with sdk(ark) as tasks:  # as it comes: with the retries that are its default
            with pytest.raises(ArkAPIError):
                # The shorter time-out only makes the hanging answers of this test shorter.
                await tasks.create(**an_input(content=[text(prompt)]), timeout=1)
        sent = await posts(ark, prompt)
        assert [entry.committed for entry in sent] == [True] * 3, fault
        assert len({entry.task_id for entry in sent}) == 3, fault
        assert all(entry.body == sent[0].body for entry in sent), fault

    await asyncio.gather(*(pay(fault) for fault in LOST))


async def test_sdk_success_hides_second_payment(ark: ArkControl) -> None:
    prompt = a_prompt()
    await ark.fault("create", "lost_after_commit", contains=prompt)
    async with sdk(ark) as tasks:
        created = await tasks.create(**an_input(content=[text(prompt)]))
    lost, known = await posts(ark, prompt)
    assert lost.committed
    assert known.task_id == created.id


async def test_without_retries_the_sdk_sends_one(ark: ArkControl) -> None:
    prompt = a_prompt()
    await ark.fault("create", "lost_after_commit", contains=prompt, times=None)
    async with sdk(ark, max_retries=0) as tasks:
        with pytest.raises(ArkAPIError):
            await tasks.create(**an_input(content=[text(prompt)]))
    assert len(await posts(ark, prompt)) == 1


@pytest.mark.parametrize("fault", LOST)
async def test_our_client_sends_one(ark: ArkControl, fault: str) -> None:
    prompt = a_prompt()
    await ark.fault("create", fault, contains=prompt, times=None)
    creating = Ark(ark.base_url("byteplus"), KEYS["byteplus"]).create(an_input(content=[text(prompt)]))
    if fault == "hang_after_commit":
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(creating, 0.5)
    else:
        assert (await creating).kind in {"unknown", "accepted_without_id"}
    (entry,) = await posts(ark, prompt)
    assert entry.committed
