"""``make demo``: one video from a request to an MP4 on this disk.

On embedded parts, where nothing is billed; or, with ``ARK_API_KEY`` and ``SEEDANCE_BUCKET`` set, with the real provider
and bucket, after a question.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dev.process import Child, start
from dev.stack import HOST, READY_SECONDS, ROOT, Ports, Stack, running_stack, start_temporal, temporal_client
from seedance_temporal import JobState, VideoJobs, VideoRequest, VideoResult
from seedance_temporal.errors import InvalidSettings, JobFailed
from seedance_temporal.events import Event, sentence
from seedance_temporal.media.probe import probe
from seedance_temporal.provider.prices import cost_in
from seedance_temporal.provider.rules import Rules
from seedance_temporal.settings import Settings
from seedance_temporal.storage.bucket import Checksums, GoogleBucket, StoredObject

REQUEST = ROOT / "examples" / "product-shot.json"
OUTPUT = ROOT / "demo-output"
# The local Ark takes seconds, the real provider up to 25 minutes under load.
_EMBEDDED_SECONDS = 150
_REAL_SECONDS = 3600
console = Console(highlight=False, soft_wrap=True)


@dataclass
class Parts:
    """The parts that a demo uses."""

    jobs: VideoJobs
    bucket: GoogleBucket
    ui_url: str


async def embedded_demo() -> None:
    """Run the main job on embedded parts, and compare the result with the local Ark's.

    Raises:
        JobFailed: The job ended without a video.
        RuntimeError: The bucket has another video.
        TimeoutError: There was no video in time.
    """
    started = time.monotonic()
    console.print("Starting Temporal, a bucket server, the local Ark, worker and relay …")
    async with running_stack() as stack:
        console.print(f"All up after {time.monotonic() - started:.1f} s. Temporal UI: {stack.ui_url}\n")
        parts = Parts(stack.jobs, stack.bucket, stack.ui_url)
        result, video = await _film(parts, _request("byteplus"), started, _EMBEDDED_SECONDS)
        await _compare(stack, result, video)
    console.print("\nEverything that was started has ended.")


async def real_demo(settings: Settings) -> None:
    """Run the main job with the provider and the bucket of the environment. Ask before it spends.

    Raises:
        JobFailed: The job ended without a video.
        RuntimeError: There is no terminal to ask on.
        TimeoutError: There was no video in time; the job is in the bucket's ledger, and is not paid for again.
    """
    assert settings.seedance_bucket is not None
    request = _request(settings.ark_route)
    cost = settings.rules.estimate(request)
    price = f"about {cost.most.rounded()}" if cost.most.rounded() else "price not known here"
    console.print(
        "[bold]This spends money.[/] ARK_API_KEY and SEEDANCE_BUCKET are set, so this demo will\n"
        f"  create one task at {settings.base_url}: {request.model}, {request.resolution}, {request.duration} s,\n"
        f"  at most {cost.tokens} tokens, {price};\n"
        f"  store video, record and ledger in gs://{settings.seedance_bucket}/{settings.seedance_prefix}/, for good;\n"
        "  run Temporal and the worker on this machine, and end them afterwards.\n"
        "If this bucket holds the video of this request already, nothing is created."
    )
    if not await _agreed():
        console.print("Nothing was sent.")
        return
    started = time.monotonic()
    async with _real_parts(settings) as parts:
        console.print(f"\nAll up after {time.monotonic() - started:.1f} s. Temporal UI: {parts.ui_url}\n")
        try:
            await _film(parts, request, started, _REAL_SECONDS)
        except (TimeoutError, asyncio.CancelledError):
            console.print(
                "\nEnded before the video was there. Claims and outcomes are in the bucket's ledger: "
                "running this demo again goes on from there, and does not pay again."
            )
            raise
    console.print("\nEverything that was started has ended. The objects in the bucket stay.")


async def _agreed() -> bool:
    if not sys.stdin.isatty():
        raise RuntimeError("there is no terminal to ask on, so nothing was sent")
    return (await asyncio.to_thread(input, "Go on? [y/N] ")).strip().lower() in {"y", "yes"}


@contextlib.asynccontextmanager
async def _real_parts(settings: Settings) -> AsyncIterator[Parts]:
    """An embedded Temporal server, and a worker with the environment as it is."""
    assert settings.seedance_bucket is not None
    ports = Ports.free()
    with tempfile.TemporaryDirectory(prefix="seedance-demo-") as name:
        children: list[Child] = []
        try:
            children.append(await start_temporal(ports, Path(name)))
            client = await temporal_client(children[0], ports)
            environment = dict(os.environ) | {
                "TEMPORAL_ADDRESS": f"{HOST}:{ports.temporal}",
                "TEMPORAL_NAMESPACE": "default",
            }
            children.append(await start("worker", [sys.executable, "worker.py"], environment, Path(name), cwd=ROOT))
            await children[1].until_log_says("serving route", READY_SECONDS)
            jobs = VideoJobs(client, settings=settings)
            yield Parts(jobs, GoogleBucket(settings.seedance_bucket), f"http://{HOST}:{ports.ui}")
        finally:
            for child in reversed(children):
                await child.stop()


def _request(route: str) -> VideoRequest:
    """Return the example's request, with its model's name on the given route."""
    request = VideoRequest.model_validate_json(REQUEST.read_text())
    models = Rules().models
    model = next(each for each in models.values() if (each.name, each.route) == (models[request.model].name, route))
    return request.model_copy(update={"route": route, "model": model.id})


async def _film(parts: Parts, request: VideoRequest, started: float, seconds: float) -> tuple[VideoResult, Path]:
    """Submit the request, print its timeline, and copy the video to this disk."""
    console.print(f"[bold]Request[/]  {request.model}  {request.resolution} {request.ratio} {request.duration} s")
    console.print(f"         {request.prompt}\n")
    job = await parts.jobs.submit(request)
    console.print(f"[bold]Job[/]      {job.id}")
    console.print(f"         {parts.ui_url}/namespaces/default/workflows/{job.id}\n")
    printed: set[Event] = set()
    async with asyncio.timeout(seconds):
        async for state in job.follow(every=0.25):
            _print_news(state, printed, started)
        result = await job.result()
    video = await _fetch(parts.bucket, result)
    await _show_end(parts.bucket, state, result, video)
    return result, video


def _print_news(job: JobState, printed: set[Event], started: float) -> None:
    """Print each new event of the timeline once."""
    for event in job.detail.timeline if job.detail is not None else ():
        first = event.model_copy(update={"count": 1})
        if first not in printed:
            printed.add(first)
            console.print(
                f"  {time.monotonic() - started:5.1f} s  [cyan]{job.phase:<10}[/] {job.task_id or '-':<28} "
                f"{sentence(first)} [dim](by {event.source})[/]"
            )


async def _fetch(bucket: GoogleBucket, result: VideoResult) -> Path:
    """Copy the video from the bucket to this disk, and check that it is whole."""
    content = await bucket.read(result.video_uri.removeprefix(f"gs://{bucket.name}/"))
    if content is None:
        raise RuntimeError(f"{result.video_uri} is not there")
    OUTPUT.mkdir(exist_ok=True)
    video = OUTPUT / f"{result.task_id}.mp4"
    video.write_bytes(content)
    if Checksums.of_file(video).crc32c != result.crc32c:
        raise RuntimeError("the checksum of the copy is not that of the record")
    return video


async def _show_end(bucket: GoogleBucket, state: JobState, result: VideoResult, video: Path) -> None:
    timeline = Table(title="Timeline", title_justify="left", box=None)
    for column in ("at", "event", "learned by"):
        timeline.add_column(column, overflow="fold")
    for event in state.detail.timeline if state.detail is not None else ():
        timeline.add_row(event.at.strftime("%H:%M:%S.%f")[:-3], sentence(event), event.source)
    objects = Table(title=f"gs://{bucket.name}", title_justify="left", box=None)
    for column in ("object", "bytes", "CRC32C"):
        objects.add_column(column, overflow="fold")
    root = result.record_uri.removeprefix(f"gs://{bucket.name}/").removesuffix("record.json")
    for stored in await bucket.list(root):
        objects.add_row(_short(stored, state.request_hash), str(stored.size), stored.crc32c)
    probed = await asyncio.to_thread(probe, "result", video)
    tokens = result.usage.total_tokens if result.usage is not None else None
    console.print()
    console.print(timeline)
    console.print()
    console.print(objects)
    console.print(
        f"\n[bold]Video[/]    {video}\n"
        f"         {result.size} bytes, CRC32C {result.crc32c}, MD5 {result.md5}\n"
        f"         plays: {probed.width}x{probed.height}, {probed.seconds:.1f} s\n"
        f"[bold]Cost[/]     {tokens} tokens, {cost_in(result)} at list price"
    )


def _short(stored: StoredObject, request_hash: str) -> str:
    return stored.name.replace(request_hash, f"{request_hash[:8]}…")


async def _compare(stack: Stack, result: VideoResult, video: Path) -> None:
    """Compare the bucket with the provider's own video and ledger."""
    if await asyncio.to_thread(video.read_bytes) != await stack.ark.video_bytes(result.task_id):
        raise RuntimeError("the bucket does not hold what the provider made")
    posts = len(await stack.ark.ledger())
    if posts != 1:
        raise RuntimeError(f"the provider got {posts} creates instead of one")
    console.print("         The local Ark got 1 create, and bills nothing; its bytes and these are the same.")


async def _main() -> None:
    # SIGTERM ends the demo as Ctrl-C does: in order.
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    named = [name for name in ("ARK_API_KEY", "SEEDANCE_BUCKET") if os.environ.get(name)]
    if len(named) == 2:
        await real_demo(Settings.from_environment(*named))
        return
    if named:
        console.print(f"{named[0]} alone is set; the real provider needs ARK_API_KEY and SEEDANCE_BUCKET.")
    await embedded_demo()


if __name__ == "__main__":
    argparse.ArgumentParser(prog="python -m dev.demo", description="Make one video and show it.").parse_args()
    try:
        asyncio.run(_main())
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
    except (RuntimeError, TimeoutError, InvalidSettings, JobFailed) as error:
        sys.exit(f"demo: {error or 'there was no video in time'}")
