"""Every Mermaid picture is drawn, by Mermaid itself in a browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from seedance_temporal.job import Phase
from tests.docs import mermaid
from tests.docs.pages import blocks

PICTURES = blocks("mermaid")


@pytest.fixture(scope="module")
def script(pytestconfig: pytest.Config) -> Path:
    if missing := mermaid.what_is_missing():
        pytest.skip(f"the pictures were not drawn; {missing}")
    return mermaid.fetched(Path(pytestconfig.cache.mkdir("mermaid")))


def test_pictures_are_drawn(script: Path) -> None:
    spoilt = "flowchart LR\n  a --> ["
    *drawn, broken = mermaid.rendered([*(picture.text for picture in PICTURES), spoilt], script)
    assert "error" in broken, "a picture that is none must be noticed"
    for picture, seen in zip(PICTURES, drawn, strict=True):
        assert "error" not in seen, f"{picture}: {seen['error']}"
        assert min(float(str(seen["width"])), float(str(seen["height"]))) > 100, f"{picture} is empty"
        # What the source says in quotation marks is in the picture, so nothing was swallowed.
        for text in re.findall(r'"([^"]+)"', picture.text):
            for part in text.split("<br/>"):
                assert part in str(seen["text"]), f"{picture} lacks {part!r}"


def test_job_picture_shows_every_phase() -> None:
    (picture,) = (picture for picture in PICTURES if picture.text.startswith("stateDiagram"))
    states = set(re.findall(r"^\s*(\w+) -->", picture.text, re.MULTILINE)) | set(re.findall(r"--> (\w+)", picture.text))
    assert states == set(get_args(Phase))


def test_pages_draw_each_kind_of_picture() -> None:
    kinds = {picture.text.split()[0] for picture in PICTURES}
    assert kinds >= {"flowchart", "stateDiagram-v2", "sequenceDiagram"}
