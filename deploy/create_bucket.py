"""Create the bucket on the local bucket server, as soon as that answers, unless it exists."""

from __future__ import annotations

import os
import sys
import time

import httpx

SECONDS = 60


def main() -> int:
    """Create the bucket. Return the exit code: 1 where that failed."""
    url = os.environ["STORAGE_EMULATOR_HOST"] + "/storage/v1/b"
    problem = ""
    for _ in range(SECONDS):
        try:
            answer = httpx.post(url, json={"name": os.environ["SEEDANCE_BUCKET"]})
        except httpx.TransportError as error:
            problem = str(error)
        else:
            if answer.is_success or answer.status_code == httpx.codes.CONFLICT:
                return 0
            problem = f"{answer.status_code} {answer.text[:200]}"
        time.sleep(1)
    sys.stderr.write(f"create_bucket: {url}: {problem}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
