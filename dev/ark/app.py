"""The whole server as one ASGI application."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as HttpRoute

from .accounts import Account
from .admin import Admin
from .api import Api
from .callbacks import Callbacks
from .catalog import ROUTES, Route
from .errors import ArkError, new_request_id, stamp
from .faults import Fault, Faults
from .keys import Key
from .ledger import Ledger
from .provider import Provider, Task, payload
from .results import Downloads, Results
from .settings import Settings


def build_app(settings: Settings, keys: dict[Route, list[str]], faults: Sequence[Fault] = ()) -> Starlette:
    """Build the application. It must be served by `wire.OpenProtocol`, which lets faults reach the connection.

    Args:
        settings: the switchboard, which the admin API changes in place.
        keys: the valid API keys of each route, all of one project, with permission All; the admin API changes them.
        faults: armed from the start.
    """
    accounts = {route: Account(route, [Key(key=key) for key in keys.get(route, [])], settings) for route in ROUTES}
    ledger, armed, results = Ledger(), Faults(), Results(settings)
    for fault in faults:
        armed.arm(fault)
    callbacks = Callbacks(settings, lambda task: payload(task, results.urls(task), settings.extra_fields))

    def on_change(task: Task) -> None:
        if task.status == "succeeded":
            ledger.billed(task.id, task.request.tokens)
        callbacks.changed(task)

    provider = Provider(settings, armed, on_change)
    api = Api(settings, accounts, armed, ledger, provider, results)
    admin = Admin(settings, accounts, armed, ledger, provider, results, callbacks)
    downloads = Downloads(provider, results, armed, ledger)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        living = asyncio.create_task(provider.run())
        try:
            yield
        finally:
            living.cancel()
            await callbacks.close()

    return Starlette(
        routes=[
            *admin.routes(),
            HttpRoute("/results/{task_id}/{file}", downloads.get, methods=["GET", "HEAD"]),
            *api.routes(),
            HttpRoute("/{path:path}", _not_found),
        ],
        lifespan=lifespan,
    )


async def _not_found(request: Request) -> Response:
    request_id = new_request_id()
    error = ArkError(404, "NotFound", f"There is nothing at {request.url.path}.")
    return stamp(error.response(request_id), request, request_id)
