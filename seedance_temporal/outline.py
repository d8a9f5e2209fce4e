"""What a run says of itself from its start: the summary and the details that the Temporal UI shows of it."""

from __future__ import annotations

from collections.abc import Mapping

from seedance_temporal import catalogue
from seedance_temporal.identity import user_hash
from seedance_temporal.markdown import COMMAND, money, plain, rows
from seedance_temporal.models import ENDPOINT
from seedance_temporal.request import Reference, VideoRequest
from seedance_temporal.urls import redacted

# The server refuses a start whose summary has over 400 bytes, or whose details have over 20,000.
_SUMMARY_LETTERS = 100
_LETTERS = 200


def summary(request: VideoRequest, endpoints: Mapping[str, str], *, hash_users: bool) -> str:
    """One line: what, and for whom.

    Args:
        request: A valid one.
        endpoints: The model behind each inference endpoint.
        hash_users: Whether the user is shown by a hash.
    """
    what = f"{_model(request, endpoints)} {request.resolution} {request.ratio} {_length(request)}"
    return f"{what} for {_user(request, hash_users)[:60]}"[:_SUMMARY_LETTERS]


def details(job_id: str, request: VideoRequest, endpoints: Mapping[str, str], *, hash_users: bool) -> str:
    """What was asked for, in Markdown, and how to look at the job. References are shown without queries of URLs.

    Args:
        job_id: The job of the request.
        request: A valid one.
        endpoints: The model behind each inference endpoint.
        hash_users: Whether the user is shown by a hash.
    """
    name = _model(request, endpoints)
    estimate = catalogue.estimate(request, endpoints=endpoints)
    expected = money(estimate.usd, estimate.tokens)
    return rows(
        {
            "user": _cut(_user(request, hash_users)),
            "model": plain(f"{': '.join(dict.fromkeys([name, request.model]))} on {request.route}"),
            "video": ", ".join([request.resolution, request.ratio, _length(request), *_extras(request)]),
            "prompt": _cut(request.prompt or ""),
            **{f"{number}. {plain(r.role)}": _reference(r) for number, r in enumerate(request.references, 1)},
            "estimate": f"at most {expected}, by list price" if expected else "not known beforehand",
            "how it stands": f"`{COMMAND} show {job_id}`",
        }
    )


def _model(request: VideoRequest, endpoints: Mapping[str, str]) -> str:
    model = catalogue.model_of(request.model, endpoints)
    # What is behind an endpoint that nobody has named is not known, though some rules have to be taken for it.
    unnamed = ENDPOINT.fullmatch(request.model) is not None and request.model not in endpoints
    return request.model if model is None or unnamed else model.name


def _user(request: VideoRequest, hash_users: bool) -> str:
    return user_hash(request.user_id) if hash_users else request.user_id


def _length(request: VideoRequest) -> str:
    return f"{request.duration} s" if request.duration > 0 else "as long as the model chooses"


def _extras(request: VideoRequest) -> list[str]:
    extras = {
        "with sound": request.generate_audio,
        "with a watermark": request.watermark,
        "with its last frame": request.return_last_frame,
        f"take {request.take}": request.take > 1,
    }
    return [name for name, given in extras.items() if given]


def _reference(reference: Reference) -> str:
    named = f" ({_cut(reference.asset_id)})" if reference.asset_id is not None else ""
    return _cut(redacted(reference.url)) + named


def _cut(text: str) -> str:
    return plain(text if len(text) <= _LETTERS else f"{text[:_LETTERS]}…")
