"""The signatures of the URLs by which the provider reads private media."""

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
    """The credentials cannot sign a URL. The message says how to fix that."""


class _AttachedSigning(Signing):
    """Sign by Google's API, for an account without a key: attached to a machine, or of a federation."""

    def __init__(self, credentials: Any, request: Any) -> None:
        self._credentials = credentials
        self._request = request

    @property
    def signer_email(self) -> str:
        # An attached account has the name "default" until it has its first token.
        if not self._credentials.valid:
            self._credentials.refresh(self._request)
        return str(self._credentials.service_account_email)

    @property
    def signer(self) -> Signer:
        return Signer(self._request, self._credentials, self.signer_email)

    def sign_bytes(self, message: bytes) -> bytes:
        return bytes(self.signer.sign(message))


class _LocalSigning(Signing):
    """Sign with random bytes: the bucket server of the embedded stack accepts any signature."""

    signer = None
    signer_email = "local@localhost"

    def sign_bytes(self, message: bytes) -> bytes:
        return secrets.token_bytes(32)


def signing(credentials: Any, request: Any = None) -> Signing:
    """Return credentials that can sign, for those of the storage library.

    Args:
        credentials: Those of a key file, and impersonated ones, sign by themselves. For those that are attached to a
            machine, or of a federation with a service account, Google's API signs. Anonymous ones are for local
            bucket servers, which verify nothing.
        request: The transport of google-auth for the API; its usual one by default.

    Raises:
        CannotSign: They are of another kind, such as a user's.
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
