"""The names of environment variables, and what a misspelt one was meant to be."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from difflib import get_close_matches

from seedance_temporal.urls import printable

# What Temporal's environment configuration reads.
_OF_TEMPORAL = frozenset(
    f"TEMPORAL_{name}"
    for name in (
        *("ADDRESS", "NAMESPACE", "API_KEY", "PROFILE", "CONFIG_FILE", "CODEC_ENDPOINT", "CODEC_AUTH", "TLS"),
        *("TLS_CLIENT_CERT_PATH", "TLS_CLIENT_CERT_DATA", "TLS_CLIENT_KEY_PATH", "TLS_CLIENT_KEY_DATA"),
        *("TLS_SERVER_CA_CERT_PATH", "TLS_SERVER_CA_CERT_DATA", "TLS_SERVER_NAME", "TLS_DISABLE_HOST_VERIFICATION"),
    )
)
# How alike a name must be to one that is known.
_ALIKE = 0.85


def misspelt(names: Iterable[str]) -> list[str]:
    """Say which variables are none of this project, and which ones are meant: a limit must not pass in silence.

    Other programs read ``ARK_…`` and ``TEMPORAL_…`` as well, so of those only what is much like one of ours counts.

    Args:
        names: The variables of this project.

    Returns:
        A sentence for each.
    """
    own = set(names)
    spellings = Counter(variable.upper() for variable in os.environ)
    found = [f"{name} is set in two spellings: remove one" for name in sorted(own) if spellings[name] > 1]
    for variable in sorted(os.environ):
        name = variable.upper()[:100]
        first = name.partition("_")[0]
        is_ours = first.startswith("SEEDANCE") or bool(get_close_matches(first, ["SEEDANCE"], cutoff=_ALIKE))
        shared = name.startswith(("ARK_", "TEMPORAL_")) and not name.startswith("TEMPORAL_CLI_")
        if name in own | _OF_TEMPORAL or not (is_ours or shared):
            continue
        meant = get_close_matches(name, own | _OF_TEMPORAL, n=1, cutoff=_ALIKE)
        if meant:
            found.append(f"{printable(variable[:100])} is not known: {meant[0]} is meant?")
        elif is_ours:
            found.append(f"{printable(variable[:100])} is not known: remove it, or correct its name")
    return found
