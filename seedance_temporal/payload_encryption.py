"""Encrypt payloads before they leave for Temporal, by AES-256 in GCM. It needs the extra ``encryption``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

from seedance_temporal.encryption_keys import ENCODING, KEY_ID, EncryptionKey, key_id_of
from seedance_temporal.errors import EncryptionKeyMissing

# Random ones may repeat after 2**32 payloads of a key: docs/how-to/encryption.md says how often to rotate.
_NONCE_BYTES = 12


class PayloadEncryption(PayloadCodec):
    """Encrypt payloads with one key, and decrypt those of all known ones.

    A payload that is not encrypted is decoded as it is: a job can be open while encryption is switched on.

    Args:
        keys: The first one encrypts; there must be one.
    """

    def __init__(self, keys: Sequence[EncryptionKey]) -> None:
        self._key_id = keys[0].id
        self._ciphers: Mapping[str, AESGCM] = {key.id: AESGCM(key.secret) for key in keys}

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Encrypt payloads, with their metadata."""
        return [self._encrypted(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Decrypt payloads.

        Raises:
            EncryptionKeyMissing: The key of one is not known, or is another one.
        """
        return [self.decrypted(payload) for payload in payloads]

    def _encrypted(self, payload: Payload) -> Payload:
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self._key_id].encrypt(nonce, payload.SerializeToString(), _bound_to(self._key_id))
        return Payload(metadata={"encoding": ENCODING.encode(), KEY_ID: self._key_id.encode()}, data=nonce + sealed)

    def decrypted(self, payload: Payload) -> Payload:
        """Decrypt a payload; return one that is not encrypted as it is.

        Raises:
            EncryptionKeyMissing: Its key is not known, or is another one, or its bytes were changed.
        """
        if payload.metadata.get("encoding") != ENCODING.encode():
            return payload
        key_id = key_id_of(payload.metadata)
        if (cipher := self._ciphers.get(key_id)) is None:
            raise EncryptionKeyMissing(key_id)
        nonce, sealed = payload.data[:_NONCE_BYTES], payload.data[_NONCE_BYTES:]
        try:
            return Payload.FromString(cipher.decrypt(nonce, sealed, _bound_to(key_id)))
        except (InvalidTag, ValueError):
            raise EncryptionKeyMissing(key_id, differs=True) from None


def _bound_to(key_id: str) -> bytes:
    """Bind a ciphertext to its format and the id of its key."""
    return f"{ENCODING};{key_id}".encode()
