"""``worker.py --check``: print the effective settings, and try each part that the worker needs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from datetime import UTC, datetime

from temporalio.client import Client

from seedance_temporal import connect
from seedance_temporal.contract import SEARCH_ATTRIBUTES
from seedance_temporal.ledger.spending import Spending
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.provider.ark import Ark, ArkError
from seedance_temporal.search_attributes import usable_search_attributes
from seedance_temporal.settings import Settings
from seedance_temporal.storage.bucket import Bucket, GoogleBucket
from seedance_temporal.urls import printable, redacted

# An account may send one LIST a second, and a running worker may have used it: after a 429, LIST is sent again.
_MOST_LISTINGS = 5
_SECONDS_BETWEEN_LISTINGS = 1.1
_ON_FAIRNESS = "docs/how-to/rates.md"


async def check(settings: Settings, bucket: GoogleBucket, ark: Ark) -> bool:
    """Print the settings, and try each part without spending anything; return whether the worker has all it needs."""
    _print_settings(settings)
    client: list[Client] = []

    async def temporal() -> None:
        client.append(await connect(settings=settings))
        await client[0].count_workflows("WorkflowType = 'GenerateVideo'")

    results = [
        await _tried("Temporal", temporal(), settings.secrets),
        await _tried(f"bucket gs://{bucket.name}", bucket.check(), settings.secrets),
        await _tried(f"provider {settings.base_url}", _list(ark), settings.secrets),
    ]
    if client:
        await _tried("search attributes", _search_attributes(client[0]), settings.secrets)
        print(f"fairness between users: not known, Temporal does not say whether it is on; see {_ON_FAIRNESS}")
    if settings.has_budgets:
        await _tried("budgets", _budgets(settings, bucket), settings.secrets)
    # Not counted: only gs:// references need it.
    problem = await bucket.signing_problem()
    print(f"signing of gs:// references: {'ok' if problem is None else f'not possible: {problem}'}")
    return all(results)


def _print_settings(settings: Settings) -> None:
    given = settings.model_dump(mode="json", exclude_none=True)
    for name in sorted(Settings.model_fields):
        value = given.get(name, "")
        print(f"{name.upper()} = {printable(value if isinstance(value, str) else json.dumps(value))}")
    print(f"fingerprint of the API key = {settings.key_fingerprint}")
    if keys := [key.id for key in settings.encryption_keys]:
        print(f"payloads are encrypted with the key {keys[0]}, and decrypted with {', '.join(keys)}")


async def _budgets(settings: Settings, bucket: Bucket) -> None:
    spending = Spending(Ledger(bucket, settings.seedance_prefix), bucket, settings)
    for use in await spending.figures(datetime.now(UTC)):
        print(f"used or reserved: {use}")


async def _list(ark: Ark) -> None:
    for listing in range(1, _MOST_LISTINGS + 1):
        try:
            await ark.list(page=1, page_size=1)
            print("API key: with permission All: it shows the tasks of its project")
            return
        except ArkError as error:
            if error.needs_model:
                print("API key: Custom: it shows the tasks of the models and endpoints that it names, one at a time")
                return
            if error.status != 429 or listing == _MOST_LISTINGS:
                raise
            await asyncio.sleep(_SECONDS_BETWEEN_LISTINGS)


async def _search_attributes(client: Client) -> None:
    missing = {key.name for key in SEARCH_ATTRIBUTES} - await usable_search_attributes(client)
    if missing:
        raise LookupError(
            f"not registered, or by another type: {', '.join(sorted(missing))}; the worker adds them where it may"
        )


async def _tried(part: str, attempt: Awaitable[None], secrets: tuple[str, ...]) -> bool:
    try:
        await attempt
    except Exception as error:
        print(f"{part}: FAILED: {printable(redacted(str(error), secrets))}")
        return False
    print(f"{part}: ok")
    return True
