"""The worker process of one route: ``python worker.py``. It runs the workflows and all activities.

``python worker.py --check`` prints the effective settings without secrets, and tries Temporal, bucket and provider
without spending anything.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Mapping
from datetime import timedelta
from typing import Any

from google.auth.exceptions import DefaultCredentialsError
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.common import SearchAttributeIndexedValueType, SearchAttributeKey
from temporalio.service import RPCError
from temporalio.worker import Worker

from activities.create import CreateActivities
from activities.ledger import LedgerActivities
from activities.limits import LimitActivities
from activities.poll import PollActivities
from activities.recover import RecoverActivities
from activities.references import ReferenceActivities
from activities.store import StoreActivities, Transport
from activities.task_list import TaskListActivities
from seedance_temporal import connect
from seedance_temporal.contract import SEARCH_ATTRIBUTES, Queues
from seedance_temporal.errors import InvalidSettings, TemporalUnavailable
from seedance_temporal.ledger.asset_ids import Assets
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.media.references import References
from seedance_temporal.provider.ark import Ark, ArkError
from seedance_temporal.settings import Settings
from seedance_temporal.storage.bucket import Bucket, GoogleBucket
from seedance_temporal.urls import printable, redacted
from workflows.generate_video import GenerateVideo
from workflows.list_tasks import ListTasks

# The provider's limits for an account.
GETS_PER_SECOND = 20.0
LISTS_PER_SECOND = 1.0
# Checks of references wait for their turn in here, and must not keep the ledger's short activities from theirs.
BOOKKEEPING_AT_ONCE = 1_000
# A create under way at SIGTERM is awaited: its claim, its POST, its outcome.
GRACE_BEYOND_CREATE = timedelta(seconds=45)
RECONNECT_SECONDS = 2.0
# The interpreter can crash when it ends right after a worker stopped; a moment's rest prevents it.
REST_SECONDS = 0.2
# The check asks LIST again after a 429: 1 a second is the account's, and a worker that runs may have used it.
_LISTINGS_OF_CHECK = 5
_SECONDS_BETWEEN_LISTINGS = 1.1

_log = logging.getLogger("worker")


class RedactingFormatter(logging.Formatter):
    """Writes records without the given secrets, tracebacks of other libraries among them."""

    def __init__(self, secrets: tuple[str, ...] = ()) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._secrets = secrets

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        # A message of one record is one line; tracebacks, which are added to it, have several.
        record.message = printable(record.message, keep="")
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        return redacted(printable(super().format(record)), self._secrets)


def build_workers(
    client: Client,
    settings: Settings,
    bucket: Bucket,
    ark: Ark,
    search_attributes: frozenset[str],
    *,
    result_transport: Transport | None = None,
) -> list[Worker]:
    """The workers of all queues of a route, over one set of clients.

    Args:
        search_attributes: The names that the namespace knows.
        result_transport: Makes the transport of each download of a result; only public addresses by default.
    """
    queues = Queues(settings.ark_route)
    ledger = Ledger(bucket, settings.seedance_prefix)
    bookkeeping = LedgerActivities(ledger, settings, search_attributes)
    limits = LimitActivities(ledger, bucket, settings)
    references = ReferenceActivities(References(bucket, settings), Assets(bucket, settings.seedance_prefix), settings)
    create = CreateActivities(ledger, bucket, ark, settings)
    observe = PollActivities(ledger, ark, settings)
    recover = RecoverActivities(ledger, ark, settings)
    listing = TaskListActivities(ledger, ark, settings)
    store = StoreActivities(bucket, ark, settings, result_transport)
    grace = timedelta(seconds=settings.seedance_create_timeout_seconds) + GRACE_BEYOND_CREATE
    return [
        Worker(
            client,
            task_queue=queues.workflows,
            workflows=[GenerateVideo, ListTasks],
            activities=[
                bookkeeping.read_ledger,
                bookkeeping.write_outcome,
                bookkeeping.write_end,
                limits.reserve_quota,
                references.check_references,
                recover.settle_absent,
                listing.ask_lister,
                listing.answer_jobs,
            ],
            max_concurrent_activities=BOOKKEEPING_AT_ONCE,
            graceful_shutdown_timeout=grace,
        ),
        Worker(
            client,
            task_queue=queues.create,
            activities=[create.create_task],
            max_task_queue_activities_per_second=settings.seedance_creates_per_minute / 60,
            graceful_shutdown_timeout=grace,
        ),
        Worker(
            client,
            task_queue=queues.get,
            activities=[observe.get_task, observe.cancel_task, recover.identify_task, recover.resolve_attempt],
            max_task_queue_activities_per_second=GETS_PER_SECOND,
            graceful_shutdown_timeout=grace,
        ),
        Worker(
            client,
            task_queue=queues.list,
            activities=[listing.list_page],
            max_concurrent_activities=1,
            max_task_queue_activities_per_second=LISTS_PER_SECOND,
            graceful_shutdown_timeout=grace,
        ),
        Worker(
            client,
            task_queue=queues.transfer,
            activities=[store.store_video],
            max_concurrent_activities=settings.seedance_copies_at_once,
            graceful_shutdown_timeout=grace,
        ),
    ]


async def register_search_attributes(client: Client) -> frozenset[str]:
    """The search attributes that jobs may use: those that the namespace has, or that could be added to it.

    One that may not be added, for which there is no room, or that is registered by another type, is missing: the log
    says why, and the commands that mend it. Jobs run without it.
    """
    try:
        types = await _registered_types(client)
        reasons = {key.name: await _add(client, key) for key in SEARCH_ATTRIBUTES if key.name not in types}
        if reasons:
            types = await _registered_types(client)
    except RPCError as error:
        types, reasons = {}, {}
        _log.warning("the namespace's search attributes cannot be asked for: %s", error.message)
    for key in SEARCH_ATTRIBUTES:
        if types.get(key.name) != key.indexed_value_type:
            _tell_missing(client.namespace, key, types.get(key.name), reasons.get(key.name))
    return _usable(types)


async def _registered_types(client: Client) -> dict[str, int]:
    request = ListSearchAttributesRequest(namespace=client.namespace)
    return dict((await client.operator_service.list_search_attributes(request, retry=True)).custom_attributes)


def _usable(types: Mapping[str, int]) -> frozenset[str]:
    """Those that stand under the type that jobs write them by: a value of another one would block the run for good."""
    return frozenset(key.name for key in SEARCH_ATTRIBUTES if types.get(key.name) == key.indexed_value_type)


async def _add(client: Client, key: SearchAttributeKey[Any]) -> str | None:
    """Adds one, by itself: where there is no room for it, there may be for another. Why it was not added, if so."""
    kind = IndexedValueType.ValueType(key.indexed_value_type)
    request = AddSearchAttributesRequest(namespace=client.namespace, search_attributes={key.name: kind})
    try:
        await client.operator_service.add_search_attributes(request)
    except RPCError as error:
        return error.message
    return None


def _tell_missing(namespace: str, key: SearchAttributeKey[Any], registered: int | None, reason: str | None) -> None:
    command = f"temporal operator search-attribute {{}} --namespace {namespace} --name {key.name}"
    mend = f"{command.format('create')} --type {_type_name(key.indexed_value_type)}"
    why = f" ({reason})" if reason else ""
    if registered is not None:
        why = f", which is registered as {_type_name(registered)}"
        mend = f"{command.format('remove')} && {mend}"
    _log.warning(
        "jobs run without the search attribute %s%s; this adds it, before a restart of the worker: %s",
        key.name,
        why,
        mend,
    )


def _type_name(kind: int) -> str:
    """As the command line of Temporal writes it."""
    return SearchAttributeIndexedValueType(kind).name.title().replace("_", "")


async def connected(stop: asyncio.Event) -> Client | None:
    """A client, as soon as the server is there; None if the process is to stop before that."""
    while not stop.is_set():
        try:
            return await connect()
        except TemporalUnavailable as error:
            _log.warning("%s; trying to connect again in %.0f s", error, RECONNECT_SECONDS)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), RECONNECT_SECONDS)
    return None


async def serve(settings: Settings, bucket: Bucket, ark: Ark, *, result_transport: Transport | None = None) -> None:
    """Serves the route until SIGTERM or SIGINT, and lets a create under way finish. A second signal ends at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        _log.info("%s: finishing what is under way", number.name)
        stop.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    client = await connected(stop)
    if client is None:
        return
    known = await register_search_attributes(client)
    workers = build_workers(client, settings, bucket, ark, known, result_transport=result_transport)
    running = [asyncio.create_task(worker.run()) for worker in workers]
    warning = asyncio.create_task(warn_of_signing(bucket))
    _log.info(
        "serving route %s in namespace %s, with the API key of fingerprint %s",
        settings.ark_route,
        client.namespace,
        settings.key_fingerprint,
    )
    await asyncio.wait([*running, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
    await asyncio.gather(*(worker.shutdown() for worker in workers))
    await asyncio.gather(*running)
    warning.cancel()
    await asyncio.sleep(REST_SECONDS)


async def warn_of_signing(bucket: Bucket) -> None:
    """Says which jobs this worker cannot create, and what to do about it."""
    problem = await bucket.signing_problem()
    if problem is not None:
        _log.warning("jobs with gs:// references are refused, others are not affected: %s", problem)


async def check(settings: Settings, bucket: GoogleBucket, ark: Ark) -> bool:
    """Prints the effective settings, and tries everything that the worker needs; whether all of it is there."""
    for name, value in sorted(settings.model_dump().items()):
        print(f"{name.upper()} = {'' if value is None else value}")
    print(f"fingerprint of the API key = {settings.key_fingerprint}")
    known = {name.upper() for name in Settings.model_fields}
    for name in sorted(os.environ):
        if name.startswith(("SEEDANCE_", "ARK_")) and name not in known:
            print(f"{name} is set, and no setting of this project: is it misspelt?")
    client: list[Client] = []

    async def temporal() -> None:
        client.append(await connect())
        await client[0].count_workflows("WorkflowType = 'GenerateVideo'")

    async def search_attributes() -> None:
        missing = {key.name for key in SEARCH_ATTRIBUTES} - _usable(await _registered_types(client[0]))
        if missing:
            raise LookupError(
                f"not registered, or by another type: {', '.join(sorted(missing))}; the worker adds them where it may"
            )

    async def provider() -> None:
        listings = 0
        while True:
            listings += 1
            try:
                await ark.list(page=1, page_size=1)
            except ArkError as error:
                # A worker that runs may have used the second's one LIST of the account.
                if error.status != 429 or listings == _LISTINGS_OF_CHECK:
                    raise
                await asyncio.sleep(_SECONDS_BETWEEN_LISTINGS)
            else:
                return

    results = [
        await _tried("Temporal", temporal()),
        await _tried(f"bucket gs://{bucket.name}", bucket.check()),
        await _tried(f"provider {settings.base_url}", provider()),
    ]
    if client:
        await _tried("search attributes", search_attributes())
    # Not counted: without gs:// references nobody needs it.
    problem = await bucket.signing_problem()
    print(f"signing of gs:// references: {'ok' if problem is None else f'not possible: {problem}'}")
    return all(results)


async def _tried(what: str, attempt: Awaitable[None]) -> bool:
    try:
        await attempt
    except Exception as error:
        print(f"{what}: FAILED: {error}")
        return False
    print(f"{what}: ok")
    return True


def main() -> int:
    """Runs the worker, or its check.

    Returns:
        The exit code: 2 where a setting is missing or wrong, 1 where the check found something.
    """
    parser = argparse.ArgumentParser(description="The worker of one Seedance route.")
    parser.add_argument("--check", action="store_true", help="print the settings, try all parts, and end")
    arguments = parser.parse_args()
    log = logging.StreamHandler()
    log.setFormatter(RedactingFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[log])
    try:
        settings = Settings.from_environment("ARK_API_KEY", "SEEDANCE_BUCKET")
        assert settings.ark_api_key is not None
        assert settings.seedance_bucket is not None
        bucket = GoogleBucket(settings.seedance_bucket)
    except (InvalidSettings, DefaultCredentialsError) as error:
        sys.stderr.write(f"worker: {error}\n")
        return 2
    log.setFormatter(RedactingFormatter(settings.secrets))
    ark = Ark(settings.base_url, settings.ark_api_key.get_secret_value(), settings.secrets)
    if arguments.check:
        return 0 if asyncio.run(check(settings, bucket, ark)) else 1
    asyncio.run(serve(settings, bucket, ark))
    return 0


if __name__ == "__main__":
    sys.exit(main())
