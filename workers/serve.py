"""The life of the worker process, from the connection to SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from concurrent.futures import ThreadPoolExecutor

from temporalio.client import Client
from temporalio.runtime import Runtime
from temporalio.service import RPCError

from activities.places import tell_limits
from activities.store import Transport
from seedance_temporal import connect
from seedance_temporal.contract import Queues
from seedance_temporal.errors import TemporalUnavailable
from seedance_temporal.media.temporary import remove_abandoned
from seedance_temporal.metrics import metrics_runtime
from seedance_temporal.provider.ark import Ark
from seedance_temporal.search_attributes import register_search_attributes
from seedance_temporal.settings import Settings
from seedance_temporal.storage.bucket import Bucket
from workers.build import build_workers
from workers.collector import Collector
from workers.health import Readiness, health_server

_THREADS = 32
RECONNECT_SECONDS = 2.0
# The interpreter can crash when it ends right after a worker stopped; a short pause prevents that.
REST_SECONDS = 0.2

_log = logging.getLogger("worker")


async def serve(settings: Settings, bucket: Bucket, ark: Ark, *, result_transport: Transport | None = None) -> None:
    """Serve the route until SIGTERM or SIGINT, and let a running create finish. A second signal ends at once.

    The arguments are those of :func:`workers.build.build_workers`.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        _log.info("%s: finishing what is under way", number.name)
        stop.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    # Names are resolved and files written in it; by default it has a few threads more than the machine has processors.
    loop.set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="worker"))
    if abandoned := await asyncio.to_thread(remove_abandoned):
        _log.info("removed the temporary files of %d copies or checks that were killed", abandoned)
    async with health_server(settings.seedance_health_address, readiness := Readiness()):
        await _serve(settings, bucket, ark, stop, readiness, result_transport)
    await asyncio.sleep(REST_SECONDS)


async def _serve(
    settings: Settings,
    bucket: Bucket,
    ark: Ark,
    stop: asyncio.Event,
    readiness: Readiness,
    result_transport: Transport | None,
) -> None:
    address = settings.seedance_metrics_address
    runtime = metrics_runtime(address) if address is not None else None
    client = await _connected(settings, stop, runtime)
    if client is None:
        return
    known = await register_search_attributes(client)
    workers = build_workers(client, settings, bucket, ark, known, result_transport=result_transport)
    readiness.serve(client, workers, Queues(settings.ark_route).workflows)
    running = [asyncio.create_task(worker.run()) for worker in workers]
    aside = [asyncio.create_task(warn_of_signing(bucket))]
    if runtime is not None:
        aside.append(asyncio.create_task(Collector(client, settings, bucket, runtime.metric_meter).run()))
    _log.info(
        "serving route %s in namespace %s, with the API key of fingerprint %s",
        settings.ark_route,
        client.namespace,
        settings.key_fingerprint,
    )
    await asyncio.wait([*running, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
    readiness.stop()
    await asyncio.gather(*(worker.shutdown() for worker in workers))
    await asyncio.gather(*running)
    for task in aside:
        task.cancel()


async def _connected(settings: Settings, stop: asyncio.Event, runtime: Runtime | None) -> Client | None:
    """Connect as soon as the server answers, and knows the limits; None if the process is to stop before that."""
    while not stop.is_set():
        try:
            client = await connect(settings=settings, runtime=runtime)
            # Before this worker creates anything.
            await tell_limits(client, settings)
            return client
        except (TemporalUnavailable, RPCError) as error:
            _log.warning("%s; trying to connect again in %.0f s", error, RECONNECT_SECONDS)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), RECONNECT_SECONDS)
    return None


async def warn_of_signing(bucket: Bucket) -> None:
    """Log which jobs this worker cannot create, and how to fix that."""
    problem = await bucket.signing_problem()
    if problem is not None:
        _log.warning("jobs with gs:// references are refused, others are not affected: %s", problem)
