"""Generate the parts of reference pages that the code knows, from ``<!-- generated: NAME -->`` to ``<!-- end -->``.

``make tables`` writes them into the pages, so that they can be read without building the site.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from textwrap import dedent

import typer.main
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from seedance_temporal.cli.main import app
from seedance_temporal.encryption_settings import EncryptionSettings
from seedance_temporal.metrics import METRICS
from seedance_temporal.provider import models
from seedance_temporal.provider.known_models import MODELS
from seedance_temporal.request import Reference, Rights, VideoRequest
from seedance_temporal.settings import Settings
from seedance_temporal.spending_limits import SpendingLimits

# Docstrings name other objects by a role, as Sphinx reads it, and begin an example with two colons.
_ROLE = re.compile(r":(?:class|func|meth|mod|data):\s*<code>(?:~|.*?&lt;)?(?:[\w.]*\.)?(\w+)(?:&gt;)?</code>")
_MARK = re.compile(r"<!-- generated: ([a-z-]+) -->\n.*?<!-- end -->", re.DOTALL)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace each mark by its part. MkDocs calls this for every page."""
    return _MARK.sub(lambda mark: _PARTS[mark[1]](), markdown)


def renewed(markdown: str) -> str:
    """Return a page with its parts as the code has them now."""
    return _MARK.sub(lambda mark: f"<!-- generated: {mark[1]} -->\n\n{_PARTS[mark[1]]()}\n\n<!-- end -->", markdown)


def on_page_content(html: str, **_: object) -> str:
    """Show roles of docstrings as plain code. MkDocs calls this for every page."""
    return _ROLE.sub(r"<code>\1</code>", html).replace("<p>::</p>", "")


def command_line() -> str:
    """Return every command with its arguments and options."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    commands = {name: command for name, command in group.commands.items() if isinstance(command, TyperCommand)}
    assert commands
    return "\n\n".join(_command(name, command) for name, command in commands.items())


def request_fields() -> str:
    """Return the fields of a request, of a reference, and of the declared rights."""
    return "\n\n".join(f"## `{shape.__name__}`\n\n{_fields(shape)}" for shape in (VideoRequest, Reference, Rights))


def model_rules() -> str:
    """Return what each model allows."""
    names = dict.fromkeys(model.name for model in MODELS)
    rows = (
        (
            name,
            "<br>".join(f"`{each.id}`" for each in MODELS if each.name == name),
            ", ".join(f"`{resolution}`" for resolution in model.resolutions),
            f"{model.durations[0]} to {model.durations[-1]}, or -1",
            ", ".join(f"{most} {kind}" for kind, most in model.references.items()) or "frames only",
            ", ".join(f"`{field}`" for field in models.OPTIONAL if field in model.optional),
        )
        for name in names
        for model in (next(each for each in MODELS if each.name == name),)
    )
    head = ("model", "ids on BytePlus and Volcengine", "`resolution`", "`duration`", "references", "optional fields")
    return _table(head, rows)


def settings() -> str:
    """Return every setting."""
    rows = (
        (f"`{name.upper()}`", _meaning(Settings, name), _setting_default(field))
        for name, field in sorted(
            Settings.model_fields.items(),
            key=lambda item: [item[0] in part.model_fields for part in (EncryptionSettings, SpendingLimits)],
        )
    )
    return _table(("variable", "meaning", "default"), rows)


def metrics() -> str:
    """Return every metric."""
    rows = (
        (f"`{each.name}`", each.kind, each.meaning, ", ".join(f"`{label}`" for label in each.labels), each.source)
        for each in METRICS
    )
    return _table(("metric", "kind", "meaning", "labels", "from"), rows)


_PARTS: dict[str, Callable[[], str]] = {
    "command-line": command_line,
    "request-fields": request_fields,
    "model-rules": model_rules,
    "settings": settings,
    "metrics": metrics,
}


def _command(name: str, command: TyperCommand) -> str:
    parameters = [part for part in command.params if isinstance(part, TyperArgument | TyperOption)]
    words = [_metavar(part) for part in parameters if isinstance(part, TyperArgument)]
    usage = " ".join(["seedance", name, *words, "[OPTIONS]"])
    rows = ((_name(part), part.help or "", _default(part)) for part in parameters)
    return f"## `{name}`\n\n{command.help}\n\n    {usage}\n\n{_table(('parameter', 'meaning', 'default'), rows)}"


def _metavar(argument: TyperArgument) -> str:
    return argument.metavar or str(argument.name).upper()


def _name(parameter: TyperArgument | TyperOption) -> str:
    names = (
        [*parameter.opts, *parameter.secondary_opts] if isinstance(parameter, TyperOption) else [_metavar(parameter)]
    )
    return ", ".join(f"`{name}`" for name in names)


def _default(parameter: TyperArgument | TyperOption) -> str:
    if parameter.required:
        return "required"
    return "" if parameter.default in {None, False} else f"`{parameter.default}`"


def _fields(shape: type[VideoRequest | Reference | Rights]) -> str:
    rows = (
        (f"`{name}`", _type(field), _field_default(name, field), _meaning(shape, name))
        for name, field in shape.model_fields.items()
    )
    return _table(("field", "type", "default", "meaning"), rows)


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstrings of a model's fields, also of those that it inherits.

    Pydantic could keep them as descriptions, and would parse its modules for that whenever a process starts.
    """
    ours = [each for each in reversed(model.__mro__) if each.__module__.startswith("seedance_temporal")]
    bodies = [ast.parse(dedent(inspect.getsource(each))).body[0] for each in ours]
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for body in bodies
        if isinstance(body, ast.ClassDef)
        for field, text in pairwise(body.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


def _meaning(model: type[BaseModel], name: str) -> str:
    return meanings(model).get(name, "").replace("``", "`").replace("\n", " ")


def _setting_default(field: FieldInfo) -> str:
    if field.default in (None, PydanticUndefined, frozenset()):
        return "none"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def _type(field: FieldInfo) -> str:
    annotation = str(field.annotation)
    if "Reference" in annotation:
        return "list of `Reference`"
    if "dict" in annotation:
        return "texts by name"
    if "Rights" in annotation:
        return "`Rights`"
    kinds = {"str": "text", "int": "whole number", "bool": "true or false"}
    return next(words for kind, words in kinds.items() if re.search(rf"\b{kind}\b", annotation))


def _field_default(name: str, field: FieldInfo) -> str:
    if name == "ratio":
        return "`16:9`; `adaptive` with references"
    if field.is_required():
        return "required"
    if field.default in (None, PydanticUndefined, ()):
        return "absent"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    def lines() -> Iterator[str]:
        yield _row(head)
        yield _row("--" for _ in head)
        yield from map(_row, rows)

    return "\n".join(lines())


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    for page in Path(__file__).parent.glob("reference/*.md"):
        page.write_text(renewed(page.read_text(encoding="utf-8")), encoding="utf-8")
