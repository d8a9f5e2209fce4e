"""The site builds strictly, and its pages need no other host than the reader's own."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

import seedance_temporal
from seedance_temporal.cli.main import app
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings
from tests.docs.pages import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def read(site: Path, page: str) -> str:
    return (site / page).read_text(encoding="utf-8")


def test_every_page_is_in_the_site(site: Path) -> None:
    pages = {page.relative_to(ROOT / "docs").with_suffix(".html") for page in (ROOT / "docs").rglob("*.md")}
    assert {page.relative_to(site) for page in site.rglob("*.html")} == pages | {Path("404.html")}


def test_every_exported_name_is_in_the_reference(site: Path) -> None:
    ids = {unescape(anchor) for anchor in re.findall(r'id="([^"]+)"', read(site, "reference/python.html"))}
    assert {f"seedance_temporal.{name}" for name in seedance_temporal.__all__} <= ids


def test_every_command_is_in_the_reference(site: Path) -> None:
    text = read(site, "reference/command-line.html")
    commands = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    assert {"submit", "list"} <= commands
    assert commands == set(re.findall(r'<h2 id="([a-z-]+)"', text))
    assert "--accept-second-charge" in text


def test_every_setting_is_in_the_reference(site: Path) -> None:
    text = read(site, "reference/settings.html")
    for name in Settings.model_fields:
        assert f"<code>{name.upper()}</code>" in text
    for default in ("600", "byteplus", "127.0.0.1", "false"):
        assert f"<td><code>{default}</code></td>" in text


def test_every_field_is_in_the_reference(site: Path) -> None:
    text = read(site, "reference/request.html")
    for field in VideoRequest.model_fields:
        assert f"<code>{field}</code>" in text


def test_generated_tables_are_current() -> None:
    """A reader of the checkout sees the same as one of the site: ``make tables`` renews them."""
    hooks = runpy.run_path(str(ROOT / "docs" / "hooks.py"))
    pages = [page for page in (ROOT / "docs").rglob("*.md") if "<!-- generated" in page.read_text(encoding="utf-8")]
    assert len(pages) == 4
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert hooks["renewed"](text) == text, page
        assert text.count("\n| ") > 10


def test_nothing_generated_is_left_out(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert "<!-- generated" not in page.read_text(encoding="utf-8"), page


def test_pages_load_nothing_from_other_hosts(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r'<(?:script|img|iframe)[^>]+src="(?:https?:)?//', text), page
        assert not re.search(r'<link[^>]+rel="(?:stylesheet|preconnect)"[^>]+href="(?:https?:)?//', text), page
