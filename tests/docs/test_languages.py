"""The README in two languages: same structure, same commands, same code, same links."""

from __future__ import annotations

import re
from pathlib import Path

ENGLISH = Path("README.md").read_text()
KOREAN = Path("README.ko.md").read_text()


def _blocks(page: str) -> list[str]:
    return re.findall(r"^```.*?^```$", page, re.MULTILINE | re.DOTALL)


def _links(page: str) -> list[str]:
    return sorted(link for link in re.findall(r"\]\((.*?)\)", page) if not link.startswith("README"))


def _headings(page: str) -> list[int]:
    return [len(mark) for mark in re.findall(r"^(#+) ", re.sub(r"```.*?```", "", page, flags=re.DOTALL), re.MULTILINE)]


def _rows(page: str) -> list[str]:
    """The first cell of each row of the tables."""
    return re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)


def test_each_links_to_the_other() -> None:
    assert "](README.ko.md)" in ENGLISH
    assert "](README.md)" in KOREAN


def test_both_show_the_same_commands_and_code() -> None:
    assert _blocks(ENGLISH)
    assert _blocks(KOREAN) == _blocks(ENGLISH)


def test_both_say_the_same_in_the_same_order() -> None:
    assert _headings(KOREAN) == _headings(ENGLISH)
    assert _links(KOREAN) == _links(ENGLISH)
    assert _rows(KOREAN) == _rows(ENGLISH)
    inline = re.compile(r"`([^`\n]+)`")
    said = {word for word in inline.findall(ENGLISH) if not re.search(r"[<…]", word)}
    assert said - set(inline.findall(KOREAN)) == set()
