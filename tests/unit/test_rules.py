"""The models and the rules: each just inside and just outside, and everything that is wrong at once."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from seedance_temporal.provider.checks import GsObject, gs_object, scene
from seedance_temporal.provider.known_models import KNOWN, MODELS, UNKNOWN_ENDPOINT
from seedance_temporal.provider.models import KINDS, PIXELS, RATIOS, ROUTES
from seedance_temporal.provider.prices import Cost, cost
from seedance_temporal.provider.rules import Rules
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings

RULES = Rules(today=lambda: date(2026, 9, 1))
check, warnings, estimate = RULES.check, RULES.warnings, RULES.estimate
FULL = "dreamina-seedance-2-0-260128"
FAST = "dreamina-seedance-2-0-fast-260128"
MINI = "dreamina-seedance-2-0-mini-260615"
NEXT = "dreamina-seedance-2-5-260628"
PRO = "seedance-1-5-pro-251215"
PREMIUM = "dreamina-seedance-2-5-premium-260915"
CHINESE = "doubao-seedance-2-0-260128"
TEXT: dict[str, Any] = {"user_id": "user-42", "route": "byteplus", "model": FULL, "prompt": "A red fox in snow"}


def ref(role: str, url: str = "https://cdn.example.com/a", **more: Any) -> dict[str, Any]:
    return {"role": role, "url": url} | more


def frame(url: str = "https://cdn.example.com/a", **more: Any) -> dict[str, Any]:
    return {"references": [ref("first_frame", url, **more)]}


def rights(consent: str | None = None, *, person: bool = True) -> dict[str, Any]:
    return {"rights": {"depicts_real_person": person, "consent_reference": consent}}


def next_of(task_type: str, **changes: Any) -> dict[str, Any]:
    return {"model": NEXT, "omni_reference_task_type": task_type} | changes


def refs(*roles: str) -> dict[str, Any]:
    return {"references": [ref(role, f"https://cdn.example.com/{n}") for n, role in enumerate(roles)]}


def many(image: int = 0, video: int = 0, audio: int = 0) -> dict[str, Any]:
    return refs(*["reference_image"] * image, *["reference_video"] * video, *["reference_audio"] * audio)


def request(**changes: Any) -> VideoRequest:
    return VideoRequest.model_validate(TEXT | changes)


def wrong(**changes: Any) -> dict[str, str]:
    """What is wrong, by place."""
    problems = check(request(**changes))
    assert all(problem.problem for problem in problems)
    return {problem.at: problem.problem for problem in problems}


RIGHT: dict[str, dict[str, Any]] = {
    "text alone": {},
    "fast": {"model": FAST},
    "mini": {"model": MINI},
    "volcengine": {"route": "volcengine", "model": "doubao-seedance-2-0-260128"},
    "volcengine fast": {"route": "volcengine", "model": "doubao-seedance-2-0-fast-260128"},
    "volcengine mini": {"route": "volcengine", "model": "doubao-seedance-2-0-mini-260615"},
    "endpoint": {"model": "ep-20260101-Abc9"},
    "endpoint on the other route": {"model": "ep-a", "route": "volcengine"},
    "endpoint has the rules of 2.0": {"model": "ep-a", "resolution": "4k"},
    "longest user id": {"user_id": "é" * 255},
    "longest prompt": {"prompt": "狐" * 32_000},
    "a dash between words": {"prompt": "A fox -- red, well--lit -- runs - fast --\nAnd --, ---- or -dur 5 or - -dur"},
    "no prompt with a reference": {"prompt": None, **refs("first_frame")},
    "first frame": refs("first_frame"),
    "first and last frame": refs("first_frame", "last_frame"),
    "last and first frame": refs("last_frame", "first_frame"),
    "nine images, three videos, three sounds": many(9, 3, 3),
    "sound beside an image": many(image=1, audio=1),
    "sound beside a video": many(video=1, audio=3),
    "gs url": {"references": [ref("reference_video", "gs://my-bucket/a folder/ä#1.mov#1718000000000001")]},
    "asset url": {"references": [ref("reference_image", "asset://asset-20260401-6d4x2")]},
    "longest url": frame("https://cdn.example.com/".ljust(8_192, "a")),
    "asset id": {"references": [ref("reference_image", asset_id="a" * 1_024)]},
    "adaptive": {"ratio": "adaptive", **refs("first_frame")},
    "adaptive to the prompt": {"ratio": "adaptive"},
    "the shortest": {"duration": 4},
    "the longest": {"duration": 15},
    "the model chooses": {"duration": -1},
    "4k": {"resolution": "4k"},
    "fast 480p": {"model": FAST, "resolution": "480p"},
    "lowest priority": {"priority": 0},
    "highest priority": {"priority": 9},
    "labels": {"labels": {f"team-{number}_a.b": "x" * 128 for number in range(16)}},
    "no labels": {"labels": {}},
    "soonest expiry": {"execution_expires_after": 3_600},
    "latest expiry": {"execution_expires_after": 259_200},
    "web search": {"web_search": True},
    "no web search": {"web_search": False, **refs("first_frame")},
    "marks of a language": {"prompt": "a" + "\u0301" * 30 + "b" + "\u0323" * 30},
    "2.5": {"model": NEXT},
    "2.5 on volcengine": {"route": "volcengine", "model": "doubao-seedance-2-5-260628"},
    "2.5 takes sound alone": {"model": NEXT, **many(audio=10)},
    "2.5 takes thirty images, ten videos, ten sounds": {"model": NEXT, **many(30, 10, 10)},
    "2.5 first frame": {"model": NEXT, **refs("first_frame")},
    "2.5 first and last frame": {"model": NEXT, **refs("first_frame", "last_frame")},
    "2.5 references in a ratio": {"model": NEXT, "ratio": "1:1", **many(image=1)},
    "2.5 text in a ratio": {"model": NEXT, "ratio": "21:9"},
    "2.5 auto in a ratio": next_of("auto", ratio="1:1", **many(video=1)),
    "2.5 reference in a ratio": next_of("reference", ratio="1:1", **many(video=1)),
    "2.5 edit": next_of("edit", duration=-1, **many(video=1)),
    "2.5 draft": {"model": NEXT, "draft": True, "resolution": "480p"},
    "2.5 final of a task": {"model": NEXT, "prompt": None, "draft_of": "cgt-20260525143012-x7k2p"},
    "2.5 final of a job": {"model": NEXT, "prompt": None, "draft_of": "seedance-" + "a" * 64, "resolution": "1080p"},
    "2.5 extend": next_of("extend", **many(video=1)),
    "2.5 auto of nothing": next_of("auto"),
    "1.5 pro": {"model": PRO},
    "1.5 pro on volcengine": {"route": "volcengine", "model": "doubao-seedance-1-5-pro-251215"},
    "1.5 pro first frame in a ratio": {"model": PRO, "ratio": "16:9", **refs("first_frame")},
    "1.5 pro first and last frame": {"model": PRO, **refs("first_frame", "last_frame")},
    "last take": {"take": 1_000_000},
    "a real person with consent": rights("contract 7"),
    "consent that nobody needs": rights("", person=False),
}


@pytest.mark.parametrize("changes", RIGHT.values(), ids=RIGHT.keys())
def test_valid_request(changes: dict[str, Any]) -> None:
    assert wrong(**changes) == {}


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "no user": ({"user_id": ""}, "user_id", "blank"),
    "blank user": ({"user_id": " \u3000\u200b"}, "user_id", "blank"),
    "control character in the user": ({"user_id": "a\x00b"}, "user_id", "control"),
    "line break in the user": ({"user_id": "a\nb"}, "user_id", "control"),
    "long user": ({"user_id": "a" * 256}, "user_id", "shorten it to 255"),
    "route": ({"route": "Byteplus"}, "route", "use byteplus or volcengine"),
    "unknown model": ({"model": "seedance-9"}, "model", FAST),
    "no model": ({"model": ""}, "model", "not known"),
    "model of the other route": (
        {"model": "doubao-seedance-2-0-fast-260128"},
        "model",
        f"belongs to route volcengine; on byteplus it is {FAST}",
    ),
    "model of this route on the other": ({"route": "volcengine"}, "model", "belongs to route byteplus"),
    "empty endpoint": ({"model": "ep-"}, "model", "not known"),
    "odd endpoint": ({"model": "ep-a_b"}, "model", "not known"),
    "endpoint with a line break": ({"model": "ep-a\n"}, "model", "not known"),
    "no prompt": ({"prompt": None}, "prompt", "required"),
    "empty prompt": ({"prompt": ""}, "prompt", "blank"),
    "blank prompt": ({"prompt": " \n\u2003\u200b"}, "prompt", "blank"),
    "blank prompt with a reference": ({"prompt": " ", **refs("first_frame")}, "prompt", "blank"),
    "long prompt": ({"prompt": "狐" * 32_001}, "prompt", "shorten it to 32000"),
    "surrogate in the prompt": ({"prompt": "a\ud800"}, "prompt", "character 1"),
    "surrogate in the user": ({"user_id": "\udfff"}, "user_id", "surrogate"),
    "surrogate in a URL": (frame("asset://\ud800"), "references[0].url", "surrogate"),
    "surrogate in the consent": (rights("\ud800", person=False), "rights.consent_reference", "surrogate"),
    "unknown role": (refs("reference_picture"), "references[0].role", "reference_image"),
    "no role": (refs(""), "references[0].role", "not a role"),
    "two first frames": (refs("first_frame", "first_frame"), "references", "2 of first_frame"),
    "three frames": (refs("first_frame", "last_frame", "last_frame"), "references", "2 of last_frame"),
    "last frame alone": (refs("last_frame"), "references", "add a first_frame"),
    "frame beside a reference": (refs("first_frame", "reference_image"), "references", "mixes"),
    "last frame beside a reference": (refs("reference_video", "last_frame"), "references", "mixes"),
    "every role at once": (refs(*KINDS), "references", "mixes"),
    "ten images": (many(image=10), "references", "9 at most"),
    "four videos": (many(video=4), "references", "3 at most"),
    "four sounds": (many(image=1, audio=4), "references", "3 at most"),
    "sound alone": (many(audio=1), "references", "sound alone"),
    "data url": (frame("DATA:image/png;base64,AA"), "references[0].url", "gs://bucket"),
    "huge data url": (frame("data:" + "A" * 99_999), "references[0].url", "data:"),
    "long url": (frame("https://cdn.example.com/".ljust(8_193, "a")), "references[0].url", "shorten it to 8192"),
    "plain http": (frame("http://cdn.example.com/a"), "references[0].url", "http"),
    "private host": (frame("https://10.0.0.1/a"), "references[0].url", "public"),
    "no url": (frame(""), "references[0].url", "https"),
    "a path": (frame("/tmp/a.png"), "references[0].url", "https"),  # noqa: S108
    "asset without id": (frame("asset://"), "references[0].url", "id"),
    "asset with a space": (frame("asset://a b"), "references[0].url", "id"),
    "blank asset id": (frame(asset_id=""), "references[0].asset_id", "blank"),
    "control character in the asset id": (frame(asset_id="a\tb"), "references[0].asset_id", "control"),
    "long asset id": (frame(asset_id="a" * 1_025), "references[0].asset_id", "shorten it to 1024"),
    "unknown ratio": ({"ratio": "2:1"}, "ratio", "16:9"),
    "unknown resolution": ({"resolution": "720P"}, "resolution", "480p, 720p, 1080p or 4k"),
    "fast 1080p": ({"model": FAST, "resolution": "1080p"}, "resolution", "use 480p or 720p"),
    "mini 4k": ({"model": MINI, "resolution": "4k"}, "resolution", "use 480p or 720p"),
    "too short": ({"duration": 3}, "duration", "4 to 15"),
    "too long": ({"duration": 16}, "duration", "4 to 15"),
    "no length": ({"duration": 0}, "duration", "-1"),
    "negative length": ({"duration": -2}, "duration", "-1"),
    "endless length": ({"duration": 10**5000}, "duration", "4 to 15"),
    "seed": ({"seed": -1}, "seed", "leave it out"),
    "camera": ({"camera_fixed": False}, "camera_fixed", "leave it out"),
    "tier, even the default one": ({"service_tier": "default"}, "service_tier", "leave it out"),
    "draft": ({"draft": False}, "draft", "leave it out"),
    "output format": ({"output_format": "mp4"}, "output_format", "leave it out"),
    "task type": ({"omni_reference_task_type": "auto"}, "omni_reference_task_type", "leave it out"),
    "seed of an endpoint": ({"model": "ep-a", "seed": 1}, "seed", "leave it out"),
    "priority below": ({"priority": -1}, "priority", "0 to 9"),
    "priority above": ({"priority": 10}, "priority", "0 to 9"),
    "too many labels": ({"labels": {f"n{number}": "x" for number in range(17)}}, "labels", "16 are the most"),
    "label with a capital": ({"labels": {"Project": "x"}}, "labels", "'Project', which is no name of a label"),
    "label with a long name": ({"labels": {"x" * 64: "x"}}, "labels", "1 to 63"),
    "padded label": ({"labels": {"project": "alpha "}}, "labels.project", "white space"),
    "blank label": ({"labels": {"project": " "}}, "labels.project", "blank"),
    "long label": ({"labels": {"project": "x" * 129}}, "labels.project", "128"),
    "label with a line feed": ({"labels": {"project": "a\nb"}}, "labels.project", "printed"),
    "label with half a pair": ({"labels": {"project": "\ud800"}}, "labels.project", "printed"),
    "expires too soon": ({"execution_expires_after": 3_599}, "execution_expires_after", "3600"),
    "expires too late": ({"execution_expires_after": 259_201}, "execution_expires_after", "259200"),
    "web search with a reference": ({"web_search": True, **refs("first_frame")}, "web_search", "text alone"),
    "2.5 a ratio for a first frame": (
        {"model": NEXT, "ratio": "16:9", **refs("first_frame")},
        "ratio",
        "adaptive for a first frame with Seedance 2.5",
    ),
    "2.5 a ratio for two frames": (
        {"model": NEXT, "ratio": "16:9", **refs("first_frame", "last_frame")},
        "ratio",
        "adaptive for a first frame with Seedance 2.5",
    ),
    "2.5 a ratio for an edit": (
        next_of("edit", duration=-1, ratio="16:9", **many(video=1)),
        "ratio",
        "adaptive for omni_reference_task_type edit",
    ),
    "2.5 a ratio for an extension": (
        next_of("extend", ratio="16:9", **many(video=1)),
        "ratio",
        "adaptive for omni_reference_task_type extend",
    ),
    "2.5 edit of nothing": (next_of("edit", duration=-1), "omni_reference_task_type", "needs a reference_video"),
    "2.5 extension of a sound": (next_of("extend", **many(audio=1)), "omni_reference_task_type", "a reference_video"),
    "2.5 edit without words": (next_of("edit", duration=-1, prompt=None, **many(video=1)), "prompt", "is required"),
    "2.5 edit of five seconds": (next_of("edit", duration=5, **many(video=1)), "duration", "must be -1"),
    "2.5 draft at 720p": ({"model": NEXT, "draft": True}, "resolution", "must be 480p for a draft"),
    "1.5 pro draft at 1080p": ({"model": PRO, "draft": True, "resolution": "1080p"}, "resolution", "480p for a draft"),
    "endless marks": ({"prompt": "a" + "\u0301" * 16 + "\u0323" * 15}, "prompt", "30 combining marks in a row"),
    "final of half a job id": ({"model": NEXT, "prompt": None, "draft_of": "seedance-12ab"}, "draft_of", "not whole"),
    "2.0 final": ({"prompt": None, "draft_of": "cgt-1"}, "draft_of", "not supported by Seedance 2.0"),
    "final of nothing": (
        {"model": NEXT, "prompt": None, "draft_of": ""},
        "draft_of",
        "job id (seedance-…) or the task",
    ),
    "final at 720p": (
        {"model": NEXT, "prompt": None, "draft_of": "cgt-1", "resolution": "720p"},
        "resolution",
        "must be 1080p for the final",
    ),
    **{
        f"final with {name}": ({"model": NEXT, "prompt": None, "draft_of": "cgt-1", name: value}, name, "by the draft")
        for name, value in {
            "prompt": "A fox",
            "ratio": "1:1",
            "duration": 6,
            "generate_audio": True,
            "draft": False,
            "output_format": "mov",
            "omni_reference_task_type": "auto",
            "web_search": False,
        }.items()
    },
    "1.5 pro references": ({"model": PRO, **many(image=1)}, "references", "not documented for Seedance 1.5 pro"),
    "1.5 pro sound alone": ({"model": PRO, **many(audio=1)}, "references", "not documented"),
    "loud https": (frame("HTTPS://cdn.example.com/a"), "references[0].url", "small letters"),
    "much text": (
        {
            "model": NEXT,
            "references": [
                ref("reference_image", f"https://cdn.example.com/{n}" + "\U0001f98a" * 2_190) for n in range(30)
            ],
        },
        "request",
        "shorten its URLs and texts to 262,144 altogether",
    ),
    "take 0": ({"take": 0}, "take", "1 to 1000000"),
    "take too high": ({"take": 1_000_001}, "take", "1 to 1000000"),
    "person without consent": (rights(), "rights.consent_reference", "required"),
    "person with blank consent": (rights(" "), "rights.consent_reference", "required"),
    "long consent": (rights("a" * 1_025, person=False), "rights.consent_reference", "shorten"),
}


@pytest.mark.parametrize(("changes", "at", "says"), WRONG.values(), ids=WRONG.keys())
def test_invalid_request(changes: dict[str, Any], at: str, says: str) -> None:
    assert {*wrong(**changes)} == {at}
    assert any(says in problem.problem for problem in check(request(**changes)))


def test_unknown_values_are_refused_without_model() -> None:
    fields = {"model": "x", "resolution": "8k", "ratio": "2:1", "priority": 10}
    assert wrong(**fields).keys() == fields.keys()


FLAGS = [
    *("--rs 480p", "--rt 1:1", "--dur 15", "--fps 24", "--seed 1", "--cf true", "--wm true"),
    *("--resolution 4k", "--ratio 1:1", "--duration 15", "--camerafixed true", "--watermark true"),
    *("--DUR 15", "--dur=15", "--dur15", "--framespersecond 24", "--anything", "--x"),
]


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("before", ["", "A fox ", "A fox\n", "A fox\u3000", "A fox.", "("])
def test_flag_is_refused(flag: str, before: str) -> None:
    assert flag.split()[0].rstrip("=15") in wrong(prompt=f"{before}{flag} and more")["prompt"]


def test_known_flag_needs_no_space_before_it() -> None:
    assert {*wrong(prompt="狐狸在雪中跑步--dur 15")} == {"prompt"}


def test_all_flags_are_named() -> None:
    problem = wrong(prompt="A fox --dur 15 --rs 4k --dur 15")["prompt"]
    assert problem.count("--dur") == 1
    assert "--rs" in problem


def test_many_flags_are_counted() -> None:
    problem = wrong(prompt=" ".join(f"--x{number}" for number in range(3_000)))["prompt"]
    assert "--x4' and 2995 more:" in problem.replace('"', "'")
    assert len(problem) < 400


OTHER_GS_URLS = [
    *("gs://", "gs://my-bucket", "gs:my-bucket/a.png#12", "gs:///a.png#12", "gs://my-bucket/#12"),
    *("gs://my-bucket/a.png", "gs://my-bucket/a.png#", "gs://my-bucket/a.png#0", "gs://my-bucket/a.png#latest"),
    *("gs://my-bucket/a.png#12a", "gs://my-bucket/a.png#١٢", "gs://my-bucket/a.png#1#", "gs://My_Bucket/a.png#12"),
    *("gs://my-bucket/a\n.png#12", "gs://my-bucket/a.png#12\n", "gs://my-bucket/" + "a" * 1_025 + "#12"),
]


@pytest.mark.parametrize("url", OTHER_GS_URLS)
def test_other_gs_url_is_refused(url: str) -> None:
    assert gs_object(url) is None
    assert "gs://bucket/object#generation" in wrong(**frame(url))["references[0].url"]


def test_gs_url_names_one_generation() -> None:
    assert gs_object("gs://b.c-d_e/f/g#1.png#1718") == GsObject("b.c-d_e", "f/g#1.png", 1718)
    assert gs_object("https://cdn.example.com/a#1") is None


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("pictures/a.png", None),
        ("pictures/deep/a.png", None),
        ("shared/users/42/a.png", None),
        ("shared/users-42/a.png", "none of SEEDANCE_REFERENCE_BUCKETS"),
        ("shared/a.png", "none of SEEDANCE_REFERENCE_BUCKETS"),
        ("pictures2/a.png", "none of SEEDANCE_REFERENCE_BUCKETS"),
        ("others/a.png", "none of SEEDANCE_REFERENCE_BUCKETS"),
        ("videos/seedance/media/a.png", None),
        ("videos/seedance/0123/cgt-1/output.mp4", "copy it out of gs://videos/seedance/"),
        ("videos/seedance/media", "copy it out of gs://videos/seedance/"),
    ],
)
def test_reference_comes_from_allowed_bucket(place: str, says: str | None) -> None:
    """The worker could sign any object that its credentials can read, also another user's."""
    given = {"seedance_reference_buckets": "gs://pictures, shared/users/"}
    rules = Settings.model_validate(given | {"seedance_bucket": "videos"}).rules
    problems = [problem.problem for problem in rules.check(request(**frame(f"gs://{place}#1")))]
    assert len(problems) == (says is not None)
    assert says is None or says in problems[0]


def test_own_objects_are_no_references_without_list() -> None:
    rules = Settings.model_validate({"seedance_bucket": "videos"}).rules
    assert rules.check(request(**frame("gs://anywhere/a.png#1"))) == []
    assert len(rules.check(request(**frame("gs://videos/seedance/0123/cgt-1/output.mp4#1")))) == 1


def test_named_insecure_host_is_allowed() -> None:
    local = request(**frame("http://localhost:8080/a.png"))
    assert [problem.at for problem in check(local)] == ["references[0].url"]
    assert [problem.at for problem in Rules(insecure_hosts=frozenset({"127.0.0.1"})).check(local)] == [
        "references[0].url"
    ]
    assert Rules(insecure_hosts=frozenset({"localhost"})).check(local) == []


def test_problem_hides_the_query_of_a_url() -> None:
    for url in ("http://cdn.example.com/a?sig=hush", "https://hush:hush@cdn.example.com", "https://a.example:hush/"):
        assert "hush" not in wrong(**frame(url))["references[0].url"]


def test_all_problems_are_listed_at_once() -> None:
    problems = wrong(
        user_id="",
        model="doubao-seedance-2-0-mini-260615",
        prompt="fox --dur 9",
        references=[ref("first_frame", "http://cdn.example.com/a"), ref("reference_image", "data:x", asset_id=" ")],
        ratio="1:2",
        resolution="1080p",
        duration=30,
        seed=1,
        service_tier="flex",
        priority=10,
        execution_expires_after=1,
        web_search=True,
        rights={"depicts_real_person": True},
        take=0,
    )
    fields = (
        "user_id model prompt references references[0].url references[1].url references[1].asset_id ratio resolution "
        "duration seed service_tier priority execution_expires_after web_search rights.consent_reference take"
    )
    assert {*problems} == {*fields.split()}


def test_unknown_role_is_reported_once() -> None:
    assert {*wrong(**refs("reference_audio", "reference_picture"))} == {"references[1].role"}


def test_unknown_model_lists_route_models() -> None:
    known = wrong(model="x")["model"]
    assert FULL in known
    assert FAST in known
    assert "doubao" not in known
    assert "doubao-seedance-2-0-260128" in wrong(model="x", route="y")["model"]


def test_rows() -> None:
    assert len({model.id for model in MODELS}) == len(MODELS) == 11
    assert {model.route for model in MODELS} == {*ROUTES}
    assert all(set(model.resolutions) <= PIXELS.keys() for model in MODELS)
    assert all(model.prices.keys() <= set(model.resolutions) for model in MODELS)
    assert {model.id for model in MODELS if not model.prices} == {PRO, PREMIUM, "doubao-seedance-1-5-pro-251215"}
    assert RULES.model_of("ep-1") is UNKNOWN_ENDPOINT
    assert RULES.model_of("nothing") is None


SCENES = {
    (): "text_to_video",
    ("first_frame",): "first_frame",
    ("last_frame", "first_frame"): "first_and_last_frame",
    ("reference_audio", "reference_image"): "references",
    ("reference_video",): "references",
    ("reference_video", "reference_audio", "reference_image"): "references",
    ("last_frame",): "unknown",
    ("first_frame", "first_frame"): "unknown",
    ("first_frame", "reference_image"): "unknown",
    ("other",): "unknown",
}


@pytest.mark.parametrize(("roles", "name"), SCENES.items())
def test_scene(roles: tuple[str, ...], name: str) -> None:
    assert scene(request(**refs(*roles))) == name


def test_kinds() -> None:
    assert KINDS == {
        "first_frame": "image",
        "last_frame": "image",
        "reference_image": "image",
        "reference_video": "video",
        "reference_audio": "audio",
    }


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"prompt": "눈 속의 여우"}, "Korean"),
        ({"prompt": "fox \u1112\u1161"}, "Korean"),
        (refs("first_frame"), "Nothing is declared"),
        (refs("reference_video"), "Nothing is declared"),
        ({**refs("reference_image"), "rights": {"consent_reference": "contract 7"}}, "Nothing is declared"),
        (refs("first_frame") | rights("contract 7"), "asset://"),
        ({"model": "ep-1"}, "'ep-1'"),
        ({"model": MINI, "web_search": True}, "doubtful whether Seedance 2.0 mini takes web_search on byteplus"),
        ({"model": PREMIUM, "resolution": "4k"}, "Seedance 2.5 premium needs an account that"),
        (
            {"route": "volcengine", "model": "doubao-seedance-1-5-pro-251215"},
            "day that is not known here; its successor",
        ),
        ({"prompt": "fox " * 1_001}, "1001 words"),
        ({"model": NEXT, **many(video=1), **rights("", person=False)}, "words such as add, remove or replace"),
        (next_of("auto", **many(video=1), **rights("", person=False)), "words such as add, remove or replace"),
    ],
)
def test_warning(changes: dict[str, Any], says: str) -> None:
    (warning,) = warnings(request(**changes))
    assert says in warning


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"prompt": "雪の中の狐 en la nieve, 雪中的狐狸"},
        {"prompt": None, **refs("first_frame"), "rights": {"depicts_real_person": False}},
        {"references": [ref("reference_image", "asset://a")]},
        {"references": [ref("reference_image", "asset://a")], "rights": {"depicts_real_person": True}},
        refs("reference_audio"),
        {"model": "unknown", "prompt": "여우"},
        {"model": NEXT, "prompt": "여우"},
        {"model": PRO, "prompt": "여우", "execution_expires_after": 3_600},
        {"model": NEXT, "execution_expires_after": 3_600, "priority": 9},
        {"priority": 9, "execution_expires_after": 3_600},
        {"route": "volcengine", "model": CHINESE, "web_search": True},
        {"web_search": False},
        next_of("reference", **many(video=1), **rights("", person=False)),
        {"prompt": "fox " * 1_000},
        {"model": NEXT, "draft": False, "resolution": "1080p"},
        {"model": NEXT, "draft": True, "resolution": "480p"},
        next_of("auto"),
        next_of("reference", **many(audio=1)),
    ],
)
def test_no_warning(changes: dict[str, Any]) -> None:
    assert warnings(request(**changes)) == []


SIGNED = (
    "https://b.s3.amazonaws.com/a?X-Amz-Algorithm=AWS4&X-Amz-Credential=k&X-Amz-Signature=0",
    "https://storage.googleapis.com/b/a?X-Goog-Signature=0",
    "https://b.tos-ap.bytepluses.com/a?X-Tos-Signature=0",
    "https://b.oss.example.com/a?Expires=1&OSSAccessKeyId=k&Signature=0",
    "https://b.cos.example.com/a?q-signature=0",
    "https://x.blob.core.windows.net/a?sv=1&se=2&sig=0",
    "https://x.cloudfront.net/a?Expires=1&Key-Pair-Id=k",
    "https://cdn.example.com/a?token=0",
    "https://cdn.example.com/a?auth_key=1-0-0-0",
    "https://cdn.example.com/a?w=1&access_token",
)


@pytest.mark.parametrize("url", SIGNED)
def test_signed_url_without_asset_id_warns(url: str) -> None:
    sound = ref("reference_audio", url)
    (warning,) = warnings(request(references=[ref("reference_audio"), sound]))
    assert "references[1]" in warning
    assert "asset_id" in warning
    assert url not in warning
    assert warnings(request(references=[sound | {"asset_id": "steps"}])) == []


UNSIGNED = [
    *("https://cdn.example.com/a.wav?v=3&w=1280&design=blue", "https://cdn.example.com/token/sig.wav#signature=1"),
    *("gs://my-bucket/a?sig=1#12", "asset://a", "data:audio/wav?sig=1", "https://[?sig=1", ""),
]


@pytest.mark.parametrize("url", UNSIGNED)
def test_no_signature(url: str) -> None:
    assert warnings(request(references=[ref("reference_audio", url)])) == []


def test_one_warning_names_all_places() -> None:
    (warning,) = warnings(request(references=[ref("reference_audio", url) for url in SIGNED[:2]]))
    assert "references[0], references[1]" in warning


BEHIND = {"ep-next": NEXT, "ep-pro": "doubao-seedance-1-5-pro-251215"}


def test_named_endpoint_has_its_models_rules() -> None:
    long = request(model="ep-next", duration=30)
    assert [problem.at for problem in check(long)] == ["duration"]
    assert Rules(endpoints=BEHIND).check(long) == []
    assert Rules(endpoints=BEHIND).warnings(long) == []
    assert len(warnings(long)) == 1
    assert Rules(endpoints=BEHIND).check(request(route="volcengine", model="ep-pro", seed=7)) == []
    assert [problem.at for problem in Rules(endpoints=BEHIND).check(request(model="ep-next", seed=7))] == ["seed"]


def test_named_endpoint_has_its_models_route() -> None:
    (problem,) = Rules(endpoints=BEHIND).check(request(model="ep-pro"))
    assert problem.at == "model"
    assert "'doubao-seedance-1-5-pro-251215', behind 'ep-pro', belongs to route volcengine" in problem.problem


def test_other_endpoint_has_the_rules_of_2_0() -> None:
    assert Rules(endpoints=BEHIND).check(request(model="ep-other", resolution="4k")) == []
    assert len(Rules(endpoints=BEHIND).warnings(request(model="ep-other"))) == 1


def test_endpoint_of_unknown_model_is_refused() -> None:
    (problem,) = Rules(endpoints={"ep-a": "seedance-9"}).check(request(model="ep-a"))
    assert problem.at == "model"


def test_pixels() -> None:
    assert PIXELS["720p"]["16:9"] == (1280, 720)
    assert PIXELS["4k"]["21:9"] == (4398, 1886)
    assert "adaptive" not in PIXELS["720p"]
    assert "8k" not in PIXELS
    for sizes in PIXELS.values():
        assert {*sizes, "adaptive"} == {*RATIOS}
        for ratio, (width, height) in sizes.items():
            across, down = map(int, ratio.split(":"))
            assert width / height == pytest.approx(across / down, rel=0.05)
            if across != 21:
                assert sizes[f"{down}:{across}"] == (height, width)
    assert [sizes["21:9"] for sizes in PIXELS.values()] == [(992, 432), (1470, 630), (2206, 946), (4398, 1886)]
    assert [sizes["4:3"] for sizes in PIXELS.values()] == [(752, 560), (1112, 834), (1664, 1248), (3326, 2494)]
    assert [sizes["1:1"][0] for sizes in PIXELS.values()] == [640, 960, 1440, 2880]


# Most and least tokens, and the most in the route's currency.
ESTIMATES: list[tuple[dict[str, Any], int | None, int | None, Cost]] = [
    # Published examples of the provider.
    ({}, 108_900, 108_900, Cost(0.7623)),
    ({"resolution": "1080p"}, 245_025, 245_025, Cost(1.886693)),
    ({"model": NEXT, "duration": 30}, 648_900, 648_900, Cost(6.94323)),
    ({"model": FAST}, 108_900, 108_900, Cost(0.60984)),
    ({"model": MINI}, 108_900, 108_900, Cost(0.38115)),
    ({"duration": 4}, 87_300, 87_300, Cost(0.6111)),
    ({"duration": -1}, 324_900, 87_300, Cost(2.2743)),
    ({"resolution": "480p"}, 50_638, 50_638, Cost(0.354466)),
    ({"resolution": "4k"}, 980_100, 980_100, Cost(3.9204)),
    # 1112x834 is the largest of 720p, and 960x960 the smallest.
    (
        {**refs("first_frame"), "ratio": "adaptive"},
        1112 * 834 * 121 // 1024,
        min(w * h for w, h in PIXELS["720p"].values()) * 121 // 1024,
        Cost(0.767102),
    ),
    # The same where the model chooses by the prompt.
    (
        {"ratio": "adaptive"},
        1112 * 834 * 121 // 1024,
        min(w * h for w, h in PIXELS["720p"].values()) * 121 // 1024,
        Cost(0.767102),
    ),
    # Five seconds, and 2 to 15 of reference video.
    ({**many(video=1), "ratio": "16:9"}, 432_900, 152_100, Cost(1.86147)),
    ({**many(video=1), "ratio": "16:9", "resolution": "4k"}, 3_896_100, 1_368_900, Cost(9.35064)),
    ({"route": "volcengine", "model": CHINESE}, 108_900, 108_900, Cost(cny=5.0094)),
    ({"model": "ep-1"}, 108_900, 108_900, Cost()),
    ({"model": "ep-1", "duration": -1}, 324_900, 87_300, Cost()),
    ({"model": NEXT}, 108_900, 108_900, Cost(1.16523)),
    ({"model": NEXT, "ratio": "16:9", **many(video=1)}, 756_900, 152_100, Cost(4.84416)),
    ({"model": NEXT, "resolution": "480p"}, 854 * 480 * 121 // 1024, 854 * 480 * 121 // 1024, Cost(0.518276)),
    (
        {"model": NEXT, "draft_of": "cgt-1"},
        2206 * 946 * (24 * 60 + 1) // 1024,
        1920 * 1080 * 97 // 1024,
        Cost(20.556949),
    ),
    ({"model": PREMIUM, "resolution": "4k"}, None, None, Cost()),
    ({"model": PRO, "resolution": "480p", "duration": -1}, 120_946, 40_594, Cost()),
    ({"model": "unknown"}, 108_900, 108_900, Cost()),
    ({"model": "unknown", "duration": -1}, None, None, Cost()),
    ({"model": FAST, "resolution": "1080p"}, 245_025, 245_025, Cost()),
    ({"resolution": "8k"}, None, None, Cost()),
    ({"ratio": "2:1"}, None, None, Cost()),
    ({"duration": 0}, None, None, Cost()),
]


@pytest.mark.parametrize(("changes", "most", "least", "cost"), ESTIMATES)
def test_estimate(changes: dict[str, Any], most: int | None, least: int | None, cost: Cost) -> None:
    found = estimate(request(**changes))
    assert (found.tokens, found.least_tokens, found.most) == (most, least, cost)
    amounts = (found.least.usd or found.least.cny or 0, found.most.usd or found.most.cny or 0)
    assert amounts[0] <= amounts[1]


def test_list_prices() -> None:
    assert KNOWN[FULL].prices == {"480p": (7.0, 4.3), "720p": (7.0, 4.3), "1080p": (7.7, 4.7), "4k": (4.0, 2.4)}
    assert KNOWN[FAST].prices == {"480p": (5.6, 3.3), "720p": (5.6, 3.3)}
    assert KNOWN[MINI].prices == {"480p": (3.5, 2.1), "720p": (3.5, 2.1)}
    assert KNOWN[NEXT].prices == {"480p": (10.7, 6.4), "720p": (10.7, 6.4), "1080p": (11.7, 7.0)}
    assert KNOWN[CHINESE].prices == {"480p": (46, 28), "720p": (46, 28), "1080p": (51, 31), "4k": (26, None)}


def test_cost() -> None:
    full, chinese = KNOWN[FULL], KNOWN[CHINESE]
    assert cost(full, "1080p", True, 1_000_000) == Cost(usd=4.7)
    assert cost(full, "1080p", False, 0) == Cost(usd=0)
    assert cost(chinese, "1080p", True, 1_000_000) == Cost(cny=31)
    assert cost(chinese, "4k", True, 1) == Cost()
    assert cost(full, "8k", False, 1) == Cost()
    assert cost(full, "720p", False, 10**400) == Cost()
