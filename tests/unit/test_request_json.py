"""From JSON to a request: any value is one, or is refused with everything that is wrong and where."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedance_temporal.errors import InvalidRequest
from seedance_temporal.identity import canonical_json, request_hash
from seedance_temporal.provider.checks import scene
from seedance_temporal.provider.known_models import MODELS
from seedance_temporal.provider.models import CHOICES, OPTIONAL, WORKS_ON_REFERENCES, Model
from seedance_temporal.provider.rules import Rules
from seedance_temporal.request import Reference, Rights, VideoRequest

RULES = Rules()
TEXT: dict[str, Any] = {
    "user_id": "user-42",
    "route": "byteplus",
    "model": "dreamina-seedance-2-0-260128",
    "prompt": "A red fox in snow",
}
IMAGE = {"role": "reference_image", "url": "https://cdn.example.com/a.png"}


def wrong(data: Any, read: Callable[[Any], VideoRequest] = VideoRequest.from_dict) -> dict[str, str]:
    """What is wrong with decoded JSON, or with what is read otherwise, by place."""
    with pytest.raises(InvalidRequest) as refused:
        read(data)
    return by_place(refused.value)


wrong_json = partial(wrong, read=VideoRequest.from_json)


def by_place(refused: InvalidRequest) -> dict[str, str]:
    for problem in refused.problems:
        json.dumps(problem.model_dump()).encode()
        problem.model_dump_json().encode()
    str(refused).encode()
    return {problem.at: problem.problem for problem in refused.problems}


def test_request_is_read() -> None:
    assert VideoRequest.from_dict(TEXT) == VideoRequest.model_validate(TEXT)
    assert VideoRequest.from_json(json.dumps(TEXT)) == VideoRequest.model_validate(TEXT)
    assert VideoRequest.from_json(json.dumps(TEXT).encode("utf-8-sig")) == VideoRequest.model_validate(TEXT)
    assert VideoRequest.from_json("\ufeff" + json.dumps(TEXT)) == VideoRequest.model_validate(TEXT)


def test_insecure_hosts_are_passed_on() -> None:
    local = TEXT | {"references": [IMAGE | {"url": "http://127.0.0.1:8080/a.png"}]}
    assert {*wrong(local)} == {"references[0].url"}
    rules = Rules(insecure_hosts=frozenset({"127.0.0.1"}))
    assert VideoRequest.from_dict(local, rules=rules)
    assert VideoRequest.from_json(json.dumps(local), rules=rules)


@pytest.mark.parametrize("data", [None, True, 5, 1.5, float("nan"), "text", [], [TEXT]])
def test_no_object(data: object) -> None:
    assert wrong(data) == {"": "the request must be a JSON object"}


def test_missing_fields_are_reported() -> None:
    assert {at: text for at, text in wrong({}).items() if at != "prompt"} == dict.fromkeys(
        ("user_id", "route", "model"), "is required"
    )
    assert wrong(TEXT | {"references": [{}]}) == dict.fromkeys(
        ("references[0].role", "references[0].url"), "is required"
    )
    assert wrong(TEXT | {"user_id": None}) == {"user_id": "is required"}


@pytest.mark.parametrize(
    ("changes", "at", "says"),
    [
        ({"durration": 5}, "durration", "did you mean duration?"),
        ({"Prompt": "x"}, "Prompt", "did you mean prompt?"),
        ({"zzz": 5}, "zzz", "take it out"),
        ({"references": [IMAGE | {"assetid": "a"}]}, "references[0].assetid", "did you mean asset_id?"),
        ({"rights": {"depicts_real_persons": True}}, "rights.depicts_real_persons", "depicts_real_person?"),
        ({"\ud800": 1}, "\\ud800", "is not a field"),
        ({"a\x1b[31m": 1}, "a\\x1b[31m", "is not a field"),
        ({"x" * 100_000: 1}, "x" * 59 + "…", "is not a field"),
        ({"user_id": 42}, "user_id", "text"),
        ({"prompt": ["x"]}, "prompt", "text"),
        ({"duration": "5"}, "duration", "whole number"),
        ({"duration": 5.0}, "duration", "whole number"),
        ({"duration": True}, "duration", "whole number"),
        ({"duration": float("nan")}, "duration", "whole number"),
        ({"duration": float("inf")}, "duration", "whole number"),
        ({"duration": 10**6000}, "duration", "4 to 15"),
        ({"take": 10**6000}, "take", "1 to 1000000"),
        ({"generate_audio": 1}, "generate_audio", "true or false"),
        ({"generate_audio": "false"}, "generate_audio", "true or false"),
        ({"references": IMAGE}, "references", "list"),
        ({"references": "x"}, "references", "list"),
        ({"references": [None]}, "references[0]", "object"),
        ({"references": [IMAGE, "https://x"]}, "references[1]", "object"),
        ({"references": [IMAGE | {"url": 1}]}, "references[0].url", "text"),
        ({"references": [IMAGE | {"role": None}]}, "references[0].role", "required"),
        ({"references": [IMAGE | {"asset_id": 7}]}, "references[0].asset_id", "text"),
        ({"rights": []}, "rights", "object"),
        ({"labels": ["project"]}, "labels", "object"),
        ({"labels": "project=alpha"}, "labels", "object"),
        ({"labels": {"project": 5}}, "labels", "'project', whose name and value must be texts"),
        ({"labels": {"a\x1b[31m": None}}, "labels", "\\x1b[31m"),
        ({"labels": {7: "x"}}, "labels", "'7'"),
        ({"labels": {"\ud800": "x"}}, "labels", "\\ud800"),
        ({"labels": {f"n{number}": "x" for number in range(100_000)}}, "labels", "holds 100,000; 16 are the most"),
        ({"rights": {"depicts_real_person": "no"}}, "rights.depicts_real_person", "true or false"),
        ({"rights": {"consent_reference": 7, "depicts_real_person": True}}, "rights.consent_reference", "text"),
    ],
)
def test_wrong_shape(changes: dict[str, Any], at: str, says: str) -> None:
    problems = wrong(TEXT | changes)
    assert {*problems} == {at}
    assert says in problems[at]


def test_null_counts_as_absent() -> None:
    fields = VideoRequest.model_fields.keys() - {"user_id", "route", "model", "prompt"}
    assert VideoRequest.from_dict(TEXT | dict.fromkeys(fields)) == VideoRequest.from_dict(TEXT)
    declared = {"references": [IMAGE | {"asset_id": None}], "rights": {"depicts_real_person": None}, "ratio": None}
    assert VideoRequest.from_dict(TEXT | declared) == VideoRequest.from_dict(TEXT | {"references": [IMAGE]})
    assert VideoRequest.from_dict(TEXT | declared).ratio == "adaptive"


def test_rules_apply_to_fields_of_right_shape() -> None:
    request = {
        "user_id": 42,
        "model": "dreamina-seedance-2-0-fast-260128",
        "prompt": "fox --dur 9",
        "references": [
            {"role": "reference_image", "url": 5, "asset_id": " "},
            {"role": "picture", "url": "data:x"},
            7,
            {"url": "http://cdn.example.com/a", "nmae": 1},
        ],
        "resolution": "1080p",
        "duration": "5",
        "take": 0,
        "seed": 1,
        "rights": {"depicts_real_person": True, "consent": "contract 7"},
        "durration": 5,
    }
    fields = (
        "user_id route prompt references[0].url references[0].asset_id references[1].role references[1].url "
        "references[2] references[3].role references[3].url references[3].nmae resolution duration take seed "
        "rights.consent rights.consent_reference durration"
    )
    assert {*wrong(request)} == {*fields.split()}


def test_wrong_shape_is_reported_once() -> None:
    # Without its references or its prompt this would be a request without anything to show.
    assert {*wrong({**TEXT, "prompt": None, "references": "x"})} == {"references"}
    assert {*wrong({**TEXT, "prompt": 5})} == {"prompt"}
    # The sound is alone only because the picture beside it is broken.
    sound = {"role": "reference_audio", "url": "https://cdn.example.com/a.wav"}
    assert {*wrong({**TEXT, "references": [sound, 5]})} == {"references[1]"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1, column 1"),
        ("{", "line 1, column 2"),
        ('{\n  "user_id": "a",\n}', "line 3, column 1"),
        ("{} {}", "line 1, column 4"),
        ("{'a': 1}", "not JSON"),
        (b"\xff", "UTF-8 (byte 0)"),
        (json.dumps(TEXT).encode("utf-16"), "UTF-8"),
        ("[" * 200_000, "nested too deep"),
        ('{"references":' * 200_000, "nested too deep"),
        ("NaN", "object"),
        ("9" * 5_000, "object"),
    ],
)
def test_no_json(text: str | bytes, says: str) -> None:
    problems = wrong_json(text)
    assert {*problems} == {""}
    assert says in problems[""]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "5.0", "9" * 5_000, "-" + "9" * 5_000])
def test_other_numbers_are_refused(value: str) -> None:
    assert {*wrong_json(json.dumps(TEXT)[:-1] + f', "duration": {value}' + "}")} == {"duration"}


def test_half_a_surrogate_pair_in_json() -> None:
    assert {*wrong_json(json.dumps(TEXT | {"prompt": "a\ud800"}))} == {"prompt"}


def test_repeated_field_is_reported() -> None:
    text = (
        json.dumps(TEXT)[:-1] + ', "duration": 5, "duration": 15, "rights": {"consent_reference": "a", '
        '"consent_reference": "b"}, "labels": {"a": "x", "a": "y"}, '
        '"references": [{"url": "asset://a", "role": "first_frame", "url": "asset://a"}]}'
    )
    assert {*wrong_json(text)} == {"duration", "rights.consent_reference", "labels", "references[0].url"}
    assert {*wrong_json(json.dumps(TEXT)[:-1] + ', "take": 1, "take": null}')} == {"take"}


# Any value, and values that are nearly requests.

NUMBERS = st.integers() | st.floats() | st.sampled_from([-1, 0, 4, 5, 15, 16, 3600, 10**30])
KNOWN = ["byteplus", "dreamina-seedance-2-0-260128", "16:9", "720p", "https://cdn.example.com/a", "first_frame"]
TEXTS = st.text(st.characters(exclude_categories=()), max_size=20) | st.sampled_from([*KNOWN, "fox --dur"])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def some_of(*names: str, **better: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object with any of these fields, and perhaps an unknown one."""
    return st.fixed_dictionaries({}, optional=dict.fromkeys([*names, "durration"], JSON) | better)


NEARLY = some_of(
    *VideoRequest.model_fields,
    references=st.lists(some_of(*Reference.model_fields) | JSON),
    rights=some_of(*Rights.model_fields) | JSON,
)


# The smallest request of each model on each route.
TEXTS_OF_ALL = st.sampled_from(
    [TEXT | {"route": model.route, "model": model.id, "resolution": model.resolutions[0]} for model in MODELS]
    + [TEXT | {"model": "ep-20260101-abc"}]
)


def refusal(parse: Callable[[Any], VideoRequest], data: object) -> InvalidRequest | None:
    try:
        request = parse(data)
    except InvalidRequest as refused:
        return refused
    assert RULES.check(request) == []
    assert len(request_hash(request)) == 64
    return None


@given(JSON | NEARLY | st.builds(dict.__or__, TEXTS_OF_ALL, NEARLY))
def test_any_value_is_a_request_or_refused(data: object) -> None:
    refused = refusal(VideoRequest.from_dict, data)
    assert refused is None or by_place(refused)


@given(st.text() | st.binary() | (JSON | NEARLY).map(json.dumps))
def test_any_text_is_a_request_or_refused(text: str | bytes) -> None:
    refused = refusal(VideoRequest.from_json, text)
    assert refused is None or by_place(refused)


@pytest.mark.parametrize(
    "many",
    [
        {"references": [{}] * 90_000},
        {"references": [{"role": "x", "url": "https://10.0.0.1/"}] * 9_000},
        {f"field{number}": 1 for number in range(90_000)},
        {"rights": {f"field{number}": 1 for number in range(90_000)}},
    ],
    ids=["empty references", "bad references", "unknown fields", "unknown rights"],
)
def test_many_faults_make_a_short_answer(many: dict[str, Any]) -> None:
    began = time.process_time()
    with pytest.raises(InvalidRequest) as refused:
        VideoRequest.from_dict(TEXT | many)
    assert time.process_time() - began < 2
    assert 1 < len(refused.value.problems) < 300


@given(st.builds(dict.__or__, TEXTS_OF_ALL, NEARLY))
def test_any_shape_can_be_checked(data: dict[str, Any]) -> None:
    try:
        request = VideoRequest.model_validate(data)
    except ValueError:
        return
    RULES.check(request)
    RULES.estimate(request)
    scene(request)
    RULES.warnings(request)


# Requests that may be paid for.

IDS = st.text("abcdefghij-", min_size=1, max_size=8)
PROMPTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="-"), max_size=30).map("A {}".format)
URLS = (
    st.builds("https://cdn.example.com/{}".format, IDS)
    | st.builds("gs://my-bucket/{}#{}".format, IDS, st.integers(1, 10**18))
    | st.builds("asset://{}".format, IDS)
)


def valid_roles(model: Model) -> st.SearchStrategy[list[str]]:
    """Roles that fit a scene of a model: a few, or as many as it takes."""
    frames = st.sampled_from([[], ["first_frame"], ["first_frame", "last_frame"], ["last_frame", "first_frame"]])
    if not model.references:
        return frames
    visible, all_kinds = ["reference_image", "reference_video"], [f"reference_{kind}" for kind in model.references]
    some = st.lists(st.sampled_from(all_kinds), max_size=3)
    if not model.lone_audio:
        some = st.builds(lambda first, more: [first, *more], st.sampled_from(visible), some.map(lambda more: more[:2]))
    most = [f"reference_{kind}" for kind, number in model.references.items() for _ in range(number)]
    return frames | some | st.just(most)


def valid_options(model: Model, *, has_references: bool, has_video: bool) -> st.SearchStrategy[dict[str, Any]]:
    """Any of the fields that not every model takes."""
    task_types = [t for t in CHOICES["omni_reference_task_type"] if has_video or t not in WORKS_ON_REFERENCES]
    values: dict[str, st.SearchStrategy[Any]] = {
        "seed": st.integers(-1, 2**31 - 1),
        "priority": st.integers(0, 9),
        "execution_expires_after": st.integers(3_600, 259_200),
        "service_tier": st.sampled_from(model.service_tiers or ("",)),
        "output_format": st.sampled_from(CHOICES["output_format"]),
        "omni_reference_task_type": st.sampled_from(task_types),
        "web_search": st.just(False) if has_references else st.booleans(),
        "draft": st.booleans() if "480p" in model.resolutions else st.just(False),
        "camera_fixed": st.booleans(),
    }
    assert values.keys() == {*OPTIONAL}
    return st.fixed_dictionaries({}, optional={name: values[name] for name in sorted(model.optional)})


@st.composite
def valid_requests(draw: st.DrawFn) -> dict[str, Any]:
    """A request of any model on any route, as JSON, with any options that it takes."""
    model = draw(st.sampled_from(MODELS))
    ids = [model.id] + (["ep-20260101-abc"] if model.name == "Seedance 2.0" else [])
    named = st.fixed_dictionaries({}, optional={"asset_id": IDS})
    references = [{"role": role, "url": draw(URLS)} | draw(named) for role in draw(valid_roles(model))]
    has_video = any(reference["role"] == "reference_video" for reference in references)
    options = draw(valid_options(model, has_references=bool(references), has_video=has_video))
    ratios = ["16:9", "1:1", "21:9"]
    has_frames = any(reference["role"] == "first_frame" for reference in references)
    works = options.get("omni_reference_task_type") in WORKS_ON_REFERENCES
    if references:
        keeps = works or (has_frames and model.adaptive_scenes)
        ratios = ["adaptive"] if keeps else [*ratios, "adaptive"]
    durations = [-1] if options.get("omni_reference_task_type") == "edit" else [-1, *model.durations]
    return {
        "user_id": draw(IDS),
        "route": model.route,
        "model": draw(st.sampled_from(ids)),
        **({"prompt": draw(PROMPTS)} if not references or works or draw(st.booleans()) else {}),
        "references": references,
        "ratio": draw(st.sampled_from(ratios)),
        "resolution": "480p" if options.get("draft") else draw(st.sampled_from(model.resolutions)),
        "duration": draw(st.sampled_from(durations)),
        "take": draw(st.integers(1, 1_000_000)),
        **{name: draw(st.booleans()) for name in ("generate_audio", "watermark", "return_last_frame")},
        **options,
    }


@given(valid_requests(), st.integers(0, 9), st.integers(3_600, 259_200), st.text(max_size=5))
def test_hash_ignores_rights_and_priority(data: dict[str, Any], priority: int, expires: int, consent: str) -> None:
    before = VideoRequest.from_dict(data)
    after = before.model_validate(
        data
        | {"priority": priority, "execution_expires_after": expires, "rights": {"consent_reference": consent}}
        | {"labels": {"project": "alpha"}}
        | {"references": [r | ({"url": "asset://other"} if "asset_id" in r else {}) for r in data["references"]]}
    )
    assert canonical_json(after) == canonical_json(before)


CHANGES: dict[str, Any] = {
    "user_id": lambda user: user + "x",
    "route": lambda route: "volcengine" if route == "byteplus" else "byteplus",
    "model": lambda _: "ep-other",
    "prompt": lambda prompt: (prompt or "A") + "x",
    "references": lambda references: [*references, {"role": "reference_image", "url": "asset://added"}],
    "ratio": lambda _: "3:4",
    "resolution": lambda resolution: resolution + "x",
    "duration": lambda duration: duration + 1 if duration > 0 else 5,
    **dict.fromkeys(("generate_audio", "watermark", "return_last_frame"), lambda value: not value),
    "take": lambda take: take + 1,
    "seed": lambda seed: -1 if seed is None else seed + 1,
    **dict.fromkeys(("camera_fixed", "draft", "web_search"), lambda value: value is False),
    "draft_of": lambda draft: (draft or "cgt-1") + "x",
    "service_tier": lambda tier: (tier or "default") + "x" * bool(tier),
    "output_format": lambda value: (value or "mp4") + "x" * bool(value),
    "omni_reference_task_type": lambda value: (value or "auto") + "x" * bool(value),
}


def test_every_field_counts_or_is_ignored() -> None:
    ignored = {"rights", "priority", "execution_expires_after", "labels"}
    assert {*CHANGES} | ignored == {*VideoRequest.model_fields}


@pytest.mark.parametrize("name", CHANGES)
@given(data=valid_requests())
def test_hash_changes_with_other_fields(name: str, data: dict[str, Any]) -> None:
    changed = data | {name: CHANGES[name](data.get(name))}
    assert request_hash(VideoRequest.model_validate(changed)) != request_hash(VideoRequest.from_dict(data))


@given(data=valid_requests())
def test_hash_changes_without_a_field(data: dict[str, Any]) -> None:
    counted = set(OPTIONAL) - {"priority", "execution_expires_after"}
    for name in data.keys() & counted:
        less = {key: value for key, value in data.items() if key != name}
        assert request_hash(VideoRequest.from_dict(data)) != request_hash(VideoRequest.model_validate(less))


@given(data=valid_requests().filter(lambda data: data["references"]), index=st.integers(0, 9))
def test_hash_changes_with_a_reference(data: dict[str, Any], index: int) -> None:
    references = data["references"]
    index %= len(references)
    counts = "asset_id" if "asset_id" in references[index] else "url"
    other = "reference_image" if references[index]["role"] == "reference_audio" else "reference_audio"
    for change in ({"role": other}, {counts: references[index][counts] + "0"}):
        changed = [*references[:index], references[index] | change, *references[index + 1 :]]
        assert request_hash(VideoRequest.model_validate(data | {"references": changed})) != request_hash(
            VideoRequest.from_dict(data)
        )
