"""The webhook relay: ``python relay.py``. To mount it in another application, see ``seedance_temporal/relay.py``."""

from __future__ import annotations

import argparse
import logging
import sys
from functools import partial

import uvicorn
from temporalio.common import MetricMeter

from seedance_temporal import connect
from seedance_temporal.errors import InvalidSettings
from seedance_temporal.metrics import metrics_runtime
from seedance_temporal.relay import ANSWER_WITHIN_SECONDS, relay_app
from seedance_temporal.relay_connections import Connection
from seedance_temporal.settings import Settings
from workers.log_format import RedactingFormatter
from workers.private_logs import keep_private


def main() -> int:
    """Serve until SIGTERM or Ctrl-C.

    Returns:
        The exit code: 2 where a setting is missing or wrong.
    """
    argparse.ArgumentParser(description="The webhook relay; its settings are environment variables.").parse_args()
    try:
        settings = Settings.from_environment("SEEDANCE_CALLBACK_SECRET")
        address = settings.seedance_metrics_address
        runtime = metrics_runtime(address) if address is not None else None
    except InvalidSettings as error:
        sys.stderr.write(f"relay: {error}\n")
        return 2
    log = logging.StreamHandler()
    log.setFormatter(RedactingFormatter(settings.secrets))
    if settings.encryption_keys:
        keep_private(log)
    logging.basicConfig(level=logging.INFO, handlers=[log])
    previous = settings.seedance_callback_secret_previous
    secrets = [s.get_secret_value() for s in (settings.seedance_callback_secret, previous) if s is not None]
    uvicorn.run(
        relay_app(
            partial(connect, settings=settings, runtime=runtime),
            secrets,
            meter=runtime.metric_meter if runtime else MetricMeter.noop,
        ),
        host=settings.seedance_relay_host,
        port=settings.seedance_relay_port,
        access_log=False,  # its lines would hold the tokens
        log_config=None,
        server_header=False,
        lifespan="off",
        http=Connection,
        timeout_graceful_shutdown=ANSWER_WITHIN_SECONDS + 1,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
