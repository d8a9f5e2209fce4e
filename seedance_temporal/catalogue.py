"""The models, and every rule that is checked before spending, as a function over a request.

The client calls :func:`check` at submission, and the worker again before a POST. Nothing in here needs a network.
Limits and prices are those of the provider's task API documentation; a new model is a new row in :data:`MODELS`.
"""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ValidationError

from seedance_temporal.errors import InvalidRequest, Problem
from seedance_temporal.request import Reference, Rights, VideoRequest
from seedance_temporal.task import Task
from seedance_temporal.urls import https_problem

Kind = Literal["image", "video", "audio"]
Scene = Literal["text_to_video", "first_frame", "first_and_last_frame", "references", "unknown"]

ROUTES = ("byteplus", "volcengine")
KINDS: Mapping[str, Kind] = {
    "first_frame": "image",
    "last_frame": "image",
    "reference_image": "image",
    "reference_video": "video",
    "reference_audio": "audio",
}
"""What kind of media a reference is, by its role."""

FRAMES = frozenset({"first_frame", "last_frame"})
MODEL_CHOOSES = -1
"""The ``duration`` that leaves the length to the model."""

PIXELS: Mapping[str, Mapping[str, tuple[int, int]]] = {
    "480p": {
        "16:9": (864, 496),
        "4:3": (752, 560),
        "1:1": (640, 640),
        "3:4": (560, 752),
        "9:16": (496, 864),
        "21:9": (992, 432),
    },
    "720p": {
        "16:9": (1280, 720),
        "4:3": (1112, 834),
        "1:1": (960, 960),
        "3:4": (834, 1112),
        "9:16": (720, 1280),
        "21:9": (1470, 630),
    },
    "1080p": {
        "16:9": (1920, 1080),
        "4:3": (1664, 1248),
        "1:1": (1440, 1440),
        "3:4": (1248, 1664),
        "9:16": (1080, 1920),
        "21:9": (2206, 946),
    },
    "4k": {
        "16:9": (3840, 2160),
        "4:3": (3326, 2494),
        "1:1": (2880, 2880),
        "3:4": (2494, 3326),
        "9:16": (2160, 3840),
        "21:9": (4398, 1886),
    },
}
"""Width and height in pixels, by resolution and ratio."""

RATIOS = (*PIXELS["720p"], "adaptive")

OPTIONAL = (
    "seed",
    "camera_fixed",
    "service_tier",
    "priority",
    "execution_expires_after",
    "draft",
    "output_format",
    "omni_reference_task_type",
    "web_search",
)
"""Fields that are sent only when given, and refused where the model does not support them."""

_BOUNDS = {"priority": (0, 9), "execution_expires_after": (3_600, 259_200)}
_MAX_TAKE = 1_000_000
_MAX_PROMPT = 32_000
# A search attribute of Temporal is a VARCHAR(255) on SQL databases; a longer one would stop the run's visibility.
_MAX_USER_ID = 255
_MAX_NAME = 1_024
_MAX_URL = 8_192

_ENDPOINT = re.compile(r"ep-[A-Za-z0-9-]{1,128}")
_GS = re.compile(r"gs://([a-z0-9][a-z0-9._-]{1,220}[a-z0-9])/([^\x00-\x1f\x7f]{1,1024})#([1-9][0-9]{0,18})")
_ASSET = re.compile(r"asset://[A-Za-z0-9._~-]+")
_HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff]")
# The flags that the service is known to parse are refused wherever they stand: "跑步--dur 15" needs no space. Its list
# is not complete, so everything that looks like a flag is refused as well, where it cannot be a dash between words:
# a prompt that must be edited costs nothing, a flag that changes the price does.
_KNOWN_FLAG = "rs|rt|dur|fps|seed|cf|wm|resolution|ratio|duration|camerafixed|watermark|frames|framespersecond"
_FLAG = re.compile(rf"--(?:{_KNOWN_FLAG})(?![A-Za-z])|(?<![\w-])--[A-Za-z]\w*", re.IGNORECASE)


@dataclass(frozen=True)
class Model:
    """What one family of models allows. Source: the provider's task API documentation.

    Attributes:
        name: As people say it.
        ids: The model id, by route.
        resolutions: What ``resolution`` may be.
        durations: The seconds that ``duration`` may be; -1 is always allowed.
        references: The most references of each kind, in the references scene.
        reference_video_seconds: The most seconds of all reference videos together.
        lone_audio: Whether a ``reference_audio`` can do without a picture or video beside it.
        optional: The fields of :data:`OPTIONAL` that may be given.
        languages: Documented languages of the prompt.
    """

    name: str
    ids: Mapping[str, str]
    resolutions: tuple[str, ...]
    durations: range
    references: Mapping[Kind, int]
    reference_video_seconds: int
    lone_audio: bool
    optional: frozenset[str]
    languages: tuple[str, ...]


class Price(NamedTuple):
    """USD per million tokens; None where it is not known."""

    plain: float
    with_reference_video: float | None


@dataclass(frozen=True)
class Estimate:
    """The most that a request should cost; None where that is not known.

    Attributes:
        tokens: In the provider's tokens.
        usd: By :data:`PRICES`.
    """

    tokens: int | None
    usd: float | None


class GsObject(NamedTuple):
    """An object in Google Cloud Storage, in one generation, so that nobody can exchange its content meanwhile."""

    bucket: str
    name: str
    generation: int


def _seedance_2_0(name: str, suffix: str, *resolutions: str) -> Model:
    return Model(
        name=name,
        ids={"byteplus": f"dreamina-seedance-{suffix}", "volcengine": f"doubao-seedance-{suffix}"},
        resolutions=resolutions,
        durations=range(4, 16),
        references={"image": 9, "video": 3, "audio": 3},
        reference_video_seconds=15,
        lone_audio=False,
        optional=frozenset({"priority", "execution_expires_after", "web_search"}),
        languages=("Chinese", "English", "Spanish", "Indonesian", "Portuguese", "Japanese"),
    )


SEEDANCE_2_0 = _seedance_2_0("Seedance 2.0", "2-0-260128", "480p", "720p", "1080p", "4k")
MODELS = (
    SEEDANCE_2_0,
    _seedance_2_0("Seedance 2.0 fast", "2-0-fast-260128", "480p", "720p"),
    _seedance_2_0("Seedance 2.0 mini", "2-0-mini-260615", "480p", "720p"),
)

PRICES: Mapping[str, Mapping[str, Price]] = {
    "dreamina-seedance-2-0-260128": {
        "480p": Price(7.0, 4.3),
        "720p": Price(7.0, 4.3),
        "1080p": Price(7.7, 4.7),
        "4k": Price(4.0, None),
    },
    "dreamina-seedance-2-0-fast-260128": {"480p": Price(5.6, 3.3), "720p": Price(5.6, 3.3)},
    "dreamina-seedance-2-0-mini-260615": {"480p": Price(3.5, 2.1), "720p": Price(3.5, 2.1)},
}
"""List prices of BytePlus, by model id and resolution. Those of Volcengine, and of endpoints, are not known."""


def model_of(model_id: str) -> Model | None:
    """The row of a model id, on whichever route; None if it is not known.

    What stands behind an inference endpoint (``ep-…``) cannot be seen from here: it has the rules of Seedance 2.0.
    """
    if _ENDPOINT.fullmatch(model_id):
        return SEEDANCE_2_0
    return next((model for model in MODELS if model_id in model.ids.values()), None)


def gs_object(url: str) -> GsObject | None:
    """The object that ``gs://bucket/object#generation`` names; None if it is no such URL."""
    match = _GS.fullmatch(url)
    return GsObject(match[1], match[2], int(match[3])) if match else None


def scene(request: VideoRequest) -> Scene:
    """Which of the provider's scenes a request is; ``unknown`` where its references fit none."""
    roles = sorted(reference.role for reference in request.references)
    if not roles:
        return "text_to_video"
    if roles == ["first_frame"]:
        return "first_frame"
    if roles == ["first_frame", "last_frame"]:
        return "first_and_last_frame"
    return "references" if set(roles) <= KINDS.keys() - FRAMES else "unknown"


# What it costs


def pixels(resolution: str, ratio: str) -> tuple[int, int] | None:
    """Width and height of a video; None for ``adaptive``, and for what is not known."""
    return PIXELS.get(resolution, {}).get(ratio)


def estimate(request: VideoRequest) -> Estimate:
    """The most that a request should cost, as far as its own words tell.

    Where the provider chooses (``duration`` -1, ``ratio`` adaptive), the longest and the largest is counted; where
    there is a reference video, the most seconds that all of them may have.
    """
    model = model_of(request.model)
    seconds = request.duration
    if seconds == MODEL_CHOOSES and model is not None:
        seconds = model.durations[-1]
    sizes = PIXELS.get(request.resolution, {})
    if request.ratio != "adaptive":
        sizes = {ratio: size for ratio, size in sizes.items() if ratio == request.ratio}
    if not sizes or seconds < 1:
        return Estimate(tokens=None, usd=None)
    has_video = any(KINDS.get(reference.role) == "video" for reference in request.references)
    if has_video and model is not None:
        seconds += model.reference_video_seconds
    tokens = max(width * height for width, height in sizes.values()) * (24 * seconds + 1) // 1024
    return Estimate(tokens=tokens, usd=cost_usd(request.model, request.resolution, has_video, tokens))


def cost_usd(model: str, resolution: str, has_reference_video: bool, tokens: int) -> float | None:
    """What tokens cost in USD by :data:`PRICES`; None where the price is not known.

    Args:
        model: The model id of the request.
        resolution: Of the video.
        has_reference_video: Tokens are cheaper with one, and more.
        tokens: As the provider counted them, or as :func:`estimate` did.
    """
    price = PRICES.get(model, {}).get(resolution)
    if price is None:
        return None
    per_million = price.with_reference_video if has_reference_video else price.plain
    return None if per_million is None else round(tokens * per_million / 1_000_000, 6)


def cost_of(request: VideoRequest, task: Task) -> float | None:
    """What a task cost in USD, by the tokens that the provider counted; None where tokens or price are not known.

    An inference endpoint is priced by the model behind it, which the task names.
    """
    if task.usage is None or task.usage.total_tokens is None:
        return None
    has_video = any(KINDS.get(reference.role) == "video" for reference in request.references)
    resolution = task.resolution or request.resolution
    return cost_usd(task.model or request.model, resolution, has_video, task.usage.total_tokens)


# The rules


def check(request: VideoRequest, *, insecure_hosts: Collection[str] = ()) -> list[Problem]:
    """Everything that is wrong with a request, as far as it shows without a network; empty if nothing is.

    Args:
        request: The request; its shape is right already.
        insecure_hosts: Hosts for which plain http and private addresses are allowed.
    """
    problems = [problem for rule in _RULES for problem in rule(request)]
    for index, reference in enumerate(request.references):
        problems += _reference_problems(reference, f"references[{index}]", insecure_hosts)
    return problems


def warnings(request: VideoRequest) -> list[str]:
    """What is allowed, and still likely to disappoint. Source: the provider's task API documentation."""
    found = []
    model = model_of(request.model)
    if model and "Korean" not in model.languages and _HANGUL.search(request.prompt or ""):
        found.append(
            f"The prompt holds Korean, which is not a documented language of {model.name}. Documented are "
            f"{', '.join(model.languages)}."
        )
    if any(_may_show_faces(reference) for reference in request.references):
        if request.rights.depicts_real_person:
            found.append(
                "The provider refuses pictures and videos of real faces, unless they come as authorised asset:// ids."
            )
        elif "depicts_real_person" not in request.rights.model_fields_set:
            found.append(
                "Nothing is declared in rights.depicts_real_person. The provider refuses references that show real "
                "faces, unless they come as authorised asset:// ids."
            )
    return found


def _may_show_faces(reference: Reference) -> bool:
    return KINDS.get(reference.role) in {"image", "video"} and not reference.url.startswith("asset://")


def _text_problems(request: VideoRequest) -> Iterator[Problem]:
    texts = [(name, value) for name, value in request if isinstance(value, str)]
    texts += [
        (f"references[{index}].{name}", value)
        for index, reference in enumerate(request.references)
        for name, value in reference
        if value is not None
    ]
    texts.append(("rights.consent_reference", request.rights.consent_reference or ""))
    for at, text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            yield Problem(
                at=at, problem=f"is not valid Unicode: half a surrogate pair at character {error.start}; repair it"
            )


def _user_problems(request: VideoRequest) -> Iterator[Problem]:
    return _name_problems("user_id", request.user_id, _MAX_USER_ID)


def _route_and_model_problems(request: VideoRequest) -> Iterator[Problem]:
    route_known = request.route in ROUTES
    if not route_known:
        yield Problem(at="route", problem=f"{_quoted(request.route)} is not a route; use {_either(ROUTES)}")
    model = model_of(request.model)
    if model is None:
        ids = [model.ids[route] for route in ROUTES for model in MODELS if request.route == route or not route_known]
        yield Problem(
            at="model", problem=f"{_quoted(request.model)} is not known; use {_either(ids)}, or an endpoint id (ep-…)"
        )
        return
    home = next((route for route, model_id in model.ids.items() if model_id == request.model), None)
    if route_known and home is not None and home != request.route:
        yield Problem(
            at="model",
            problem=f"{_quoted(request.model)} belongs to route {home}; on {request.route} it is "
            f"{model.ids[request.route]}",
        )


def _prompt_problems(request: VideoRequest) -> Iterator[Problem]:
    prompt = request.prompt
    if prompt is None:
        if not request.references:
            yield Problem(at="prompt", problem="is required where there are no references; say what to show")
        return
    if _is_blank(prompt):
        yield Problem(at="prompt", problem="is blank; say what to show, or leave it out where there are references")
    if len(prompt) > _MAX_PROMPT:
        yield Problem(at="prompt", problem=f"has {len(prompt)} characters; shorten it to {_MAX_PROMPT}")
    flags = dict.fromkeys(match[0] for match in _FLAG.finditer(prompt))
    if flags:
        yield Problem(
            at="prompt",
            problem=f"holds {', '.join(_quoted(flag) for flag in flags)}: the service obeys such flags, and bills by "
            "them; take them out and use the fields of the request (a dash between words needs a space after it)",
        )


def _scene_problems(request: VideoRequest) -> Iterator[Problem]:
    roles = [reference.role for reference in request.references]
    if not set(roles) <= KINDS.keys():
        return  # an unknown role is reported where it stands, and may be meant as anything
    frames = [role for role in roles if role in FRAMES]
    for role in sorted(FRAMES):
        if roles.count(role) > 1:
            yield Problem(at="references", problem=f"holds {roles.count(role)} of {role}; keep one")
    if frames and len(frames) < len(roles):
        yield Problem(
            at="references",
            problem="mixes first_frame or last_frame with reference_… roles; use one or the other",
        )
    elif frames and "first_frame" not in frames:
        yield Problem(at="references", problem="holds a last_frame alone; add a first_frame")
    model = model_of(request.model)
    if model is None:
        return
    for kind, most in model.references.items():
        count = roles.count(f"reference_{kind}")
        if count > most:
            yield Problem(
                at="references", problem=f"holds {count} of reference_{kind}; {model.name} takes {most} at most"
            )
    if set(roles) == {"reference_audio"} and not model.lone_audio:
        yield Problem(
            at="references", problem=f"holds sound alone; {model.name} needs a reference_image or reference_video too"
        )


def _reference_problems(reference: Reference, at: str, insecure_hosts: Collection[str]) -> Iterator[Problem]:
    if reference.role not in KINDS:
        yield Problem(at=f"{at}.role", problem=f"{_quoted(reference.role)} is not a role; use {_either(KINDS)}")
    problem = _url_problem(reference.url, insecure_hosts)
    if problem:
        yield Problem(at=f"{at}.url", problem=problem)
    if reference.asset_id is not None:
        yield from _name_problems(f"{at}.asset_id", reference.asset_id, _MAX_NAME)


def _url_problem(url: str, insecure_hosts: Collection[str]) -> str | None:
    """What is wrong with a reference's URL. It is not quoted: its query may hold a signature."""
    scheme = url.partition(":")[0].lower()
    if scheme == "data":
        return (
            "is a data: URL, which does not fit into a job; put the file into a bucket and give its "
            "gs://bucket/object#generation, or a public https URL"
        )
    if len(url) > _MAX_URL:
        return f"has {len(url)} characters; shorten it to {_MAX_URL}"
    if scheme == "gs":
        if gs_object(url):
            return None
        return "must be gs://bucket/object#generation; the generation's number pins the content"
    if scheme == "asset":
        return None if _ASSET.fullmatch(url) else "must be asset:// and the asset's id"
    problem = https_problem(url, insecure_hosts)
    return problem and f"{problem}; give a public https URL, gs://bucket/object#generation or asset://ID"


def _output_problems(request: VideoRequest) -> Iterator[Problem]:
    if request.ratio not in RATIOS:
        yield Problem(at="ratio", problem=f"{_quoted(request.ratio)} is not a ratio; use {_either(RATIOS)}")
    if request.ratio == "adaptive" and not request.references:
        yield Problem(at="ratio", problem="adaptive needs a reference to adapt to; choose a ratio such as 16:9")
    model = model_of(request.model)
    resolutions = model.resolutions if model else tuple(PIXELS)
    if request.resolution not in resolutions:
        of = f"a resolution of {model.name}" if model else "a resolution"
        yield Problem(at="resolution", problem=f"{_quoted(request.resolution)} is not {of}; use {_either(resolutions)}")
    if model and request.duration != MODEL_CHOOSES and request.duration not in model.durations:
        yield Problem(
            at="duration",
            problem=f"must be {model.durations[0]} to {model.durations[-1]} seconds with {model.name}, "
            "or -1 to let the model choose",
        )
    if not 1 <= request.take <= _MAX_TAKE:
        yield Problem(at="take", problem=f"must be 1 to {_MAX_TAKE}")


def _optional_problems(request: VideoRequest) -> Iterator[Problem]:
    model = model_of(request.model)
    given = {name: value for name in OPTIONAL if (value := getattr(request, name)) is not None}
    for name, value in given.items():
        if model and name not in model.optional:
            yield Problem(at=name, problem=f"is not supported by {model.name}; leave it out")
        elif name in _BOUNDS:
            least, most = _BOUNDS[name]
            if not least <= value <= most:
                yield Problem(at=name, problem=f"must be {least} to {most}")
    if request.web_search and request.references:
        yield Problem(at="web_search", problem="works with text alone; leave out web_search or the references")


def _rights_problems(request: VideoRequest) -> Iterator[Problem]:
    at, consent = "rights.consent_reference", request.rights.consent_reference or ""
    if request.rights.depicts_real_person and _is_blank(consent):
        yield Problem(at=at, problem="is required for a real person; name the consent, such as a contract number")
    elif consent:
        yield from _name_problems(at, consent, _MAX_NAME)


_RULES: tuple[Callable[[VideoRequest], Iterator[Problem]], ...] = (
    _text_problems,
    _user_problems,
    _route_and_model_problems,
    _prompt_problems,
    _scene_problems,
    _output_problems,
    _optional_problems,
    _rights_problems,
)


def _name_problems(at: str, name: str, most: int) -> Iterator[Problem]:
    """What is wrong with a name that the backend chose."""
    if _is_blank(name):
        yield Problem(at=at, problem="must not be blank")
    if any(unicodedata.category(character) == "Cc" for character in name):
        yield Problem(at=at, problem="holds a control character; take it out")
    if len(name) > most:
        yield Problem(at=at, problem=f"has {len(name)} characters; shorten it to {most}")


def _is_blank(text: str) -> bool:
    """Whether nothing of a text can be seen: no characters, or only spaces, controls and format characters."""
    return all(unicodedata.category(c) in {"Zs", "Zl", "Zp", "Cc", "Cf"} for c in text)


def _quoted(text: str) -> str:
    """A caller's text in a message: short, and without characters that a terminal or JSON cannot take."""
    return repr(text if len(text) <= 60 else f"{text[:59]}…")


def _either(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


# From JSON

_Path = tuple[int | str, ...]


def parse_request_json(text: str | bytes, *, insecure_hosts: Collection[str] = ()) -> VideoRequest:
    """A request from JSON text. A byte order mark is ignored.

    Args:
        text: The document; bytes are UTF-8.
        insecure_hosts: As in :func:`check`.

    Raises:
        InvalidRequest: It is not JSON, or names a field twice, or is not a request; lists everything that is wrong.
    """
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        # NaN and Infinity come out as floats, which fit no field. A hundred digits are out of all bounds already.
        data = json.loads(
            decoded.removeprefix("\ufeff"), object_pairs_hook=_Object, parse_int=lambda digits: int(digits[:100])
        )
    except UnicodeDecodeError as error:
        problem = f"the request is not UTF-8 (byte {error.start}); encode it as UTF-8"
    except json.JSONDecodeError as error:
        problem = f"the request is not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
    except RecursionError:
        problem = "the request is nested too deep"
    else:
        return parse_request(data, insecure_hosts=insecure_hosts)
    raise InvalidRequest([Problem(at="", problem=problem)])


def parse_request(data: object, *, insecure_hosts: Collection[str] = ()) -> VideoRequest:
    """A request from decoded JSON, whatever that is.

    Args:
        data: The value. Null counts as absent, as it does for the provider.
        insecure_hosts: As in :func:`check`.

    Raises:
        InvalidRequest: It is not a request, or not one that may be paid for; lists everything that is wrong, the
            rules being checked of all that has the right shape.
    """
    problems: list[Problem] = []
    if not isinstance(data, dict):
        raise InvalidRequest([Problem(at="", problem="the request must be a JSON object")])
    fields = _known_fields(data, VideoRequest, "", problems)
    if isinstance(fields.get("references"), list):
        fields["references"] = [
            _known_fields(item, Reference, f"references[{index}]", problems) if isinstance(item, dict) else item
            for index, item in enumerate(fields["references"])
        ]
    if isinstance(fields.get("rights"), dict):
        fields["rights"] = _known_fields(fields["rights"], Rights, "rights", problems)
    faults: set[_Path] = set()
    try:
        request = VideoRequest.model_validate(fields)
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_context=False, include_input=False):
            faults.add(fault["loc"])
            problems.append(Problem(at=_at(fault["loc"]), problem=_SHAPE_PROBLEMS.get(fault["type"], fault["msg"])))
        request = VideoRequest.model_validate(_with_stand_ins(fields, faults))
    faulty = {_at(fault) for fault in faults}
    problems += [
        problem
        for problem in check(request, insecure_hosts=insecure_hosts)
        if faulty.isdisjoint(problem.at[: end.start()] for end in _ENDS_OF_PARTS.finditer(problem.at))
    ]
    if problems:
        raise InvalidRequest(problems)
    return request


# What "references[0].url" is part of: "references", "references[0]" and itself.
_ENDS_OF_PARTS = re.compile(r"[.\[]|$")
_SHAPE_PROBLEMS = {
    "missing": "is required",
    "string_type": "must be a text",
    "int_type": "must be a whole number, such as 5; neither 5.0 nor a text",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "model_type": "must be an object",
}
"""In the terms of JSON, by pydantic's name of the error."""


class _Object(dict[str, Any]):
    """A JSON object that remembers which names stood in it more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]


def _known_fields(data: dict[str, Any], shape: type[BaseModel], at: str, problems: list[Problem]) -> dict[str, Any]:
    """The fields of an object that exist and are not null. What else it holds is added to the problems."""
    known = shape.model_fields
    prefix = f"{at}." if at else ""
    if isinstance(data, _Object):
        problems += [
            Problem(at=prefix + _quoted(name)[1:-1], problem="is given more than once; keep one")
            for name in data.repeated
        ]
    for name, value in data.items():
        if value is not None and name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {close[0]}?" if close else "take it out: the provider would ignore it, and bill"
            problems.append(Problem(at=prefix + _quoted(str(name))[1:-1], problem=f"is not a field; {hint}"))
    return {name: data[name] for name in known if data.get(name) is not None}


def _with_stand_ins(fields: dict[str, Any], faults: Set[_Path]) -> dict[str, Any]:
    """The fields with something harmless in place of all whose shape is wrong, so that the rest can be checked."""
    rest: dict[str, Any] = {"user_id": "", "route": "", "model": ""} | _sound(fields, (), faults)
    references = fields.get("references")
    if references is not None:
        items = references if isinstance(references, list) else [None]
        rest["references"] = [
            {"role": "", "url": ""} | _sound(item, ("references", index), faults) for index, item in enumerate(items)
        ]
    if "rights" in fields:
        rest["rights"] = _sound(fields["rights"], ("rights",), faults)
    return rest


def _sound(data: object, at: _Path, faults: Set[_Path]) -> dict[str, Any]:
    """The fields of an object whose shape is right."""
    return {name: value for name, value in data.items() if (*at, name) not in faults} if isinstance(data, dict) else {}


def _at(path: _Path) -> str:
    """A path as people write it: ``references[0].url``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
