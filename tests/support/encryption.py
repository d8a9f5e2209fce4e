"""Keys of encryption, and clients that have one."""

from __future__ import annotations

import os
from base64 import b64encode

from temporalio.client import Client

from seedance_temporal.data_converter import data_converter
from seedance_temporal.encryption_keys import parse_keys


def a_key_setting(key_id: str) -> str:
    """Return a new key, as an entry of SEEDANCE_ENCRYPTION_KEYS."""
    return f"{key_id}:{b64encode(os.urandom(32)).decode()}"


def encrypting(client: Client) -> Client:
    """Return a client of the same server that encrypts with a new key."""
    keys = parse_keys(a_key_setting("k1"))
    config = client.config()
    config["data_converter"] = data_converter(keys)
    return Client(**config)
