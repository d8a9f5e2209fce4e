"""The models that settings add or change, and the ends of models."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedance_temporal import InvalidRequest, Rules, VideoRequest
from seedance_temporal.errors import InvalidSettings
from seedance_temporal.provider.known_models import KNOWN
from seedance_temporal.provider.model_rows import ModelRow, models_with
from seedance_temporal.provider.models import WARNED_DAYS, Model, Price
from seedance_temporal.provider.prices import Cost
from seedance_temporal.settings import Settings

NEXT = "dreamina-seedance-2-5-260628"
FULL = "dreamina-seedance-2-0-260128"
PRO = "seedance-1-5-pro-251215"
NEW = "dreamina-seedance-3-0-270101"
ROOT = Path(__file__).resolve().parents[2]


def read(monkeypatch: pytest.MonkeyPatch, rows: object, **variables: str) -> Settings:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("SEEDANCE_MODELS", rows if isinstance(rows, str) else json.dumps(rows))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return Settings.from_environment()


def request(**changes: Any) -> VideoRequest:
    return VideoRequest.model_validate(
        {"user_id": "user-42", "route": "byteplus", "model": NEW, "prompt": "A fox"} | changes
    )


def test_new_model_is_like_another(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"like": NEXT, "name": "Seedance 3.0", "longest": 60, "fields": ["priority"], "prices": {"720p": [20, None]}}
    rules = read(monkeypatch, {NEW: row}).rules
    model = rules.models[NEW]
    assert (model.id, model.route, model.name, model.durations) == (NEW, "byteplus", "Seedance 3.0", range(4, 61))
    assert (model.references, model.resolutions) == (KNOWN[NEXT].references, KNOWN[NEXT].resolutions)
    assert model.prices == {"720p": Price(20, None)}, "another model's prices are not taken over"
    assert rules.check(request(duration=60)) == []
    assert rules.estimate(request(duration=5)).usd == pytest.approx(108_900 * 20 / 1e6)
    assert [problem.at for problem in rules.check(request(draft=True, resolution="480p"))] == ["draft"]
    assert [problem.at for problem in Rules().check(request())] == ["model"]


def test_kind_of_reference_that_is_not_named_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = read(monkeypatch, {NEW: {"like": NEXT, "references": {"image": 2}}}).rules
    assert rules.models[NEW].references == {"image": 2, "video": 0, "audio": 0}
    for role, problems in (("reference_image", 0), ("reference_video", 1)):
        assert len(rules.check(request(references=[{"role": role, "url": "asset://a"}]))) == problems


def test_row_is_like_a_row_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {NEW: {"like": NEXT, "longest": 60}, f"{NEW}-fast": {"like": NEW, "resolutions": ["720p"]}}
    fast = read(monkeypatch, rows).rules.models[f"{NEW}-fast"]
    assert (fast.durations[-1], fast.resolutions) == (60, ("720p",))


def test_known_model_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = read(monkeypatch, {FULL: {"ends": "2027-03-01", "successor": NEXT, "prices": {"720p": [6, 4]}}}).rules
    model = rules.models[FULL]
    assert (model.ends, model.successor, model.name) == (date(2027, 3, 1), NEXT, KNOWN[FULL].name)
    assert model.prices == {**KNOWN[FULL].prices, "720p": Price(6, 4)}
    assert [*rules.models] == [*KNOWN], "their order stays"


def test_model_moves_to_another_route(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"like": NEXT, "route": "volcengine", "prices": {"720p": [60, 40]}}
    rules = read(monkeypatch, {"doubao-new": row}).rules
    found = rules.estimate(request(model="doubao-new", route="volcengine"))
    assert found.most == Cost(cny=6.534)


def test_prices_and_endpoints_of_new_models(monkeypatch: pytest.MonkeyPatch) -> None:
    prices, endpoints = f'{{"{NEW}": {{"1080p": [5, 4]}}}}', f'{{"ep-a": "{NEW}"}}'
    settings = read(monkeypatch, {NEW: {"like": NEXT}}, SEEDANCE_PRICES=prices, SEEDANCE_ENDPOINTS=endpoints)
    assert settings.rules.models[NEW].prices == {"1080p": Price(5, 4)}
    assert settings.rules.estimate(request(model="ep-a", resolution="1080p")).usd == pytest.approx(1.225125)


def test_sizes_of_a_new_resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"like": NEXT, "resolutions": ["2k"], "sizes": {"2k": {"16:9": [2560, 1440]}}}
    rules = read(monkeypatch, {NEW: row}).rules
    assert rules.estimate(request(resolution="2k")).tokens == 2560 * 1440 * 121 // 1024
    assert rules.estimate(request(resolution="2k", ratio="1:1")).tokens is None
    first = [{"role": "first_frame", "url": "asset://a"}]
    assert rules.estimate(request(resolution="2k", references=first)).tokens is None, "other ratios could be larger"


def test_rows_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "models.json"
    path.write_text(json.dumps({NEW: {"like": NEXT}}))
    assert NEW in read(monkeypatch, str(path)).rules.models


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("/nowhere/models.json", "neither a JSON object nor a file that can be read: No such file"),
        ("{", "is not JSON"),
        ([], "is neither a JSON object nor a file"),
        ({NEW: {}}, f"{NEW}: is not known, so it needs a model that it is like: {FULL}"),
        ({NEW: {"like": "seedance-9"}}, "there is no model 'seedance-9' that it could be like"),
        ({NEW: {"like": NEXT, "longes": 60}}, f"SEEDANCE_MODELS.{NEW}.longes: is not known; remove it"),
        ({NEW: {"like": NEXT, "longest": "60"}}, f"SEEDANCE_MODELS.{NEW}.longest"),
        ({NEW: {"like": NEXT, "longest": 3}}, "longest is 3 s, and shortest 4 s"),
        ({NEW: {"like": NEXT, "fields": ["prio"]}}, "fields: 'prio' is none; there are seed"),
        ({NEW: {"like": NEXT, "fields": ["service_tier"], "service_tiers": []}}, "service_tiers names none"),
        ({NEW: {"like": NEXT, "resolutions": ["720"]}}, f"SEEDANCE_MODELS.{NEW}.resolutions"),
        ({NEW: {"like": NEXT, "prices": {"4k": [1, 1]}}}, "there is no resolution '4k'; it has 480p, 720p, 1080p"),
        ({NEW: {"like": NEXT, "prices": {"720p": [-1, 1]}}}, "greater than or equal to 0"),
        ({NEW: {"like": NEXT, "sizes": {"720p": {"16:10": [1, 1]}}}}, "'16:10' is no ratio"),
        ({NEW: {"like": NEXT, "ends": "soon"}}, f"SEEDANCE_MODELS.{NEW}.ends"),
        ({"ep-a": {"like": NEXT}}, "'ep-a' is an endpoint: SEEDANCE_ENDPOINTS names its model"),
        ({"a b": {"like": NEXT}}, "SEEDANCE_MODELS"),
        ({f"m{number}": {"like": NEXT} for number in range(201)}, "has 201 rows; 200 are the most"),
        (f'{{"{NEW}": {{"like": "{NEXT}"}}, "{NEW}": {{}}}}', f"names '{NEW}' more than once"),
    ],
)
def test_wrong_rows_are_refused(monkeypatch: pytest.MonkeyPatch, rows: object, says: str) -> None:
    with pytest.raises(InvalidSettings) as refused:
        read(monkeypatch, rows)
    assert says in str(refused.value)
    assert str(refused.value).startswith("SEEDANCE_MODELS")


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
VALUES = LEAVES | st.lists(LEAVES, max_size=3) | st.dictionaries(st.sampled_from(["720p", "image", "x"]), LEAVES)
ROWS = st.dictionaries(
    st.sampled_from([NEW, FULL, PRO, "ep-a", ""]),
    st.dictionaries(st.sampled_from([*ModelRow.model_fields, "x"]), VALUES | st.sampled_from([FULL, "4k"]), max_size=4),
    max_size=3,
)


@given(ROWS)
def test_any_rows_are_models_or_refused(rows: dict[str, Any]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        try:
            rules = read(patched, json.dumps(rows)).rules
        except InvalidSettings as refused:
            assert "SEEDANCE_MODELS" in str(refused)  # noqa: PT017
            return
    for model in rules.models.values():
        asked = request(model=model.id, route=model.route, resolution=model.resolutions[0])
        rules.check(asked)
        rules.warnings(asked)
        rules.estimate(asked)


# The ends of models


def on(day: date, **row: Any) -> Rules:
    rows = {FULL: ModelRow.model_validate(row)} if row else {}
    return Rules(models=models_with(rows), today=lambda: day)


END = date(2027, 3, 1)


def test_ended_model_is_refused() -> None:
    asked = request(model=FULL)
    for day, ended in ((END - timedelta(days=1), False), (END, True), (END + timedelta(days=900), True)):
        rules = on(day, ends=END, successor=NEXT)
        problems = rules.check_new(asked)
        said = [f"{problem.at} {problem.problem}" for problem in problems]
        assert said == ([f"model {FULL} ended on 2027-03-01; use {NEXT}"] if ended else [])
        assert rules.check(asked) == [], "a job of before the end is found by its request"


def test_end_of_the_model_behind_an_endpoint() -> None:
    rules = Rules(models=on(END, ends=END).models, endpoints={"ep-a": FULL}, today=lambda: END)
    ended = rules.end_of_model(request(model="ep-a"))
    assert ended is not None
    assert ended.problem == f"{FULL}, behind ep-a, ended on 2027-03-01; use another model"
    assert rules.end_of_model(request(model="ep-b")) is None, "nobody knows its model"


@pytest.mark.parametrize(("days", "warned"), [(WARNED_DAYS + 1, False), (WARNED_DAYS, True), (1, True), (0, False)])
def test_end_is_warned_of(days: int, warned: bool) -> None:
    warnings = on(END - timedelta(days=days), ends=END, successor=NEXT).warnings(request(model=FULL))
    expected = f"Seedance 2.0 ends on byteplus on 2027-03-01, in {days} days; its successor is {NEXT}."
    assert (expected in warnings) == warned
    over = f"Seedance 2.0 ended on byteplus on 2027-03-01: it makes no new video; its successor is {NEXT}."
    assert (over in warnings) == (days == 0)


def test_1_5_pro_has_ended_on_byteplus() -> None:
    asked = request(model=PRO)
    assert on(date(2026, 11, 10)).check_new(asked) == []
    ended = on(date(2026, 11, 11)).end_of_model(asked)
    assert ended is not None
    assert "use dreamina-seedance-2-0-mini-260615" in ended.problem


def test_reading_a_request_ignores_the_end() -> None:
    fields = {"user_id": "user-42", "route": "byteplus", "model": PRO, "prompt": "A fox"}
    assert VideoRequest.from_dict(fields, rules=on(date(2027, 1, 1))).model == PRO
    with pytest.raises(InvalidRequest):
        VideoRequest.from_dict(fields | {"duration": 13}, rules=on(date(2027, 1, 1)))


def test_listed_model_is_a_row_of_settings() -> None:
    listed = subprocess.run(
        [sys.executable, "starter.py", "models", "--json"], check=True, capture_output=True, cwd=ROOT, timeout=60
    )
    documents = json.loads(listed.stdout)
    assert [document["id"] for document in documents] == list(KNOWN)
    for document in documents:
        named = {name: value for name, value in document.items() if name in ModelRow.model_fields}
        row = ModelRow.model_validate_json(json.dumps(named))
        assert set(ModelRow.model_fields) - set(document) == {"like"}
        other = next(model for model in KNOWN.values() if model.id != document["id"])
        copied, known = row.applied_to(other, document["id"]), KNOWN[document["id"]]
        sizes = {name: known.sizes[name] for name in known.resolutions if name in known.sizes}
        assert {name: copied.sizes[name] for name in sizes} == sizes
        not_in_rows = {"sizes", "languages", "doubtful"}
        for name in {field.name for field in fields(Model)} - not_in_rows:
            assert getattr(copied, name) == getattr(known, name), (document["id"], name)
