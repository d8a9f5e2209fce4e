"""The order in which a coming version of the SDK delivers what arrives at once: its workflow logic flag 2.

Signals, cancels and results of one activation then come together. ``COMING_SDK=1`` switches it on for all workers of
``tests/workflows``, and for the worker processes of ``tests/faults``.
"""

from __future__ import annotations

import os

from temporalio.worker import Worker, _workflow
from temporalio.worker._workflow_instance import _WorkflowLogicFlag

_FLAG = _WorkflowLogicFlag.PROCESS_WORKFLOW_ACTIVATION_JOBS_AS_SINGLE_BATCH


def is_wanted() -> bool:
    return os.environ.get("COMING_SDK") == "1"


def switch_on(worker: Worker) -> None:
    worker._set_default_workflow_logic_flag(_FLAG, enabled=True)


def switch_on_everywhere() -> None:
    """Switch it on for all workers that this process makes from now on."""
    vars(_workflow)["_DEFAULT_ENABLED_WORKFLOW_LOGIC_FLAGS"] = frozenset({_FLAG})
