"""The codec endpoint over HTTP: who may read, from which page, and how much at once."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from google.protobuf import json_format
from temporalio.api.common.v1 import Payload, Payloads

from dev.stack import ROOT
from seedance_temporal.codec_endpoint import COOKIE, MAX_BODY_BYTES, codec_app
from seedance_temporal.encryption_keys import EncryptionKey
from seedance_temporal.payload_encryption import PayloadEncryption
from seedance_temporal.relay_connections import Connection
from tests.support.command_line import script_process
from tests.support.polling import until
from tests.support.served import served

ANN, BOB = "a-token-of-ann-0123456789-0123456789", "a-token-of-bob-0123456789-0123456789"
ORIGIN = "http://127.0.0.1:8233"
ONE, OTHER = (EncryptionKey(key_id, os.urandom(32), key_id) for key_id in ("one", "other"))
CLEAR = Payload(metadata={"encoding": b"json/plain"}, data=b'"a lighthouse of basalt"')


@pytest.fixture
async def endpoint() -> AsyncIterator[httpx.AsyncClient]:
    app = codec_app(PayloadEncryption([ONE]), {"ann": ANN, "bob": BOB}, ORIGIN)
    async with served(app, Connection) as base, httpx.AsyncClient(base_url=base, trust_env=False) as client:
        yield client


async def encrypted(*payloads: Payload, key: EncryptionKey = ONE) -> str:
    """Return payloads as Temporal's UI and command line send them."""
    encoded = await PayloadEncryption([key]).encode(payloads)
    return json_format.MessageToJson(Payloads(payloads=encoded))


def read(answer: httpx.Response) -> list[Payload]:
    assert answer.status_code == 200, answer.text
    return list(json_format.Parse(answer.text, Payloads()).payloads)


def by(token: str, **headers: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "X-Namespace": "default", **headers}


@pytest.mark.parametrize("token", [ANN, BOB])
async def test_payloads_are_decrypted_for_token(endpoint: httpx.AsyncClient, token: str) -> None:
    empty = Payload()
    answer = await endpoint.post("/decode", content=await encrypted(CLEAR, empty), headers=by(token))
    assert read(answer) == [CLEAR, empty]
    assert answer.headers["cache-control"] == "no-store"


async def test_unreadable_payload_is_returned_as_it_came(endpoint: httpx.AsyncClient) -> None:
    foreign = json.loads(await encrypted(CLEAR, key=OTHER))["payloads"]
    ours = json.loads(await encrypted(CLEAR))["payloads"]
    plain = json.loads(json_format.MessageToJson(Payloads(payloads=[CLEAR])))["payloads"]
    content = json.dumps({"payloads": [*foreign, *ours, *plain]})
    unread, *others = read(await endpoint.post("/decode", content=content, headers=by(ANN)))
    assert unread == json_format.ParseDict(foreign[0], Payload())
    assert others == [CLEAR, CLEAR]


def as_bytes(headers: dict[str, str | bytes]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), v.encode() if isinstance(v, str) else v) for name, v in headers.items()]


HEADERS: dict[str, dict[str, str | bytes]] = {
    "none": {},
    "another token": {"Authorization": "Bearer another-token-0123456789-0123456789"},
    "a beginning": {"Authorization": f"Bearer {ANN[:-1]}"},
    "longer": {"Authorization": f"Bearer {ANN}x"},
    "empty": {"Authorization": "Bearer"},
    "basic": {"Authorization": f"Basic {ANN}"},
    "letters of no token": {"Authorization": "Bearer é".encode()},
    "another cookie": {"Cookie": f"{COOKIE}=x"},
    "odd cookie": {"Cookie": f'{COOKIE}="; ;='},
    "wrong header beside cookie": {"Authorization": "Bearer x", "Cookie": f"{COOKIE}={ANN}"},
}


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS)
async def test_nobody_reads_without_token(endpoint: httpx.AsyncClient, headers: dict[str, str | bytes]) -> None:
    answer = await endpoint.post("/decode", content=await encrypted(CLEAR), headers=as_bytes(headers))
    assert answer.status_code == 401
    assert "basalt" not in answer.text
    # Temporal's UI takes any JSON for payloads.
    with pytest.raises(ValueError, match="Expecting value"):
        answer.json()


async def test_page_of_the_ui_may_ask(endpoint: httpx.AsyncClient) -> None:
    asks = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-namespace"}
    preflight = await endpoint.options("/decode", headers=asks)
    assert preflight.status_code == 204
    allowed = preflight.headers["access-control-allow-headers"].lower().split(", ")
    assert set(allowed) == {"authorization", "authorization-extras", "content-type", "x-namespace"}
    answer = await endpoint.post("/decode", content=await encrypted(CLEAR), headers=by(ANN, Origin=ORIGIN))
    for each in (preflight, answer):
        assert each.headers["access-control-allow-origin"] == ORIGIN
        assert each.headers["access-control-allow-credentials"] == "true"
        assert each.headers["vary"] == "Origin"


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:8234", f"{ORIGIN}.evil.example"])
async def test_other_page_may_not_ask(endpoint: httpx.AsyncClient, origin: str) -> None:
    asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    preflight = await endpoint.options("/decode", headers=asks)
    answer = await endpoint.post("/decode", content=await encrypted(CLEAR), headers=by(ANN, Origin=origin))
    for each in (preflight, answer):
        assert each.status_code == 403
        assert each.headers.get("access-control-allow-origin") is None


async def test_no_page_may_ask_without_origin() -> None:
    async with served(codec_app(PayloadEncryption([ONE]), {"ann": ANN})) as base, httpx.AsyncClient() as client:
        assert (await client.options(f"{base}/decode", headers={"Origin": ORIGIN})).status_code == 403
        answer = await client.post(f"{base}/decode", content=await encrypted(CLEAR), headers=by(ANN, Origin=ORIGIN))
        assert answer.status_code == 403
        assert read(await client.post(f"{base}/decode", content=await encrypted(CLEAR), headers=by(ANN))) == [CLEAR]


async def test_sign_in_sets_cookie_that_reads(endpoint: httpx.AsyncClient) -> None:
    assert "password" in (await endpoint.get("/login")).text
    answer = await endpoint.post("/login", data={"token": ANN})
    assert answer.status_code == 200
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secure" not in cookie, "the UI's origin is plain http"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert read(await endpoint.post("/decode", content=await encrypted(CLEAR))) == [CLEAR]


async def test_cookie_is_secure_beside_https() -> None:
    app = codec_app(PayloadEncryption([ONE]), {"ann": ANN}, "https://temporal.example.com")
    async with served(app) as base, httpx.AsyncClient() as client:
        assert "; Secure" in (await client.post(f"{base}/login", data={"token": ANN})).headers["set-cookie"]


@pytest.mark.parametrize("token", ["", "x", ANN[:-1]])
async def test_wrong_token_signs_nobody_in(endpoint: httpx.AsyncClient, token: str) -> None:
    answer = await endpoint.post("/login", data={"token": token})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


ODD_BODIES = {
    "empty": b"",
    "no JSON": b"payloads",
    "a list": b"[]",
    "no base64": b'{"payloads": [{"data": "!"}]}',
    "letters outside of ASCII": '{"payloads": [{"data": "é"}]}'.encode(),
    "metadata of other types": b'{"payloads": [{"metadata": {"encoding": 1}}]}',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("body", ODD_BODIES.values(), ids=ODD_BODIES)
async def test_odd_body_is_refused(endpoint: httpx.AsyncClient, body: bytes) -> None:
    answer = await endpoint.post("/decode", content=body, headers=by(ANN))
    assert answer.status_code == 400
    assert answer.text == "Not payloads in protobuf's JSON.\n"


async def status_of(endpoint: httpx.AsyncClient, path: str, token: str, length: int) -> str:
    """Return the status of the answer to a request that announces a body, and never sends it."""
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.base_url.port)
        lines = [f"POST {path} HTTP/1.1", "Host: codec", f"Authorization: Bearer {token}", f"Content-Length: {length}"]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        status = (await reader.readline()).decode().split()[1]
        writer.close()
    return status


async def test_body_is_bounded_and_first_the_token(endpoint: httpx.AsyncClient) -> None:
    assert await status_of(endpoint, "/decode", ANN, MAX_BODY_BYTES + 1) == "413"
    assert await status_of(endpoint, "/decode", "x", 100) == "401"
    assert await status_of(endpoint, "/login", "", 10_000) == "400"
    largest = await encrypted(Payload(data=bytes(2 * 1024**2)))
    assert len(largest) < MAX_BODY_BYTES
    assert len(read(await endpoint.post("/decode", content=largest, headers=by(ANN)))[0].data) == 2 * 1024**2


async def test_only_decode_is_served(endpoint: httpx.AsyncClient) -> None:
    assert (await endpoint.get("/healthz")).text == "ok\n"
    assert (await endpoint.post("/encode", content=await encrypted(CLEAR), headers=by(ANN))).status_code == 404
    assert (await endpoint.get("/decode", headers=by(ANN))).status_code == 405


async def test_log_names_readers_without_tokens(endpoint: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        await endpoint.post("/decode", content=await encrypted(CLEAR), headers=by(ANN))
        await endpoint.post("/decode", content=await encrypted(CLEAR), headers=by("x" * 40))
        await endpoint.post("/login", data={"token": BOB})
        await endpoint.post("/decode", content=await encrypted(CLEAR, key=OTHER), headers=by(BOB))
    ours = [record.getMessage() for record in caplog.records if record.name == "seedance_temporal.codec_endpoint"]
    assert ours == [
        "payloads decoded for ann: 1",
        "payloads refused: no valid token was given",
        "bob has signed in",
        "A payload is encrypted with the key 'other', which is not in SEEDANCE_ENCRYPTION_KEYS of this process. "
        "Add it there, after the first one.",
        "payloads decoded for bob: 1",
    ]
    by_us = " ".join(record.getMessage() for record in caplog.records if not record.name.startswith("http"))
    assert not [text for text in (ANN, BOB, "x" * 40, "basalt") if text in by_us]


@pytest.mark.parametrize("tokens", [{}, {"ann": ""}])
def test_endpoint_without_token_is_not_made(tokens: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="needs a token"):
        codec_app(PayloadEncryption([ONE]), tokens)


KEYS = f"one:{b64encode(ONE.secret).decode()}"


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, "SEEDANCE_ENCRYPTION_KEYS, SEEDANCE_CODEC_TOKENS"),
        ({"SEEDANCE_ENCRYPTION_KEYS": KEYS}, "SEEDANCE_CODEC_TOKENS"),
        ({"SEEDANCE_CODEC_TOKENS": f"ann:{ANN}"}, "SEEDANCE_ENCRYPTION_KEYS"),
    ],
)
def test_process_does_not_start_without_settings(given: dict[str, str], missing: str) -> None:
    ran = subprocess.run(
        [sys.executable, "codec.py"], capture_output=True, text=True, cwd=ROOT, env=os.environ | given, check=False
    )
    assert (ran.returncode, ran.stderr) == (2, f"codec: not set in the environment: {missing}\n")


async def test_process_serves_and_logs_no_secret(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    given = {"SEEDANCE_ENCRYPTION_KEYS": KEYS, "SEEDANCE_CODEC_TOKENS": f"ann:{ANN}", "SEEDANCE_CODEC_PORT": port}
    log = tmp_path / "codec.log"
    with log.open("wb") as output:
        async with script_process("codec.py", streams={"stderr": output}, **given), httpx.AsyncClient() as client:
            base = f"http://127.0.0.1:{port}"

            async def answers() -> bool:
                try:
                    return (await client.get(f"{base}/healthz")).is_success
                except httpx.ConnectError:
                    return False

            await until(answers, "the endpoint answers")
            answer = await client.post(f"{base}/decode", content=await encrypted(CLEAR), headers=by(ANN))
            assert read(answer) == [CLEAR]
    assert "payloads decoded for ann: 1" in log.read_text()
    assert not [text for text in (ANN, KEYS.partition(":")[2], "basalt") if text in log.read_text()]
