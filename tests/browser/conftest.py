"""A browser for pages, and the folder of their pictures."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.browser.ui import CHROMIUM


@pytest.fixture
def chromium() -> str:
    found = shutil.which(CHROMIUM)
    if found is None:
        pytest.skip(f"{CHROMIUM} is not installed: no page was checked")
    return found


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where pictures go: beside the docs only where that is asked for, because each run has ids of its own."""
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
