"""The registration of the search attributes of jobs in a namespace."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.common import SearchAttributeIndexedValueType, SearchAttributeKey
from temporalio.service import RPCError

from seedance_temporal.contract import SEARCH_ATTRIBUTES

_log = logging.getLogger("worker")
# The server's words where a namespace has as many attributes of a type as it may.
_NO_ROOM = "cannot have more than"


async def register_search_attributes(client: Client) -> frozenset[str]:
    """Add the search attributes that the namespace lacks, and return the names of those that jobs may use.

    An attribute that may not be added, for which there is no room, or that is registered by another type, is missing
    from the result: the log says why, and which commands fix it. Jobs run without it.
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
            _warn_of_missing(client.namespace, key, types.get(key.name), reasons.get(key.name))
    return _usable(types)


async def usable_search_attributes(client: Client) -> frozenset[str]:
    """Return the names that jobs may use, without adding any; raise RPCError where the server does not answer."""
    return _usable(await _registered_types(client))


async def _registered_types(client: Client) -> dict[str, int]:
    request = ListSearchAttributesRequest(namespace=client.namespace)
    return dict((await client.operator_service.list_search_attributes(request, retry=True)).custom_attributes)


def _usable(types: Mapping[str, int]) -> frozenset[str]:
    # A value of another type than the registered one would block the run for ever.
    return frozenset(key.name for key in SEARCH_ATTRIBUTES if types.get(key.name) == key.indexed_value_type)


async def _add(client: Client, key: SearchAttributeKey[Any]) -> str | None:
    """Add one attribute, alone: where one has no room, another may have. Return why it was not added, or None."""
    kind = IndexedValueType.ValueType(key.indexed_value_type)
    request = AddSearchAttributesRequest(namespace=client.namespace, search_attributes={key.name: kind})
    try:
        await client.operator_service.add_search_attributes(request)
    except RPCError as error:
        return error.message
    return None


def _warn_of_missing(namespace: str, key: SearchAttributeKey[Any], registered: int | None, reason: str | None) -> None:
    command = f"temporal operator search-attribute {{}} --namespace {namespace} --name {key.name}"
    fix = f"{command.format('create')} --type {_type_name(key.indexed_value_type)}"
    why = f" ({reason})" if reason else ""
    if registered is not None:
        why = f", which is registered as {_type_name(registered)}"
        fix = f"{command.format('remove')} && {fix}"
    elif reason is not None and _NO_ROOM in reason:
        fix = f"{command.format('remove').removesuffix(key.name)}ONE_THAT_NOBODY_NEEDS && {fix}"
    _log.warning(
        "jobs run without the search attribute %s%s; this adds it, before a restart of the worker: %s",
        key.name,
        why,
        fix,
    )


def _type_name(kind: int) -> str:
    """Return a type as Temporal's command line writes it."""
    return SearchAttributeIndexedValueType(kind).name.title().replace("_", "")
