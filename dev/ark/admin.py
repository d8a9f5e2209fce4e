"""The admin API below `/_ark`: the ledger, the faults, the switchboard. It needs no key."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as HttpRoute

from .accounts import Account, AccountChange
from .callbacks import Callbacks
from .catalog import Route, default_model_id
from .errors import ArkError
from .faults import Fault, Faults
from .keys import DEFAULT_PROJECT, Key
from .ledger import Ledger
from .provider import Provider, Task, payload
from .request import TaskRequest
from .results import TYPES, Results, read_object, serve_bytes
from .settings import Settings
from .validate import read_request


class Foreign(BaseModel):
    """Tasks that other applications of the account created: noise in the listings of everybody else."""

    model_config = ConfigDict(extra="forbid")

    route: Route
    project: str = Field(DEFAULT_PROJECT, description="whose keys see them")
    count: int = Field(1, ge=1, le=10_000)
    status: str = "succeeded"
    age_seconds: float = Field(0, ge=0, description="how long ago they were created, in seconds of the wall clock")
    fields: dict[str, Any] = Field(default_factory=dict, description="of the create; only what differs")

    def request(self, settings: Settings) -> TaskRequest:
        """Read the create request of such a task.

        Raises:
            ArkError: the service would refuse it.
        """
        usual = {"model": default_model_id(self.route), "content": [{"type": "text", "text": "somebody else's"}]}
        return read_request(self.route, usual | self.fields, settings)


@dataclass
class Admin:
    """The requests of tests and demos to the server itself.

    A request that it cannot read gets 422 and `{"problem": …}`; pydantic's errors are ValueErrors, too.
    """

    settings: Settings
    accounts: dict[Route, Account]
    faults: Faults
    ledger: Ledger
    provider: Provider
    results: Results
    callbacks: Callbacks

    def routes(self) -> list[HttpRoute]:
        """All paths of the admin API."""
        return [
            HttpRoute("/_ark/health", self.health, methods=["GET"]),
            HttpRoute("/_ark/config", self.config, methods=["GET", "POST"]),
            HttpRoute("/_ark/accounts", self.all_accounts, methods=["GET"]),
            HttpRoute("/_ark/accounts/{route}", self.account, methods=["POST"]),
            HttpRoute("/_ark/accounts/{route}/keys", self.put_key, methods=["POST"]),
            HttpRoute("/_ark/accounts/{route}/keys/{key:path}", self.remove_key, methods=["DELETE"]),
            HttpRoute("/_ark/faults", self.all_faults, methods=["GET", "POST", "DELETE"]),
            HttpRoute("/_ark/faults/{fault_id:int}", self.one_fault, methods=["DELETE"]),
            HttpRoute("/_ark/ledger", self.the_ledger, methods=["GET"]),
            HttpRoute("/_ark/requests", self.requests, methods=["GET"]),
            HttpRoute("/_ark/callbacks", self.all_callbacks, methods=["GET"]),
            HttpRoute("/_ark/tasks", self.tasks, methods=["GET"]),
            HttpRoute("/_ark/release", self.release, methods=["POST"]),
            HttpRoute("/_ark/foreign", self.foreign, methods=["POST"]),
            HttpRoute("/_ark/results/{task_id}/{file}", self.result, methods=["GET"]),
        ]

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def config(self, request: Request) -> Response:
        if request.method == "POST":
            try:
                self.settings.apply(await _object(request))
            except ValueError as error:
                return _problem(error)
        return JSONResponse(self.settings.model_dump(mode="json"))

    async def all_accounts(self, request: Request) -> Response:
        return JSONResponse({route: account.state() for route, account in self.accounts.items()})

    async def account(self, request: Request) -> Response:
        return await self._on_account(request, lambda account, body: account.change(AccountChange.model_validate(body)))

    async def put_key(self, request: Request) -> Response:
        return await self._on_account(request, lambda account, body: account.put_key(Key.model_validate(body)))

    async def remove_key(self, request: Request) -> Response:
        return await self._on_account(request, lambda account, _: account.remove_key(request.path_params["key"]))

    async def all_faults(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.faults.remove()
        if request.method == "POST":
            try:
                armed = self.faults.arm(Fault.model_validate(await _object(request)))
            except ValueError as error:
                return _problem(error)
            return JSONResponse(armed.model_dump(), 201)
        return JSONResponse(self.faults.report())

    async def one_fault(self, request: Request) -> Response:
        self.faults.remove(request.path_params["fault_id"])
        return JSONResponse(self.faults.report())

    async def the_ledger(self, request: Request) -> Response:
        return JSONResponse(
            {
                "creates": [entry.model_dump() for entry in self.ledger.creates],
                "leaks": [leak.model_dump() for leak in self.ledger.leaks],
            }
        )

    async def requests(self, request: Request) -> Response:
        return JSONResponse(self.ledger.requests().model_dump())

    async def all_callbacks(self, request: Request) -> Response:
        return JSONResponse({"deliveries": [d.model_dump() for d in self.callbacks.deliveries]})

    async def tasks(self, request: Request) -> Response:
        return JSONResponse({"tasks": [self._inside(task) for task in self.provider.tasks.values()]})

    async def release(self, request: Request) -> Response:
        try:
            body = await _object(request)
        except ValueError as error:
            return _problem(error)
        return JSONResponse({"released": self.provider.release(body.get("task_id"))})

    async def foreign(self, request: Request) -> Response:
        try:
            wanted = Foreign.model_validate(await _object(request))
            task_request = wanted.request(self.settings)
        except (ValueError, ArkError) as error:
            return _problem(error)
        added = [
            self.provider.add_foreign(wanted.route, wanted.project, task_request, wanted.status, wanted.age_seconds)
            for _ in range(wanted.count)
        ]
        return JSONResponse({"added": [task.id for task in added]}, 201)

    async def result(self, request: Request) -> Response:
        task = self.provider.tasks.get(request.path_params["task_id"])
        file = request.path_params["file"]
        try:
            if task is None:
                raise ArkError(404, "NoSuchKey", "There is no such task.")
            data = await read_object(task, file)
        except ArkError as error:
            return JSONResponse({"problem": error.message}, error.status)
        return serve_bytes(request, data, TYPES[file])

    async def _on_account(self, request: Request, change: Callable[[Account, dict[str, Any]], None]) -> Response:
        account = next((a for a in self.accounts.values() if a.route == request.path_params["route"]), None)
        if account is None:
            return JSONResponse({"problem": "no such route"}, 404)
        try:
            change(account, await _object(request))
        except ValueError as error:
            return _problem(error)
        return JSONResponse(account.state())

    def _inside(self, task: Task) -> dict[str, Any]:
        # No result URLs here: asking must not sign any.
        return payload(task, {}, {}) | {
            "route": task.route,
            "project": task.project,
            "model_given": task.request.model_given,
            "scene": task.request.scene,
            "callback_url": task.request.callback_url,
            "watermark": task.request.watermark,
            "return_last_frame": task.request.return_last_frame,
            "tokens": task.request.tokens,
            "width": task.request.clip.width,
            "height": task.request.clip.height,
            "request": {
                "ratio": task.request.ratio,
                "resolution": task.request.resolution,
                "duration": task.request.duration,
                "seed": task.request.seed,
            },
            "fault": task.fate(),
            "erased": task.erased,
        }


async def _object(request: Request) -> dict[str, Any]:
    """Read the body.

    Raises:
        ValueError: it is no JSON object.
    """
    body = json.loads(await request.body() or b"{}")
    if not isinstance(body, dict):
        raise ValueError("expected a JSON object")
    return body


def _problem(error: Exception) -> Response:
    return JSONResponse({"problem": str(error)}, 422)
