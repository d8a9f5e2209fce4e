"""Raw bytes against the relay as a process: a true callback is taken in time, also while others send garbage."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import cycle
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seedance_temporal.identity import callback_token, callback_url
from tests.fuzz.size import examples
from tests.support.relay_process import SECRET, relay_process
from tests.support.servers import dev_server
from tests.support.temporal_stub import address

JOB = "seedance-" + "0" * 64
TOKEN = callback_token(SECRET, JOB, 1)
CALLBACK = json.dumps({"id": "cgt-1", "status": "succeeded"}).encode()
_MOST_GROWTH = 100 * 1024 * 1024
# Less than one on a quiet machine; the provider waits for five.
_ANSWERED_WITHIN = 20.0

_TARGETS = st.sampled_from(
    [
        *(f"/callbacks/{JOB}/1/{TOKEN}", "/healthz", "/", "*", "//", "/%00", "/%ff", "/../../etc/passwd"),
        *(f"/callbacks/{JOB}/{'9' * 5_000}/{TOKEN}", "/" + "a" * 70_000, "http://169.254.169.254/", "/callbacks/\x00"),
    ]
)
_HEADERS = st.sampled_from(
    [
        *(
            "Content-Length: -1",
            "Content-Length: 1\r\nContent-Length: 2",
            f"Content-Length: {10**30}",
            "Content-Length: x",
        ),
        *(
            "Transfer-Encoding: chunked",
            "Transfer-Encoding: gzip, chunked",
            "Expect: 100-continue",
            "Connection: Upgrade",
        ),
        *(
            "Upgrade: websocket",
            "Upgrade: h2c",
            "X: \x00",
            "no colon",
            " folded",
            "Host: a\r\nHost: b",
            "X: " + "x" * 70_000,
        ),
        "\r\n".join(f"X-{number}: 1" for number in range(2_000)),
    ]
)
_BODIES = st.sampled_from(
    [CALLBACK, b"", b"{", b"\xff" * 100, b"[" * 60_000, b"ffffffff\r\n", b"-1\r\n\r\n", b"0\r\n\r\n" * 50]
) | st.binary(max_size=200)


@st.composite
def _requests(draw: st.DrawFn) -> bytes:
    """Draw what a client sends: something like a request, or anything, or a part of it."""
    if draw(st.integers(0, 3)) == 0:
        return draw(st.binary(min_size=1, max_size=400))
    method = draw(st.sampled_from(["POST", "GET", "HEAD", "CONNECT", "PRI", "post", "", "P" * 9_000]))
    version = draw(st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/9", ""]))
    lines = [f"{method} {draw(_TARGETS)} {version}", *draw(st.lists(_HEADERS, max_size=3))]
    content = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + draw(_BODIES)
    return content[: draw(st.integers(1, len(content)))] if draw(st.booleans()) else content


# What is sent, and whether the connection ends with a reset.
_CLIENTS = st.lists(st.tuples(_requests(), st.booleans()), min_size=1, max_size=8)


def resident_bytes(pid: int) -> int:
    """Return the memory of a process; 0 where the system has no ``/proc``, as macOS."""
    status = Path(f"/proc/{pid}/status")
    words = status.read_text().split() if status.exists() else ["VmRSS:", "0"]
    return int(words[words.index("VmRSS:") + 1]) * 1024


class Target:
    """A relay, and what it weighed when nobody had sent anything."""

    def __init__(self, base: str, pid: int, log: Path) -> None:
        self.base, self.log = base, log
        self._attempts = cycle(range(2, 10_000))
        self._pid = pid
        self._at_rest = resident_bytes(pid)

    async def send(self, content: bytes, *, resets: bool) -> None:
        """Send bytes as a client, and read what comes back, for a moment."""
        url = httpx.URL(self.base)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        if resets:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        with suppress(ConnectionError, TimeoutError):
            writer.write(content)
            await writer.drain()
            await asyncio.wait_for(reader.read(1000), 0.05)
        writer.close()

    async def check(self) -> None:
        """Check that a true callback is taken, and that nothing grew or was told."""
        # Each attempt has a limit of its own.
        url = callback_url(self.base, SECRET, JOB, next(self._attempts))
        async with httpx.AsyncClient(trust_env=False, timeout=_ANSWERED_WITHIN) as http:
            answer = await http.post(url, content=CALLBACK)
        assert answer.status_code == 200
        grown = resident_bytes(self._pid) - self._at_rest
        assert grown < _MOST_GROWTH, f"the relay has grown by {grown / 1e6:.0f} MB"
        log = self.log.read_text(errors="replace")
        assert "Traceback" not in log, log[-3000:]
        assert TOKEN not in log
        assert SECRET not in log


@pytest.fixture(scope="module")
async def target(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Target]:
    log = tmp_path_factory.mktemp("relay") / "relay.log"
    with log.open("wb") as output:
        async with (
            dev_server(attributes=()) as client,
            relay_process({"stdout": output, "stderr": output}, address(client)) as (base, process),
        ):
            started = Target(base, process.pid, log)
            await started.check()
            yield Target(base, process.pid, log)


@settings(max_examples=examples(25), suppress_health_check=list(HealthCheck))
@given(clients=_CLIENTS)
async def test_raw_bytes_keep_no_callback_out(target: Target, clients: list[tuple[bytes, bool]]) -> None:
    await asyncio.gather(*(target.send(content, resets=resets) for content, resets in clients))
    await target.check()
