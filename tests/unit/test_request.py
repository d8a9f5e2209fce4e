"""The shape of a request: strict where a mistake would be paid for, and readable for as long as a run exists."""

from __future__ import annotations

import json
from collections.abc import Iterable
from types import MappingProxyType
from typing import Any

import pytest
from pydantic import ValidationError

from seedance_temporal.errors import InvalidRequest
from seedance_temporal.provider.known_models import KNOWN
from seedance_temporal.provider.models import CHOICES, KINDS, PIXELS, RATIOS, ROUTES
from seedance_temporal.provider.rules import Rules
from seedance_temporal.request import Reference, Rights, VideoRequest

LEAST: dict[str, Any] = {"user_id": "user-42", "route": "byteplus", "model": "dreamina-seedance-2-0-260128"}
IMAGE = {"role": "reference_image", "url": "https://cdn.example.com/a.png"}


def test_defaults() -> None:
    request = VideoRequest(**LEAST)
    assert request.model_dump(exclude_none=True) == LEAST | {
        "references": (),
        "ratio": "16:9",
        "resolution": "720p",
        "duration": 5,
        "generate_audio": False,
        "watermark": False,
        "return_last_frame": False,
        "rights": {"depicts_real_person": False},
        "take": 1,
    }


@pytest.mark.parametrize("ratio", [{}, {"ratio": None}])
def test_default_ratio_adapts_to_references(ratio: dict[str, Any]) -> None:
    assert VideoRequest.model_validate(LEAST | ratio | {"references": [IMAGE]}).ratio == "adaptive"
    assert VideoRequest.model_validate(LEAST | ratio | {"references": []}).ratio == "16:9"
    assert VideoRequest.model_validate(LEAST | {"ratio": "1:1", "references": [IMAGE]}).ratio == "1:1"


def test_null_counts_as_absent_everywhere() -> None:
    nulls = dict.fromkeys(VideoRequest.model_fields.keys() - LEAST.keys())
    assert VideoRequest.model_validate(nulls | LEAST) == VideoRequest(**LEAST)
    assert Rights.model_validate({"depicts_real_person": None}) == Rights()
    assert Reference.model_validate(IMAGE | {"asset_id": None}) == Reference(**IMAGE)


@pytest.mark.parametrize("name", LEAST)
def test_null_is_refused_where_required(name: str) -> None:
    with pytest.raises(ValidationError, match="Field required"):
        VideoRequest.model_validate(LEAST | {name: None})


WRONG_SHAPES: list[dict[str, Any]] = [
    *({"durration": 5}, {"references": [IMAGE | {"name": "x"}]}, {"rights": {"consent": "x"}}),
    *({"duration": "5"}, {"duration": 5.0}, {"duration": True}, {"take": "1"}),
    *({"generate_audio": 0}, {"generate_audio": "no"}, {"prompt": 5}, {"prompt": b"fox"}, {"rights": True}),
    *({"references": "asset://a"}, {"references": [["reference_image", "asset://a"]]}),
]


@pytest.mark.parametrize("changes", WRONG_SHAPES)
def test_unknown_and_converted_values_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        VideoRequest.model_validate(LEAST | changes)


def test_disallowed_values_stay_readable() -> None:
    """A running job must be decodable after a release that drops its model or tightens a rule."""
    odd = {
        "model": "gone",
        "route": "gone",
        "ratio": "7:1",
        "resolution": "8k",
        "duration": 99,
        "take": 0,
        "user_id": "",
    }
    request = VideoRequest.model_validate(odd | {"references": [{"role": "gone", "url": ""}]})
    assert VideoRequest.model_validate_json(request.model_dump_json()) == request


def test_request_is_frozen() -> None:
    request = VideoRequest(**LEAST)
    with pytest.raises(ValidationError, match="frozen"):
        request.take = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("route", ROUTES),
        ("model", KNOWN),
        ("ratio", RATIOS),
        ("resolution", PIXELS),
        ("service_tier", ("default", "flex")),
        ("output_format", CHOICES["output_format"]),
        ("omni_reference_task_type", CHOICES["omni_reference_task_type"]),
    ],
)
def test_schema_names_the_values_of_closed_sets(field: str, values: Iterable[str]) -> None:
    known, text, *_ = VideoRequest.model_json_schema()["properties"][field]["anyOf"]
    assert (known, text) == ({"enum": [*values]}, {"type": "string"})


def test_schema_names_the_roles() -> None:
    assert Reference.model_json_schema()["properties"]["role"]["anyOf"][0] == {"enum": [*KINDS]}


def test_environment_gives_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"user_id": "u", "route": "byteplus", "model": "ep-25", "prompt": "x", "duration": 20}
    with pytest.raises(InvalidRequest) as refused:
        VideoRequest.from_dict(fields)
    assert [problem.at for problem in refused.value.problems] == ["duration"]
    monkeypatch.setenv("SEEDANCE_ENDPOINTS", '{"ep-25": "dreamina-seedance-2-5-260628"}')
    assert VideoRequest.from_dict(fields).duration == VideoRequest.from_json(json.dumps(fields)).duration == 20
    with pytest.raises(InvalidRequest):
        VideoRequest.from_dict(fields, rules=Rules())


def test_any_mapping_is_read() -> None:
    fields = {"user_id": "u", "route": "byteplus", "model": "dreamina-seedance-2-0-260128", "prompt": "x"}
    assert VideoRequest.from_dict(MappingProxyType(fields)) == VideoRequest.model_validate(fields)
