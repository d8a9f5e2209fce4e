"""The price table: the list, what the settings put in its place, and where it is counted by."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from temporalio.testing import ActivityEnvironment

from activities.heartbeat import CopyProgress
from activities.poll import GetTaskInput, PollActivities
from activities.store import StoreInput, _Copy
from seedance_temporal.errors import InvalidSettings
from seedance_temporal.identity import job_id_of
from seedance_temporal.ledger.record import RecordedObject, RecordedObjects
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.ledger.task_files import TaskFiles
from seedance_temporal.ledger.task_times import TaskTimes
from seedance_temporal.provider.ark import Ark
from seedance_temporal.provider.known_models import KNOWN, MODELS
from seedance_temporal.provider.models import Price
from seedance_temporal.provider.prices import Cost, Estimate
from seedance_temporal.provider.rules import Rules
from seedance_temporal.provider.task import Task
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings
from tests.support.jobs import in_activity, names, some_settings
from tests.support.memory_bucket import MemoryBucket

FULL = "dreamina-seedance-2-0-260128"
NEXT = "dreamina-seedance-2-5-260628"
CHINESE = "doubao-seedance-2-0-260128"
VIDEO = {"role": "reference_video", "url": "asset://v"}


def request(**changes: Any) -> VideoRequest:
    given = {"user_id": "user-42", "route": "byteplus", "model": FULL, "prompt": "A fox", "ratio": "16:9"}
    return VideoRequest.model_validate(given | changes)


def task(**fields: Any) -> Task:
    given = {"id": "cgt-1", "status": "succeeded", "usage": {"total_tokens": 1_000_000}}
    return Task.model_validate(given | fields)


def settings(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return Settings.from_environment()


def with_prices(**prices: dict[str, Price]) -> Rules:
    """Return the rules with prices of models, whose names are given in capitals."""
    ids = {"FULL": FULL, "NEXT": NEXT}
    changed = {ids[name]: replace(KNOWN[ids[name]], prices=table) for name, table in prices.items()}
    return Rules(models={**KNOWN, **changed})


def prices_of(rules: Rules) -> dict[str, dict[str, Price]]:
    return {model.id: dict(model.prices) for model in rules.models.values()}


def test_default_prices_are_the_list() -> None:
    assert prices_of(Rules()) == {model.id: dict(model.prices) for model in MODELS}


def test_table_prices_everything() -> None:
    rules = with_prices(FULL={"720p": Price(10, 1)}, NEXT={"1080p": Price(5, None)})
    assert rules.estimate(request()).most == Cost(usd=1.089)
    assert rules.estimate(request(model=NEXT, resolution="1080p")).most == Cost(usd=1.225125)
    assert rules.estimate(request(model=NEXT, resolution="1080p", references=[VIDEO])).most == Cost()
    assert rules.cost_of(request(), task()) == Cost(usd=10)
    assert rules.cost_of(request(references=[VIDEO]), task(resolution="720p", model=FULL)) == Cost(usd=1)
    assert rules.cost_of(request(model=NEXT), task(resolution="1080p")) == Cost(usd=5)
    assert rules.cost_of(request(), task(resolution="480p")) == Cost()


def test_volcengine_bills_cny() -> None:
    asked = request(route="volcengine", model=CHINESE)
    assert Rules().estimate(asked) == Estimate(108_900, None, 5.0094, 108_900, None, 5.0094)
    assert Rules().cost_of(asked, task()) == Cost(cny=46)
    assert str(Rules().cost_of(asked, task())) == "46.0000 CNY"


def test_cny_is_converted_by_a_rate_alone() -> None:
    assert some_settings().in_usd(Cost(cny=46)) is None
    assert some_settings(seedance_cny_per_usd=7.2).in_usd(Cost(cny=46)) == 6.388889
    assert some_settings(seedance_cny_per_usd=7.2).in_usd(Cost(usd=46)) == 46
    assert some_settings(seedance_cny_per_usd=7.2).in_usd(Cost()) is None


def test_endpoint_has_its_models_price() -> None:
    endpoints = {"ep-a": NEXT, "ep-b": FULL}
    rules = with_prices(NEXT={"720p": Price(10, None)})
    known = replace(rules, endpoints=endpoints)
    assert rules.estimate(request(model="ep-a")).most == Cost()
    assert known.estimate(request(model="ep-a")).most == Cost(usd=1.089)
    assert known.estimate(request(model="ep-a", duration=-1)).tokens == 648_900
    assert rules.cost_of(request(model="ep-b"), task()) == Cost()
    assert known.cost_of(request(model="ep-b"), task()) == Cost(usd=7)
    assert known.cost_of(request(model="ep-b"), task(model="ep-a")) == Cost(usd=10)
    assert known.cost_of(request(model="ep-b"), task(model=NEXT)) == Cost(usd=10), "the task knows best"


def test_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    read = settings(
        monkeypatch,
        SEEDANCE_PRICES=f'{{"{FULL}": {{"4k": [3, 2.5]}}, "{CHINESE}": {{"720p": [0, null]}}, "{NEXT}": {{}}}}',
        SEEDANCE_ENDPOINTS=f'{{"ep-a": "{NEXT}", "ep-b": "{CHINESE}"}}',
    )
    listed = prices_of(Rules())
    changed = {FULL: listed[FULL] | {"4k": Price(3, 2.5)}, CHINESE: listed[CHINESE] | {"720p": Price(0, None)}}
    assert prices_of(read.rules) == listed | changed
    assert prices_of(Rules()) == listed, "the list itself stays"
    assert read.seedance_endpoints == {"ep-a": NEXT, "ep-b": CHINESE}


@pytest.mark.parametrize("nothing", [{}, {"SEEDANCE_PRICES": "", "SEEDANCE_ENDPOINTS": ""}, {"SEEDANCE_PRICES": "{}"}])
def test_unset(monkeypatch: pytest.MonkeyPatch, nothing: dict[str, str]) -> None:
    read = settings(monkeypatch, **nothing)
    assert (read.rules.models, read.seedance_endpoints) == (KNOWN, {})


def of_full(pair: object) -> str:
    return json.dumps({FULL: {"720p": pair}})


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("SEEDANCE_PRICES", "7.0", "SEEDANCE_PRICES: must be a JSON object"),
        ("SEEDANCE_PRICES", "{", "SEEDANCE_PRICES: is not JSON.*line 1, column 2"),
        ("SEEDANCE_PRICES", "[" * 100_000, "SEEDANCE_PRICES: is nested too deep"),
        ("SEEDANCE_PRICES", "9" * 5_000, "SEEDANCE_PRICES: "),
        ("SEEDANCE_PRICES", f'{{"{FULL}": {{}}, "{FULL}": {{}}}}', f"SEEDANCE_PRICES: names '{FULL}' more than once"),
        ("SEEDANCE_PRICES", '{"seedance-9": {}}', "SEEDANCE_PRICES: 'seedance-9' is not a model id"),
        ("SEEDANCE_PRICES", '{"ep-a": {}}', "SEEDANCE_PRICES: 'ep-a' is not a model id"),
        ("SEEDANCE_PRICES", f'{{"{FULL}": {{"720P": [1, 1]}}}}', "SEEDANCE_PRICES: .*no resolution '720P'"),
        ("SEEDANCE_PRICES", f'{{"{NEXT}": {{"4k": [1, 1]}}}}', "SEEDANCE_PRICES: .*no resolution '4k'"),
        ("SEEDANCE_PRICES", f'{{"{FULL}": [1, 1]}}', f"SEEDANCE_PRICES.{FULL}: "),
        ("SEEDANCE_PRICES", of_full([-0.01, 1]), f"SEEDANCE_PRICES.{FULL}.720p.0: .*greater than or equal to 0"),
        ("SEEDANCE_PRICES", of_full([1, -1]), f"SEEDANCE_PRICES.{FULL}.720p.1: .*greater than or equal to 0"),
        ("SEEDANCE_PRICES", of_full([float("nan"), 1]), "SEEDANCE_PRICES.*finite"),
        ("SEEDANCE_PRICES", of_full([float("inf"), 1]), "SEEDANCE_PRICES.*finite"),
        ("SEEDANCE_PRICES", of_full(["7", 1]), "SEEDANCE_PRICES.*number"),
        ("SEEDANCE_PRICES", of_full([True, 1]), "SEEDANCE_PRICES.*number"),
        ("SEEDANCE_PRICES", of_full([7]), "SEEDANCE_PRICES"),
        ("SEEDANCE_PRICES", of_full([7, 1, 1]), "SEEDANCE_PRICES"),
        ("SEEDANCE_PRICES", of_full(7), "SEEDANCE_PRICES"),
        ("SEEDANCE_ENDPOINTS", "ep-a", "SEEDANCE_ENDPOINTS: is not JSON"),
        ("SEEDANCE_ENDPOINTS", '["ep-a"]', "SEEDANCE_ENDPOINTS: "),
        ("SEEDANCE_ENDPOINTS", '{"ep-a": 1}', "SEEDANCE_ENDPOINTS.ep-a: "),
        ("SEEDANCE_ENDPOINTS", '{"ep-a": "ep-b"}', "SEEDANCE_ENDPOINTS: 'ep-b' is not a model id"),
        ("SEEDANCE_ENDPOINTS", f'{{"{FULL}": "{FULL}"}}', f"SEEDANCE_ENDPOINTS: '{FULL}' is not an endpoint id"),
        ("SEEDANCE_ENDPOINTS", f'{{"ep-a": "{FULL}", "ep-a": "{NEXT}"}}', "SEEDANCE_ENDPOINTS: names 'ep-a' more"),
    ],
)
def test_refused(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str) -> None:
    with pytest.raises(InvalidSettings, match=says):
        settings(monkeypatch, **{variable: value})


class OneTask(Ark):
    """A provider that always shows the same task."""

    def __init__(self, **payload: Any) -> None:
        super().__init__("https://ark.example.com", "key")
        self._payload = payload

    async def get(self, task_id: str) -> dict[str, Any] | None:
        return {"id": task_id, **self._payload}


OURS: dict[str, Any] = {"seedance_prices": {NEXT: {"720p": [10, 1]}}, "seedance_endpoints": {"ep-a": NEXT}}


async def test_table_prices_a_failure() -> None:
    ark = OneTask(status="failed", model="ep-a", usage={"total_tokens": 100_000}, error={"code": "x", "message": "y"})
    asked = request(model="ep-a")
    given = GetTaskInput(job_id=job_id_of(asked), request=asked, attempt=1, task_id="cgt-1")
    for ours, usd in ((OURS, 1), ({}, None)):
        poll = PollActivities(Ledger(MemoryBucket(), "seedance"), ark, some_settings(**ours))
        seen = await in_activity(poll.get_task, given)
        assert (seen.next, seen.cost_usd) == ("write_end", usd)


def test_table_prices_a_record(tmp_path: Path) -> None:
    asked = request(model="ep-a", references=[VIDEO])
    given = StoreInput(job_id=job_id_of(asked), request=asked, attempt=1, task_id="cgt-1")
    video = RecordedObject(name="output.mp4", generation=1, size=3, crc32c="AAAAAA==")
    for ours, estimated, usd in ((OURS, 0.7569, 1), ({}, None, None)):
        files = TaskFiles(MemoryBucket(), names(asked), "cgt-1")
        ark = Ark("http://127.0.0.1:9", "ark-key")
        times = TaskTimes(files.bucket, "seedance")
        transport = httpx.AsyncHTTPTransport
        copy = _Copy(files, ark, some_settings(**ours), times, transport, given, tmp_path, CopyProgress())
        record = ActivityEnvironment().run(copy._record, task(), RecordedObjects(video=video), [])
        assert (record.estimated_usd, record.cost_usd) == (estimated, usd)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
PRICED = {model.id: model.resolutions for model in MODELS}
PAIRS = st.lists(LEAVES | st.floats(0, 100), min_size=2, max_size=2)
SETTINGS = st.dictionaries(
    st.sampled_from([*PRICED, "ep-a", "x"]),
    st.dictionaries(st.sampled_from(["480p", "720p", "4k"]), PAIRS | LEAVES, max_size=2) | LEAVES,
    max_size=3,
)


@given(SETTINGS.map(json.dumps) | st.text(max_size=20))
def test_any_value_is_a_table_or_refused(value: str) -> None:
    with pytest.MonkeyPatch.context() as patched:
        value = value.replace("\0", "").encode("utf-8", "ignore").decode()
        try:
            table = prices_of(settings(patched, SEEDANCE_PRICES=value).rules)
        except InvalidSettings as refused:
            assert "SEEDANCE_PRICES" in str(refused)  # noqa: PT017
            return
    for model, by_resolution in table.items():
        assert {*by_resolution} <= {*PRICED[model]}
        assert all(amount is None or amount >= 0 for price in by_resolution.values() for amount in price)
