"""The warnings of a request: allowed, and likely to disappoint. Source: the provider's task API documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from seedance_temporal.provider.checks import quoted
from seedance_temporal.provider.models import (
    ADVISED_PROMPT_WORDS,
    KINDS,
    OPTIONAL,
    WARNED_DAYS,
    Model,
)
from seedance_temporal.request import VideoRequest

if TYPE_CHECKING:
    from seedance_temporal.provider.rules import Rules

_HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff]")
# As S3, Google, TOS, OSS, COS, Azure, CloudFront and Akamai name them, without dashes.
_SIGNING = frozenset({"sig", "sign", "hmac", "hdnts", "hdnea", "authkey", "keypairid", "policy"})
_SIGNING_ENDS = ("signature", "token", "credential")


def warnings_of(request: VideoRequest, rules: Rules) -> list[str]:
    """List the warnings of a request; see :meth:`~seedance_temporal.provider.rules.Rules.warnings`."""
    model = rules.model_of(request.model)
    return [
        *_endpoint_warnings(request, rules),
        *_model_warnings(request, model, rules),
        *_prompt_warnings(request, model),
        *_field_warnings(request, model),
        *_face_warnings(request),
        *_signature_warnings(request),
    ]


def _endpoint_warnings(request: VideoRequest, rules: Rules) -> Iterator[str]:
    if rules.is_unknown_endpoint(request.model):
        yield (
            f"The model behind {quoted(request.model)} is not known: it is checked by the rules of "
            "Seedance 2.0, and its price is not known. SEEDANCE_ENDPOINTS can name the model."
        )


def _model_warnings(request: VideoRequest, model: Model | None, rules: Rules) -> Iterator[str]:
    if model is None or rules.is_unknown_endpoint(request.model):
        return
    days = (model.ends - rules.today()).days if model.ends is not None else None
    successor = f"; its successor is {model.successor}" if model.successor else ""
    if days is None and model.successor:
        yield f"The end of {model.name} on {model.route} is announced, for a day that is not known here{successor}."
    elif days is not None and 0 < days <= WARNED_DAYS:
        yield f"{model.name} ends on {model.route} on {model.ends}, in {days} days{successor}."
    elif days is not None and days <= 0:
        yield f"{model.name} ended on {model.route} on {model.ends}: it makes no new video{successor}."
    if model.needs:
        yield f"{model.name} needs {model.needs}: without it the create is refused, and nothing is billed."


def _prompt_warnings(request: VideoRequest, model: Model | None) -> Iterator[str]:
    prompt = request.prompt or ""
    if model and model.languages and "Korean" not in model.languages and _HANGUL.search(prompt):
        yield (
            f"The prompt holds Korean, which is not a documented language of {model.name}. Documented are "
            f"{', '.join(model.languages)}."
        )
    words = len(prompt.split())
    if words > ADVISED_PROMPT_WORDS:
        yield f"The prompt has {words} words; the provider advises {ADVISED_PROMPT_WORDS} at most."


def _field_warnings(request: VideoRequest, model: Model | None) -> Iterator[str]:
    if model is None:
        return
    for name in OPTIONAL:
        if name in model.doubtful and getattr(request, name):
            yield (
                f"It is doubtful whether {model.name} takes {name} on {model.route}: sources differ. If it does not, "
                "the create is refused, and nothing is billed; leave it out where it does not matter."
            )
    roles = {reference.role for reference in request.references}
    is_open = request.omni_reference_task_type in {None, "auto"} and "omni_reference_task_type" in model.optional
    if is_open and "reference_video" in roles:
        yield (
            f"Without omni_reference_task_type, {model.name} decides what the reference_video is for: words such as "
            "add, remove or replace can make an edit of it, which fails by the rules of edits. For a reference, give "
            "reference."
        )


# The API has no field for consent: it is settled with the provider before the call.
_REAL_FACES = "The provider refuses pictures and videos of real faces, unless they come as authorised asset:// ids."


def _face_warnings(request: VideoRequest) -> Iterator[str]:
    visible = [reference for reference in request.references if KINDS.get(reference.role) in {"image", "video"}]
    if all(reference.url.startswith("asset://") for reference in visible):
        return
    if request.rights.depicts_real_person:
        yield f"{_REAL_FACES} The consent that is named here is kept in the record, and not sent to it."
    elif "depicts_real_person" not in request.rights.model_fields_set:
        yield (
            f"Nothing is declared in rights.depicts_real_person. {_REAL_FACES} Declare false where no real person can "
            "be recognised, and true with a consent_reference where one can."
        )


def _signature_warnings(request: VideoRequest) -> Iterator[str]:
    places = [
        f"references[{index}]"
        for index, reference in enumerate(request.references)
        if reference.asset_id is None and _looks_signed(reference.url)
    ]
    if places:
        yield (
            f"The URL of {', '.join(places)} looks signed, and there is no asset_id: with each new signature the same "
            "request would be another job, and be paid for again. Give it an asset_id, or use gs://."
        )


def _looks_signed(url: str) -> bool:
    """Return whether the query of an http(s) URL is likely to hold a signature, which changes with each URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    if parts.scheme not in {"http", "https"}:
        return False
    names = {re.sub(r"[^a-z]", "", name.lower()) for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    return any(name in _SIGNING or name.endswith(_SIGNING_ENDS) for name in names)
