"""Two readings of one page: the catalogue's rules, and the local Ark's, each written without looking at the other.

What the catalogue lets through is turned into the body of a create, as it is sent, and read by the local Ark's own
rules, without a network.
"""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activities.create import CreateActivities
from dev.ark.catalog import Route
from dev.ark.errors import ArkError
from dev.ark.request import TaskRequest
from dev.ark.settings import Settings
from dev.ark.validate import read_body, read_request
from seedance_temporal.errors import InvalidRequest
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.provider.ark import Ark
from seedance_temporal.provider.checks import gs_object, scene
from seedance_temporal.provider.known_models import KNOWN, MODELS
from seedance_temporal.provider.models import OPTIONAL, ROUTES, Model
from seedance_temporal.provider.rules import Rules
from seedance_temporal.request import VideoRequest
from tests.support.jobs import a_claim, some_settings
from tests.support.memory_bucket import MemoryBucket
from tests.unit.test_request_json import valid_requests
from tests.unit.test_rules import RIGHT, TEXT, refs


class SigningBucket(MemoryBucket):
    """Signs URLs that can be sent, for any name of an object, as Google's library does."""

    async def signed_url(self, bucket: str, name: str, generation: int, lifetime: timedelta) -> str:
        return await super().signed_url(bucket, quote(name), generation, lifetime)


BUCKET = SigningBucket()
CREATE = CreateActivities(Ledger(BUCKET, "seedance"), BUCKET, Ark("https://ark.example.com", "key"), some_settings())
SCENES = {
    "text_to_video": "text",
    "first_frame": "first frame",
    "first_and_last_frame": "first and last frame",
    "references": "references",
}


def read(request: VideoRequest, endpoints: dict[str, str] | None = None) -> TaskRequest:
    """What the local Ark makes of a request.

    Raises:
        ArkError: It refuses it.
    """
    body = read_body(json.dumps(asyncio.run(CREATE._body(a_claim(request), None))).encode())
    route: Route = "byteplus" if request.route == "byteplus" else "volcengine"
    return read_request(route, body, Settings.model_validate({"endpoints": endpoints or {}, "today": "2026-11-01"}))


def takes(request: VideoRequest) -> bool:
    """Whether the local Ark does."""
    try:
        read(request)
    except ArkError:
        return False
    return True


def assert_it_orders_what_was_asked(request: VideoRequest, endpoints: dict[str, str] | None = None) -> None:
    received = read(request, endpoints)
    assert received.scene == SCENES[scene(request)]
    assert received.resolution == request.resolution
    assert request.ratio in {received.ratio, "adaptive"}
    assert request.duration in {received.duration, -1}
    assert received.doom is None or "make an edit of it" in " ".join(Rules(endpoints=endpoints or {}).warnings(request))
    for name in ("generate_audio", "watermark", "return_last_frame"):
        assert getattr(received, name) == getattr(request, name)
    assert received.draft == bool(request.draft)
    assert received.priority == (request.priority or 0)
    assert received.service_tier == (request.service_tier or "default")
    assert received.seed == request.seed or request.seed in {None, -1}
    assert [media.url for media in received.references] == [
        reference.url if gs_object(reference.url) is None else media.url
        for reference, media in zip(request.references, received.references, strict=True)
    ]


# The create of a final asks for its draft; see test_drafts.py.
ALONE = {name: changes for name, changes in RIGHT.items() if "draft_of" not in changes}


@pytest.mark.parametrize("changes", ALONE.values(), ids=ALONE.keys())
def test_boundary_values_are_accepted(changes: dict[str, Any]) -> None:
    assert_it_orders_what_was_asked(VideoRequest.model_validate(TEXT | changes))


@given(valid_requests())
def test_documented_requests_are_accepted_by_both(data: dict[str, Any]) -> None:
    assert_it_orders_what_was_asked(VideoRequest.from_dict(data))


# Values around each limit; most of what is made of them is refused by both.
AROUND: dict[str, st.SearchStrategy[Any]] = {
    "route": st.sampled_from([*ROUTES, "other"]),
    "model": st.sampled_from([*KNOWN, "ep-1", "ep-", "ep-a_b", "seedance-9"]),
    "prompt": st.sampled_from([None, "", " ", "\u200b", "a -- b", "a --dur 5", "狐--rs 4k", "fox"]),
    "references": st.lists(
        st.fixed_dictionaries(
            {
                "role": st.sampled_from(
                    ["first_frame", "last_frame", "reference_image", "reference_video", "reference_audio", "", "other"]
                ),
                "url": st.sampled_from(
                    [
                        *("https://cdn.example.com/a", "HTTPS://cdn.example.com/a", "http://cdn.example.com/a"),
                        *("https://cdn.example.com", "https:cdn.example.com/a", "https:///a", "https://"),
                        *("https://ä.example.com/a", "https://xn--bcher-kva.example/b", "https://10.0.0.1/a"),
                        *("asset://a", "asset://", "asset:a", "asset://a b", "data:image/png;base64,AA", "a.png"),
                        *("gs://my-bucket/a b#1", "gs://my-bucket/a"),
                    ]
                ),
            }
        ),
        max_size=4,
    ),
    "ratio": st.sampled_from(["16:9", "21:9", "adaptive", "2:1"]),
    "resolution": st.sampled_from(["480p", "720p", "1080p", "4k", "8k"]),
    "duration": st.sampled_from([-2, -1, 0, 3, 4, 12, 13, 15, 16, 30, 31]),
    "seed": st.sampled_from([-2, -1, 0, 2**31 - 1, 2**31]),
    "camera_fixed": st.booleans(),
    "service_tier": st.sampled_from(["default", "flex", "other"]),
    "priority": st.sampled_from([-1, 0, 9, 10]),
    "execution_expires_after": st.sampled_from([3_599, 3_600, 259_200, 259_201]),
    "draft": st.booleans(),
    "output_format": st.sampled_from(["mp4", "mov", "avi"]),
    "omni_reference_task_type": st.sampled_from(["auto", "reference", "edit", "extend", "other"]),
    "web_search": st.booleans(),
}
assert AROUND.keys() >= {*OPTIONAL}


@settings(max_examples=300)
@given(valid_requests(), st.data())
def test_valid_requests_pass_the_local_ark(data: dict[str, Any], draw: st.DataObject) -> None:
    for name in draw.draw(st.lists(st.sampled_from(sorted(AROUND)), min_size=1, max_size=3, unique=True)):
        data = data | {name: draw.draw(AROUND[name])}
    try:
        request = VideoRequest.from_dict(data)
    except InvalidRequest:
        return
    assert_it_orders_what_was_asked(request)


_2_0_ON = {model.route: model.id for model in MODELS if model.name == "Seedance 2.0"}


@given(valid_requests(), st.sampled_from(["ep-a", "ep-b"]))
def test_endpoint_model_is_seen_by_both(data: dict[str, Any], endpoint: str) -> None:
    endpoints = {endpoint: data["model"] if data["model"] != "ep-20260101-abc" else _2_0_ON[data["route"]]}
    request = VideoRequest.from_dict(data | {"model": endpoint}, rules=Rules(endpoints=endpoints))
    assert_it_orders_what_was_asked(request, endpoints)


# The table "body" and the table "scenes", model by model, on both routes: inside and outside.

MODELS_ON_ROUTES = [pytest.param(model, model.route, id=f"{model.name} {model.route}") for model in MODELS]
TABLE: dict[str, dict[str, Any]] = {
    "Seedance 2.0": {"resolutions": "480p 720p 1080p 4k", "longest": 15, "most": (9, 3, 3)},
    "Seedance 2.0 fast": {"resolutions": "480p 720p", "longest": 15, "most": (9, 3, 3)},
    "Seedance 2.0 mini": {"resolutions": "480p 720p", "longest": 15, "most": (9, 3, 3)},
    "Seedance 2.5": {"resolutions": "480p 720p 1080p", "longest": 30, "most": (30, 10, 10)},
    "Seedance 2.5 premium": {"resolutions": "4k", "longest": 30, "most": (30, 10, 10)},
    "Seedance 1.5 pro": {"resolutions": "480p 720p 1080p", "longest": 12, "most": (0, 0, 0)},
}
FIELDS: dict[str, dict[str, list[Any]]] = {
    "Seedance 2.0": {"priority": [0, 9], "execution_expires_after": [3_600, 259_200], "web_search": [True, False]},
    "Seedance 2.5": {
        "priority": [0, 9],
        "execution_expires_after": [3_600, 259_200],
        "web_search": [True, False],
        "service_tier": ["default"],
        "draft": [True, False],
        "output_format": ["mp4", "mov"],
        "omni_reference_task_type": ["auto", "reference"],
    },
    "Seedance 1.5 pro": {
        "seed": [-1, 2**31 - 1],
        "camera_fixed": [True, False],
        "service_tier": ["default", "flex"],
        "execution_expires_after": [3_600, 259_200],
        "draft": [True, False],
    },
}
VALUES: dict[str, list[Any]] = {
    "seed": [-2, -1, 2**31 - 1, 2**31],
    "camera_fixed": [True, False],
    "service_tier": ["default", "flex", "other"],
    "priority": [-1, 0, 9, 10],
    "execution_expires_after": [3_599, 3_600, 259_200, 259_201],
    "draft": [True, False],
    "output_format": ["mp4", "mov", "avi"],
    "omni_reference_task_type": ["auto", "reference", "other"],
    "web_search": [True, False],
}


def of(model: Model, route: str, **changes: Any) -> VideoRequest:
    resolution = "720p" if "720p" in model.resolutions else model.resolutions[-1]
    return VideoRequest.model_validate(TEXT | {"route": route, "model": model.id, "resolution": resolution} | changes)


def assert_both(request: VideoRequest, *, allow: bool, at: str) -> None:
    assert {problem.at for problem in Rules().check(request)} == (set() if allow else {at})
    assert takes(request) == allow


@pytest.mark.parametrize(("model", "route"), MODELS_ON_ROUTES)
def test_resolutions(model: Model, route: str) -> None:
    for resolution in ("360p", "480p", "720p", "1080p", "2k", "4k"):
        allow = resolution in TABLE[model.name]["resolutions"].split()
        assert_both(of(model, route, resolution=resolution), allow=allow, at="resolution")


@pytest.mark.parametrize(("model", "route"), MODELS_ON_ROUTES)
def test_durations(model: Model, route: str) -> None:
    longest = TABLE[model.name]["longest"]
    for duration in (-2, -1, 0, 3, 4, longest, longest + 1):
        allow = duration == -1 or 4 <= duration <= longest
        assert_both(of(model, route, duration=duration), allow=allow, at="duration")


@pytest.mark.parametrize(("model", "route"), MODELS_ON_ROUTES)
def test_ratios(model: Model, route: str) -> None:
    for ratio in ("16:9", "4:3", "1:1", "3:4", "9:16", "21:9", "2:1"):
        assert_both(of(model, route, ratio=ratio), allow=ratio != "2:1", at="ratio")
        for frames in (["first_frame"], ["first_frame", "last_frame"]):
            # The provider takes it, and fails it later.
            keeps = model.name.startswith("Seedance 2.5")
            request = of(model, route, ratio=ratio, **refs(*frames))
            problems = {problem.at for problem in Rules().check(request)}
            assert problems == (set() if ratio != "2:1" and not keeps else {"ratio"})
            assert takes(request) == (ratio != "2:1")
            assert ratio == "2:1" or (read(request).doom is not None) == keeps
    for references in ({}, refs("first_frame")):
        assert_both(of(model, route, ratio="adaptive", **references), allow=True, at="ratio")


@pytest.mark.parametrize(("model", "route"), MODELS_ON_ROUTES)
def test_numbers_of_references(model: Model, route: str) -> None:
    most = dict(zip(("reference_image", "reference_video", "reference_audio"), TABLE[model.name]["most"], strict=True))
    for role, number in most.items():
        beside = ["reference_image"] if role == "reference_audio" and number else []
        for count in {1, number, number + 1}:
            request = of(model, route, **refs(*beside, *[role] * count))
            assert_both(request, allow=count <= number, at="references")
    all_of_them = [role for role, number in most.items() for _ in range(number)]
    assert_both(of(model, route, **refs(*all_of_them)), allow=True, at="references")
    alone = of(model, route, **refs("reference_audio"))
    assert_both(alone, allow=model.lone_audio, at="references")


@pytest.mark.parametrize(("model", "route"), MODELS_ON_ROUTES)
def test_frames(model: Model, route: str) -> None:
    for roles, allow in (
        (["first_frame"], True),
        (["last_frame", "first_frame"], True),
        (["last_frame"], False),
        (["first_frame", "first_frame"], False),
        (["first_frame", "last_frame", "last_frame"], False),
    ):
        assert_both(of(model, route, **refs(*roles)), allow=allow, at="references")
        assert takes(of(model, route, **refs(*roles, "reference_image"))) is False
        assert {p.at for p in Rules().check(of(model, route, **refs(*roles, "reference_image")))} == {"references"}
    assert_both(of(model, route, prompt=None, **refs("first_frame")), allow=True, at="prompt")
    assert_both(of(model, route, prompt=None), allow=False, at="prompt")


@pytest.mark.parametrize(("model", "route"), MODELS_ON_ROUTES)
def test_optional_fields_depend_on_model(model: Model, route: str) -> None:
    assert VALUES.keys() == {*OPTIONAL}
    allowed = dict(FIELDS[next(name for name in FIELDS if model.name.startswith(name))])
    if "draft" in allowed and "480p" not in model.resolutions:
        del allowed["draft"]
    for name, values in VALUES.items():
        for value in values:
            at_480p = {"resolution": "480p"} if name == "draft" and value and "480p" in model.resolutions else {}
            request = of(model, route, **{name: value}, **at_480p)
            allow = value in allowed.get(name, [])
            assert {problem.at for problem in Rules().check(request)} == (set() if allow else {name})
            # A search that is declined is not sent at all.
            assert takes(request) == (allow or (name, value) == ("web_search", False))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("task_type", ["edit", "extend"])
def test_edits_and_extensions(route: str, task_type: str) -> None:
    (model,) = (model for model in MODELS if (model.name, model.route) == ("Seedance 2.5", route))
    right: dict[str, Any] = {"omni_reference_task_type": task_type, "duration": -1, "prompt": "Make the fox a wolf"}
    right |= {"ratio": "adaptive", **refs("reference_video", "reference_image")}
    assert_both(of(model, route, **right), allow=True, at="")
    assert_both(of(model, route, **right | {"ratio": "16:9"}), allow=False, at="ratio")
    assert_both(of(model, route, **right | refs("reference_image")), allow=False, at="omni_reference_task_type")
    assert_both(of(model, route, **right | {"prompt": None}), allow=False, at="prompt")
    assert_both(of(model, route, **right | {"duration": 5}), allow=task_type == "extend", at="duration")


@pytest.mark.parametrize("route", ROUTES)
def test_open_task_type_may_become_an_edit(route: str) -> None:
    (model,) = (model for model in MODELS if (model.name, model.route) == ("Seedance 2.5", route))
    for task_type, prompt, fails in (
        (None, "Replace the fox by a wolf", True),
        ("auto", "Add a wolf", True),
        ("reference", "Add a wolf", False),
        (None, "A wolf", False),
    ):
        request = of(model, route, prompt=prompt, omni_reference_task_type=task_type, **refs("reference_video"))
        assert Rules().check(request) == []
        warned = any("make an edit of it" in warning for warning in Rules().warnings(request))
        assert warned == (task_type != "reference")
        assert (read(request).doom is not None) == fails


@pytest.mark.parametrize(("model", "route"), MODELS_ON_ROUTES)
def test_draft_resolution(model: Model, route: str) -> None:
    for resolution in model.resolutions if "draft" in model.optional else ():
        request = of(model, route, draft=True, resolution=resolution)
        assert_both(request, allow=resolution == "480p", at="resolution")


@pytest.mark.parametrize(("model", "route"), MODELS_ON_ROUTES)
def test_web_search_works_on_text_alone(model: Model, route: str) -> None:
    request = of(model, route, web_search=True, **refs("first_frame"))
    assert "web_search" in {problem.at for problem in Rules().check(request)}
    assert not takes(request)


@pytest.mark.parametrize(("model", "route"), MODELS_ON_ROUTES)
def test_model_is_known_on_its_route(model: Model, route: str) -> None:
    (other,) = set(ROUTES) - {route}
    moved = of(model, other)
    assert_both(moved, allow=False, at="model")
