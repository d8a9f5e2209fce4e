"""``worker.py`` with the loggers of all its parts at DEBUG: ``python -m tests.fuzz.debug_worker``."""

from __future__ import annotations

import logging
import runpy

for part in (
    "activities",
    "asyncio",
    "google",
    "httpcore",
    "httpx",
    "seedance_temporal",
    "temporalio",
    "urllib3",
    "worker",
):
    logging.getLogger(part).setLevel(logging.DEBUG)
runpy.run_path("worker.py", run_name="__main__")
