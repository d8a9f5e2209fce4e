"""Everything that a caller can get or must catch is exported, and the error tree is the one that is documented."""

from __future__ import annotations

import ast
import inspect
import pickle
import re
import sys
import typing
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import seedance_temporal
from seedance_temporal import client, connection, errors, handle, identity, request, request_json, sync_client
from seedance_temporal import job as shapes
from seedance_temporal.contract import CancelAnswer, ResolveAnswer
from seedance_temporal.errors import SeedanceError

EXPORTED = {name: getattr(seedance_temporal, name) for name in seedance_temporal.__all__}
PUBLIC = (
    *(seedance_temporal.VideoJobs, seedance_temporal.VideoJob, seedance_temporal.SyncVideoJobs),
    *(seedance_temporal.SyncVideoJob, seedance_temporal.VideoRequest),
)
RAISING = (client, connection, handle, identity, request, request_json, sync_client)


def _errors(below: type[SeedanceError] = SeedanceError) -> Iterator[type[SeedanceError]]:
    yield below
    for kind in below.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield from _errors(kind)


def test_all_errors_are_exported() -> None:
    assert {kind.__name__ for kind in _errors()} <= EXPORTED.keys()


def test_docstring_shows_the_error_tree() -> None:
    shown = re.findall(r"^ *((?:[│ ]   )*(?:[├└]── )?)(\w+)(?:  .*)?$", errors.__doc__ or "", re.MULTILINE)
    depths = [(len(indent) // 4, name) for indent, name in shown if name[0].isupper()]
    path: list[str] = []
    parents = {}
    for depth, name in depths:
        del path[depth:]
        parents[name] = path[-1] if path else "Exception"
        path.append(name)
    assert parents == {kind.__name__: kind.__mro__[1].__name__ for kind in _errors()}


@pytest.mark.parametrize("module", RAISING, ids=lambda module: module.__name__)
def test_raised_errors_are_exported(module: ModuleType) -> None:
    raised = set()
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Raise) and node.exc is not None:
            # `raise Kind(…)`, `raise Kind.of(…)` and `raise Kind`.
            raised.add(ast.unparse(node.exc).partition("(")[0].partition(".")[0])
    # A closed client raises what a closed event loop does, and a cancel stays asyncio's own.
    assert raised <= EXPORTED.keys() | {"RuntimeError", "TimeoutError", "asyncio"}


def _names(annotation: Any) -> Iterator[type]:
    """The types of this package in an annotation."""
    if isinstance(annotation, type) and annotation.__module__.startswith("seedance_temporal"):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _names(part)


@pytest.mark.parametrize("kind", PUBLIC, ids=lambda kind: kind.__name__)
def test_types_in_signatures_are_exported(kind: type) -> None:
    known = vars(sys.modules[kind.__module__]) | vars(seedance_temporal)
    found = set()
    for name, member in vars(kind).items():
        call = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if not name.startswith("_") and inspect.isfunction(call):
            for annotation in typing.get_type_hints(call, known).values():
                found |= {*_names(annotation)}
    assert {each.__name__ for each in found} <= EXPORTED.keys()


@pytest.mark.parametrize(
    "shape", [shapes.JobState, shapes.JobDetail, shapes.VideoResult, shapes.JobError, CancelAnswer]
)
def test_types_of_fields_are_exported(shape: type) -> None:
    for annotation in typing.get_type_hints(shape).values():
        assert {each.__name__ for each in _names(annotation)} <= EXPORTED.keys()


def test_exports_are_sorted_and_few() -> None:
    assert seedance_temporal.__all__ == sorted(seedance_temporal.__all__)
    assert ResolveAnswer in EXPORTED.values()


def test_errors_can_be_pickled() -> None:
    """Process pools and Celery send errors as pickles."""
    state = shapes.JobState.model_validate(
        {
            "job_id": f"seedance-{'0' * 64}",
            "request_hash": "0" * 64,
            "phase": "failed",
            "route": "byteplus",
            "started_at": "2026-11-22T00:00:00Z",
            "error": {"code": "x", "message": "It broke.", "class": "provider", "task_id": "cgt-1", "attempt": 1},
        }
    )
    made = [
        errors.JobFailed.of(state),
        errors.InvalidRequest([errors.Problem(at="ratio", problem="is wrong")]),
        errors.UnknownJob("seedance-1"),
        errors.AmbiguousJobId("seedance-1", ["a", "b"]),
        errors.WorkerUnavailable("seedance-1", "queue"),
        errors.ProcessForked(),
        errors.InvalidJobId("no"),
    ]
    for error in made:
        again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
