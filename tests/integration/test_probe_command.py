"""`make probe` against the local Ark, with each unknown of the provider switched both ways."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from pydantic import SecretStr

from dev.ark.control import ArkControl
from dev.probe import Probe, cheapest, request_for
from seedance_temporal.provider.rules import Rules
from tests.support.command_line import CommandResult, script_process
from tests.support.jobs import KEY, a_client, some_settings

CUSTOM = "custom-key-of-a-model"
MINI = "dreamina-seedance-2-0-mini-260615"


@pytest.fixture
async def ark(ark: ArkControl) -> ArkControl:
    """A provider whose tasks end at once; one switch that a test before left is set back."""
    await ark.configure(
        queued_seconds=0,
        running_seconds=0,
        list_echo=True,
        list_delay_seconds=0,
        list_order="newest",
        resign_urls=False,
    )
    return ark


async def probe(ark: ArkControl, *options: str, key: str = KEY) -> CommandResult:
    variables = {
        "ARK_API_KEY": key,
        "ARK_BASE_URL": ark.base_url("byteplus"),
        "SEEDANCE_INSECURE_HOSTS": "127.0.0.1",
        "SEEDANCE_CREATE_TIMEOUT_SECONDS": "5",
    }
    words = ["-m", "dev.probe", "--yes", "--poll-seconds", "0.05", "--json", *options]
    streams = dict.fromkeys(("stdout", "stderr"), asyncio.subprocess.PIPE)
    async with script_process(*words, streams=streams, **variables) as process:
        out, err = await asyncio.wait_for(process.communicate(), 100)
    return CommandResult(process.returncode or 0, out.decode(), err.decode())


async def found(ark: ArkControl, key: str = KEY) -> dict[str, str]:
    """Return what was found, by question; one video was paid for."""
    before = len(await ark.ledger())
    settings = some_settings(ark, ark_api_key=SecretStr(key))
    request = request_for(cheapest(settings.rules, "byteplus"))
    one = Probe(a_client(ark, key=key), settings, request, poll_seconds=0.05)
    await one.run()
    (create,) = (await ark.ledger())[before:]
    assert (create.task_id, create.body["resolution"], create.body["model"]) == (one.task_id, "480p", MINI)
    return {finding.question: finding.found for finding in one.findings}


async def test_command_prints_findings(ark: ArkControl) -> None:
    before = len(await ark.ledger())
    ran = await probe(ark)
    assert ran.code == 0, ran.err + ran.out
    (create,) = (await ark.ledger())[before:]
    assert (ran.document["task_id"], ran.document["stopped"]) == (create.task_id, None)
    assert {"question", "found", "consequence"} == ran.document["findings"][0].keys()


SWITCHES: list[tuple[dict[str, Any], str, str]] = [
    ({"list_echo": True}, "does LIST show safety_identifier?", "yes"),
    ({"list_echo": False}, "does LIST show safety_identifier?", "no"),
    ({"list_order": "oldest"}, "order of LIST", "another one"),
    ({"list_order": "newest"}, "order of LIST", "newest first"),
    ({"resign_urls": True}, "does GET sign URLs anew?", "yes"),
    ({"resign_urls": False}, "does GET sign URLs anew?", "no"),
    ({"extra_fields": {"moon": "full"}}, "fields that are not read", "moon"),
    ({"extra_fields": {}}, "permission of the key", "All"),
]


@pytest.mark.parametrize(("switch", "question", "answer"), SWITCHES)
async def test_unknown_is_found_out(ark: ArkControl, switch: dict[str, Any], question: str, answer: str) -> None:
    await ark.add_foreign("byteplus", count=2, age_seconds=3600)
    await ark.configure(**switch)
    findings = await found(ark)
    assert answer in findings[question]
    assert findings["tokens"].startswith("40594, expected 40594; 0.1421 USD")
    assert findings["HEAD of a result"] == "HTTP 403"
    assert findings["Range of a result"] == "HTTP 206"
    assert findings["filter.model with a model id"] == "shows the task"


async def test_late_listing_is_waited_for(ark: ArkControl) -> None:
    await ark.configure(list_delay_seconds=2)
    findings = await found(ark)
    assert findings["delay of LIST"] != "the task is listed after 0 s at most"


async def test_custom_key_is_found_out(ark: ArkControl) -> None:
    await ark.set_key("byteplus", CUSTOM, models=[MINI])
    findings = await found(ark, key=CUSTOM)
    assert findings["permission of the key"] == "Custom"
    assert "filter.model with a model id" not in findings


@pytest.mark.parametrize("fault", ["lost_after_commit", "502_after_commit", "no_id"])
async def test_lost_answer_is_searched_for(ark: ArkControl, fault: str) -> None:
    fault_id = await ark.fault("create", fault)
    findings = await found(ark)
    assert len(await ark.fired(fault_id)) == 1
    assert findings["answer to the create"] != "answered with a task id"


async def test_lost_task_is_not_paid_for_again(ark: ArkControl) -> None:
    """Nothing shows whose task it is: the probe says what to look for, and sends nothing more."""
    await ark.configure(list_echo=False)
    await ark.fault("create", "lost_after_commit")
    before = len(await ark.ledger())
    ran = await probe(ark, "--listed-within", "3")
    assert ran.code == 1
    assert "It may be billed: look in the console" in json.loads(ran.out)["stopped"]
    assert len(await ark.ledger()) == before + 1


@pytest.mark.parametrize(
    ("options", "standing", "says"),
    [
        (["--most-usd", "0.1"], "ok", "over the cap. Nothing was spent"),
        ([], "AccountOverdueError", "nothing was spent"),
    ],
)
async def test_refused_probe_spends_nothing(ark: ArkControl, options: list[str], standing: str, says: str) -> None:
    await ark.set_standing("byteplus", standing)
    before = len([entry for entry in await ark.ledger() if entry.committed])
    ran = await probe(ark, *options)
    assert ran.code in {1, 2}
    assert says in ran.out + ran.err
    assert len([entry for entry in await ark.ledger() if entry.committed]) == before


async def test_failed_task_ends_the_probe(ark: ArkControl) -> None:
    await ark.fault("task", "fail")
    ran = await probe(ark)
    assert ran.code == 1
    assert "ended failed, which is not billed" in json.loads(ran.out)["stopped"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--most-usd", "nan"], "over the cap"),
        (["--model", "dreamina-unknown"], "no known model on byteplus"),
        (["--model", "doubao-seedance-2-0-260128"], "no known model on byteplus"),
    ],
)
async def test_wrong_option_spends_nothing(ark: ArkControl, options: list[str], says: str) -> None:
    before = len(await ark.ledger())
    ran = await probe(ark, *options)
    assert (ran.code, len(await ark.ledger())) == (2, before)
    assert says in ran.err
    assert "Nothing was spent" in ran.err


async def test_host_of_results_away_ends_nothing(ark: ArkControl) -> None:
    """The findings that were paid for are shown."""
    fault = await ark.fault("download", "reset", times=None)
    ran = await probe(ark, "--model", MINI)
    await ark.clear_faults(fault)
    assert ran.code == 0, ran.err
    assert "host of the result" in {finding["question"] for finding in ran.document["findings"]}
    assert "safety_identifier" in ran.err, "it is said before the task is paid for"


def test_cheapest_model_is_taken() -> None:
    assert cheapest(Rules(), "byteplus").id == MINI
    assert cheapest(Rules(), "volcengine").id == "doubao-seedance-2-0-mini-260615"
