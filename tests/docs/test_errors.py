"""The page of error codes names every code that the code can give, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import get_args

import pytest

from seedance_temporal.cli import output, runtime
from seedance_temporal.job import Attention
from seedance_temporal.provider import task
from seedance_temporal.provider.task import FailureClass
from seedance_temporal.visibility import _ENDS_FROM_OUTSIDE
from tests.docs.pages import ROOT, rows

ERRORS = ROOT / "docs" / "reference" / "errors.md"
PROVIDER = "".join(
    (ROOT / "seedance_temporal" / "provider" / name).read_text(encoding="utf-8")
    for name in ("ark.py", "refusals.py", "task.py")
)
PRODUCT = ("seedance_temporal", "activities", "workflows", "workers", "worker.py", "starter.py", "relay.py", "codec.py")
# These make an error or an answer, and take its code at this position.
CODE_AT = {"nothing_sent": 0, "_impossible": 0, "_failure": 0, "Refusal": 0, "error_document": 0, "CreateAnswer": 1}
# The first text of these is the type of a failure in Temporal.
MADE_WITH_TYPE_FIRST = {"_Failed", "failed"}


@cache
def calls() -> tuple[ast.Call, ...]:
    """Return every call in the product's code."""
    files = [file for part in PRODUCT for file in ([ROOT / part] if "." in part else (ROOT / part).rglob("*.py"))]
    return tuple(
        node
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    )


def name_of(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def texts(value: ast.expr | None) -> Iterator[str]:
    """Yield the texts that an expression can be; of an f-string its start, with a star."""
    match value:
        case ast.Constant(value=str(text)) if text:
            yield text
        case ast.JoinedStr(values=[ast.Constant(value=str(start)), *_]):
            yield f"{start}*"
        case ast.IfExp(body=body, orelse=orelse):
            yield from texts(body)
            yield from texts(orelse)


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((part.value for part in call.keywords if part.arg == name), None)


def codes(made: Callable[[str], bool]) -> set[str]:
    """Return the codes that calls of these names give."""
    found: set[str] = set()
    for call in calls():
        if made(name_of(call)):
            found |= {*texts(keyword(call, "code"))}
            if (at := CODE_AT.get(name_of(call))) is not None and len(call.args) > at:
                found |= {*texts(call.args[at])}
    return found


def codes_of_rewritten_errors() -> set[str]:
    """Return the codes that an error is copied with."""
    return {
        text
        for call in calls()
        if name_of(call) == "model_copy" and isinstance(update := keyword(call, "update"), ast.Dict)
        for name, value in zip(update.keys, update.values, strict=True)
        if isinstance(name, ast.Constant) and name.value == "code"
        for text in texts(value)
    }


def documented(heading: str) -> set[str]:
    return {code for cells in rows(ERRORS, heading) for code in re.findall(r"`([^`]+)`", cells[0])}


def test_no_code_is_made_elsewhere() -> None:
    """A code that is given in another way than this test knows would be missing from the page unseen."""
    makers = {name_of(call) for call in calls() if [*texts(keyword(call, "code"))]}
    assert makers == {"JobError", "CreateAnswer"}


def test_job_codes() -> None:
    made = codes(lambda name: name in {"JobError", "nothing_sent", "_impossible", "Refusal"})
    assert "run_*" in made
    from_outside = {f"run_{how}" for how in (*_ENDS_FROM_OUTSIDE.values(), "failed")}
    # A task that ended without a code of the provider's has its status as the code.
    statuses = task.TERMINAL - {task.SUCCEEDED}
    assert documented("## Codes of a job") == (made - {"run_*"}) | from_outside | statuses | codes_of_rewritten_errors()


def test_create_codes() -> None:
    made = {
        code.replace("http_*", "http_<status>") for code in codes(lambda name: name in {"CreateAnswer", "_failure"})
    }
    assert documented("## Outcomes of a create") == made


def test_attentions() -> None:
    assert documented("## Attentions") == {*get_args(Attention)}


def test_failure_classes() -> None:
    assert documented("## Failure classes") == {*get_args(FailureClass)}


def test_command_line_codes() -> None:
    by_error = {*runtime._ERROR_CODES.values(), "temporal", "invalid_request"}
    assert documented("## Codes of the command line") == by_error | codes(lambda name: name == "error_document")


def test_exit_codes() -> None:
    named = {int(cells[0]) for cells in rows(ERRORS, "## Exit codes")}
    assert named == {output.DONE, output.OTHER, output.REFUSED, output.NO_VIDEO, output.NEEDS_OPERATOR}


def test_failure_types() -> None:
    given = {text for call in calls() if name_of(call) == "ApplicationError" for text in texts(keyword(call, "type"))}
    given |= {
        text
        for call in calls()
        if name_of(call) in MADE_WITH_TYPE_FIRST
        for text in texts(call.args[0] if call.args else None)
    }
    # An exception that an activity lets through has its own name as type.
    policies = [keyword(call, "non_retryable_error_types") for call in calls() if name_of(call) == "RetryPolicy"]
    given |= {text for kinds in policies if isinstance(kinds, ast.List) for kind in kinds.elts for text in texts(kind)}
    assert documented("## Types of failures in Temporal") == given


@pytest.mark.parametrize("word", sorted(documented("## Codes of the provider")))
def test_provider_codes_are_classified(word: str) -> None:
    assert f'"{word.strip("…")}' in PROVIDER


def test_provider_codes_are_documented() -> None:
    known = {
        text
        for node in ast.walk(ast.parse(PROVIDER))
        if isinstance(node, ast.Call) and name_of(node) == "startswith"
        for argument in node.args
        for part in (argument.elts if isinstance(argument, ast.Tuple) else [argument])
        for text in texts(part)
    }
    assert {"InvalidParameter", "SetLimitExceeded"} <= known
    assert known <= {word.strip("…") for word in documented("## Codes of the provider")}


def test_each_row_says_meaning_and_next_step() -> None:
    for line in ERRORS.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            assert all(cell.strip() for cell in line.strip("|").split("|")), line
