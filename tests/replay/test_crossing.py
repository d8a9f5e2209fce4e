"""What crosses Temporal may only change in ways that earlier and later code can read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

import pytest
from pydantic import Field, create_model

from seedance_temporal.contract import Carried, NamedTask
from seedance_temporal.job import JobError, JobState, Shape
from tests.replay.crossing import (
    MEMO,
    Shapes,
    accepts,
    activity_definitions,
    closed_models,
    crossing_types,
    models_of,
    present_shapes,
    problems,
    shapes_of,
)
from tests.replay.histories import present_set, sets, shapes_file

WHILE_UNRELEASED = "While nothing is released, and no history of the old code can exist any more: make histories."
# What was removed on purpose: ``Model``, or ``Model.field``, and why nothing reads it.
REMOVED: dict[str, str] = {}


@pytest.mark.parametrize("name", sets())
def test_recorded_fields_stay_readable(name: str) -> None:
    before: Shapes = json.loads(shapes_file(name).read_text())
    found = problems(before, present_shapes(), REMOVED, closed_models())
    assert not found, "\n".join(["", *found, "", WHILE_UNRELEASED])


def test_present_fields_are_recorded() -> None:
    """So that the next change is compared with them."""
    assert shapes_file(present_set()).exists(), "nothing is recorded of this version: make histories"
    before: Shapes = json.loads(shapes_file(present_set()).read_text())
    new = [
        f"{model}.{name}"
        for model, fields in present_shapes().items()
        for name in fields.keys() - before.get(model, {})
    ]
    assert new == [], "the set of this version does not know them; record them: make histories"


def test_models_are_found_by_signatures() -> None:
    found = models_of(crossing_types())
    assert {Carried, JobError, JobState} <= set(found), "within others, and in the answer to a query"
    assert NamedTask in found, "a signal that its handler decodes"
    assert len(activity_definitions()) > 10
    assert "attempt" in present_shapes()[MEMO]


# --- the check itself ------------------------------------------------------------------------------------------------


class Inner(Shape):
    name: str


class Crossing(Shape):
    """A model that crosses Temporal."""

    job_id: str
    kind: Literal["one", "two"] = "one"
    inner: tuple[Inner, ...] = ()
    named: str = Field(default="", alias="class")


@dataclass
class Plain:
    size: int
    inner: Inner | None = None


BEFORE = shapes_of(models_of([list[Crossing], Plain]))


def changed(**fields: object) -> Shapes:
    """Return the fields of the same model with others."""
    return BEFORE | shapes_of([create_model("Crossing", __base__=Crossing, **fields)])  # type: ignore[call-overload]


def test_fields_are_read_from_models_and_dataclasses() -> None:
    assert set(BEFORE) == {"Crossing", "Inner", "Plain"}
    assert BEFORE["Crossing"]["job_id"] == {"required": True, "accepts": ["str"]}
    assert BEFORE["Crossing"]["kind"] == {"required": False, "accepts": ["'one'", "'two'"]}
    assert BEFORE["Crossing"]["inner"]["accepts"] == ["tuple of Inner"]
    assert "class" in BEFORE["Crossing"]
    assert BEFORE["Plain"]["size"]["required"]
    assert accepts(dict[str, int | None]) == {"dict of str", "dict of int", "dict of None"}


def test_equal_fields_are_no_problem() -> None:
    assert problems(BEFORE, BEFORE) == []


def test_new_field_without_default_is_rejected() -> None:
    (problem,) = problems(BEFORE, changed(tier=(str, ...)))
    assert problem.startswith("Crossing.tier is new, and has no default.")
    assert "Give it a default" in problem


def test_new_field_with_default_is_accepted() -> None:
    assert problems(BEFORE, changed(tier=(str | None, None))) == []


def test_lost_default_is_rejected() -> None:
    (problem,) = problems(BEFORE, changed(kind=(Literal["one", "two"], ...)))
    assert problem.startswith("Crossing.kind has no default any more.")


def test_lost_value_is_rejected() -> None:
    (problem,) = problems(BEFORE, changed(kind=(Literal["one"], "one")))
    assert problem.startswith("Crossing.kind does not take 'two' any more.")


def test_further_value_is_accepted() -> None:
    assert problems(BEFORE, changed(kind=(Literal["one", "two", "three"], "one"))) == []


def test_new_model_may_require_fields() -> None:
    assert problems({name: fields for name, fields in BEFORE.items() if name != "Plain"}, BEFORE) == []


def test_removed_field_is_noticed() -> None:
    now = BEFORE | {"Crossing": {name: of for name, of in BEFORE["Crossing"].items() if name != "kind"}}
    (problem,) = problems(BEFORE, now)
    assert problem.startswith("Crossing.kind is removed.")
    assert problems(BEFORE, now, {"Crossing.kind": "nothing reads it"}) == []
    (problem,) = problems(BEFORE, now, {"Crossing.kind": "nothing reads it"}, closed={"Crossing"})
    assert "takes no unknown field" in problem


def test_removed_model_is_noticed() -> None:
    now = {name: fields for name, fields in BEFORE.items() if name != "Plain"}
    (problem,) = problems(BEFORE, now)
    assert problem.startswith("Plain crosses Temporal no more.")
    assert problems(BEFORE, now, {"Plain": "its activity is gone"}) == []


def test_two_models_of_one_name_are_rejected() -> None:
    with pytest.raises(ValueError, match="are named Crossing"):
        shapes_of([Crossing, create_model("Crossing")])
