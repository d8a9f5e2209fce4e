"""The models that are known to this release, a row for each model and route. ``SEEDANCE_MODELS`` changes and adds rows.

The comments name tables of the provider's task API documentation, and marks of sources, as ``models.py`` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date

from seedance_temporal.provider.models import OPTIONAL, PIXELS, WORKS_ON_REFERENCES, Model, Price

# Prices: section "pixels and tokens", the provider's list, official where no T is beside them. They change, and
# contracts differ: SEEDANCE_PRICES overrides them.
_SEEDANCE_2_0 = Model(
    # Table "families", O; that a route takes its own prefix alone, M.
    id="dreamina-seedance-2-0-260128",
    route="byteplus",
    name="Seedance 2.0",
    # Table "body": `resolution`, `duration`, O.
    resolutions=("480p", "720p", "1080p", "4k"),
    durations=range(4, 16),
    # Table "scenes", O. Seconds: table "reference media", O.
    references={"image": 9, "video": 3, "audio": 3},
    reference_seconds=15,
    lone_audio=False,
    # Table "body", O. `service_tier` is not to be sent: an explicit `default` was refused, too.
    optional=frozenset({"priority", "execution_expires_after", "web_search"}),
    # Table "body": in the schema of BytePlus, and on no page, O; one client removed it, T.
    doubtful=frozenset({"web_search"}),
    # "Prompt length and languages", O.
    languages=("Chinese", "English", "Spanish", "Indonesian", "Portuguese", "Japanese"),
    prices={
        "480p": Price(7.0, 4.3),
        "720p": Price(7.0, 4.3),
        "1080p": Price(7.7, 4.7),
        "4k": Price(4.0, 2.4),
    },
)
_SEEDANCE_2_0_FAST = replace(
    _SEEDANCE_2_0,
    id="dreamina-seedance-2-0-fast-260128",
    name="Seedance 2.0 fast",
    resolutions=("480p", "720p"),
    prices={"480p": Price(5.6, 3.3), "720p": Price(5.6, 3.3)},
)
_SEEDANCE_2_0_MINI = replace(
    _SEEDANCE_2_0_FAST,
    id="dreamina-seedance-2-0-mini-260615",
    name="Seedance 2.0 mini",
    prices={"480p": Price(3.5, 2.1), "720p": Price(3.5, 2.1)},
)
_SEEDANCE_2_5 = Model(
    # Table "families", O.
    id="dreamina-seedance-2-5-260628",
    route="byteplus",
    name="Seedance 2.5",
    # Table "body": `resolution`, `duration`, O.
    resolutions=("480p", "720p", "1080p"),
    durations=range(4, 31),
    # Table "scenes", O. That audio needs something beside it is said of 2.0 alone. Seconds: "reference media", O.
    references={"image": 30, "video": 10, "audio": 10},
    reference_seconds=30,
    lone_audio=True,
    # Table "body", O.
    adaptive_scenes=frozenset({"first_frame", "first_and_last_frame"}),
    adaptive_task_types=WORKS_ON_REFERENCES,
    # Table "body", O. No `seed`, no `camera_fixed`.
    optional=frozenset(OPTIONAL) - {"seed", "camera_fixed"},
    doubtful=frozenset({"web_search"}),
    service_tiers=("default",),
    # Korean is among its languages, O; the only one that could be told from the letters of a prompt.
    languages=(),
    # Table "pixels": of its 480p, 16:9 and 9:16 are documented, O; the others are taken to be those of 2.0, I.
    sizes=PIXELS | {"480p": PIXELS["480p"] | {"16:9": (854, 480), "9:16": (480, 854)}},
    prices={"480p": Price(10.7, 6.4), "720p": Price(10.7, 6.4), "1080p": Price(11.7, 7.0)},
)
_SEEDANCE_2_5_PREMIUM = replace(
    _SEEDANCE_2_5,
    # Table "families", T. Its sizes and prices are not known.
    id="dreamina-seedance-2-5-premium-260915",
    name="Seedance 2.5 premium",
    resolutions=("4k",),
    # Drafts have 480p.
    optional=_SEEDANCE_2_5.optional - {"draft"},
    sizes={},
    prices={},
    needs="an account that the provider has put on its list for this model",
)
_SEEDANCE_1_5_PRO = Model(
    # Table "families", O; without a prefix on BytePlus.
    id="seedance-1-5-pro-251215",
    route="byteplus",
    name="Seedance 1.5 pro",
    # Table "body": `resolution`, `duration`, O.
    resolutions=("480p", "720p", "1080p"),
    durations=range(4, 13),
    # Table "scenes" gives numbers for 2.0 and 2.5 alone: not documented for 1.5 pro, and so refused. Text, first frame,
    # and first and last frame are not told apart by model there, O.
    references={},
    reference_seconds=0,
    lone_audio=False,
    # Table "body", O. No `priority`, no `tools`; of the newest fields `draft` only.
    optional=frozenset({"seed", "camera_fixed", "service_tier", "execution_expires_after", "draft"}),
    service_tiers=("default", "flex"),
    # Table "families", O.
    ends=date(2026, 11, 11),
    successor="dreamina-seedance-2-0-mini-260615",
)


def _on_volcengine(model: Model, model_id: str, prices: Mapping[str, Price], successor: str = "") -> Model:
    """Return the row of a model that differs there in its id, its prices, its end, and in what is doubtful."""
    return replace(
        model,
        id=model_id,
        route="volcengine",
        prices=prices,
        doubtful=frozenset(),
        ends=None,
        successor=successor,
    )


_CNY_2_0 = Price(46, 28)
_CNY_2_5 = Price(70, 42)

MODELS = (
    _SEEDANCE_2_0,
    _SEEDANCE_2_0_FAST,
    _SEEDANCE_2_0_MINI,
    _SEEDANCE_2_5,
    _SEEDANCE_2_5_PREMIUM,
    _SEEDANCE_1_5_PRO,
    _on_volcengine(
        _SEEDANCE_2_0,
        "doubao-seedance-2-0-260128",
        # That of 4k: T; that with a reference video is not known.
        {"480p": _CNY_2_0, "720p": _CNY_2_0, "1080p": Price(51, 31), "4k": Price(26, None)},
    ),
    _on_volcengine(
        _SEEDANCE_2_0_FAST, "doubao-seedance-2-0-fast-260128", {"480p": Price(37, 22), "720p": Price(37, 22)}
    ),
    _on_volcengine(
        _SEEDANCE_2_0_MINI, "doubao-seedance-2-0-mini-260615", {"480p": Price(23, 14), "720p": Price(23, 14)}
    ),
    _on_volcengine(
        _SEEDANCE_2_5,
        "doubao-seedance-2-5-260628",
        {"480p": _CNY_2_5, "720p": _CNY_2_5, "1080p": Price(77, 46)},
    ),
    # Its end is announced, O; the day is not known, and its successor that of BytePlus, I.
    _on_volcengine(_SEEDANCE_1_5_PRO, "doubao-seedance-1-5-pro-251215", {}, "doubao-seedance-2-0-mini-260615"),
)
"""Every row, in the order in which people look for them."""

KNOWN: Mapping[str, Model] = {model.id: model for model in MODELS}
"""The rows by model id."""

UNKNOWN_ENDPOINT = replace(_SEEDANCE_2_0, prices={})
"""The rules of an inference endpoint whose model is not known: those of Seedance 2.0, without a price."""
