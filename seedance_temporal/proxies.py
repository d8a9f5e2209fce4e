"""What the environment says of connections to others: their proxy, and the certificates to trust.

The variables are HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, also in small letters.
"""

from __future__ import annotations

from functools import cache
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

import httpx

from seedance_temporal.errors import InvalidSettings

# Made once: it reads the certificate store.
usual_tls = cache(httpx.create_ssl_context)
_UNDERSTOOD = ("http://", "https://")


def proxy_for(url: str) -> str | None:
    """Return the proxy through which to reach a URL, or None where it is reached directly.

    The variables mean what they mean to Google's library, which reads them for the bucket.

    Raises:
        InvalidSettings: It is a proxy of a kind that is not understood.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return None  # the request itself fails over such a URL
    proxies = getproxies_environment()
    name = parts.scheme if parts.scheme in proxies else "all"
    proxy = proxies.get(name, "").strip()
    if not proxy or parts.hostname is None or proxy_bypass(parts.hostname):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if not proxy.startswith(_UNDERSTOOD):
        raise InvalidSettings(
            f"{name.upper()}_PROXY names a proxy of the kind {proxy.partition(':')[0]}; "
            "give the address of one that begins with http:// or https://"
        )
    return proxy
