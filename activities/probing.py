"""Has a process of its own look into a foreign file: it sees no secret, is bounded, and ends with the look."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from activities.media import BadMedia

_ROOT = Path(__file__).resolve().parents[1]


async def probed(kind: str, path: Path, seconds: float) -> dict[str, object]:
    """Look into a file in a process of its own.

    Args:
        kind: ``image``, ``video`` or ``audio`` of a reference; ``result``: a video that the provider made.
        path: The file.
        seconds: Total time.

    Returns:
        What it is, as :class:`activities.probe.Probe` has it.

    Raises:
        BadMedia: It is not what a file of this kind can be.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "activities.probe", kind, str(path)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=_ROOT,
        env={},
    )
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate()
    except TimeoutError:
        raise BadMedia(f"takes longer than {seconds:g} seconds to read") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    if process.returncode < 0:
        raise BadMedia("cannot be read: the decoder crashed over it")
    if process.returncode > 0:
        raise RuntimeError(f"the look into a file ended with {process.returncode}: {err.decode()[-500:]}")
    answer: dict[str, object] = json.loads(out)
    if "refused" in answer:
        raise BadMedia(str(answer["refused"]))
    return answer
