"""Run a service's command as a process, in its environment, with the hosts of the compose network on loopback."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dev.process import Child, start
from dev.stack import HOST, Ports, Stack
from tests.compose import image_file
from tests.compose.compose_file import ROOT, Service

BIN = Path(sys.executable).parent
_SECONDS = 60.0


@dataclass(frozen=True)
class Loopback:
    """The places of the compose network on this machine: its ``host:port`` pairs, and all names of its services."""

    ports: Mapping[str, int]
    services: frozenset[str]

    @classmethod
    def of(cls, stack: Stack, services: Mapping[str, Service]) -> Loopback:
        ports = stack.ports
        places = {"temporal:7233": ports.temporal, "bucket:4443": ports.bucket, "ark:8089": ports.ark}
        places |= {"relay:8088": ports.relay, "worker:8087": Ports.free().relay}
        return cls(places, frozenset(services))

    def environment(self, service: Service) -> dict[str, str]:
        """The container's environment: the image's, the service's, and a PATH; nothing of this process's own."""
        given = {name: self.text(service.name, value) for name, value in service.environment.items()}
        if "SEEDANCE_INSECURE_HOSTS" in given:
            hosts = given["SEEDANCE_INSECURE_HOSTS"].split(",")
            assert set(hosts) <= self.services
            given["SEEDANCE_INSECURE_HOSTS"] = HOST
        of_image = image_file.environment() if service.is_ours else {}
        return {"PATH": f"{BIN}:/usr/bin:/bin"} | of_image | given

    def command(self, service: Service, command: Sequence[str]) -> list[str]:
        return [self.text(service.name, part) for part in command]

    def text(self, service: str, text: str) -> str:
        """A part of a command, or a value: its addresses, and the service's own ports, on this machine."""
        own = {place.split(":")[1]: port for place, port in self.ports.items() if place.split(":")[0] == service}
        text = re.sub(r"\b0\.0\.0\.0\b", HOST, text)
        for port, here in own.items():
            text = re.sub(rf"(^|-port=|{re.escape(HOST)}:){port}\b", rf"\g<1>{here}", text)
        return re.sub(
            r"\b([a-z][a-z-]*:\d+)\b", lambda m: f"{HOST}:{self.ports[m[1]]}" if m[1] in self.ports else m[1], text
        )

    async def start(
        self, service: Service, folder: Path, image: Path, *, command: Sequence[str] = (), name: str = ""
    ) -> Child:
        """Start a service of ours, or a command in its container, from what the image holds. Log under the name."""
        words = self.command(service, command or service.command)
        return await start(name or service.name, words, self.environment(service), folder, cwd=image)

    async def run_job(self, service: Service, folder: Path, **changes: str) -> tuple[int, str]:
        """Run a one-shot of admin-tools. Return its exit code, and its output."""
        (mount,) = service.content["volumes"]
        source, target, _ = mount.split(":")
        words = [*service.content["entrypoint"], *service.command]
        words = [part.replace(target + "/", f"{ROOT / source}/") for part in words]
        child = await start(service.name, words, self.environment(service) | changes, folder, cwd=folder)
        return await ended(child)


async def ended(child: Child) -> tuple[int, str]:
    """Wait for the end of a process. Return its exit code, and its output."""
    try:
        code = await asyncio.wait_for(child.process.wait(), _SECONDS)
    finally:
        await child.stop()
    return code, child.log.read_text()
