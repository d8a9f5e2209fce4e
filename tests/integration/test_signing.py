"""What is signed for the provider to read private media, and by whom.

The bucket server of the tests accepts any signature. So the signed request is checked here, and the signature of a key
is verified as Google would.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.auth.compute_engine import Credentials as AttachedCredentials
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import TransportError
from google.cloud import storage
from google.oauth2 import service_account
from google.oauth2.credentials import Credentials as PersonCredentials

from seedance_temporal.storage.bucket import GoogleBucket
from seedance_temporal.storage.signing import CannotSign, signing
from tests.support.fake_gcs import fake_gcs
from workers.serve import warn_of_signing

EMAIL = "worker@project.iam.gserviceaccount.com"
HOUR = timedelta(hours=1)


@dataclass
class Answer:
    status: int
    data: bytes
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})


@dataclass
class Google:
    """A transport of google-auth's, with the metadata server and the IAM API behind it."""

    answer: Answer = field(default_factory=lambda: Answer(200, b'{"signedBlob": "c2lnbmVk"}'))
    asked: list[tuple[str, Any]] = field(default_factory=list)

    def __call__(self, url: str, method: str = "GET", body: Any = None, headers: Any = None, **_: Any) -> Answer:
        self.asked.append((url, json.loads(body) if body else None))
        if "signBlob" in url:
            assert headers["authorization"] == "Bearer a-token"
            return self.answer
        if "/token" in url:
            return Answer(200, b'{"access_token": "a-token", "expires_in": 3600}')
        if "recursive" in url:
            return Answer(200, json.dumps({"email": EMAIL, "scopes": ["storage"]}).encode())
        return Answer(404, b"")


def attached() -> AttachedCredentials:
    return AttachedCredentials(universe_domain="googleapis.com")


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65_537, 2048)


@pytest.fixture(scope="module")
def local() -> Iterator[storage.Client]:
    with fake_gcs("media") as client:
        yield client


async def test_key_signs_one_generation_for_reading(key: rsa.RSAPrivateKey) -> None:
    info = {
        "client_email": EMAIL,
        "token_uri": "https://oauth2.example.com/token",
        "private_key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
    }
    credentials = service_account.Credentials.from_service_account_info(info)
    bucket = GoogleBucket("videos", storage.Client("test", credentials=credentials))

    url = await bucket.signed_url("media", "a folder/ä#1.png", 17, timedelta(seconds=4321))

    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    assert (parts.scheme, parts.netloc, parts.fragment) == ("https", "storage.googleapis.com", "")
    assert parts.path == "/media/a%20folder/%C3%A4%231.png"
    assert (query["generation"], query["X-Goog-Expires"]) == ("17", "4321")
    assert query["X-Goog-Credential"].startswith(f"{EMAIL}/")
    # What Google computes from a GET of this URL: https://cloud.google.com/storage/docs/authentication/canonical-requests
    unsigned, _, signature = parts.query.partition("&X-Goog-Signature=")
    request = f"GET\n{parts.path}\n{unsigned}\nhost:storage.googleapis.com\n\nhost\nUNSIGNED-PAYLOAD"
    scope = query["X-Goog-Credential"].partition("/")[2]
    digest = hashlib.sha256(request.encode()).hexdigest()
    signed = f"GOOG4-RSA-SHA256\n{query['X-Goog-Date']}\n{scope}\n{digest}".encode()
    key.public_key().verify(bytes.fromhex(signature), signed, padding.PKCS1v15(), hashes.SHA256())
    assert await bucket.signing_problem() is None


def test_attached_account_signs_by_api() -> None:
    google = Google()
    signer = signing(attached(), google)

    assert signer.signer_email == EMAIL
    assert signer.sign_bytes(b"what is signed") == b"signed"
    url, body = google.asked[-1]
    assert url == f"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{EMAIL}:signBlob"
    assert base64.b64decode(body["payload"]) == b"what is signed"
    # A token for storage alone would be refused there.
    tokens = [url for url, _ in google.asked if "/token" in url]
    assert tokens
    assert all("cloud-platform" in url for url in tokens)


@pytest.mark.parametrize(
    ("answer", "error", "reason"),
    [
        (b'{"error": {"code": 403, "status": "PERMISSION_DENIED"}}', CannotSign, f"{EMAIL} may not sign: .* role"),
        (b'{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}', TransportError, "RESOURCE_EXHAUSTED"),
    ],
    ids=["without the role", "too often"],
)
async def test_missing_role_differs_from_outage(
    local: storage.Client, answer: bytes, error: type[Exception], reason: str
) -> None:
    google = Google(Answer(json.loads(answer)["error"]["code"], answer))
    bucket = GoogleBucket("media", local, signing(attached(), google))
    with pytest.raises(error, match=reason):
        await bucket.signed_url("media", "a.png", 17, HOUR)


async def test_user_credentials_cannot_sign() -> None:
    bucket = GoogleBucket("videos", storage.Client("test", credentials=PersonCredentials("token")))
    with pytest.raises(CannotSign, match="not those of a service account"):
        await bucket.signed_url("media", "a.png", 17, HOUR)
    assert "use a service account's key" in (await bucket.signing_problem() or "")


async def test_worker_warns_of_missing_signature(caplog: pytest.LogCaptureFixture, local: storage.Client) -> None:
    await warn_of_signing(GoogleBucket("media", local))
    assert caplog.text == ""
    await warn_of_signing(GoogleBucket("videos", storage.Client("test", credentials=PersonCredentials("token"))))
    assert "jobs with gs:// references are refused" in caplog.text
    assert "use a service account's key" in caplog.text


async def test_local_bucket_accepts_any_signature(local: storage.Client) -> None:
    bucket = GoogleBucket("media", local)
    assert isinstance(local._credentials, AnonymousCredentials)
    await bucket.create("a folder/a.png", b"a picture")
    stored = await bucket.stat("a folder/a.png")
    assert stored is not None

    url = await bucket.signed_url("media", "a folder/a.png", stored.generation, HOUR)

    assert urlsplit(url).netloc == urlsplit(local.api_endpoint).netloc
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(url)).content == b"a picture"
    assert await bucket.signing_problem() is None
