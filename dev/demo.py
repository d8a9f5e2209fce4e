"""``make demo``: one video from a request to an MP4 on this disk, on the embedded stack."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from activities.bucket import Checksums, StoredObject
from activities.media import probe_video
from dev.stack import BUCKET, ROOT, Stack, running_stack
from seedance_temporal import Job, JobState, VideoRequest, VideoResult
from seedance_temporal.job import TimelineEntry

REQUEST = ROOT / "examples" / "product-shot.json"
OUTPUT = ROOT / "demo-output"
_GIVE_UP_SECONDS = 150
console = Console(highlight=False, soft_wrap=True)


async def demo() -> None:
    """Runs the main job, and tells what happens meanwhile.

    Raises:
        RuntimeError: What is stored is not what the provider made.
        TimeoutError: There was no video in time.
    """
    started = time.monotonic()
    console.print("Starting Temporal, a bucket server, the local Ark, worker and relay …")
    async with running_stack() as stack:
        console.print(f"All up after {time.monotonic() - started:.1f} s. Temporal UI: {stack.ui_url}\n")
        request = VideoRequest.model_validate_json(REQUEST.read_text())
        console.print(f"[bold]Request[/]  {request.model}  {request.resolution} {request.ratio} {request.duration} s")
        console.print(f"         {request.prompt}\n")
        submitted = await stack.jobs.submit(request)
        console.print(f"[bold]Job[/]      {submitted.job_id}")
        console.print(f"         {stack.run_url(submitted.job_id)}\n")
        async with asyncio.timeout(_GIVE_UP_SECONDS):
            async for job in stack.jobs.follow(submitted.job_id, every=0.25):
                last = job
                _tell_news(job, started)
        if last.result is None:
            raise RuntimeError(last.error.message if last.error else "the job ended without a video")
        state = await stack.jobs.state(last.job_id)
        _tell_news(state, started)
        video = await _fetch(stack, last.result)
        await _show_end(stack, state, last.result, video)
    console.print("\nEverything that was started has ended.")


_told: set[tuple[str, str, str | None]] = set()


def _tell_news(job: Job, started: float) -> None:
    """Prints each entry of the timeline once, as it comes."""
    for entry in job.timeline if isinstance(job, JobState) else ():
        key = (entry.what, entry.how, entry.note)
        if key not in _told:
            _told.add(key)
            console.print(
                f"  {time.monotonic() - started:5.1f} s  [cyan]{job.phase:<10}[/] {job.task_id or '-':<28} "
                f"{entry.what} [dim](by {entry.how})[/]"
            )


async def _fetch(stack: Stack, result: VideoResult) -> Path:
    """Copies the video from the bucket to this disk, and checks that it is whole and plays."""
    content = await stack.bucket.read(result.video_uri.removeprefix(f"gs://{BUCKET}/"))
    if content is None or content != await stack.ark.video_bytes(result.task_id):
        raise RuntimeError("the bucket does not hold what the provider made")
    OUTPUT.mkdir(exist_ok=True)
    video = OUTPUT / f"{result.task_id}.mp4"
    video.write_bytes(content)
    if Checksums.of_file(video).crc32c != result.crc32c:
        raise RuntimeError("the checksum of the copy is not that of the record")
    return video


async def _show_end(stack: Stack, state: JobState, result: VideoResult, video: Path) -> None:
    timeline = Table(title="Timeline", title_justify="left", box=None)
    for column in ("at", "what", "learned by", "note"):
        timeline.add_column(column, overflow="fold")
    for entry in state.timeline:
        timeline.add_row(entry.at.strftime("%H:%M:%S.%f")[:-3], _words(entry), entry.how, entry.note or "")
    objects = Table(title=f"gs://{BUCKET}", title_justify="left", box=None)
    for column in ("object", "bytes", "CRC32C"):
        objects.add_column(column, overflow="fold")
    for stored in await stack.bucket.list(""):
        objects.add_row(_short(stored), str(stored.size), stored.crc32c)
    posts = await stack.ark.ledger()
    probe = await asyncio.to_thread(probe_video, video)
    console.print()
    console.print(timeline)
    console.print()
    console.print(objects)
    console.print(
        f"\n[bold]Video[/]    {video}\n"
        f"         {result.size} bytes, CRC32C {result.crc32c}, MD5 {result.md5}\n"
        f"         plays: {probe.width}x{probe.height}, {probe.seconds:.1f} s\n"
        f"[bold]Paid[/]     {len(posts)} create, {result.usage.total_tokens if result.usage else '?'} tokens, "
        f"about {result.cost_usd} USD by the list price (of the local Ark: nothing)"
    )


def _words(entry: TimelineEntry) -> str:
    return entry.what if entry.times == 1 else f"{entry.what} ({entry.times} times)"


def _short(stored: StoredObject) -> str:
    prefix, request_hash, rest = stored.name.split("/", 2)
    return f"{prefix}/{request_hash[:8]}…/{rest}"


async def _main() -> None:
    # SIGTERM ends the demo as Ctrl-C does: in order.
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await demo()


if __name__ == "__main__":
    try:
        asyncio.run(_main())
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
    except (RuntimeError, TimeoutError) as error:
        sys.exit(f"demo: {error or 'there was no video in time'}")
