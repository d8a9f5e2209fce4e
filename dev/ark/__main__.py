"""`python -m dev.ark`: the command line of the local Ark."""

import contextlib
import json
import socket
from typing import Annotated, Any, Literal

import typer
import uvicorn
from pydantic import ValidationError

from .app import build_app
from .faults import KNOWN, Fault
from .settings import REAL_SECONDS, Settings
from .wire import OpenProtocol

_SWITCHES = ", ".join(name for name in Settings.model_fields if name != "public_url")
_FAULTS = "\n\n".join(f"  {operation}: {', '.join(names)}" for operation, names in KNOWN.items())

_HELP = f"""A local server that behaves like the Ark video task API (Seedance), for tests without an account.

It makes real MP4s, bills imaginary tokens, calls back, and fails on demand. Nothing is kept on disk.

Base URLs: http://HOST:PORT/byteplus/api/v3 and http://HOST:PORT/volcengine/api/v3.

Admin API, without a key (JSON):

  GET  /_ark/health      200 once it serves

  GET  /_ark/ledger      every create: body as received, committed, task_id, answer, fault, billed_tokens; leaks

  GET  /_ark/tasks       every task with its inner state; POST /_ark/release {{"task_id"?}} lets held ones go on

  POST /_ark/foreign     {{"route", "project"?, "count"?, "status"?, "age_seconds"?, "fields"?}} adds others' tasks

  GET  /_ark/requests    how often each task was got, deleted, downloaded; lists; answers 429 by its own limits

  GET  /_ark/callbacks   every try to deliver a callback

  POST /_ark/faults      arms a fault; GET lists armed and fired ones; DELETE disarms (also /_ark/faults/ID)

  POST /_ark/config      changes switches while it runs; GET shows them

  POST /_ark/accounts/ROUTE  {{"key_valid": bool}} or {{"standing": "ok" | code}}; GET /_ark/accounts

  POST /_ark/accounts/ROUTE/keys  {{"key", "project"?, "models"?: [model or ep- id]}} adds a key, or replaces what it
  may see; DELETE /_ark/accounts/ROUTE/keys/KEY

  GET  /_ark/results/TASK/video.mp4 (or last_frame.png, .jpeg)   the bytes, without a signature

Switches: {_SWITCHES}.

models is {{MODEL: {{"like": MODEL, "resolutions"?, "longest"?, "ends"?}}}}, endpoints {{EP-ID: MODEL}}.

A fault is {{"on": OPERATION, "fault": NAME, "times": 1 (null: always), "skip": 0}}, and as its kind needs:
route, task_id, contains, seconds, code, message, retry_after, close (rst, fin), body (of other_body), size (of
long_body), status, queued_seconds, running_seconds. Names:

{_FAULTS}
"""


def main(
    port: Annotated[int, typer.Option(help="0: any free one; the first line of output names it.")] = 8089,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    speed: Annotated[
        float,
        typer.Option(
            help="How many times faster than the real service time goes. Divides: "
            + ", ".join(f"{name} ({real:g})" for name, real in REAL_SECONDS.items())
            + ", and execution_expires_after."
        ),
    ] = 1.0,
    api_key: Annotated[list[str] | None, typer.Option(help="Key of byteplus; repeatable.")] = None,
    api_key_cn: Annotated[list[str] | None, typer.Option(help="Key of volcengine; repeatable.")] = None,
    queued_seconds: Annotated[float | None, typer.Option(help="Wall-clock seconds; overrides speed.")] = None,
    running_seconds: Annotated[float | None, typer.Option(help="Wall-clock seconds; overrides speed.")] = None,
    url_seconds: Annotated[
        float | None, typer.Option(help="How long a result URL lives; wall-clock seconds, overrides speed.")
    ] = None,
    kept_seconds: Annotated[
        float | None, typer.Option(help="How long a task is known; wall-clock seconds, overrides speed.")
    ] = None,
    running_limit: Annotated[int | None, typer.Option(help="Tasks of one account that run at once.")] = None,
    callbacks: Annotated[
        Literal["on", "off", "repeated", "reversed", "ends"] | None,
        typer.Option(help="repeated: each one three times; reversed: the last one first; ends: of the end alone."),
    ] = None,
    allow_http_references: Annotated[bool, typer.Option(help="Accept http:// references, too.")] = False,
    fetch_references: Annotated[
        bool, typer.Option(help="Download http(s) references during the create, as the real service does.")
    ] = False,
    public_url: Annotated[
        str | None, typer.Option(help="What result URLs begin with. [default: where it listens]")
    ] = None,
    switch: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any switch; repeatable.")
    ] = None,
    fault: Annotated[
        list[str] | None, typer.Option(metavar="JSON", help="A fault, armed from the start; repeatable.")
    ] = None,
) -> None:
    """Serve until SIGTERM or SIGINT."""
    given: dict[str, Any] = {
        "speed": speed,
        "queued_seconds": queued_seconds,
        "running_seconds": running_seconds,
        "url_seconds": url_seconds,
        "kept_seconds": kept_seconds,
        "running_limit": running_limit,
        "callbacks": callbacks,
        "allow_http_references": allow_http_references or None,
        "fetch_references": fetch_references or None,
    }
    # null is a value where a switch is set by name: some limits take it for "none".
    given = {name: value for name, value in given.items() if value is not None} | dict(map(_switch, switch or []))
    try:
        settings = Settings.model_validate(given)
        faults = [Fault.model_validate_json(text) for text in fault or []]
    except ValidationError as error:
        raise typer.BadParameter(str(error)) from None

    listener = _listen(host, port)
    port = listener.getsockname()[1]
    reachable = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - only compared
    settings.public_url = public_url or f"http://{f'[{reachable}]' if ':' in reachable else reachable}:{port}"
    keys = {"byteplus": api_key or ["local-ark-key"], "volcengine": api_key_cn or ["local-ark-key-cn"]}
    config = uvicorn.Config(
        build_app(settings, keys, faults),  # type: ignore[arg-type]
        http=OpenProtocol,
        ws="none",
        proxy_headers=False,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )
    print(f"local Ark: {settings.public_url}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn ends in good order, then raises the signal again
        uvicorn.Server(config).run(sockets=[listener])


def _switch(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator:
        raise typer.BadParameter(f"expected NAME=VALUE, not {text}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle off only where the protocol is named; with it, each answer takes 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(512)  # from here on a client's connection waits, rather than being refused
    except OSError as error:
        raise typer.BadParameter(f"cannot listen on {host}:{port}: {error.strerror}") from None
    return listener


if __name__ == "__main__":
    application = typer.Typer(add_completion=False, rich_markup_mode=None)
    application.command(help=_HELP)(main)
    application(prog_name="python -m dev.ark")
