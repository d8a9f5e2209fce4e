"""The worker of one route: ``python worker.py``. It runs the workflows and all activities.

``python worker.py --check`` prints the effective settings without secrets, and tries Temporal, bucket and provider
without spending anything.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys

from seedance_temporal.errors import InvalidSettings
from seedance_temporal.provider.ark import Ark
from seedance_temporal.settings import Settings
from seedance_temporal.storage.bucket import GoogleBucket
from workers.check import check
from workers.log_format import RedactingFormatter
from workers.private_logs import keep_private
from workers.serve import serve


def main() -> int:
    """Run the worker, or its check.

    Returns:
        The exit code: 2 where a setting is missing or wrong, 1 where the check found something.
    """
    parser = argparse.ArgumentParser(description="The worker of one Seedance route.")
    parser.add_argument("--check", action="store_true", help="print the settings, try all parts, and end")
    arguments = parser.parse_args()
    log = logging.StreamHandler()
    log.setFormatter(RedactingFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[log])
    try:
        settings = Settings.from_environment("ARK_API_KEY", "SEEDANCE_BUCKET")
        assert settings.ark_api_key is not None
        assert settings.seedance_bucket is not None
        bucket = GoogleBucket(settings.seedance_bucket)
        ark = Ark(settings.base_url, settings.ark_api_key.get_secret_value(), settings.secrets)
        log.setFormatter(RedactingFormatter(settings.secrets))
        if settings.encryption_keys:
            keep_private(log)
        if arguments.check:
            return 0 if asyncio.run(check(settings, bucket, ark)) else 1
        asyncio.run(serve(settings, bucket, ark))
    except InvalidSettings as error:
        sys.stderr.write(f"worker: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
