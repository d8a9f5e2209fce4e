"""Read a request from JSON, and report all of its problems at once."""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Mapping, Set
from itertools import islice
from typing import Any

from pydantic import BaseModel, ValidationError

from seedance_temporal.errors import InvalidRequest, Problem
from seedance_temporal.labels import MOST_LABELS
from seedance_temporal.provider.checks import quoted
from seedance_temporal.provider.rules import Rules
from seedance_temporal.request import Reference, Rights, VideoRequest

_Path = tuple[int | str, ...]
# No field has a longer name, and a search for the one that is meant takes a time that grows with it.
_LONGEST_NAME = 100
# Twice what any model takes.
_MOST_REFERENCES = 100
# So many names are searched for the field that is meant.
_MOST_UNKNOWN = 10


def decode_json(text: str | bytes) -> Any:
    """Decode JSON text, and keep which names are in it twice; raise InvalidRequest where it is not JSON."""
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        # NaN and Infinity become floats, which fit no field. A hundred digits are over all bounds already.
        return json.loads(
            decoded.removeprefix("\ufeff"), object_pairs_hook=_Object, parse_int=lambda digits: int(digits[:100])
        )
    except UnicodeDecodeError as error:
        problem = f"the request is not UTF-8 (byte {error.start}); encode it as UTF-8"
    except json.JSONDecodeError as error:
        problem = f"the request is not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
    except RecursionError:
        problem = "the request is nested too deep"
    raise InvalidRequest([Problem(at="", problem=problem)])


def read_request(data: object, rules: Rules) -> tuple[VideoRequest, list[Problem]]:
    """Read a request from decoded JSON, for a caller that checks more; check the rules of fields of the right shape.

    Returns:
        The request, with placeholders for fields of a wrong shape, and all problems.

    Raises:
        InvalidRequest: It is not an object.
    """
    problems: list[Problem] = []
    if not isinstance(data, Mapping):
        raise InvalidRequest([Problem(at="", problem="the request must be a JSON object")])
    fields = _known_fields(data, VideoRequest, "", problems)
    references = fields.get("references")
    if isinstance(references, list) and len(references) > _MOST_REFERENCES:
        problems.append(Problem(at="references", problem=f"holds {len(references):,}; {_MOST_REFERENCES} are the most"))
        fields["references"] = references[:_MOST_REFERENCES]
    if isinstance(fields.get("references"), list):
        fields["references"] = [
            _known_fields(item, Reference, f"references[{index}]", problems) if isinstance(item, dict) else item
            for index, item in enumerate(fields["references"])
        ]
    if isinstance(fields.get("rights"), dict):
        fields["rights"] = _known_fields(fields["rights"], Rights, "rights", problems)
    labels = fields.get("labels")
    if isinstance(labels, _Object):
        problems += [
            Problem(at="labels", problem=f"holds {quoted(name)} more than once; keep one") for name in labels.repeated
        ]
    if isinstance(labels, dict) and len(labels) > MOST_LABELS:
        problems.append(Problem(at="labels", problem=f"holds {len(labels):,}; {MOST_LABELS} are the most"))
        fields["labels"] = dict(islice(labels.items(), MOST_LABELS))
    faults: set[_Path] = set()
    try:
        request = VideoRequest.model_validate(fields)
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_context=False, include_input=False):
            faults.add(fault["loc"])
            problems.append(_problem(fault["loc"], _SHAPE_PROBLEMS.get(fault["type"], fault["msg"])))
        request = VideoRequest.model_validate(_with_placeholders(fields, faults))
    faulty = {_at(fault) for fault in faults}
    problems += [
        problem
        for problem in rules.check(request)
        if faulty.isdisjoint(problem.at[: end.start()] for end in _ENDS_OF_PARTS.finditer(problem.at))
    ]
    return request, problems


# The ends of a path and of the paths above it: "references", "references[0]" and "references[0].url".
_ENDS_OF_PARTS = re.compile(r"[.\[]|$")
_SHAPE_PROBLEMS = {
    "missing": "is required",
    "string_type": "must be a text",
    "int_type": "must be a whole number, such as 5; neither 5.0 nor a text",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "model_type": "must be an object",
    "dict_type": "must be an object",
}
"""The problems in the terms of JSON, by pydantic's name of the error."""


class _Object(dict[str, Any]):
    """A JSON object, with the names that it holds more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]


def _known_fields(data: Mapping[str, Any], shape: type[BaseModel], at: str, problems: list[Problem]) -> dict[str, Any]:
    """Return the known fields of an object that are not null. Add its other fields to the problems."""
    known = shape.model_fields
    prefix = f"{at}." if at else ""
    if isinstance(data, _Object):
        problems += [
            Problem(at=prefix + quoted(name)[1:-1], problem="is given more than once; keep one")
            for name in data.repeated
        ]
    unknown = [name for name, value in data.items() if value is not None and name not in known]
    for name in unknown[:_MOST_UNKNOWN]:
        close = difflib.get_close_matches(str(name)[:_LONGEST_NAME], known, n=1)
        advice = f"did you mean {close[0]}?" if close else "take it out: the provider would ignore it, and bill"
        problems.append(Problem(at=prefix + quoted(str(name))[1:-1], problem=f"is not a field; {advice}"))
    if len(unknown) > _MOST_UNKNOWN:
        problems.append(Problem(at=at, problem=f"holds {len(unknown) - _MOST_UNKNOWN:,} more names that are no fields"))
    return {name: data[name] for name in known if data.get(name) is not None}


def _with_placeholders(fields: dict[str, Any], faults: Set[_Path]) -> dict[str, Any]:
    """Replace the fields of a wrong shape by placeholders, so that the rest can be checked."""
    rest: dict[str, Any] = {"user_id": "", "route": "", "model": ""} | _sound(fields, (), faults)
    references = fields.get("references")
    if references is not None:
        items = references if isinstance(references, list) else [None]
        rest["references"] = [
            {"role": "", "url": ""} | _sound(item, ("references", index), faults) for index, item in enumerate(items)
        ]
    if "rights" in fields:
        rest["rights"] = _sound(fields["rights"], ("rights",), faults)
    if any(fault[0] == "labels" for fault in faults):
        rest.pop("labels", None)
    return rest


def _sound(data: object, at: _Path, faults: Set[_Path]) -> dict[str, Any]:
    """Return the fields of an object whose shape is right."""
    return {name: value for name, value in data.items() if (*at, name) not in faults} if isinstance(data, dict) else {}


def _problem(path: _Path, problem: str) -> Problem:
    if path[0] == "labels" and len(path) > 1:
        # Its name can be any text.
        return Problem(at="labels", problem=f"holds {quoted(str(path[1]))}, whose name and value must be texts")
    return Problem(at=_at(path), problem=problem)


def _at(path: _Path) -> str:
    """Write a path as in ``references[0].url``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
