"""What a backend installs: what is in the wheel, what comes with it, and that it is enough to get a video."""

from __future__ import annotations

import asyncio
import email
import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

from dev.stack import HOST, running_stack
from tests.wheel.conftest import ROOT, run

BASE = {"pydantic", "pydantic-settings", "rfc8785", "temporalio"}
RELAY = {"starlette", "uvicorn"}
# What the worker needs, and a backend must be spared.
HEAVY = ("httpx", "google.cloud", "google.auth", "google.api_core", "google_crc32c", "av")
# The parts of the package that need an extra.
OF_EXTRAS = tuple(
    f"seedance_temporal/{part}"
    for part in (
        *("audit/", "cli/", "ledger/", "media/", "reports/", "storage/"),
        *("relay.py", "provider/answers.py", "provider/ark.py"),
    )
)
OWN = ("activities", "workflows", "dev", "worker", "starter")

BACKEND = """
import asyncio, json, sys
from seedance_temporal import VideoJobs, VideoRequest

async def main():
    jobs = await VideoJobs.connect()
    request = VideoRequest(
        user_id="user-42", route="byteplus", model="dreamina-seedance-2-0-mini-260615",
        prompt="A paper boat on a pond, ordered by a backend", resolution="480p", duration=4,
    )
    job = await jobs.submit(request)
    result = await job.result(timeout=60)
    state = await job.state()
    print(json.dumps({"job_id": job.id, "phase": state.phase, "video": result.video_uri, "size": result.size,
                      "modules": sorted(sys.modules), "existing": job.existing}))

asyncio.run(main())
"""


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata(wheel: Path) -> email.message.Message:
    (name,) = (name for name in contents(wheel) if name.endswith(".dist-info/METADATA"))
    with zipfile.ZipFile(wheel) as archive:
        return email.message_from_bytes(archive.read(name))


def is_one_of(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def test_it_holds_one_package_and_its_types(wheel: Path) -> None:
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "seedance_temporal").glob("**/*.py")}
    described = {name for name in contents(wheel) if not name.startswith("seedance_temporal-")}
    assert described == package | {"seedance_temporal/py.typed"}
    assert {name.partition("/")[2] for name in contents(wheel) - described} >= {"METADATA", "RECORD", "WHEEL"}
    assert re.fullmatch(r"seedance_temporal-[\d.]+-py3-none-any\.whl", wheel.name)


def test_it_asks_for_little(wheel: Path) -> None:
    about = metadata(wheel)
    asked: dict[str, set[str]] = {"": set()}
    for line in about.get_all("Requires-Dist", []):
        requirement, _, marker = line.partition(";")
        extra = re.search(r"extra == '(\w+)'", marker)
        asked.setdefault(extra[1] if extra else "", set()).add(re.split(r"[<>=!~ \[]", requirement)[0])
    assert asked[""] == BASE
    # The next one delivers a cancel in another order, which the workflow does not pass yet.
    (temporalio,) = (line for line in about.get_all("Requires-Dist", []) if line.startswith("temporalio"))
    assert "<1.36" in temporalio
    assert asked["relay"] == RELAY
    assert asked["worker"] > RELAY
    assert set(about.get_all("Provides-Extra", [])) == {"cli", "relay", "worker"}
    assert about["Requires-Python"] == ">=3.11"
    assert about.get_content_type() == "text/plain"
    assert "seedance_temporal" in about.get_payload()


def test_nothing_else_is_installed_with_it(base_python: Path, tmp_path: Path) -> None:
    code = f"""
import importlib.util, json
print(json.dumps([name for name in {(*HEAVY, *OWN, "starlette")!r}
                  if importlib.util.find_spec(name.split(".")[0]) and importlib.util.find_spec(name)]))
"""
    assert json.loads(run(base_python, "-c", code, cwd=tmp_path)) == []


def test_nothing_else_is_imported_where_it_is_installed(wheel: Path, tmp_path: Path) -> None:
    """In the environment of this project, which has all of it."""
    modules = sorted(
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in contents(wheel)
        if name.endswith(".py") and not name.startswith(OF_EXTRAS)
    )
    code = f"""
import importlib, json, sys
sys.path.insert(0, {str(wheel)!r})
for name in {modules!r}: importlib.import_module(name)
print(json.dumps([sys.modules["seedance_temporal"].__file__, sorted(sys.modules)]))
"""
    where, imported = json.loads(run(sys.executable, "-c", code, cwd=tmp_path))
    assert where.startswith(str(wheel))
    assert [module for module in imported if is_one_of(module, (*HEAVY, *OWN, "starlette"))] == []


async def test_a_backend_with_nothing_else_gets_a_video(base_python: Path, tmp_path: Path) -> None:
    script = tmp_path / "backend.py"
    script.write_text(BACKEND)
    empty = tmp_path / "empty"
    empty.mkdir()
    async with running_stack(speed=60) as stack:
        process = await asyncio.create_subprocess_exec(
            *(base_python, script),
            cwd=empty,
            env={"TEMPORAL_ADDRESS": f"{HOST}:{stack.ports.temporal}"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), 60)
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == 0, err.decode()
        seen: dict[str, Any] = json.loads(out)
        (created,) = [entry for entry in await stack.ark.ledger() if "ordered by a backend" in str(entry.body)]
        assert created.task_id is not None
        assert created.task_id in seen["video"]
        assert seen["size"] == len(await stack.ark.video_bytes(created.task_id))
    assert (seen["phase"], seen["existing"]) == ("stored", False)
    assert [module for module in seen["modules"] if is_one_of(module, (*HEAVY, *OWN))] == []
    assert list(empty.iterdir()) == []


def test_the_relay_comes_with_its_extra(relay_python: Path, base_python: Path, tmp_path: Path) -> None:
    code = """
import json, sys
from seedance_temporal import connect
from seedance_temporal.relay import relay_app
app = relay_app(connect, ["a-secret"])
import uvicorn
print(json.dumps([type(app).__module__, sorted(sys.modules)]))
"""
    made_of, imported = json.loads(run(relay_python, "-c", code, cwd=tmp_path))
    assert made_of == "starlette.applications"
    assert [module for module in imported if is_one_of(module, (*HEAVY, *OWN))] == []
    without = run(
        base_python,
        "-c",
        "try:\n  import seedance_temporal.relay\nexcept ModuleNotFoundError as e:\n  print(e.name)",
        cwd=tmp_path,
    )
    assert without.startswith("starlette")
