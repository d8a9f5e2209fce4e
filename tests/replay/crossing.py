"""What crosses Temporal: the models in the signatures of activities and workflows, and of what these are made.

A worker of the present code reads payloads that an earlier one wrote, in histories and, while a fleet is renewed, from
workers that still run. So models may only change in ways that both can read.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cache
from types import MappingProxyType, ModuleType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from temporalio import activity, workflow

import activities
import workflows
from seedance_temporal import contract

Fields = dict[str, dict[str, Any]]
"""The fields of a model: by the name in JSON, whether it is required, and what it accepts."""
Shapes = dict[str, Fields]
"""The fields of all models, by their names."""

MEMO = "the memo"


def _modules(package: ModuleType) -> list[ModuleType]:
    return [
        importlib.import_module(f"{package.__name__}.{found.name}") for found in pkgutil.iter_modules(package.__path__)
    ]


@cache
def activity_definitions() -> Mapping[str, Callable[..., Any]]:
    """Return all activities by their names."""
    classes = {one for module in _modules(activities) for one in vars(module).values() if isinstance(one, type)}
    calls = [call for one in classes for call in vars(one).values() if callable(call)]
    defined = [(activity._Definition.from_callable(call), call) for call in calls]
    return {str(definition.name): call for definition, call in defined if definition is not None}


@cache
def workflow_definitions() -> Mapping[str, workflow._Definition]:
    """Return all workflows by their names."""
    classes = {one for module in _modules(workflows) for one in vars(module).values() if isinstance(one, type)}
    defined = [workflow._Definition.from_class(one) for one in classes]
    return {str(definition.name): definition for definition in defined if definition is not None}


def result_type(name: str) -> Any:
    """Return the type of an activity's result."""
    return get_type_hints(activity_definitions()[name]).get("return")


def crossing_types() -> Iterator[Any]:
    """Return the types of arguments and results, by signature; and what handlers decode by themselves."""
    for call in activity_definitions().values():
        yield from get_type_hints(call, include_extras=True).values()
    for defined in workflow_definitions().values():
        handlers: list[Callable[..., Any]] = [defined.run_fn]
        handlers += [one.fn for one in defined.signals.values()]
        handlers += [one.fn for one in defined.queries.values()]
        for handler in handlers:
            yield from get_type_hints(handler, include_extras=True).values()
    for module in _modules(workflows):
        yield from _decoded_in(module)


def _decoded_in(module: ModuleType) -> Iterator[Any]:
    """Return the models that a module decodes: a signal's handler takes anything, so that it never fails."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Attribute) and node.attr == "model_validate" and isinstance(node.value, ast.Name):
            yield getattr(module, node.value.id)


def models_of(types: Iterable[Any]) -> list[type]:
    """Return the models and dataclasses in types, and those that they are made of."""
    found, open_types = list[type](), list(types)
    while open_types:
        one = open_types.pop()
        open_types.extend(get_args(one))
        if is_model(one) and one not in found:
            found.append(one)
            open_types.extend(annotation for _, _, annotation in _fields(one))
    return sorted(found, key=lambda model: model.__name__)


def is_model(one: Any) -> bool:
    """Return whether a type is a model or a dataclass."""
    return isinstance(one, type) and (issubclass(one, BaseModel) or dataclasses.is_dataclass(one))


def _fields(model: type) -> Iterator[tuple[str, bool, Any]]:
    """Return name in JSON, whether it is required, and annotation of each field."""
    if issubclass(model, BaseModel):
        for name, known in model.model_fields.items():
            yield known.serialization_alias or known.alias or name, known.is_required(), known.annotation
        return
    assert dataclasses.is_dataclass(model)
    hints = get_type_hints(model, include_extras=True)
    for given in dataclasses.fields(model):
        missing = given.default is dataclasses.MISSING and given.default_factory is dataclasses.MISSING
        yield given.name, missing, hints[given.name]


def accepts(annotation: Any) -> set[str]:
    """Return what a field takes, one by one: each literal, each member of a union, each element of a tuple."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return accepts(arguments[0])
    if origin in {Union, UnionType}:
        return set[str]().union(*map(accepts, arguments))
    if origin is Literal:
        return set(map(repr, arguments))
    if origin is not None:
        inner = [argument for argument in arguments if argument is not Ellipsis]
        return {f"{origin.__name__} of {one}" for argument in inner for one in accepts(argument)}
    if annotation in {None, NoneType}:
        return {"None"}
    return {getattr(annotation, "__name__", str(annotation))}


def shapes_of(models: Iterable[type]) -> Shapes:
    """Return the fields of models.

    Raises:
        ValueError: Two models have one name.
    """
    shapes = Shapes()
    for model in models:
        if model.__name__ in shapes:
            raise ValueError(f"two models that cross Temporal are named {model.__name__}")
        shapes[model.__name__] = {
            name: {"required": required, "accepts": sorted(accepts(annotation))}
            for name, required, annotation in _fields(model)
        }
    return shapes


def present_shapes() -> Shapes:
    """Return the fields of all that crosses Temporal today, the memo included."""
    memo = {str(name): value for name, value in vars(contract).items() if name.startswith("MEMO_")}
    fields: Fields = {value: {"required": False, "accepts": ["Any"]} for value in memo.values()}
    return shapes_of(models_of(crossing_types())) | {MEMO: fields}


def closed_models() -> set[str]:
    """Return the models that take no unknown field: one that is removed would make earlier payloads unreadable."""
    models = [model for model in models_of(crossing_types()) if issubclass(model, BaseModel)]
    return {model.__name__ for model in models if model.model_config.get("extra") == "forbid"}


def problems(
    before: Shapes, now: Shapes, removed: Mapping[str, str] = MappingProxyType({}), closed: Collection[str] = ()
) -> list[str]:
    """Explain what one of both could not read: code of before, or of now.

    Args:
        removed: Fields and models that were removed on purpose, as ``Model`` or ``Model.field``, with the reasons.
        closed: Models that take no unknown field.
    """
    found = list[str]()
    for model, fields in before.items():
        if model not in now:
            found += [] if model in removed else [f"{model} crosses Temporal no more. {_REMOVED}"]
            continue
        for name, present in now[model].items():
            earlier = fields.get(name)
            if present["required"] and (earlier is None or not earlier["required"]):
                what = "is new, and has no default" if earlier is None else "has no default any more"
                found.append(f"{model}.{name} {what}. {_REQUIRED}")
            if earlier is not None and (lost := sorted({*earlier["accepts"]} - {*present["accepts"]})):
                found.append(f"{model}.{name} does not take {', '.join(lost)} any more. {_NARROWED}")
        gone = [f"{model}.{name}" for name in fields if name not in now[model]]
        if model in closed:
            found += [f"{field} is removed. {_CLOSED}" for field in gone]
        else:
            found += [f"{field} is removed. {_REMOVED}" for field in gone if field not in removed]
    return found


_REQUIRED = (
    "A payload that earlier code wrote lacks it, and the job that holds it could not be decoded, over and over "
    '("Failed decoding arguments"). Give it a default that means what the code did before.'
)
_CLOSED = "Its model takes no unknown field, so earlier payloads could not be decoded. Keep it with its default."
_NARROWED = "Payloads that earlier code wrote can hold it. Take it on, and only stop writing it."
_REMOVED = (
    "Workers of earlier code read it while a fleet is renewed, and jobs in their histories hold it. Keep it with its "
    "default until nothing of that code runs; where that is so, name it in REMOVED, with the reason."
)
