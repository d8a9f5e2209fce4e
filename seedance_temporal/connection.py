"""The connection to Temporal, and its RPC errors in the terms of this package."""

from __future__ import annotations

import asyncio
import atexit
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure
from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.service import RPCError, RPCStatusCode

from seedance_temporal.data_converter import data_converter
from seedance_temporal.encryption_settings import EncryptionSettings
from seedance_temporal.errors import InvalidSettings, ProcessForked, TemporalUnavailable, UnknownJob
from seedance_temporal.settings import Settings

DEFAULT_ADDRESS = "localhost:7233"
CONNECT_SECONDS = 10
# The SDK's thread that delivered the last answer leaves the interpreter a moment later than that answer arrives. In an
# interpreter that is being taken down it aborts the process, or lets it crash: 1 of 100 exits on a busy machine.
LEAVE_SECONDS = 0.05

# Variables that name files.
_NAMES_OF_FILES = (
    "TEMPORAL_CONFIG_FILE",
    *(f"TEMPORAL_TLS_{part}_PATH" for part in ("CLIENT_CERT", "CLIENT_KEY", "SERVER_CA_CERT")),
)

_process: int | None = None


def require_same_process() -> None:
    """Note the process that uses Temporal's SDK first; raise ProcessForked in its children.

    The SDK's runtime has threads, of which a fork leaves none: a call in the child would fail, or wait for ever.
    """
    global _process
    if _process is None:
        _process = os.getpid()
        atexit.register(time.sleep, LEAVE_SECONDS)
    if _process != os.getpid():
        raise ProcessForked


async def connect(*, settings: Settings | None = None, **overrides: Any) -> Client:
    """Connect to Temporal by the settings of the environment.

    ``TEMPORAL_*`` and ``TEMPORAL_CONFIG_FILE`` have the meaning of Temporal's own environment configuration; the
    default is a local server.

    Args:
        settings: The keys that payloads are encrypted with; by default, those of the environment.
        overrides: Arguments of ``temporalio.client.Client.connect`` that win over the environment, such as
            ``target_host`` or ``namespace``. All parties must share one ``data_converter``.

    Raises:
        InvalidSettings: The environment's configuration is wrong.
        TemporalUnavailable: The server cannot be reached.
        ProcessForked: This process was forked from one that had connected.
    """
    require_same_process()
    configured = _configured()
    keys = (settings or EncryptionSettings.of_environment()).encryption_keys
    arguments: dict[str, Any] = {"target_host": DEFAULT_ADDRESS, "data_converter": data_converter(keys)}
    arguments |= {**configured, **overrides}
    address = arguments["target_host"]
    unreachable = f"Temporal cannot be reached at {address}"
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            return await Client.connect(**arguments)
    except ValueError as error:
        raise InvalidSettings(f"Temporal's address {address!r}: {error}") from None
    except TimeoutError:
        raise TemporalUnavailable(f"{unreachable}: no answer in {CONNECT_SECONDS} s") from None
    except RuntimeError as error:
        raise TemporalUnavailable(f"{unreachable}: {error}") from error


def _configured() -> dict[str, Any]:
    """Read Temporal's environment configuration. What it names must exist: the default is another server."""
    for name, value in os.environ.items():
        # The SDK would quote it, and it can be a key.
        if name.startswith("TEMPORAL_") and not _is_text(value):
            raise InvalidSettings(f"{name} holds bytes that are no text in UTF-8; copy it again")
    for name in _NAMES_OF_FILES:
        if (path := os.environ.get(name)) and not Path(path).is_file():
            raise InvalidSettings(f"{name} names {path}, which is no file")
    try:
        configured: dict[str, Any] = dict(ClientConfig.load_client_connect_config(config_file_strict=True))
    except OSError as error:
        raise InvalidSettings(f"Temporal's configuration names {error.filename}: {error.strerror}") from None
    except (RuntimeError, ValueError) as error:
        # The lines after the first one quote the file, with the keys in it.
        raise InvalidSettings(f"Temporal's configuration: {str(error).splitlines()[0]}") from None
    # Values from files and Kubernetes secrets end in a line feed.
    return {name: value.strip() if isinstance(value, str) else value for name, value in configured.items()}


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def asking_temporal(job_id: str | None = None) -> Iterator[None]:
    """Raise the RPC errors of the block as errors of this package; UnknownJob where Temporal does not find the job."""
    try:
        yield
    except RPCError as error:
        if job_id is not None and is_unknown_workflow(error):
            raise UnknownJob(job_id) from error
        raise TemporalUnavailable(f"Temporal answered {error.status.name}: {error.message}") from error


def is_unknown_workflow(error: RPCError) -> bool:
    """Return whether an RPC failed because the workflow is closed or unknown, and not the namespace."""
    return error.status is RPCStatusCode.NOT_FOUND and not any(
        detail.Is(NamespaceNotFoundFailure.DESCRIPTOR) for detail in error.grpc_status.details
    )
