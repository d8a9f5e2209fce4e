"""The checks of a request before it is paid for. They need no network."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from seedance_temporal.errors import Problem
from seedance_temporal.identity import is_job_id
from seedance_temporal.labels import MOST_LABELS, name_problem, value_problem
from seedance_temporal.provider import models
from seedance_temporal.provider.models import KINDS, OPTIONAL, ROUTES, Model, Scene
from seedance_temporal.provider.task import is_task_id
from seedance_temporal.request import Reference, VideoRequest
from seedance_temporal.urls import https_problem

if TYPE_CHECKING:
    from seedance_temporal.provider.rules import Rules

_MAX_TAKE = 1_000_000
# A search attribute of Temporal is a VARCHAR(255) on SQL databases; a longer one would stop the run's visibility.
_MAX_USER_ID = 255
_MAX_NAME = 1_024
_MAX_URL = 8_192
# Each run of a job holds its request several times, and Temporal bounds a payload (2 MB) and a history (50 MB).
_MAX_TEXT_BYTES = 256 * 1024
_MOST_FLAGS = 5
# As in the stream-safe text of Unicode's annex 15: to put marks in order takes a time that grows with their square, and
# the request hash does that.
_MOST_MARKS = 30

_GS = re.compile(r"gs://([a-z0-9][a-z0-9._-]{1,220}[a-z0-9])/([^\x00-\x1f\x7f]{1,1024})#([1-9][0-9]{0,18})")
_ASSET = re.compile(r"asset://[A-Za-z0-9._~-]+")
# The flags that the service is known to parse are refused anywhere: "跑步--dur 15" needs no space. The list is not
# complete, so any text that has the form of a flag is refused too, where it cannot be a dash between words: a prompt
# that must be edited costs nothing, a flag that changes the price does.
_KNOWN_FLAG = "rs|rt|dur|fps|seed|cf|wm|resolution|ratio|duration|camerafixed|watermark|frames|framespersecond"
_FLAG = re.compile(rf"--(?:{_KNOWN_FLAG})(?![A-Za-z])|(?<![\w-])--[A-Za-z]\w*", re.IGNORECASE)


_Problems = Iterator[tuple[str, str]]
"""Places and problems, as in :class:`~seedance_temporal.errors.Problem`."""


class GsObject(NamedTuple):
    """One generation of an object in Google Cloud Storage: its content cannot be exchanged."""

    bucket: str
    name: str
    generation: int


def gs_object(url: str) -> GsObject | None:
    """Read ``gs://bucket/object#generation``; return None for any other URL."""
    match = _GS.fullmatch(url)
    return GsObject(match[1], match[2], int(match[3])) if match else None


def scene(request: VideoRequest) -> Scene:
    """Return the provider's scene of a request; ``unknown`` where its references fit none."""
    roles = sorted(reference.role for reference in request.references)
    if request.draft_of is not None:
        return "draft" if not roles else "unknown"
    if not roles:
        return "text_to_video"
    if roles == ["first_frame"]:
        return "first_frame"
    if roles == ["first_frame", "last_frame"]:
        return "first_and_last_frame"
    return "references" if set(roles) <= KINDS.keys() - models.FRAMES else "unknown"


def problems_of(request: VideoRequest, rules: Rules) -> list[Problem]:
    """List all problems of a request; see :meth:`~seedance_temporal.provider.rules.Rules.check`."""
    model = rules.model_of(request.model)
    problems = [
        *_text_problems(request),
        *_name_problems("user_id", request.user_id, _MAX_USER_ID),
        *_route_and_model_problems(request, model, rules),
        *_prompt_problems(request),
        *_scene_problems(request, model),
        *_output_problems(request, model),
        *_optional_problems(request, model),
        *_final_problems(request, model),
        *_rights_problems(request),
        *_label_problems(request),
    ]
    for index, reference in enumerate(request.references):
        problems += _reference_problems(reference, f"references[{index}]", rules)
    return [Problem(at=at, problem=problem) for at, problem in problems]


def _text_problems(request: VideoRequest) -> _Problems:
    texts = [(name, value) for name, value in request if isinstance(value, str)]
    texts += [
        (f"references[{index}].{name}", value)
        for index, reference in enumerate(request.references)
        for name, value in reference
        if value is not None
    ]
    texts.append(("rights.consent_reference", request.rights.consent_reference or ""))
    size = sum(len(json.dumps(text, ensure_ascii=False).encode(errors="surrogatepass")) for _, text in texts)
    if size > _MAX_TEXT_BYTES:
        yield "request", f"has {size:,} bytes of text; shorten its URLs and texts to {_MAX_TEXT_BYTES:,} altogether"
    for at, text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            yield at, f"is not valid Unicode: half a surrogate pair at character {error.start}; repair it"


def _route_and_model_problems(request: VideoRequest, model: Model | None, rules: Rules) -> _Problems:
    route_known = request.route in ROUTES
    if not route_known:
        yield "route", f"{quoted(request.route)} is not a route; use {_either(ROUTES)}"
    if model is None:
        ids = [each.id for each in rules.models.values() if not route_known or each.route == request.route]
        known = f"{_either(ids)}, an endpoint id (ep-…), or a model of SEEDANCE_MODELS"
        yield "model", f"{quoted(request.model)} is not known; use {known}"
        return
    if rules.is_unknown_endpoint(request.model):
        return
    named = quoted(model.id) if model.id == request.model else f"{quoted(model.id)}, behind {quoted(request.model)},"
    if route_known and model.route != request.route:
        other = (each.id for each in rules.models.values() if (each.name, each.route) == (model.name, request.route))
        none = f"{request.route} has no such model"
        there = next((f"on {request.route} it is {model_id}" for model_id in other), none)
        yield "model", f"{named} belongs to route {model.route}; {there}"


def _prompt_problems(request: VideoRequest) -> _Problems:
    prompt = request.prompt
    if prompt is None:
        if not request.references and request.draft_of is None:
            yield "prompt", "is required where there are no references; say what to show"
        return
    if _is_blank(prompt):
        yield "prompt", "is blank; say what to show, or leave it out where there are references"
    if len(prompt) > models.MAX_PROMPT:
        yield "prompt", f"has {len(prompt)} characters; shorten it to {models.MAX_PROMPT}"
    if _marks_in_a_row(prompt) > _MOST_MARKS:
        yield "prompt", f"holds more than {_MOST_MARKS} combining marks in a row; no language needs them, take them out"
    if flags := dict.fromkeys(match[0] for match in _FLAG.finditer(prompt[: models.MAX_PROMPT])):
        named = ", ".join(map(quoted, islice(flags, _MOST_FLAGS)))
        more = f" and {len(flags) - _MOST_FLAGS} more" if len(flags) > _MOST_FLAGS else ""
        yield (
            "prompt",
            f"holds {named}{more}: the service obeys such flags, and bills by "
            "them; take them out and use the fields of the request (a dash between words needs a space after it)",
        )


def _marks_in_a_row(text: str) -> int:
    most = marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.combining(character) else 0
        most = max(most, marks)
    return most


def _scene_problems(request: VideoRequest, model: Model | None) -> _Problems:
    roles = [reference.role for reference in request.references]
    if not set(roles) <= KINDS.keys():
        return  # an unknown role is reported by its reference, and may mean anything
    frames = [role for role in roles if role in models.FRAMES]
    for role in sorted(models.FRAMES):
        if roles.count(role) > 1:
            yield "references", f"holds {roles.count(role)} of {role}; keep one"
    if frames and len(frames) < len(roles):
        yield "references", "mixes first_frame or last_frame with reference_… roles; use one or the other"
    elif frames and "first_frame" not in frames:
        yield "references", "holds a last_frame alone; add a first_frame"
    if model is None:
        return
    if not model.references and len(frames) < len(roles):
        yield (
            "references",
            f"holds reference_… roles, which are not documented for {model.name}; use first_frame and "
            "last_frame, or another model",
        )
        return
    for kind, most in model.references.items():
        if (count := roles.count(f"reference_{kind}")) > most:
            yield "references", f"holds {count} of reference_{kind}; {model.name} takes {most} at most"
    if set(roles) == {"reference_audio"} and not model.lone_audio:
        yield "references", f"holds sound alone; {model.name} needs a reference_image or reference_video too"


def _reference_problems(reference: Reference, at: str, rules: Rules) -> _Problems:
    if reference.role not in KINDS:
        yield f"{at}.role", f"{quoted(reference.role)} is not a role; use {_either(KINDS)}"
    if problem := _url_problem(reference.url, rules):
        yield f"{at}.url", problem
    if reference.asset_id is not None:
        yield from _name_problems(f"{at}.asset_id", reference.asset_id, _MAX_NAME)


def _url_problem(url: str, rules: Rules) -> str | None:
    """Return the problem of a reference's URL. The URL is not quoted: its query may hold a signature."""
    scheme = url.partition(":")[0].lower()
    if scheme == "data":
        return (
            "is a data: URL, which does not fit into a job; put the file into a bucket and give its "
            "gs://bucket/object#generation, or a public https URL"
        )
    if len(url) > _MAX_URL:
        return f"has {len(url)} characters; shorten it to {_MAX_URL}"
    if scheme == "gs":
        private = gs_object(url)
        if private is None:
            return "must be gs://bucket/object#generation; the generation's number pins the content"
        return _bucket_problem(f"{private.bucket}/{private.name}", rules)
    if scheme == "asset":
        return None if _ASSET.fullmatch(url) else "must be asset:// and the asset's id"
    problem = https_problem(url, rules.insecure_hosts)
    if problem is None and not url.startswith(("https://", "http://")):
        problem = "does not begin with https:// in small letters"
    return problem and f"{problem}; give a public https URL, gs://bucket/object#generation or asset://ID"


def _bucket_problem(place: str, rules: Rules) -> str | None:
    """Return why no reference may be made of an object: the worker could read it, and its user perhaps could not."""
    own = rules.own_objects
    if own and place.startswith(own):
        is_upload = place.startswith(f"{own}media/")
        return (
            None if is_upload else f"is a job's own object; download it and give the file, or copy it out of gs://{own}"
        )
    if rules.reference_buckets and not place.startswith(rules.reference_buckets):
        return "is in none of SEEDANCE_REFERENCE_BUCKETS; copy it into one of them, or have its bucket added there"
    return None


def _output_problems(request: VideoRequest, model: Model | None) -> _Problems:
    if request.ratio not in models.RATIOS:
        yield "ratio", f"{quoted(request.ratio)} is not a ratio; use {_either(models.RATIOS)}"
    if model and request.ratio != "adaptive" and (why := _keeps_ratio(request, model)):
        yield "ratio", f"must be adaptive for {why} with {model.name}; leave it out"
    resolutions = model.resolutions if model else tuple(models.PIXELS)
    if request.resolution not in resolutions:
        of = f"a resolution of {model.name}" if model else "a resolution"
        yield "resolution", f"{quoted(request.resolution)} is not {of}; use {_either(resolutions)}"
    if model and request.duration != models.MODEL_CHOOSES and request.duration not in model.durations:
        yield (
            "duration",
            f"must be {model.durations[0]} to {model.durations[-1]} seconds with {model.name}, "
            "or -1 to let the model choose",
        )
    if not 1 <= request.take <= _MAX_TAKE:
        yield "take", f"must be 1 to {_MAX_TAKE}"


def _keeps_ratio(request: VideoRequest, model: Model) -> str | None:
    """Return the reason why ``ratio`` must be adaptive, or None."""
    task_type = request.omni_reference_task_type
    if task_type in model.adaptive_task_types and request.references:
        return f"omni_reference_task_type {task_type}"
    return "a first frame" if scene(request) in model.adaptive_scenes else None


def _optional_problems(request: VideoRequest, model: Model | None) -> _Problems:
    given = {name: value for name in OPTIONAL if (value := getattr(request, name)) is not None}
    for name, value in given.items():
        choices = model.service_tiers if model and name == "service_tier" else models.CHOICES.get(name)
        if model and name not in model.optional:
            yield name, f"is not supported by {model.name}; leave it out"
        elif name in models.BOUNDS:
            least, most = models.BOUNDS[name]
            if not least <= value <= most:
                yield name, f"must be {least} to {most}"
        elif choices is not None and value not in choices:
            of = f" of {model.name}" if model else ""
            yield name, f"{quoted(value)} is not one{of}; use {_either(choices)}"
    if request.web_search and request.references:
        yield "web_search", "works with text alone; leave out web_search or the references"
    takes_drafts = model is None or "draft" in model.optional
    if request.draft and takes_drafts and request.resolution != models.DRAFT_RESOLUTION:
        yield "resolution", f"must be {models.DRAFT_RESOLUTION} for a draft; its final can have a higher one"
    task_type = request.omni_reference_task_type
    if task_type in models.WORKS_ON_REFERENCES and (model is None or "omni_reference_task_type" in model.optional):
        if all(reference.role != "reference_video" for reference in request.references):
            yield "omni_reference_task_type", f"{task_type} needs a reference_video; add one, or leave the type out"
        if request.prompt is None:
            yield (
                "prompt",
                f"is required for omni_reference_task_type {task_type}; say what to change or add",
            )
        if task_type == "edit" and request.duration != models.MODEL_CHOOSES:
            yield "duration", "must be -1 for omni_reference_task_type edit: the video is as long as the one it edits"


def _final_problems(request: VideoRequest, model: Model | None) -> _Problems:
    """Check the final of a draft: what the draft has decided must not be given again."""
    if request.draft_of is None:
        return
    is_job = request.draft_of.startswith("seedance-")
    if not is_task_id(request.draft_of) or not request.draft_of.isprintable():
        yield "draft_of", "must be the job id (seedance-…) or the task id of a draft"
    elif is_job and not is_job_id(request.draft_of):
        yield "draft_of", "is a job id that is not whole; give all of it, as `show --json` prints it"
    if model is not None and not ("draft" in model.optional and models.FINAL_RESOLUTION in model.resolutions):
        yield "draft_of", f"is not supported by {model.name}; leave it out"
    if request.resolution != models.FINAL_RESOLUTION:
        yield "resolution", f"must be {models.FINAL_RESOLUTION} for the final of a draft; leave it out"
    for name in models.DECIDED_BY_DRAFT:
        if getattr(request, name) != VideoRequest.model_fields[name].get_default():
            yield name, "is decided by the draft; leave it out"


def _rights_problems(request: VideoRequest) -> _Problems:
    at, consent = "rights.consent_reference", request.rights.consent_reference or ""
    if request.rights.depicts_real_person and _is_blank(consent):
        yield at, "is required for a real person; name the consent, such as a contract number"
    elif consent:
        yield from _name_problems(at, consent, _MAX_NAME)


def _label_problems(request: VideoRequest) -> _Problems:
    labels = request.labels or {}
    if len(labels) > MOST_LABELS:
        yield "labels", f"holds {len(labels):,}; {MOST_LABELS} are the most"
    for name, value in islice(labels.items(), MOST_LABELS):
        if problem := name_problem(name):
            yield "labels", f"holds {quoted(name)}, which {problem}"
        elif problem := value_problem(value):
            yield f"labels.{name}", problem


def _name_problems(at: str, name: str, most: int) -> _Problems:
    """Check a name that the backend chose."""
    if _is_blank(name):
        yield at, "must not be blank"
    if any(unicodedata.category(character) == "Cc" for character in name):
        yield at, "holds a control character; take it out"
    if len(name) > most:
        yield at, f"has {len(name)} characters; shorten it to {most}"


def _is_blank(text: str) -> bool:
    """Return whether a text is empty, or holds only spaces, controls and format characters."""
    return all(unicodedata.category(c) in {"Zs", "Zl", "Zp", "Cc", "Cf"} for c in text)


def quoted(text: str) -> str:
    """Quote a caller's text for a message: short, and without characters that a terminal or JSON cannot hold."""
    return repr(text if len(text) <= 60 else f"{text[:59]}…")


def _either(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
