"""Record a history of every path: ``python -m tests.replay.record``, or ``make histories``.

The set is that of the present version, unless ``--set`` names another; paths that are named are recorded alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from temporalio.client import Client, WorkflowHistory

from tests.replay.crossing import present_shapes
from tests.replay.histories import FOLDER, ORDERS, ROOT, Recorded, files, present_set, shapes_file
from tests.replay.paths.every import PATHS
from tests.replay.paths.registry import Path, Server
from tests.replay.replaying import runs_of
from tests.support.servers import dev_server, skipping_server
from tests.workflows.conftest import SUGGESTED_FROM
from tests.workflows.harness import Harness

_AT_ONCE = 6
_SECONDS = 120.0
_SUGGEST_SOON = ("--dynamic-config-value", f"limit.historyCount.suggestContinueAsNew={SUGGESTED_FROM}")


async def record(paths: Sequence[Path], of: str) -> dict[str, BaseException]:
    """Record paths in a set; return what went wrong, by the names of paths."""
    at_once = asyncio.Semaphore(_AT_ONCE)
    async with AsyncExitStack() as stack:
        clients: dict[Server, Client] = {}
        for server, options in (("real", ()), ("renewing", _SUGGEST_SOON)):
            if any(path.server == server for path in paths):
                clients[server] = await stack.enter_async_context(dev_server(*options))  # type: ignore[index]

        async def one(path: Path, order: str) -> None:
            async with at_once:
                async with asyncio.timeout(_SECONDS):
                    (await played(path, of, order, clients)).write()

        each = [(path, order) for path in paths for order in ORDERS]
        ended = await asyncio.gather(*(one(path, order) for path, order in each), return_exceptions=True)
    return {path.name: end for (path, _), end in zip(each, ended, strict=True) if end is not None}


async def played(path: Path, of: str, order: str, clients: Mapping[Server, Client]) -> Recorded:
    """Play a path, and return its runs."""
    async with _client(path, clients) as client:
        harness = Harness(client, single_batch=order == "coming-sdk", route=f"{path.name}-{order}")
        if path.server == "skipping":
            # An upsert of a search attribute would block a run on this server.
            harness.fake.search_attributes = ()
        await harness.start_workers()
        try:
            await path.play(harness)
        finally:
            await harness.close()
        assert harness.fake.unexpected == []
        runs = [WorkflowHistory(job.id, events) for job in harness.jobs for events in await runs_of(job)]
    return Recorded(of, order, path.name, tuple(runs))


@asynccontextmanager
async def _client(path: Path, clients: Mapping[Server, Client]) -> AsyncIterator[Client]:
    if path.server != "skipping":
        yield clients[path.server]
        return
    async with skipping_server() as client:
        yield client


def _is_released(of: str) -> bool:
    git = shutil.which("git")
    if git is None:
        return False
    tags = subprocess.run([git, "tag", "--list", f"v{of}"], cwd=ROOT, capture_output=True, check=False)
    return bool(tags.stdout.strip())


def main() -> int | str:
    """Record, and remove the files of paths that no longer exist; return the exit code, or what is wrong."""
    parser = argparse.ArgumentParser(description="Record a history of every path.")
    parser.add_argument("--set", default=present_set(), help="its name; by default the present version")
    parser.add_argument("paths", nargs="*", metavar="path", help="only these; by default all")
    arguments = parser.parse_args()
    if _is_released(arguments.set):
        parser.error(f"{arguments.set} is released: jobs of it may go on. Change the version, or name another --set")
    if unknown := set(arguments.paths) - set(PATHS):
        parser.error(f"no such path: {', '.join(sorted(unknown))}; there are {', '.join(sorted(PATHS))}")
    # Paths are full of failures.
    logging.getLogger("temporalio").setLevel(logging.CRITICAL)
    chosen = [PATHS[name] for name in arguments.paths or sorted(PATHS)]
    wrong = asyncio.run(record(chosen, arguments.set))
    for file in files(arguments.set):
        if file.name.split(".")[0] not in PATHS:
            file.unlink()
    shapes_file(arguments.set).write_text(json.dumps(present_shapes(), indent=1, sort_keys=True) + "\n")
    size = sum(file.stat().st_size for file in files(arguments.set))
    sys.stdout.write(f"{len(files(arguments.set))} files, {size / 1e3:.0f} kB, in {FOLDER / arguments.set}\n")
    for name, error in wrong.items():
        sys.stderr.write(f"not recorded: {name}: {error!r}\n")
    # A machine that does much else can be too slow for some.
    return f'once more: make histories PATHS="{" ".join(wrong)}"' if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
