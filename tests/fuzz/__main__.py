"""``make fuzz``: run the fuzz tests in rounds, each by a seed of its own, and say how to repeat a failure."""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time

_TIMES = "10"


def main() -> int:
    """Run the command line; return 1 where a test failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="no round begins after them")
    parser.add_argument("--seed", type=int, help="one round, by this seed")
    arguments = parser.parse_args()
    began, failed, rounds = time.monotonic(), list[int](), 0
    first = random.SystemRandom().randrange(10**9) if arguments.seed is None else arguments.seed
    while True:
        number = first + rounds
        ended = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "tests/fuzz",
                "-q",
                "-p",
                "no:cacheprovider",
                f"--hypothesis-seed={number}",
            ],
            env=os.environ | {"FUZZ_TIMES": _TIMES},
            check=False,
        )
        rounds += 1
        minutes = (time.monotonic() - began) / 60
        if ended.returncode:
            failed.append(number)
            sys.stdout.write(f"round {number} failed. Repeat it: make fuzz SEED={number}\n")
        sys.stdout.write(f"{minutes:.1f} min, {rounds} rounds, {len(failed)} of them failed: {failed}\n")
        sys.stdout.flush()
        if arguments.seed is not None or minutes >= arguments.minutes:
            return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
