"""What is thought of other people's URLs: which may be reached, and what of them may be written down."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable
from urllib.parse import urlsplit

_URL_WITH_QUERY = re.compile(r"(https?://[^\s\"'<>?#]+)[?#][^\s\"'<>]*")
_CALLBACK_TOKEN = re.compile(r"(/callbacks/[^/\s]+/\d+/)[0-9a-f]{64}")


def is_public_address(address: str) -> bool:
    """Whether an IP address, as text, is one of the public internet. IPv6 forms of IPv4 addresses are seen through."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return ip.is_global and not ip.is_multicast


def https_problem(url: str, insecure_hosts: Collection[str] = ()) -> str | None:
    """What keeps a URL from being a public https one, as far as that shows without asking DNS; None if nothing does.

    Args:
        url: The URL.
        insecure_hosts: Hosts for which plain http and private addresses are allowed.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return f"is not a URL ({error})"
    if not host or parts.scheme not in {"http", "https"}:
        return "is not an https URL"
    if parts.username is not None or parts.password is not None:
        return "carries a user name or password"
    if host in insecure_hosts:
        return None
    if parts.scheme != "https":
        return "is plain http; https is needed"
    try:
        public = is_public_address(host)
    except ValueError:
        public = "." in host.strip(".") and not host.endswith((".localhost", ".local", ".internal"))
    return None if public else "does not name a public host"


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """A text that may be written down: without the queries of URLs, where signatures stand, without the tokens of
    callback URLs, and without the given secrets.
    """
    text = _CALLBACK_TOKEN.sub(r"\1***", _URL_WITH_QUERY.sub(r"\1", text))
    for secret in secrets:
        text = text.replace(secret, "***")
    return text
