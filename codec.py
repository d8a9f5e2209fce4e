"""The codec endpoint: ``python codec.py``. It shows encrypted payloads in Temporal's UI to those who may read them."""

from __future__ import annotations

import argparse
import logging
import sys

import uvicorn

from seedance_temporal.codec_endpoint import BODY_WITHIN_SECONDS, codec_app
from seedance_temporal.errors import InvalidSettings
from seedance_temporal.payload_encryption import PayloadEncryption
from seedance_temporal.relay_connections import Connection
from seedance_temporal.settings import Settings
from workers.log_format import RedactingFormatter


def main() -> int:
    """Serve until SIGTERM or Ctrl-C.

    Returns:
        The exit code: 2 where a setting is missing or wrong.
    """
    argparse.ArgumentParser(description="The codec endpoint; its settings are environment variables.").parse_args()
    try:
        settings = Settings.from_environment("SEEDANCE_ENCRYPTION_KEYS", "SEEDANCE_CODEC_TOKENS")
    except InvalidSettings as error:
        sys.stderr.write(f"codec: {error}\n")
        return 2
    log = logging.StreamHandler()
    log.setFormatter(RedactingFormatter(settings.secrets))
    logging.basicConfig(level=logging.INFO, handlers=[log])
    uvicorn.run(
        codec_app(PayloadEncryption(settings.encryption_keys), settings.codec_tokens, settings.seedance_codec_origin),
        host=settings.seedance_codec_host,
        port=settings.seedance_codec_port,
        access_log=False,
        log_config=None,
        server_header=False,
        lifespan="off",
        http=Connection,
        timeout_graceful_shutdown=BODY_WITHIN_SECONDS + 1,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
