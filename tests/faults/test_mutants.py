"""Each edit of ``make mutants`` still finds the text that it edits, and the test that it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.mutants import MUTANTS, ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_mutant_edits_one_place_of_running_code(mutant: Mutant) -> None:
    code = (ROOT / mutant.file).read_text(encoding="utf-8")
    assert code.count(mutant.old) == 1
    assert mutant.old != mutant.new
    compile(code.replace(mutant.old, mutant.new), mutant.file, "exec")
    file, _, name = mutant.test.partition("::")
    assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8") or not name


def test_drifted_edit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("a = 1\na = 1\n")
    for old in ("a = 1", "b = 1"):
        with pytest.raises(LookupError):
            Mutant(1, "a change", "code.py", old, "a = 2", "tests").apply(tmp_path)


def test_mutants_cover_every_promise() -> None:
    assert len(MUTANTS) >= 15
    assert {mutant.promise for mutant in MUTANTS} == {1, 2, 3, 4, 5, 6, 7, 8}
    assert len({(mutant.file, mutant.old) for mutant in MUTANTS}) == len(MUTANTS), "the same edit twice"
