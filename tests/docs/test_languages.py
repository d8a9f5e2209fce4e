"""The README in two languages: same structure, same commands, same code, same links."""

from __future__ import annotations

import re

from tests.docs.pages import ROOT, blocks_of, prose

ENGLISH, KOREAN = ROOT / "README.md", ROOT / "README.ko.md"


def test_each_links_to_the_other() -> None:
    assert "](README.ko.md)" in prose(ENGLISH)
    assert "](README.md)" in prose(KOREAN)


def test_both_show_the_same_commands_and_code() -> None:
    english, korean = (
        [(block.language, block.text) for block in blocks_of(page, page.read_text())] for page in (ENGLISH, KOREAN)
    )
    assert english
    assert korean == english


def test_both_have_the_same_order() -> None:
    english, korean = prose(ENGLISH), prose(KOREAN)
    headings, links, rows = r"^(#+) ", r"\]\(((?!README).*?)\)", r"^\| (`.*?) \|"
    for pattern in (headings, rows):
        assert re.findall(pattern, korean, re.MULTILINE) == re.findall(pattern, english, re.MULTILINE)
    assert sorted(re.findall(links, korean)) == sorted(re.findall(links, english))
    inline = re.compile(r"`([^`\n]+)`")
    said = {word for word in inline.findall(english) if not re.search(r"[<…]", word)}
    assert said - set(inline.findall(korean)) == set()
