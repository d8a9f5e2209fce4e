"""The provider's own API: create, get, list, delete, on both routes."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as HttpRoute

from .accounts import Account, Operation
from .catalog import Route, model_of
from .errors import ArkError, invalid, new_request_id, stamp
from .faults import AFTER_COMMIT, ASKING, BEFORE_COMMIT, ON_ANSWER, Armed, Faults, act
from .keys import Key
from .ledger import CreateEntry, Ledger
from .provider import ENDED, Provider, Task, new_id, payload
from .references import check_media, fetch
from .request import TaskRequest
from .results import Results
from .settings import Settings
from .validate import draft_of, read_body, read_final, read_request
from .wire import Cut, Drip, Drop

_PATH = "/{route}/api/v3/contents/generations/tasks"
_STATUSES = ("queued", "running", *ENDED)


@dataclass
class Api:
    """The operations of the API."""

    settings: Settings
    accounts: dict[Route, Account]
    faults: Faults
    ledger: Ledger
    provider: Provider
    results: Results

    def routes(self) -> list[HttpRoute]:
        """The paths of both routes."""
        return [
            HttpRoute(_PATH, self.create, methods=["POST"]),
            HttpRoute(_PATH, self._answering(self._list), methods=["GET"]),
            HttpRoute(_PATH + "/{task_id:path}", self._answering(self._get), methods=["GET"]),
            HttpRoute(_PATH + "/{task_id:path}", self._answering(self._delete), methods=["DELETE"]),
        ]

    async def create(self, request: Request) -> Response:
        """`POST …/tasks`: every one is in the ledger, with its outcome."""
        request_id = new_request_id()
        try:
            raw = await request.body()
        except ClientDisconnect:
            return Drop()
        try:
            route = self._route(request)
        except ArkError as error:
            return stamp(error.response(request_id), request, request_id)
        entry = self.ledger.received(route, _readable(raw), request_id, request.headers.get("x-client-request-id"))
        try:
            response = await self._create(request, route, raw, entry)
        except ArkError as error:
            entry.code = error.code
            response = error.response(request_id)
        entry.answer = "lost" if isinstance(response, Drop) else response.status_code
        return stamp(response, request, request_id)

    async def _create(self, request: Request, route: Route, raw: bytes, entry: CreateEntry) -> Response:
        before = self.faults.take("create", BEFORE_COMMIT, route=route, body=raw)
        if before is not None:
            entry.fault = before.fault
            response = await act(before, request)
            assert response is not None, "no fault before the commit lets the create go on"
            return response
        key = self._admit("create", route, request)
        body = read_body(raw)
        draft = self._draft(route, key, body)
        task_request = read_request(route, body, self.settings) if draft is None else read_final(body, draft)
        key.check_request(task_request)
        self._admit_create(route, is_4k=task_request.limited_as_4k)
        if self.settings.fetch_references or self.settings.inspect_references:
            contents = await fetch(task_request.references)
            model = model_of(route, task_request.model, self.settings.models)
            if self.settings.inspect_references and model is not None:
                await asyncio.to_thread(check_media, contents, model.longest)
        task = self.provider.create(route, key.project, task_request, raw)
        self.ledger.committed(entry, task.id, *self.provider.alive_beside(task))
        after = self.faults.take("create", AFTER_COMMIT, route=route, task_id=task.id, body=raw)
        if after is None:
            return JSONResponse(self._accepted(task))
        entry.fault = after.fault
        return await _spoil(after, request, self._accepted(task))

    def _draft(self, route: Route, key: Key, body: dict[str, Any]) -> TaskRequest | None:
        """Return the request of the draft whose final a create asks for; None where it asks for none.

        Raises:
            ArkError: 400: the draft cannot be had.
        """
        draft_id = draft_of(body)
        if draft_id is None:
            return None
        try:
            task = self.provider.find(route, key, draft_id)
        except ArkError:
            raise invalid("content[0].draft_task.id", "there is no such task") from None
        if task.status != "succeeded" or not task.request.draft:
            raise invalid("content[0].draft_task.id", "it is no draft that has succeeded")
        return task.request

    def _admit_create(self, route: Route, *, is_4k: bool) -> None:
        try:
            self.accounts[route].admit_create(is_4k=is_4k)
        except ArkError:
            self.ledger.rate_limited["create"] += 1
            raise

    def _accepted(self, task: Task) -> dict[str, Any]:
        """Return the answer to a create."""
        echo = self.settings.create_echo and task.request.safety_identifier is not None
        return {"id": task.id} | ({"safety_identifier": task.request.safety_identifier} if echo else {})

    async def _get(self, request: Request, route: Route) -> Response:
        task_id = request.path_params["task_id"]
        self.ledger.asked("get", task_id)
        self.ledger.arrived("get", route)
        await self._go_wrong("get", route, request)
        key = self._admit("get", route, request)
        task = self.provider.find(route, key, task_id)
        return self._answer("get", route, request, self._shown(task))

    async def _delete(self, request: Request, route: Route) -> Response:
        task_id = request.path_params["task_id"]
        self.ledger.asked("delete", task_id)
        self.ledger.arrived("delete", route)
        await self._go_wrong("delete", route, request)
        key = self._admit("delete", route, request)
        self.provider.delete(self.provider.find(route, key, task_id))
        return Response(status_code=204)

    async def _list(self, request: Request, route: Route) -> Response:
        self.ledger.lists[route] += 1
        self.ledger.arrived("list", route)
        await self._go_wrong("list", route, request)
        key = self._admit("list", route, request)
        query = request.query_params
        of_other_models = self.settings.list_of_other_models
        key.check_filter(query.getlist("filter.model"), refuses_others=of_other_models == "refused")
        page, size = (
            _number(query.get("page_num"), "page_num", 1, 2**31, 1),
            _number(query.get("page_size"), "page_size", 1, 500, 10),
        )
        status = query.get("filter.status")
        if status is not None and status not in _STATUSES:
            raise invalid("filter.status", f"expected one of {', '.join(_STATUSES)}")
        ids, model = query.getlist("filter.task_ids"), query.get("filter.model")
        if of_other_models == "all" and model is not None and not key.names(model):
            model = None  # the filter is ignored
        tier = query.get("filter.service_tier", "default")
        found = [
            task
            for task in self.provider.listed(route, key)
            if status in (None, task.status)
            and (not ids or task.id in ids)
            and key.lets_pass(task.request, model)
            and tier == task.request.service_tier
        ]
        items = [self._item(task) for task in found[(page - 1) * size : page * size]]
        return self._answer("list", route, request, {"items": items, "total": len(found)})

    def _shown(self, task: Task) -> dict[str, Any]:
        return payload(task, self.results.urls(task), self.settings.extra_fields)

    def _item(self, task: Task) -> dict[str, Any]:
        item = self._shown(task)
        if not self.settings.list_echo:
            item.pop("safety_identifier", None)
        if self.settings.list_failure_reason:
            item["failure_reason"] = item.pop("error")
        return item

    def _answering(
        self, operation: Callable[[Request, Route], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Wrap an operation: its refusals get envelopes."""

        async def answer(request: Request) -> Response:
            request_id = new_request_id()
            try:
                response = await operation(request, self._route(request))
            except ArkError as error:
                response = error.response(request_id)
            except _Instead as instead:
                response = instead.response
            return stamp(response, request, request_id)

        return answer

    def _route(self, request: Request) -> Route:
        route = request.path_params["route"]
        if route not in self.accounts:
            raise ArkError(404, "NotFound", f"There is no route {route}.")
        return cast(Route, route)

    def _admit(self, operation: Operation, route: Route, request: Request) -> Key:
        try:
            return self.accounts[route].admit(operation, request.headers.get("authorization", ""))
        except ArkError as error:
            if error.code == "RateLimitExceeded":
                self.ledger.rate_limited[operation] += 1
            raise

    async def _go_wrong(self, operation: Operation, route: Route, request: Request) -> None:
        task_id = request.path_params.get("task_id")
        fault = self.faults.take(operation, ASKING, route=route, task_id=task_id)
        response = None if fault is None else await act(fault, request)
        if response is not None:
            raise _Instead(response)

    def _answer(self, operation: Operation, route: Route, request: Request, answer: dict[str, Any]) -> Response:
        """Return the answer, unless a fault spoils it."""
        fault = self.faults.take(operation, ON_ANSWER, route=route, task_id=request.path_params.get("task_id"))
        if fault is not None:
            answer |= {"id": new_id()} if fault.fault == "another_task" else {"padding": "x" * fault.size}
        return JSONResponse(answer)


class _Instead(Exception):
    """A fault answers in place of the operation."""

    def __init__(self, response: Response) -> None:
        self.response = response


async def _spoil(fault: Armed, request: Request, accepted: dict[str, Any]) -> Response:
    """Spoil the answer to a create that did make a task."""
    answer = JSONResponse(accepted)
    body = bytes(answer.body)
    half = body[: len(body) // 2]
    match fault.fault:
        case "cut_body":
            return Cut(half, len(body), "application/json")
        case "cut_json":
            return Response(half, media_type="application/json")
        case "no_id":
            return JSONResponse({})
        case "drip":
            return Drip(body, 10 if fault.seconds is None else fault.seconds, "application/json")
        case _:
            return await act(fault, request) or answer


def _readable(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode("utf-8", "replace")


def _number(text: str | None, name: str, low: int, high: int, default: int) -> int:
    if text is None:
        return default
    if not text.isdecimal() or not low <= int(text) <= high:
        raise invalid(name, f"expected {low}..{high}")
    return int(text)
