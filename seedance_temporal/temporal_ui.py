"""The summary and the details that the Temporal UI shows of a run from its start."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from seedance_temporal.identity import user_hash
from seedance_temporal.provider.prices import Cost
from seedance_temporal.provider.rules import Rules
from seedance_temporal.request import Reference, VideoRequest
from seedance_temporal.urls import one_line, redacted

# The server refuses a start whose summary has over 400 bytes, or whose details have over 20,000.
_SUMMARY_LETTERS = 100
_LETTERS = 200
_REFERENCES_BYTES = 15_000


def summary_and_details(job_id: str, request: VideoRequest, rules: Rules, *, hash_users: bool) -> tuple[str, str]:
    """Describe a valid request on one line, and in Markdown with the command that shows the job.

    URLs are shown without their queries.
    """
    model = rules.model_of(request.model)
    name = request.model if model is None or rules.is_unknown_endpoint(request.model) else model.name
    user = user_hash(request.user_id) if hash_users else request.user_id
    shape = [request.ratio, f"{request.duration} s" if request.duration > 0 else "as long as the model chooses"]
    if request.draft_of is not None:
        shape = [f"the final of {request.draft_of[:20]}"]
    summary = f"{name} {request.resolution} {' '.join(shape)} for {user[:60]}"
    estimate = rules.estimate(request)
    expected = money(estimate.most, estimate.tokens)
    facts = {
        "user": _cut(user),
        "model": plain(f"{': '.join(dict.fromkeys([name, request.model]))} on {request.route}"),
        "video": ", ".join([request.resolution, *shape, *_extras(request)]),
        "prompt": _cut(request.prompt or ""),
        "draft": _cut(request.draft_of or ""),
        **_references(request.references),
        "estimate": f"at most {expected}, by price table" if expected else "not known beforehand",
        "current state": f"`{COMMAND} show {job_id}`",
    }
    return plain(summary)[:_SUMMARY_LETTERS], rows(facts)


def _extras(request: VideoRequest) -> list[str]:
    extras = {
        "with sound": request.generate_audio,
        "with a watermark": request.watermark,
        "with its last frame": request.return_last_frame,
        f"take {request.take}": request.take > 1,
    }
    return [name for name, given in extras.items() if given]


def _references(references: Sequence[Reference]) -> dict[str, str]:
    """Describe the first references, as many as fit."""
    shown: dict[str, str] = {}
    left = _REFERENCES_BYTES
    for number, reference in enumerate(references, 1):
        name, text = f"{number}. {plain(reference.role)}", _reference(reference)
        left -= len(f"{name}{text}".encode(errors="replace"))
        if left < 0:
            return shown | {"more references": str(len(references) - len(shown))}
        shown[name] = text
    return shown


def _reference(reference: Reference) -> str:
    named = f" ({_cut(reference.asset_id)})" if reference.asset_id is not None else ""
    return _cut(redacted(reference.url)) + named


def _cut(text: str) -> str:
    return plain(text if len(text) <= _LETTERS else f"{text[:_LETTERS]}…")


COMMAND = "python starter.py"
"""The command line, as every message names it. Where the package is installed, ``seedance`` is the same."""
# Texts of others must not become links or pictures, also where Markdown makes links of bare URLs and addresses.
_MARKUP = re.compile(r"([\\`*_\[\]<>|#!~&]|:(?=//)|(?<=www)\.)", re.IGNORECASE)
_COMMAND_AT_THE_END = re.compile(rf"{re.escape(COMMAND)} [\w -]+\Z")


def plain(text: str) -> str:
    """Escape a text, on one line."""
    return _MARKUP.sub(r"\\\1", one_line(text))


def with_command(text: str) -> str:
    """Escape a text, and format the command of ours that it may end with."""
    command = _COMMAND_AT_THE_END.search(text)
    return plain(text) if command is None else f"{plain(text[: command.start()])} `{command[0]}`"


def rows(values: Mapping[str, str]) -> str:
    """Write a list of names and values, without those that have no value."""
    return "\n".join(f"- **{name}**: {value}" for name, value in values.items() if value)


def money(cost: Cost, tokens: int | None) -> str:
    """Write a price and its tokens, as far as they are known."""
    return ", ".join(filter(None, [str(cost), f"{tokens:,} tokens" if tokens is not None else ""]))
