"""The local Ark's strictness: what it refuses, what it ignores and bills all the same, what it fills in."""

from datetime import date
from typing import Any

import pytest

from dev.ark.catalog import RATIOS, ROUTES, Route, model_of
from dev.ark.errors import ArkError
from dev.ark.request import TaskRequest
from dev.ark.settings import Settings
from dev.ark.validate import read_body, read_request
from seedance_temporal.provider.known_models import MODELS

MODEL = "dreamina-seedance-2-0-260128"
FAST = "dreamina-seedance-2-0-fast-260128"
NEXT = "dreamina-seedance-2-5-260628"
OLD = "seedance-1-5-pro-251215"
URL = "https://cdn.example.com/x"
BEFORE_ENDS = date(2026, 11, 1)


def request(*items: dict[str, Any], allow_http: bool = False, **fields: Any) -> TaskRequest:
    """Read a create: of a text, unless there are items."""
    body = {"model": MODEL, "content": list(items) or [text()]} | fields
    given = {name: value for name, value in body.items() if value is not None}
    return read_request("byteplus", given, Settings(allow_http_references=allow_http, today=BEFORE_ENDS))


def text(words: str = "a cat") -> dict[str, Any]:
    return {"type": "text", "text": words}


def media(kind: str, role: str | None = None, url: str = URL) -> dict[str, Any]:
    item: dict[str, Any] = {"type": f"{kind}_url", f"{kind}_url": {"url": url}}
    return item if role is None else item | {"role": role}


def image(role: str | None = "reference_image", url: str = URL) -> dict[str, Any]:
    return media("image", role, url)


def video(url: str = URL) -> dict[str, Any]:
    return media("video", "reference_video", url)


def audio(url: str = URL) -> dict[str, Any]:
    return media("audio", "reference_audio", url)


def test_defaults_are_the_service_s() -> None:
    read = request()
    assert (read.ratio, read.resolution, read.duration) == ("16:9", "720p", 5)
    assert (read.generate_audio, read.watermark, read.return_last_frame) == (True, False, False)
    assert (read.execution_expires_after, read.priority, read.service_tier) == (172_800, 0, "default")
    assert read.tokens == 108_900


def test_null_and_unknown_fields_are_ignored() -> None:
    raw = b'{"model": null, "seed": null, "typo": 1}'
    assert read_body(raw) == {"typo": 1}
    read = request(resolutoin="1080p", seed=None, camera_fixed=None, service_tier=None)
    assert read.resolution == "720p"


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"\xff"])
def test_other_body_is_refused(raw: bytes) -> None:
    with pytest.raises(ArkError, match="400"):
        read_body(raw)


# The wrong values of a field, by the model.
WRONG_VALUES: dict[str, dict[str, list[Any]]] = {
    MODEL: {
        "content": [[], "a cat"],
        "duration": ["5", 5.5, True, 3, 16],
        "ratio": ["2:1"],
        "resolution": ["720P", ["720p"]],
        "generate_audio": ["true"],
        "watermark": [1],
        "return_last_frame": ["no"],
        "execution_expires_after": [3599, 259_201],
        "priority": [10],
        "callback_url": ["ftp://example.com"],
        "safety_identifier": ["x" * 65, "ü"],
        "tools": [[{"type": "other"}]],
        "seed": [1, -1],
        "camera_fixed": [False],
        "service_tier": ["default"],
        "frames": [121],
        "draft": [True],
        "output_format": ["mp4"],
        "omni_reference_task_type": ["auto"],
    },
    FAST: {"resolution": ["1080p"]},
    NEXT: {"seed": [1], "service_tier": ["flex"], "duration": [31], "resolution": ["4k"], "output_format": ["avi"]},
    OLD: {"priority": [1], "tools": [[{"type": "web_search"}]], "duration": [13], "seed": [2**31]},
}
WRONG = [
    *(({"model": 1}, "model"), ({"content": [{"type": ["text"]}]}, "content[0].type")),
    ({"content": [text(" ")]}, "content[0].text"),
    *(
        ({"model": model, field: value}, field)
        for model, fields in WRONG_VALUES.items()
        for field, values in fields.items()
        for value in values
    ),
]


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        *((fields, "InvalidParameter", param) for fields, param in WRONG),
        *(({name: None}, "MissingParameter", name) for name in ("model", "content")),
    ],
)
def test_wrong_or_missing_field_is_named(fields: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(ArkError) as caught:
        request(**fields)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, code, param)


@pytest.mark.parametrize(
    "fields",
    [
        {"resolution": "4k", "duration": 15, "priority": 9, "safety_identifier": "x" * 64},
        {"duration": -1, "execution_expires_after": 3600, "tools": [{"type": "web_search"}]},
        {"model": NEXT, "duration": 30, "draft": True, "output_format": "mov", "service_tier": "default"},
        {"model": OLD, "seed": 7, "camera_fixed": True, "service_tier": "flex", "duration": 12},
    ],
)
def test_supported_fields_are_accepted(fields: dict[str, Any]) -> None:
    assert request(**fields).seed >= 0


@pytest.mark.parametrize(
    ("items", "scene"),
    [
        ([text()], "text"),
        ([image(None)], "first frame"),
        ([text(), image("first_frame")], "first frame"),
        ([image("first_frame"), image("last_frame")], "first and last frame"),
        ([image()] * 9 + [video()] * 3 + [audio()] * 3, "references"),
        ([text(), video(), audio()], "references"),
    ],
)
def test_scenes(items: list[dict[str, Any]], scene: str) -> None:
    assert request(*items).scene == scene


TOO_MANY = [[image()] * 10, [video()] * 4, [image()] + [audio()] * 4]
MIXED = [[image("first_frame"), image()], [image("first_frame"), video()], [image(None), image()]]
UNKNOWN_FRAMES = [
    *([image("last_frame")], [image(None), image(None)], [image("first_frame"), image("first_frame")]),
    [image("first_frame"), image("last_frame"), image("last_frame")],
]
OTHER_ITEMS: list[list[Any]] = [
    *([audio()], [text(), audio()], [image("reference_video")], [media("video", "first_frame")]),
    *([{"type": "image_url", "image_url": URL}], [{"type": "image", "image": {"url": URL}}], ["a cat"]),
]


@pytest.mark.parametrize("items", [*TOO_MANY, *MIXED, *UNKNOWN_FRAMES, *OTHER_ITEMS])
def test_unknown_scene_is_refused(items: list[dict[str, Any]]) -> None:
    with pytest.raises(ArkError, match=r"400 (Invalid|Missing)Parameter"):
        request(*items)


@pytest.mark.parametrize("items", [[image()] * 31, [video()] * 11, [audio()] * 11], ids=["images", "videos", "audios"])
def test_2_5_has_larger_limits(items: list[dict[str, Any]]) -> None:
    assert request(*items[1:], model=NEXT).scene == "references"
    with pytest.raises(ArkError, match="at most"):
        request(*items, model=NEXT)


def test_1_5_pro_has_no_references() -> None:
    with pytest.raises(ArkError, match=r"not supported by 1\.5 pro"):
        request(image(), model=OLD)


def test_2_5_keeps_the_ratio_of_a_first_frame() -> None:
    doom = request(image(None), model=NEXT, ratio="16:9").doom
    assert doom is not None
    assert doom.code == "InvalidParameter.TaskTypeConstraint"
    kept = request(image(None), model=NEXT, ratio="adaptive")
    assert (kept.scene, kept.doom) == ("first frame", None)
    assert request(model=NEXT, ratio="9:16").ratio == "9:16"


def test_web_search_is_for_text_alone() -> None:
    with pytest.raises(ArkError, match="tools"):
        request(text(), image(), tools=[{"type": "web_search"}])


def test_url_forms() -> None:
    accepted = [
        image(url="data:image/png;base64,AAAA"),
        image(url="asset://a-1"),
        video(url="asset://v-1"),
        audio(url="data:audio/wav;base64,AAAA"),
    ]
    assert len(request(*accepted).references) == 4
    for item in (
        image(url="http://cdn.example.com/x"),
        image(url="gs://bucket/x"),
        image(url="data:audio/wav;base64,AAAA"),
        image(url="data:image/svg;base64,AAAA"),
        video(url="data:video/mp4;base64,AAAA"),
        image(url="https://"),
        image(url=""),
    ):
        with pytest.raises(ArkError, match="url"):
            request(item)
    assert request(image(url="http://127.0.0.1:1/x"), allow_http=True).scene == "references"


def test_prompt_flags_are_obeyed() -> None:
    read = request(text("a cat --dur 15 --rs 1080p --rt 9:16 --wm true --seed 5"), duration=4)
    assert (read.duration, read.resolution, read.ratio, read.watermark) == (15, "1080p", "9:16", True)
    assert (read.clip.width, read.clip.height) == (1080, 1920)
    assert read.tokens == 1080 * 1920 * 361 // 1024
    assert request(text("--resolution 480p --ratio 1:1 --duration 6")).clip.width == 640
    assert request(text("a cat --seed 5"), model=OLD).seed == 5


def test_unknown_flags_are_skipped() -> None:
    read = request(text("a --dur 99 --rs 8k --fps 60 --nonsense 1 --dur well-known"), model=FAST)
    assert (read.duration, read.resolution) == (5, "720p")
    assert request(text("a--dur 9")).duration == 5


def test_reference_video_is_billed() -> None:
    assert request(video()).tokens == 1280 * 720 * (24 * 10 + 1) // 1024


@pytest.mark.parametrize(
    ("resolution", "ratio", "size"),
    [("480p", "21:9", (992, 432)), ("720p", "3:4", (834, 1112)), ("4k", "21:9", (4398, 1886))],
)
def test_sizes(resolution: str, ratio: str, size: tuple[int, int]) -> None:
    clip = request(resolution=resolution, ratio=ratio).clip
    assert (clip.width, clip.height) == size


def test_sizes_and_models_equal_the_clients() -> None:
    # Written down twice, on purpose: where they differ, one of them has a slip.
    for ours in MODELS:
        (route,) = (route for route in ROUTES if route == ours.route)
        theirs = model_of(route, ours.id, {})
        assert theirs is not None
        assert (theirs.resolutions, theirs.longest, theirs.ends) == (ours.resolutions, ours.durations[-1], ours.ends)
        for resolution in ours.sizes.keys() & {*ours.resolutions}:
            assert ours.sizes[resolution] == {ratio: theirs.pixels(resolution, ratio) for ratio in RATIOS}


@pytest.mark.parametrize("family", ["2-0-260128", "2-0-fast-260128", "2-0-mini-260615", "2-5-260628", "1-5-pro-251215"])
def test_family_has_a_name_for_each_route(family: str) -> None:
    names: dict[Route, str] = {
        "byteplus": f"{'' if family.startswith('1') else 'dreamina-'}seedance-{family}",
        "volcengine": f"doubao-seedance-{family}",
    }
    for route in ROUTES:
        assert (
            read_request(route, {"model": names[route], "content": [text()]}, Settings(today=BEFORE_ENDS)).model
            == names[route]
        )
        for other in set(names.values()) - {names[route]}:
            with pytest.raises(ArkError, match=r"InvalidEndpointOrModel\.NotFound"):
                read_request(route, {"model": other, "content": [text()]}, Settings())


def test_body_over_64_mb_is_refused() -> None:
    at_most = 64 * 1024 * 1024
    assert read_body(b"{}".ljust(at_most)) == {}
    with pytest.raises(ArkError, match="larger than 64 MB"):
        read_body(b"{}".ljust(at_most + 1))


def test_model_of_another_route_is_refused() -> None:
    body = {"model": MODEL, "content": [text()]}
    with pytest.raises(ArkError) as caught:
        read_request("volcengine", body, Settings())
    assert (caught.value.status, caught.value.code) == (404, "InvalidEndpointOrModel.NotFound")
    read = read_request("volcengine", body | {"model": "ep-1"}, Settings())
    assert (read.model, read.model_given) == ("doubao-seedance-2-0-260128", "ep-1")
