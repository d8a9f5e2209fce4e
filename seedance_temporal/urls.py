"""What is thought of other people's URLs: which may be reached, and what of them may be written down."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable
from urllib.parse import urlsplit

_URL_WITH_QUERY = re.compile(r"(https?://[^\s\"'<>?#]+)[?#][^\s\"'<>]*")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_CALLBACK_TOKEN = re.compile(r"(/callbacks/[^/\s]+/\d+/)[0-9a-f]{64}")


def is_public_address(address: str) -> bool:
    """Whether an IP address, as text, is one of the public internet. IPv6 forms of IPv4 addresses are seen through."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        nat64 = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None
        ip = ip.ipv4_mapped or ip.sixtofour or nat64 or ip
    # Python counts some reserved and long given up ranges as global: ::127.0.0.1 and fec0::1 among them.
    odd = ip.is_multicast or ip.is_reserved or (isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local)
    return ip.is_global and not odd


def https_problem(url: str, insecure_hosts: Collection[str] = ()) -> str | None:
    """What keeps a URL from being a public https one, as far as that shows without asking DNS; None if nothing does.

    Nothing of the URL is in the answer: it may hold secrets.

    Args:
        url: The URL.
        insecure_hosts: Hosts, in lower case, for which plain http and private addresses are allowed.
    """
    if not url.isprintable() or " " in url or "\\" in url:
        return "holds a space, a backslash or a control character"  # parsers disagree on what these mean
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is not a URL"
    if not host or parts.scheme not in {"http", "https"}:
        return "is not an https URL"
    if parts.username is not None or parts.password is not None:
        return "carries a user name or password"
    if host in insecure_hosts:
        return None
    if parts.scheme != "https":
        return "is plain http; https is needed"
    return None if _is_public_host(host) else "does not name a public host"


def _is_public_host(host: str) -> bool:
    """Whether a host name or address is a public one, as far as its letters tell."""
    try:
        return is_public_address(host)
    except ValueError:
        *parents, last = host.rstrip(".").split(".")
    # Clients read 127.1 and 0x7f.0.0.1 as addresses, and fold letters outside of ASCII into others: xn-- is needed.
    is_number = last.isdigit() or last.startswith("0x")
    return bool(parents) and host.isascii() and not is_number and last not in {"localhost", "local", "internal"}


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """A text that may be written down: without the queries of URLs, where signatures stand, without the tokens of
    callback URLs, and without the given secrets.
    """
    text = _CALLBACK_TOKEN.sub(r"\1***", _URL_WITH_QUERY.sub(r"\1", text))
    for secret in secrets:
        text = text.replace(secret, "***")
    return text
