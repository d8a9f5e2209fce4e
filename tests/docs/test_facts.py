"""What the pages say of settings, phases and files is what the code says."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import get_args

import pytest
from pydantic import SecretStr

from dev.stack import API_KEYS
from seedance_temporal.contract import SEARCH_ATTRIBUTES
from seedance_temporal.job import Phase
from seedance_temporal.provider import models as catalogue
from seedance_temporal.settings import BASE_URLS, Route, Settings
from tests.docs.pages import PAGES, ROOT, all_blocks, prose, rows
from tests.faults.mutants import MUTANTS

REFERENCE = ROOT / "docs" / "reference"
MEANINGS = runpy.run_path(str(ROOT / "docs" / "hooks.py"))["meanings"](Settings)
ALERTS = set(re.findall(r"alert: (\w+)", (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text()))
# Files that exist in a bucket, at a provider or on somebody's machine, and not in this repository.
ELSEWHERE = re.compile(
    r"(gs|https?)://.*|/.*|(attempts/)?\d{4}\.[\w<> -]+\.json|(record|task|echo-.+)\.json|output\.mp4"
    r"|last_frame\..+|limits/.+|\.env|gunicorn\.conf\.py"
)
FILE = re.compile(r"[\w./<>-]+\.(py|md|json|toml|yml|yaml|txt|m?js|mp4|png|jpg)|(?:[\w.-]+/)+|\.env(\.\w+)?")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_setting_is_described(name: str) -> None:
    assert MEANINGS.get(name)
    assert not isinstance(Settings.model_fields[name].default, SecretStr), "a secret must have no default"


def test_every_route_is_documented() -> None:
    routes = set(get_args(Route))
    assert set(re.findall(r"``([a-z]+)``", MEANINGS["ark_route"])) == routes
    assert BASE_URLS.keys() == routes == set(catalogue.ROUTES) == API_KEYS.keys()


def test_every_phase_is_documented() -> None:
    assert {name.strip("`") for name, *_ in rows(REFERENCE / "phases.md", "# Phases")} == set(get_args(Phase))


def test_every_mutant_is_on_its_page() -> None:
    table = rows(ROOT / "docs" / "internals" / "mutants.md", "# Mutants")
    assert [(promise, edit) for promise, edit, _ in table] == [(str(mutant.promise), mutant.what) for mutant in MUTANTS]
    for mutant, (_, edit, test) in zip(MUTANTS, table, strict=True):
        # Of a mutant that names a file, the page has the test of it that turned red.
        if "::" in mutant.test:
            assert test == f"`{mutant.test.split('::')[-1].partition('[')[0]}`", edit


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_variables_and_search_attributes_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    variables = set(re.findall(r"\b(?:SEEDANCE|ARK)_[A-Z_]*[A-Z]\b", text))
    assert {name.lower() for name in variables} <= Settings.model_fields.keys()
    assert set(re.findall(r"\bSeedance[A-Z]\w+", text)) <= {key.name for key in SEARCH_ATTRIBUTES} | ALERTS | {
        "SeedanceError"
    }


def slugs(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if not re.match(r"\w+:", link)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in slugs(target), link


def names_of_files() -> set[str]:
    """Every file of the checkout by its bare name, for pages that name one beside its folder."""
    folders = [path for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "." and path.name != "demo-output"]
    return {path.name for folder in folders for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page: Path) -> None:
    bare = names_of_files()
    for words in re.findall(r"`([^`\n]+)`", prose(page)):
        named = words.removeprefix("python ").split(" ")[0]
        if not FILE.fullmatch(named) or ELSEWHERE.fullmatch(named):
            continue
        exists = (ROOT / named).exists() or (page.parent / named).exists() or named in bare
        assert exists, f"{page.name} names {named}"


def test_tests_that_are_named_exist() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    for page in PAGES:
        for name in re.findall(r"`(test_\w+)`", prose(page)):
            assert f"def {name}(" in sources, f"{page.name} names {name}"


def test_each_page_is_linked_from_another() -> None:
    linked = {(page.parent / link.partition("#")[0]).resolve() for page in PAGES for link in links(page)}
    assert {*PAGES} - {ROOT / "README.md"} <= linked


def test_pages_show_no_address_of_the_stack() -> None:
    """An address of the local stack in a command would be tried by a reader; only the relay's own port is one."""
    ports = {port for block in all_blocks() for port in re.findall(r"127\.0\.0\.1:(\d+)", block.text)}
    assert ports <= {str(Settings.model_fields["seedance_relay_port"].default)}
