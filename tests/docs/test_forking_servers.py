"""The applications of the guides behind servers that really fork: gunicorn with and without ``--preload``."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from dev.process import start
from tests.docs.pages import ROOT, Block, blocks, fields_of
from tests.e2e.requests import a_request

SECONDS = 60
# A project around the guide's views, as `django-admin startproject` makes one. Its parent imports all of it.
PROJECT = """
from types import SimpleNamespace

import django
from django.conf import settings
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    DEBUG_PROPAGATE_EXCEPTIONS=True,
    MIDDLEWARE=[f"{__name__}.login"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of a test",
)
django.setup()

from django.core.wsgi import get_wsgi_application

from videos import views


def login(get_response):
    def middleware(request):
        request.user = SimpleNamespace(pk=42)
        return get_response(request)

    return middleware


urlpatterns = [path("videos", views.submit), path("videos/<str:job_id>", views.show)]
application = get_wsgi_application()
"""


def block_of(page: str, text: str) -> Block:
    (block,) = (block for block in blocks("python", page) if text in block.text)
    return block


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The folder of a project that is made of the guides' blocks."""
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "jobs.py").write_text(block_of("forking-servers.md", "def jobs()").text)
    (videos / "views.py").write_text(
        f"from videos.jobs import jobs\n{block_of('django.md', '@require_POST').text}", encoding="utf-8"
    )
    (tmp_path / "gunicorn.conf.py").write_text(block_of("forking-servers.md", "def post_fork").text)
    (tmp_path / "project.py").write_text(PROJECT)
    return tmp_path


@asynccontextmanager
async def served(project: Path, environment: dict[str, str], *options: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the project behind gunicorn with two workers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "gunicorn", "project", "--bind", address, "--workers", "2", "--threads", "2"]
    paths = {"PYTHONPATH": f"{project}:{ROOT}"}
    child = await start("gunicorn", [*command, *options], environment | paths, project, cwd=project)
    try:
        async with httpx.AsyncClient(base_url=f"http://{address}", timeout=SECONDS) as http:
            async with asyncio.timeout(SECONDS):
                while True:
                    child.check()
                    try:
                        await http.get("/")
                        break
                    except httpx.TransportError:
                        await asyncio.sleep(0.1)
            yield http
    finally:
        await child.stop()


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["workers import", "preload"])
@pytest.mark.parametrize("config", ["/dev/null", "gunicorn.conf.py"], ids=["first call", "post_fork"])
async def test_gunicorn_workers_connect(
    project: Path, shell_environment: dict[str, str], preload: tuple[str, ...], config: str
) -> None:
    async with served(project, shell_environment, "--config", config, *preload) as http:
        wanted = fields_of(a_request())
        answers = await asyncio.gather(*(http.post("/videos", json=wanted) for _ in range(8)))
        assert [answer.status_code for answer in answers] == [202] * 8
        (job_id,) = {answer.json()["job_id"] for answer in answers}
        assert sum(not answer.json()["existing"] for answer in answers) == 1
        async with asyncio.timeout(SECONDS):
            while (shown := (await http.get(f"/videos/{job_id}")).json())["phase"] != "stored":
                assert shown["error"] is None
                await asyncio.sleep(0.2)
        assert shown["result"]["video_uri"].startswith("gs://")


async def test_parent_that_connects_is_refused(project: Path, shell_environment: dict[str, str]) -> None:
    """The counter-proof: with ``--preload``, a module that connects while it is imported breaks every worker."""
    with (project / "videos" / "views.py").open("a") as file:
        file.write("\njobs()\n")
    async with served(project, shell_environment, "--config", "/dev/null", "--preload") as http:
        assert (await http.post("/videos", json=fields_of(a_request()))).status_code == 500
    assert "Connect after the fork" in "".join(path.read_text() for path in project.glob("*.log"))
