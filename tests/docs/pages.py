"""The pages that people read, and their blocks, as Sybil finds them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

from sybil import Document, Example, Region
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer

from seedance_temporal import VideoRequest
from tests.docs.evaluators import EVALUATORS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("README*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
_FENCES = FencedCodeBlockLexer(r"[^\n`]*")
# A block that cannot be run says so, and why, where every reader of the source sees it.
_MARK = re.compile(r"<!-- not run: (?P<reason>[^>]+) -->\n+ *\Z")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, as Sybil sees it; ``not_run`` is the reason in the comment before it, if any."""

    page: Path
    example: Example
    not_run: str | None

    @property
    def line(self) -> int:
        return self.example.line

    @property
    def language(self) -> str:
        return str(self.example.region.lexemes["language"])

    @property
    def text(self) -> str:
        return str(self.example.parsed)

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def parse_blocks(document: Document) -> Iterator[Region]:
    """Find the fenced blocks of a document, as a parser of Sybil."""
    for region in _FENCES(document):
        region.lexemes["language"] = language = region.lexemes["language"].strip()
        region.parsed = str(region.lexemes["source"])
        region.evaluator = EVALUATORS.get(language)
        yield region


def blocks_of(page: Path, text: str) -> list[Block]:
    document = Document(text, str(page))
    for region in parse_blocks(document):
        document.add(region)
    marks = [_MARK.search(text[: region.start]) for _, region in document.regions]
    return [
        Block(page, example, mark["reason"] if mark else None) for example, mark in zip(document, marks, strict=True)
    ]


@cache
def all_blocks() -> tuple[Block, ...]:
    return tuple(block for page in PAGES for block in blocks_of(page, page.read_text(encoding="utf-8")))


def blocks(language: str, page: str | None = None) -> list[Block]:
    """The blocks of a language that are run or checked; of one page, if it is named."""
    return [
        block
        for block in all_blocks()
        if block.language == language and block.not_run is None and (page is None or block.page.name == page)
    ]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    text = page.read_text(encoding="utf-8")
    for region in reversed([*_FENCES(Document(text, str(page)))]):
        text = text[: region.start] + text[region.end :]
    return text


def rows(page: Path, heading: str) -> list[list[str]]:
    """The cells of the first table after a heading, without its head."""
    lines = f"\n{page.read_text(encoding='utf-8')}".split(f"\n{heading}\n", 1)[1].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    table = takewhile(lambda line: line.startswith("|"), lines[start + 2 :])
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def fields_of(request: VideoRequest) -> dict[str, Any]:
    """What a page's backend is sent for a request: it adds the user itself."""
    return request.model_dump(mode="json", exclude_none=True, exclude={"user_id"})
