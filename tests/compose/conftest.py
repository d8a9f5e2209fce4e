"""The embedded stack for the jobs and processes of the compose file, and the folder that the image would hold."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dev.stack import Stack, running_stack
from tests.compose import image_file


@pytest.fixture(scope="session")
async def stack() -> AsyncIterator[Stack]:
    """Temporal; everything else comes from the compose file, on the ports that it had here."""
    async with running_stack(workers=False) as stack:
        for name in ("ark", "bucket"):
            await stack.children.pop(name).stop()
        yield stack


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``COPY`` copies, and nothing else."""
    return image_file.lay_out(tmp_path_factory.mktemp("image"))
