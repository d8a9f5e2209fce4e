"""The encryption of payloads: what is refused as a key, and that only the right key reads a payload, unchanged."""

from __future__ import annotations

import os
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ApplicationError

from seedance_temporal.data_converter import data_converter, message_of
from seedance_temporal.encryption_keys import ENCODING, KEY_ID, EncryptionKey, parse_keys
from seedance_temporal.errors import EncryptionKeyMissing, InvalidSettings
from seedance_temporal.identity import user_hash
from seedance_temporal.payload_encryption import PayloadEncryption
from seedance_temporal.settings import Settings
from tests.support.jobs import a_request
from tests.support.searched import forms


def a_key(key_id: str = "k1") -> EncryptionKey:
    secret = os.urandom(32)
    return EncryptionKey(key_id, secret, b64encode(secret).decode())


def as_setting(*keys: EncryptionKey) -> str:
    return ",".join(f"{key.id}:{key.text}" for key in keys)


ONE, OTHER = a_key("one"), a_key("other")
PAYLOADS = st.lists(
    st.builds(
        lambda metadata, data: Payload(metadata=metadata, data=data),
        st.dictionaries(st.text(max_size=20), st.binary(max_size=40), max_size=3),
        st.binary(max_size=2_000),
    ),
    max_size=4,
)
ENCRYPTED = st.builds(
    lambda key_id, data: Payload(metadata={"encoding": ENCODING.encode(), KEY_ID: key_id}, data=data),
    st.one_of(st.just(b"one"), st.binary(max_size=80)),
    st.binary(max_size=200),
)


@given(PAYLOADS)
async def test_round_trip_returns_payloads(payloads: list[Payload]) -> None:
    encryption = PayloadEncryption([ONE])
    encoded = await encryption.encode(payloads)
    assert all(each.metadata == {"encoding": ENCODING.encode(), KEY_ID: b"one"} for each in encoded)
    assert await encryption.decode(encoded) == payloads
    assert not [each for each, other in zip(encoded, await encryption.encode(payloads), strict=True) if each == other]


@given(PAYLOADS)
async def test_rotation_reads_both_keys(payloads: list[Payload]) -> None:
    before = await PayloadEncryption([ONE]).encode(payloads)
    rotated = PayloadEncryption([OTHER, ONE])
    after = await rotated.encode(payloads)
    assert await rotated.decode([*before, *after]) == payloads * 2
    assert {each.metadata[KEY_ID] for each in after} <= {b"other"}


@given(st.binary(max_size=300), st.integers(min_value=0, max_value=10_000), st.integers(min_value=1, max_value=255))
async def test_changed_bytes_are_refused(data: bytes, at: int, change: int) -> None:
    encryption = PayloadEncryption([ONE])
    (encoded,) = await encryption.encode([Payload(data=data)])
    changed = bytearray(encoded.data)
    changed[at % len(changed)] ^= change
    for content in (bytes(changed), encoded.data[: at % len(encoded.data)], encoded.data + b"\0"):
        with pytest.raises(EncryptionKeyMissing, match="'one' of SEEDANCE_ENCRYPTION_KEYS"):
            await encryption.decode([Payload(metadata=encoded.metadata, data=content)])


@given(ENCRYPTED)
async def test_foreign_ciphertext_is_refused(payload: Payload) -> None:
    with pytest.raises(EncryptionKeyMissing) as raised:
        await PayloadEncryption([ONE]).decode([payload])
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 600


async def test_ciphertext_is_bound_to_key_id() -> None:
    """The same bytes of a key under another id."""
    (encoded,) = await PayloadEncryption([ONE]).encode([Payload(data=b"x")])
    renamed = Payload(metadata={**encoded.metadata, KEY_ID: b"two"}, data=encoded.data)
    with pytest.raises(EncryptionKeyMissing):
        await PayloadEncryption([EncryptionKey("two", ONE.secret, ONE.text)]).decode([renamed])


@pytest.mark.parametrize("encoding", [b"json/plain", b"binary/null", b"binary/plain", b"", None])
async def test_unencrypted_payload_is_decoded_as_it_is(encoding: bytes | None) -> None:
    payload = Payload(metadata={"encoding": encoding} if encoding is not None else {}, data=b"1")
    assert await PayloadEncryption([ONE]).decode([payload]) == [payload]


async def test_values_are_encrypted_and_read() -> None:
    request = a_request(prompt="A lighthouse of basalt")
    converter = data_converter([ONE])
    (payload,) = await converter.encode([request])
    assert not [form for form in forms("A lighthouse of basalt") if form in payload.SerializeToString()]
    assert await converter.decode([payload], [type(request)]) == [request]
    assert await data_converter([OTHER, ONE]).decode([payload], [type(request)]) == [request]
    # Payloads of before encryption was switched on.
    assert await converter.decode(await pydantic_data_converter.encode([request]), [type(request)]) == [request]


@pytest.mark.parametrize("keys", [(), (OTHER,)], ids=["no keys", "another key"])
async def test_missing_key_is_named(keys: tuple[EncryptionKey, ...]) -> None:
    (payload,) = await data_converter([ONE]).encode([1])
    with pytest.raises(EncryptionKeyMissing, match="with the key 'one', which is not in SEEDANCE_ENCRYPTION_KEYS"):
        await data_converter(keys).decode([payload])


async def test_without_keys_payloads_are_as_ever() -> None:
    values: list[Any] = [a_request(), None, b"bytes", {"a": [1]}]
    assert await data_converter().encode(values) == await pydantic_data_converter.encode(values)
    assert data_converter().payload_codec is None


async def test_failure_is_encrypted_and_read() -> None:
    converter, failure = data_converter([ONE]), Failure()
    try:
        try:
            raise ValueError("inner basalt")
        except ValueError as inner:
            raise ApplicationError("outer basalt", {"why": "detail basalt"}, type="Refused") from inner
    except ApplicationError as error:
        await converter.encode_failure(error, failure)
    assert b"basalt" not in failure.SerializeToString()
    assert failure.application_failure_info.type == "Refused"
    assert await message_of(failure, converter) == "outer basalt"
    with pytest.raises(EncryptionKeyMissing):
        await message_of(failure, data_converter())
    read = await converter.decode_failure(failure)
    assert (str(read), str(read.__cause__)) == ("Refused: outer basalt", "ValueError: inner basalt")


async def test_message_of_plain_failure_is_read() -> None:
    assert await message_of(Failure(message="plain"), data_converter([ONE])) == "plain"


WRONG_KEYS = {
    "no pair": "c2VjcmV0",
    "no name": f":{ONE.text}",
    "odd name": f"a b:{ONE.text}",
    "no key": "k1:",
    "no base64": "k1:secret-secret-secret-secret-secret!",
    "too short": f"k1:{b64encode(b'secret-secret-16').decode()}",
    "too long": f"k1:{b64encode(os.urandom(33)).decode()}",
    "one byte": f"k1:{b64encode(bytes(32)).decode()}",
    "name twice": f"k1:{ONE.text},k1:{OTHER.text}",
    "key twice": f"k1:{ONE.text},k2:{ONE.text}",
    "empty entry": f"k1:{ONE.text},",
}


@pytest.mark.parametrize("text", WRONG_KEYS.values(), ids=WRONG_KEYS)
def test_wrong_keys_are_refused_unquoted(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SEEDANCE_ENCRYPTION_KEYS", text)
    with pytest.raises(InvalidSettings, match=r"\ASEEDANCE_ENCRYPTION_KEYS: [^\n]+\Z") as raised:
        Settings.from_environment()
    parts = [part for pair in text.split(",") for part in pair.split(":") if len(part) > 6]
    assert not [part for part in parts if part in str(raised.value)]


@given(st.text(max_size=100))
def test_any_text_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"\A[ -~]{1,200}\Z"):
        parse_keys(text)


def test_keys_are_read_and_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEDANCE_ENCRYPTION_KEYS", f" {as_setting(ONE)} ,\n{as_setting(OTHER)}\n")
    settings = Settings.from_environment()
    assert settings.encryption_keys == (ONE, OTHER)
    assert {ONE.text, OTHER.text} <= set(settings.secrets)
    shown = f"{settings!r} {settings.model_dump(mode='json')} {settings.encryption_keys}"
    assert ONE.text not in shown
    assert repr(ONE.secret) not in shown


def test_without_keys_nothing_changes() -> None:
    settings = Settings.model_validate({})
    assert settings.encryption_keys == ()
    assert settings.shown_user("user-42") == "user-42"
    assert settings.user_key("user-42") == user_hash("user-42")
    assert settings.listed_as("user-42") == ("user-42",)


def test_users_are_named_by_keyed_hash() -> None:
    settings = Settings.model_validate({"seedance_encryption_keys": as_setting(ONE, OTHER)})
    shown = settings.shown_user("user-42")
    assert shown == settings.user_key("user-42") == ONE.pseudonym("user-42")
    assert shown not in {user_hash("user-42"), OTHER.pseudonym("user-42"), ONE.pseudonym("user-43")}
    assert len(shown) == 16
    # Jobs of before a rotation, and of before encryption, are found as well.
    assert settings.listed_as("user-42") == (shown, OTHER.pseudonym("user-42"), "user-42")
    hashed = settings.model_copy(update={"seedance_hash_users": True})
    assert hashed.listed_as("user-42")[-1] == user_hash("user-42")


WRONG_TOKENS = {
    "no pair": "t" * 40,
    "too short": "ann:short",
    "white space": f"ann:{'t' * 40} {'t' * 40}",
    "not ASCII": f"ann:{'é' * 40}",
    "token twice": f"ann:{'t' * 40},bob:{'t' * 40}",
    "name twice": f"ann:{'t' * 40},ann:{'u' * 40}",
}


@pytest.mark.parametrize("text", WRONG_TOKENS.values(), ids=WRONG_TOKENS)
def test_wrong_tokens_are_refused_unquoted(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SEEDANCE_CODEC_TOKENS", text)
    with pytest.raises(InvalidSettings, match=r"\ASEEDANCE_CODEC_TOKENS: [^\n]+\Z") as raised:
        Settings.from_environment()
    assert "tttt" not in str(raised.value)
    assert "short " not in str(raised.value)


@pytest.mark.parametrize(
    "origin", ["temporal.example.com", "https://a.example/ui", "https://u:p@a.example", "https://", "*"]
)
def test_wrong_origin_is_refused(monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    monkeypatch.setenv("SEEDANCE_CODEC_ORIGIN", origin)
    with pytest.raises(InvalidSettings, match="SEEDANCE_CODEC_ORIGIN: is no origin"):
        Settings.from_environment()


def test_origin_loses_its_slash() -> None:
    settings = Settings.model_validate({"seedance_codec_origin": "HTTPS://Temporal.example.com/"})
    assert settings.seedance_codec_origin == "https://temporal.example.com"
