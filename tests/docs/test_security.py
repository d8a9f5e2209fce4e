"""Each boundary of SECURITY.md is held by tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.faults.mutants import MUTANTS

ROOT = Path(__file__).parents[2]
BOUNDARIES = [line for line in (ROOT / "SECURITY.md").read_text(encoding="utf-8").splitlines() if "`test_" in line]
TESTS = {
    name
    for file in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"def (test_\w+)", file.read_text(encoding="utf-8"))
}
RED = {mutant.test.rpartition("::")[2] for mutant in MUTANTS}


@pytest.mark.parametrize("boundary", BOUNDARIES, ids=lambda line: line.split("|")[1].strip())
def test_boundary_has_its_tests(boundary: str) -> None:
    named = set(re.findall(r"`(test_\w+)`", boundary))
    assert named <= TESTS


@pytest.mark.parametrize("boundary", BOUNDARIES, ids=lambda line: line.split("|")[1].strip())
def test_boundary_has_a_mutant(boundary: str) -> None:
    """One of its tests has been seen to turn red."""
    assert set(re.findall(r"`(test_\w+)`", boundary)) & RED
