"""What is thought of other people's URLs: which may be reached, and what of them may be written down."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Collection, Iterable
from functools import lru_cache
from urllib.parse import quote, quote_plus, urlsplit

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# All of these are searched in foreign texts, so none may go over a part of a text twice: possessive, and always
# matching once it has read on.
# A URL of any scheme, also with its slashes escaped as JSON may. What follows the # of gs:// is a generation.
_URL = re.compile(r"(?<!\bgs)(:\\?/\\?/)([^\s\"'<>?#]++)(?:[?#][^\s\"'<>]*+)?")
_ENCODED_URL = re.compile(r"(%3A%2F%2F(?:(?!%3F|%23)[^\s\"'<>])*+)[^\s\"'<>]*+", re.IGNORECASE)
_SIGNATURE = re.compile(
    r"\b((?:x-(?:goog|amz|tos)-)?(?:signature|credential|security-token)|sig)(=|%3D)[^\s\"'<>&]++", re.IGNORECASE
)
_SLASH = r"(?:\\?/|%2F)"
_CALLBACK_TOKEN = re.compile(
    rf"({_SLASH}callbacks{_SLASH}[^/\s\\%]++{_SLASH}\d++{_SLASH})[0-9a-f]{{16,}}+", re.IGNORECASE
)
# Where a text was cut before its "@", this may be half a password.
_AUTHORITY_AT_THE_END = re.compile(r"(:\\?/\\?/)[^\s\"'<>?#/]*+\Z")
_PERCENT = re.compile(r"%[0-9A-F]{2}")
# Of a text that is shown in part, so much is searched.
_SEARCHED = 64 * 1024


def printable(text: str, keep: str = "\n") -> str:
    """Escape what does not print, such as what would steer a terminal or forge a line of a log.

    Args:
        text: What others wrote.
        keep: Characters that stay as they are all the same.
    """
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


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


def redacted(text: str, secrets: Iterable[str] = (), limit: int | None = None) -> str:
    """Make a text fit to be written down: without the queries of URLs, where signatures stand, without names and
    passwords in URLs, without the tokens of callback URLs, without the given secrets, and without halves of
    characters, which JSON can hold and UTF-8 cannot.

    Takes time in proportion to the length of the text.

    Args:
        text: Any text.
        secrets: Also found where they are quoted or escaped, as in Python, JSON or a URL.
        limit: The most characters of the answer. The text may then be of any length: only its beginning is searched.
    """
    forms = sorted({form for secret in secrets for form in _forms(secret)}, key=len, reverse=True)
    if limit is not None and len(text) > max(_SEARCHED, limit):
        text = _beginning(text, max(_SEARCHED, limit), forms)
    for form in forms:
        text = text.replace(form, "***")
    text = _ENCODED_URL.sub(r"\1", _URL.sub(_bare, text))
    text = _CALLBACK_TOKEN.sub(r"\1***", _SIGNATURE.sub(r"\1\2***", text))
    return text[:limit].encode(errors="replace").decode()


def _bare(url: re.Match[str]) -> str:
    """A URL without query, fragment, and the name and password before its host."""
    authority, slash, path = url[2].partition("/")
    before, at, host = authority.rpartition("@")
    return f"{url[1]}***@{host}{slash}{path}" if at and before else f"{url[1]}{url[2]}"


def _beginning(text: str, length: int, forms: Iterable[str]) -> str:
    """The beginning of a text, less what the cut leaves of a secret: half of one is found by nothing."""
    beginning = text[:length]
    shortest = len(beginning)
    for form in forms:
        around = text[max(0, length - len(form) + 1) : length + len(form) - 1]
        at = around.find(form)
        if at >= 0:
            shortest = min(shortest, max(0, length - len(form) + 1) + at)
    return _AUTHORITY_AT_THE_END.sub(r"\1", beginning[:shortest])


@lru_cache(maxsize=16)
def _forms(secret: str) -> frozenset[str]:
    """The ways in which a secret is written inside of other texts. White space around it is no part of it."""
    secret = secret.strip()
    encoded = secret.encode(errors="surrogatepass")
    quoted = {quote(encoded, safe=""), quote(encoded), quote_plus(encoded)}
    quoted |= {_PERCENT.sub(lambda part: part[0].lower(), form) for form in quoted}
    escaped = {"".join(repr(letter)[1:-1] for letter in secret), secret.replace("/", "\\/")}
    escaped |= {"".join(repr(bytes([byte]))[2:-1] for byte in encoded)}
    escaped |= {json.dumps(secret, ensure_ascii=ascii_alone)[1:-1] for ascii_alone in (True, False)}
    # Whether Python escapes this depends on the rest of the text.
    escaped |= {form.replace("'", "\\'") for form in escaped}
    # A text that was quoted is often quoted once more.
    twice = {form.replace("\\", "\\\\") for form in escaped}
    escaped |= twice | {form.replace(mark, f"\\{mark}") for form in twice for mark in "'\""}
    return frozenset({secret} | quoted | escaped) - {""}
