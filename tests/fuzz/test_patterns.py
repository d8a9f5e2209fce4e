"""Every regular expression of the product, on long texts that repeat themselves: its time is linear."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import activities
import seedance_temporal
import workers
import workflows
from tests.fuzz.size import examples

_LENGTH = 60_000
# Of the processor. A search that is linear takes some milliseconds; a quadratic one, minutes.
_MOST_SECONDS = 1.0


def modules() -> Iterator[ModuleType]:
    for package in (activities, seedance_temporal, workers, workflows):
        yield package
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            yield importlib.import_module(found.name)


def patterns() -> Iterator[tuple[str, Callable[[str], object]]]:
    """Return how each expression is applied: at the beginning of a text alone, or anywhere in it."""
    for module in modules():
        source = inspect.getsource(module)
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern):
                is_sought = re.search(rf"\b{name}\.(search|sub|finditer|findall|split)\(", source)
                yield f"{module.__name__}.{name}", partial(value.sub, "") if is_sought else value.match


PATTERNS = dict(patterns())
# What expressions are about: letters, digits, white space, marks; and what most of them begin with.
_MARKS = "aZ0_ \t\n:/\\.-+%&=?#@\"'<>[](){}*|~;,é한😀"
_PIECES = [*_MARKS, "://", "http://", "%3A%2F%2F", "callbacks/", "--", "x-tos-signature", "sig="]


@pytest.mark.parametrize("name", PATTERNS)
@settings(max_examples=examples(5), phases=[Phase.generate])
@given(pieces=st.lists(st.sampled_from(_PIECES), min_size=1, max_size=3), end=st.sampled_from([*_PIECES, ""]))
def test_search_takes_linear_time(name: str, pieces: list[str], end: str) -> None:
    pumped = "".join(pieces)
    text = pumped * (_LENGTH // len(pumped)) + end
    began = time.thread_time()
    PATTERNS[name](text)
    assert time.thread_time() - began < _MOST_SECONDS
