"""The codec endpoint: it decrypts payloads for Temporal's UI and command line, for those who may read them.

It follows Temporal's protocol of remote codecs, and has ``/decode`` alone: who may read need not be able to write.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from pydantic import BaseModel, Field, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from temporalio.api.common.v1 import Payload

from seedance_temporal.errors import EncryptionKeyMissing
from seedance_temporal.payload_encryption import PayloadEncryption
from seedance_temporal.request_body import HANG_UP, read_body

# A payload has 2 MiB at most, which base64 makes 2.7. Temporal's UI and command line send few at a time.
MAX_BODY_BYTES = 8 * 1024**2
_MOST_FORM_BYTES = 4 * 1024
BODY_WITHIN_SECONDS = 10
# Each may hold its body, and the payloads of that, in memory.
_MOST_AT_ONCE = 32
COOKIE = "seedance-codec"
# A day of work; who signs in stays signed in no longer.
_COOKIE_SECONDS = 12 * 3600
# Nothing is kept by browsers or proxies, and the page runs and loads nothing.
_GUARDS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Seedance codec</title>
<h1>Read encrypted payloads</h1>
<p>{said}</p>
<form method="post"><label>Token <input type="password" name="token" autocomplete="off" required></label>
<button>Sign in</button></form>
</html>
"""
_log = logging.getLogger(__name__)


class _Payload(BaseModel):
    """A payload in protobuf's JSON, whose bytes are base64."""

    metadata: dict[str, str] = Field(default_factory=dict)
    data: str = ""


class _Payloads(BaseModel):
    payloads: list[_Payload] = Field(default_factory=list)


def codec_app(encryption: PayloadEncryption, tokens: Mapping[str, str], origin: str | None = None) -> Starlette:
    """Make the codec endpoint as an ASGI application.

    A request is allowed by the header ``Authorization: Bearer TOKEN``, or by the cookie that ``/login`` sets:
    Temporal's UI has no token of ours for the header.

    Args:
        encryption: It has the keys.
        tokens: The tokens of those who may read, by name. Log lines hold the names.
        origin: The origin of Temporal's UI, whose pages may ask; None: no page may.

    Raises:
        ValueError: There is no token: anybody could read.
    """
    if not tokens or not all(tokens.values()):
        raise ValueError("the codec endpoint needs a token, and none of its tokens may be empty")
    endpoint = _Endpoint(encryption, tokens, origin)
    app = Starlette(
        routes=[
            Route("/decode", endpoint.decode, methods=["POST"]),
            Route("/decode", endpoint.preflight, methods=["OPTIONS"]),
            Route("/login", endpoint.login, methods=["GET", "POST"]),
            Route("/healthz", _healthz),
        ]
    )
    app.router.redirect_slashes = False
    return app


async def _healthz(_: Request) -> Response:
    return PlainTextResponse("ok\n")


class _Endpoint:
    def __init__(self, encryption: PayloadEncryption, tokens: Mapping[str, str], origin: str | None) -> None:
        self._encryption = encryption
        self._tokens = tokens
        self._origin = origin
        self._at_once = 0

    async def preflight(self, request: Request) -> Response:
        """Answer a browser that asks whether a page of the UI may send a request with these headers."""
        if request.headers.get("origin") != self._origin or self._origin is None:
            return PlainTextResponse("This origin may not ask.\n", 403, _GUARDS)
        allowed = {
            "Access-Control-Allow-Methods": "POST",
            "Access-Control-Allow-Headers": "Authorization, Authorization-Extras, Content-Type, X-Namespace",
            "Access-Control-Max-Age": "600",
        }
        return Response(status_code=204, headers={**self._readable_by_the_ui(), **allowed})

    async def decode(self, request: Request) -> Response:
        """Decrypt payloads. One whose key is missing is returned as it came, so that the others can be read.

        Errors are plain text: Temporal's UI takes any JSON for payloads.
        """
        headers = {**_GUARDS, **self._readable_by_the_ui()}
        if request.headers.get("origin") not in {None, self._origin}:
            return PlainTextResponse("This origin may not ask.\n", 403, {**_GUARDS, **HANG_UP})
        if (reader := self._reader(_token_of(request))) is None:
            _log.warning("payloads refused: no valid token was given")
            challenge = {"WWW-Authenticate": "Bearer"}
            return PlainTextResponse("A valid token is needed.\n", 401, {**headers, **HANG_UP, **challenge})
        if self._at_once >= _MOST_AT_ONCE:
            return PlainTextResponse("Too many requests at once.\n", 503, {**headers, **HANG_UP, "Retry-After": "1"})
        self._at_once += 1
        try:
            async with asyncio.timeout(BODY_WITHIN_SECONDS):
                body = await read_body(request, MAX_BODY_BYTES)
            given = _Payloads.model_validate_json(body).payloads
            decoded = self._decoded([_payload_of(payload) for payload in given])
        except HTTPException as error:
            return PlainTextResponse("The request is too large.\n", error.status_code, {**headers, **HANG_UP})
        except TimeoutError:
            return PlainTextResponse("The request took too long.\n", 408, {**headers, **HANG_UP})
        except ClientDisconnect:
            return Response(status_code=400)  # the sender is gone
        except (ValidationError, ValueError):
            return PlainTextResponse("Not payloads in protobuf's JSON.\n", 400, headers)
        finally:
            self._at_once -= 1
        _log.info("payloads decoded for %s: %d", reader, len(decoded))
        return JSONResponse({"payloads": [_as_json(payload) for payload in decoded]}, headers=headers)

    async def login(self, request: Request) -> Response:
        """Show the form for a token, or set the cookie that a right one is worth."""
        if request.method != "POST":
            return _page("Give the token that you were given, then open Temporal's UI.")
        try:
            async with asyncio.timeout(BODY_WITHIN_SECONDS):
                form = parse_qs((await read_body(request, _MOST_FORM_BYTES)).decode(errors="replace"))
        except (HTTPException, TimeoutError, ClientDisconnect, ValueError):
            return _page("This was not readable.", 400)
        token = form.get("token", [""])[0].strip()
        if (reader := self._reader(token)) is None:
            _log.warning("a sign-in was refused")
            return _page("This token is not known.", 401)
        _log.info("%s has signed in", reader)
        answer = _page("You are signed in: reload the page of Temporal's UI.")
        # Browsers send it to the UI's requests where both have one site, such as temporal. and codec.example.com.
        secure = self._origin is not None and self._origin.startswith("https://")
        answer.set_cookie(COOKIE, token, _COOKIE_SECONDS, httponly=True, samesite="strict", secure=secure)
        return answer

    def _reader(self, token: str) -> str | None:
        """Return the name that a token belongs to. All are compared, each in constant time."""
        given = token.encode()
        names = [name for name, known in self._tokens.items() if hmac.compare_digest(given, known.encode())]
        return names[0] if names else None

    def _readable_by_the_ui(self) -> dict[str, str]:
        if self._origin is None:
            return {}
        return {
            "Access-Control-Allow-Origin": self._origin,
            "Access-Control-Allow-Credentials": "true",
            "Vary": "Origin",
        }

    def _decoded(self, payloads: Sequence[Payload]) -> list[Payload]:
        decoded = []
        for payload in payloads:
            try:
                decoded.append(self._encryption.decrypted(payload))
            except EncryptionKeyMissing as error:
                _log.warning("%s", error)
                decoded.append(payload)
        return decoded


def _token_of(request: Request) -> str:
    """Return the token of a request, from its header or else its cookie; empty where it has none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme:
        return token.strip() if scheme.lower() == "bearer" else ""
    try:
        cookie = SimpleCookie(request.headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return cookie.value if cookie is not None else ""


def _payload_of(given: _Payload) -> Payload:
    metadata = {name: b64decode(value, validate=True) for name, value in given.metadata.items()}
    return Payload(metadata=metadata, data=b64decode(given.data, validate=True))


def _as_json(payload: Payload) -> dict[str, object]:
    metadata = {name: b64encode(value).decode() for name, value in payload.metadata.items()}
    return {"metadata": metadata, "data": b64encode(payload.data).decode()}


def _page(said: str, status: int = 200) -> HTMLResponse:
    return HTMLResponse(_PAGE.format(said=said), status, _GUARDS)
