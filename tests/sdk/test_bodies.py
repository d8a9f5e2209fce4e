"""The paid request, field by field: what our create sends against what the provider's own SDK sends for the same input.

Both go to the local Ark, and what its ledger recorded is compared. Null counts as absent, as it does for the provider.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import SecretStr

from activities.create import CreateActivities, CreateInput
from dev.ark.catalog import Route
from dev.ark.control import ArkControl
from seedance_temporal.identity import callback_token, job_id_of
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.provider.ark import Ark
from seedance_temporal.provider.checks import scene
from seedance_temporal.provider.models import KINDS
from seedance_temporal.request import VideoRequest
from tests.sdk.official import KEYS, a_prompt, posts, sdk, text
from tests.support.jobs import in_activity, present, some_settings
from tests.support.memory_bucket import MemoryBucket, a_signed_url

MODEL = "dreamina-seedance-2-0-260128"
# On BytePlus it has ended.
PRO_1_5 = {"route": "volcengine", "model": "doubao-seedance-1-5-pro-251215"}
NEXT = "dreamina-seedance-2-5-260628"
RELAY = "https://relay.example.com/hooks"
SECRET = "a-callback-secret"
CDN = "https://cdn.example.com"

# What our client says although nobody gave it: the documentation leaves these defaults open, and prices hang on them.
ALWAYS = {"resolution": "720p", "duration": 5, "generate_audio": False, "watermark": False}
# What the caller says to us, and never to the provider.
OURS_ALONE = {"user_id", "route", "rights", "labels", "take"}
# What the SDK can send and our client never does: the models that take frames are older than those of the catalogue.
THEIRS_ALONE = {"frames"}


def media(role: str, url: str) -> dict[str, Any]:
    """A reference in the provider's words."""
    kind = role.removeprefix("reference_") if role.startswith("reference_") else "image"
    return {"type": f"{kind}_url", f"{kind}_url": {"url": url}, "role": role}


@dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        ours: The fields of a VideoRequest, the prompt aside.
        signed: The URL that the provider gets for the only reference, where it is another one.
        theirs: The same fields in the provider's words, where they are not the same.
        left_out: What our client does not send although it was given, because it is the provider's own default.
    """

    name: str
    ours: dict[str, Any] = field(default_factory=dict)
    theirs: dict[str, Any] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()
    signed: str | None = None

    @property
    def media(self) -> list[dict[str, Any]]:
        references = self.ours.get("references", [])
        return [media(reference["role"], self.signed or reference["url"]) for reference in references]

    def __str__(self) -> str:
        return self.name


def _references(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"references": [{"role": role, "url": url} for role, url in pairs]}


CASES = (
    Case("text alone"),
    Case(
        "every field spelled out",
        {"ratio": "9:16", "resolution": "1080p", "duration": 12, "generate_audio": True, "watermark": True}
        | {"return_last_frame": True},
    ),
    Case(
        "defaults spelled out",
        {"ratio": "16:9", "generate_audio": False, "return_last_frame": False} | ALWAYS,
        left_out=frozenset({"return_last_frame"}),
    ),
    Case("the model chooses the length", {"duration": -1}),
    Case("first frame", _references(("first_frame", f"{CDN}/a.png"))),
    Case(
        "first and last frame",
        {"ratio": "1:1"} | _references(("first_frame", f"{CDN}/a.png"), ("last_frame", "asset://b")),
    ),
    Case(
        "references of each kind, in their order",
        _references(
            ("reference_audio", f"{CDN}/c.wav"), ("reference_image", f"{CDN}/a.png"), ("reference_video", "asset://v")
        ),
    ),
    Case(
        "an asset id of the caller's own is not the provider's business",
        {"references": [{"role": "reference_image", "url": f"{CDN}/a.png", "asset_id": "sku-1"}]},
    ),
    Case(
        "a private reference is signed",
        _references(("first_frame", "gs://media/a.png#17")),
        signed=a_signed_url("media", "a.png", 17),
    ),
    Case(
        "rights, labels and take stay here",
        {
            "rights": {"depicts_real_person": True, "consent_reference": "contract 7"},
            "labels": {"project": "alpha"},
            "take": 2,
        },
    ),
    Case("the other route", {"route": "volcengine", "model": "doubao-seedance-2-0-260128"}),
    Case("an endpoint", {"model": "ep-20260101-abc"}),
    Case(
        "the longest of 2.5 on the other route",
        {"route": "volcengine", "model": "doubao-seedance-2-5-260628", "duration": 30, "ratio": "21:9"},
    ),
    Case(
        "the longest of 1.5 pro on the other route",
        {"route": "volcengine", "model": "doubao-seedance-1-5-pro-251215", "duration": 12, "resolution": "1080p"},
    ),
    Case("sound alone", {"model": NEXT} | _references(("reference_audio", f"{CDN}/c.wav"))),
    Case("priority", {"priority": 9}),
    Case("priority zero", {"priority": 0}),
    Case("execution_expires_after", {"execution_expires_after": 3600}),
    Case("web search", {"web_search": True}, theirs={"tools": [{"type": "web_search"}]}),
    Case("no web search", {"web_search": False}, theirs={"tools": []}, left_out=frozenset({"tools"})),
    Case("seed", PRO_1_5 | {"seed": 7}),
    Case("any seed", PRO_1_5 | {"seed": -1}),
    Case("camera_fixed", PRO_1_5 | {"camera_fixed": True}),
    Case("camera not fixed", PRO_1_5 | {"camera_fixed": False}),
    Case("service_tier", PRO_1_5 | {"service_tier": "flex"}),
    Case("service_tier of 2.5", {"model": NEXT, "service_tier": "default"}),
    Case("draft", {"model": NEXT, "draft": True, "resolution": "480p"}),
    Case("no draft", {"model": NEXT, "draft": False}),
    Case("output_format", {"model": NEXT, "output_format": "mov"}),
    Case(
        "omni_reference_task_type",
        {"model": NEXT, "omni_reference_task_type": "edit", "duration": -1}
        | _references(("reference_video", f"{CDN}/v.mp4")),
    ),
)


def the_request(case: Case, prompt: str) -> VideoRequest:
    given = {"user_id": "user-42", "route": "byteplus", "model": MODEL, "prompt": prompt}
    return VideoRequest.model_validate(given | case.ours)


def absent_left_out(body: dict[str, Any]) -> dict[str, str]:
    """The fields that count, as JSON: 1 is not true."""
    return {name: json.dumps(value, sort_keys=True) for name, value in body.items() if value is not None}


async def sent_by_us(ark: ArkControl, request: VideoRequest, settings: dict[str, Any], *, mark: str) -> dict[str, Any]:
    """The body of our one POST for a request, which the ledger is searched for by a text in it."""
    route: Route = "byteplus" if request.route == "byteplus" else "volcengine"
    base_url = ark.base_url(route)
    bucket = MemoryBucket()
    ark_client = Ark(base_url, KEYS[route])
    ours = some_settings(ark_route=route, ark_base_url=base_url, **settings)
    create = CreateActivities(Ledger(bucket, "seedance"), bucket, ark_client, ours)
    result = await in_activity(create.create_task, CreateInput(job_id=job_id_of(request), request=request, attempt=1))
    assert result.kind == "created", result.message
    (entry,) = await posts(ark, mark)
    assert entry.committed
    body: dict[str, Any] = entry.body
    assert body["safety_identifier"] == present(result.claim).safety_identifier
    return body


async def sent_by_the_sdk(ark: ArkControl, case: Case, prompt: str) -> dict[str, Any]:
    own_words = OURS_ALONE | {"references", "web_search"}
    same_words = {name: value for name, value in case.ours.items() if name not in own_words}
    arguments = {"model": MODEL} | same_words | case.theirs | {"content": [text(prompt), *case.media]}
    async with sdk(ark, "volcengine" if case.ours.get("route") == "volcengine" else "byteplus") as tasks:
        await tasks.create(**arguments)
    (entry,) = await posts(ark, prompt)
    assert entry.committed
    body: dict[str, Any] = entry.body
    return body


@pytest.mark.parametrize("callbacks", [True, False], ids=["callbacks", "polling"])
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_bodies_equal_the_sdks(ark: ArkControl, case: Case, callbacks: bool) -> None:
    prompt, other_prompt = a_prompt(), a_prompt()
    request = the_request(case, prompt)
    settings = {"seedance_callback_url": RELAY, "seedance_callback_secret": SecretStr(SECRET)} if callbacks else {}
    body = await sent_by_us(ark, request, settings, mark=prompt)
    ours = absent_left_out(body)
    theirs = absent_left_out(await sent_by_the_sdk(ark, case, other_prompt))
    theirs["content"] = theirs["content"].replace(other_prompt, prompt)

    always = ALWAYS | {"ratio": "adaptive" if request.references else "16:9"}
    added = {name: value for name, value in always.items() if name not in case.ours}
    added["safety_identifier"] = body["safety_identifier"]
    if callbacks:
        token = callback_token(SECRET, job_id_of(request), 1)
        added["callback_url"] = f"{RELAY}/callbacks/{job_id_of(request)}/1/{token}"
    left_out = {name for name in case.left_out if name in theirs}
    assert left_out == case.left_out
    assert ours == {name: value for name, value in theirs.items() if name not in left_out} | absent_left_out(added)


async def test_media_without_a_prompt(ark: ArkControl) -> None:
    url = f"{CDN}/{uuid.uuid4().hex}.png"
    fields = {"user_id": "user-42", "route": "byteplus", "model": MODEL} | _references(("first_frame", url))
    body = await sent_by_us(ark, VideoRequest.model_validate(fields), {}, mark=url)
    item = media("first_frame", url)
    async with sdk(ark) as tasks:
        await tasks.create(model=MODEL, content=[item])
    assert body["content"] == (await posts(ark, url))[-1].body["content"] == [item]


def test_every_field_and_scene_is_among_the_cases() -> None:
    requests = [the_request(case, "a cat") for case in CASES]
    fields = {name for case in CASES for name in case.ours}
    # The create of a final needs its draft; see tests/integration/test_drafts.py.
    assert fields | {"user_id", "prompt", "draft_of"} == set(VideoRequest.model_fields)
    scenes = {scene(request) for request in requests}
    assert scenes == {"text_to_video", "first_frame", "first_and_last_frame", "references"}
    assert {reference.role for request in requests for reference in request.references} == set(KINDS)


async def test_sdk_has_no_unknown_field(ark: ArkControl) -> None:
    # It sends every field that it knows, as null where it is not given.
    theirs = set(await sent_by_the_sdk(ark, CASES[0], a_prompt()))
    renamed = {"prompt": "content", "references": "content", "draft_of": "content", "web_search": "tools"}
    ours = {renamed.get(name, name) for name in VideoRequest.model_fields if name not in OURS_ALONE}
    assert theirs == ours | {"safety_identifier", "callback_url"} | THEIRS_ALONE
