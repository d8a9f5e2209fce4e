"""Addresses that a process of this project listens on, as the settings give them."""

from __future__ import annotations

import ipaddress
from typing import Annotated, NamedTuple

from pydantic import AfterValidator

_MOST_PORT = 65_535


class ListenAddress(NamedTuple):
    """An IP address and a port."""

    host: str
    port: int


def parse_address(text: str) -> ListenAddress:
    """Parse ``127.0.0.1:9464``, ``[::1]:9464`` or ``localhost:9464``.

    Raises:
        ValueError: It is none of them; the message says how to write it.
    """
    host, _, port = text.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host
    try:
        ip = ipaddress.ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    except ValueError:
        ip = None
    usable = port.isascii() and port.isdecimal() and 0 < int(port[:6]) <= _MOST_PORT
    if ip is None or not usable or (ip.version == 6) != host.startswith("["):
        raise ValueError("is no IP address with a port: write 127.0.0.1:9464, or 0.0.0.0:9464 for all addresses")
    return ListenAddress(str(ip), int(port))


def _checked(text: str) -> str:
    host, port = parse_address(text)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


Address = Annotated[str, AfterValidator(_checked)]
