"""Who signs the URLs by which the provider reads private media."""

from __future__ import annotations

import secrets
from typing import Any

from google.auth.compute_engine import Credentials as AttachedCredentials
from google.auth.credentials import AnonymousCredentials, Scoped, Signing
from google.auth.iam import Signer
from google.auth.transport.requests import Request

# The storage library asks for tokens that are good for storage alone.
_SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]


class CannotSign(Exception):
    """The credentials cannot sign a URL. The message says what to do about it."""


class _AttachedSigning(Signing):
    """Signs by Google's API, for an account without a key at hand: attached to a machine, or of a federation."""

    def __init__(self, credentials: Any, request: Any) -> None:
        self._credentials = credentials
        self._request = request

    @property
    def signer_email(self) -> str:
        # An attached account goes by the name "default" until it has its first token.
        if not self._credentials.valid:
            self._credentials.refresh(self._request)
        return str(self._credentials.service_account_email)

    @property
    def signer(self) -> Signer:
        return Signer(self._request, self._credentials, self.signer_email)

    def sign_bytes(self, message: bytes) -> bytes:
        return bytes(self.signer.sign(message))


class _LocalSigning(Signing):
    """Signs nothing that could be verified: the bucket server of the embedded stack takes any signature."""

    signer = None
    signer_email = "local@localhost"

    def sign_bytes(self, message: bytes) -> bytes:
        return secrets.token_bytes(32)


def signing(credentials: Any, request: Any = None) -> Signing:
    """Credentials that can sign, for credentials as the storage library has them.

    Args:
        credentials: Of a key file or impersonated: they sign by themselves. Attached to a machine, or of a federation
            that stands for a service account: Google's API signs. None at all: nobody verifies anything.
        request: google-auth's transport for the API; its usual one by default.

    Raises:
        CannotSign: They are of another kind, such as a person's.
    """
    if isinstance(credentials, Signing):
        return credentials
    if isinstance(credentials, AnonymousCredentials):
        return _LocalSigning()
    if isinstance(credentials, AttachedCredentials) or getattr(credentials, "service_account_email", None):
        if isinstance(credentials, Scoped):
            credentials = credentials.with_scopes(_SCOPES)
        return _AttachedSigning(credentials, request or Request())
    raise CannotSign(
        "the bucket's credentials are not those of a service account: use a service account's key, or impersonate "
        "or attach one that has the role Service Account Token Creator on itself"
    )
