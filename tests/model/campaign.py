"""``make model``: run scripts for a while, each batch by a seed of its own, and say how to repeat a failure."""

from __future__ import annotations

import argparse
import logging
import random
import sys
import time
import traceback
from collections import Counter

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings

from tests.model.run import run_script
from tests.model.script import Script, scripts

_BATCH = 100


class Search:
    """Examples by seeds, and what they have met."""

    def __init__(self) -> None:
        self.examples = 0
        self.seen: Counter[str] = Counter()

    def batch(self, number: int, examples: int, *, shrink: bool = True) -> None:
        """Run the examples of one seed.

        Raises:
            AssertionError: One of them breaks a promise; the message holds the smallest script that does.
        """

        @seed(number)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            verbosity=Verbosity.quiet,
            phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
            suppress_health_check=list(HealthCheck),
        )
        @given(scripts())
        def run(script: Script) -> None:
            self.seen += run_script(script)
            self.examples += 1

        run()


def main() -> int:
    """Run the command line; return 1 where a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, help="one batch, by this seed")
    parser.add_argument("--goes-on", action="store_true", help="go on after a failure, with the next seed")
    arguments = parser.parse_args()
    # What fails on purpose is logged by the code under test.
    logging.disable(logging.CRITICAL)
    search, began, failures = Search(), time.monotonic(), 0
    first = random.SystemRandom().randrange(10**9) if arguments.seed is None else arguments.seed
    number = first
    while True:
        try:
            search.batch(number, _BATCH)
        except Exception:
            failures += 1
            traceback.print_exc(limit=-6, chain=False)
            sys.stdout.write(f"seed {number} fails. Repeat it: make model SEED={number}\n")
            if not arguments.goes_on:
                break
        minutes = (time.monotonic() - began) / 60
        rate = search.examples / minutes / 60
        sys.stdout.write(f"{minutes:.1f} min, seed {number}: {search.examples} examples, {rate:.1f} a second\n")
        sys.stdout.flush()
        if arguments.seed is not None or minutes >= arguments.minutes:
            break
        number += 1
    sys.stdout.writelines(f"{times:8} {kind}\n" for kind, times in sorted(search.seen.items()))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
