"""The pages that people read, and the blocks and words in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("README*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)
# A block that cannot be run says so, and why, where every reader of the source sees it.
_MARK = re.compile(r"<!-- not run: (?P<reason>[^>]+) -->\n+\Z")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        line: Of its fence.
        not_run: Why it is not run, as the comment before it says; None where it is run.
    """

    page: Path
    line: int
    language: str
    text: str
    not_run: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path, text: str) -> list[Block]:
    """The fenced blocks of a page, in their order."""
    found = []
    for match in _FENCE.finditer(text):
        mark = _MARK.search(text, 0, match.start())
        found.append(
            Block(
                page=page,
                line=text.count("\n", 0, match.start()) + 1,
                language=match["language"].strip(),
                text=match["text"].replace(f"\n{match['indent']}", "\n").removeprefix(match["indent"]),
                not_run=mark["reason"] if mark else None,
            )
        )
    return found


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
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def rows(page: Path, heading: str) -> list[list[str]]:
    """The cells of the first table after a heading, without its head."""
    lines = page.read_text(encoding="utf-8").split(f"\n{heading}\n", 1)[1].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    table = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table
