"""The data converter that all parties share: JSON by pydantic, encrypted where ``SEEDANCE_ENCRYPTION_KEYS`` says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.contrib.pydantic import PydanticPayloadConverter, pydantic_data_converter
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    DefaultFailureConverterWithEncodedAttributes,
    EncodingPayloadConverter,
)

from seedance_temporal.encryption_keys import ENCODING, EncryptionKey, key_id_of
from seedance_temporal.errors import EncryptionKeyMissing, InvalidSettings


def data_converter(keys: Sequence[EncryptionKey] = ()) -> DataConverter:
    """Return the converter of values, payloads and failures.

    Args:
        keys: Without any, payloads are left in the clear, and encrypted ones are refused with the id of their key.

    Raises:
        InvalidSettings: There are keys, and the package ``cryptography`` is not installed.
    """
    readable = replace(pydantic_data_converter, payload_converter_class=_PayloadConverter)
    if not keys:
        return readable
    try:
        from seedance_temporal.payload_encryption import PayloadEncryption
    except ModuleNotFoundError:
        raise InvalidSettings(
            "SEEDANCE_ENCRYPTION_KEYS is set, and the package cryptography is not installed: "
            "pip install 'seedance-temporal[encryption]'"
        ) from None
    return replace(
        readable,
        payload_codec=PayloadEncryption(keys),
        # Messages and stack traces quote requests and URLs.
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
    )


async def message_of(failure: Failure, converter: DataConverter) -> str:
    """Return the message of a failure as the server has it, decrypted where it is encrypted.

    Raises:
        EncryptionKeyMissing: It is encrypted with a key that is not known here.
    """
    if not failure.HasField("encoded_attributes"):
        return failure.message
    (attributes,) = await converter.decode([failure.encoded_attributes])
    return str(attributes["message"])


class _PayloadConverter(CompositePayloadConverter):
    """Pydantic's converters, and one that says which key is missing. A codec that has the key leaves it nothing."""

    def __init__(self) -> None:
        super().__init__(*PydanticPayloadConverter().converters.values(), _Encrypted())


class _Encrypted(EncodingPayloadConverter):
    @property
    def encoding(self) -> str:
        return ENCODING

    def to_payload(self, value: Any) -> Payload | None:
        return None

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:
        raise EncryptionKeyMissing(key_id_of(payload.metadata))
