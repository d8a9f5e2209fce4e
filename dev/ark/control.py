"""A client of the admin API, for tests and demos."""

import asyncio
import time
from collections.abc import Collection
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from .accounts import AccountChange
from .callbacks import Delivery
from .catalog import Route
from .faults import Armed, Fault, Firing, Operation
from .keys import DEFAULT_PROJECT, Key
from .ledger import CreateEntry, Leak, Requests


class ArkControl:
    """Control a local Ark. Use it as an async context manager, or call `aclose`.

    Args:
        url: the server's root, such as `http://127.0.0.1:8089`.

    Every method raises `httpx.HTTPStatusError` for what the server refuses.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        # No proxy from the environment: the server is on this machine. And no certificates, whose loading is slow.
        # Nor a connection that is kept: the server may close it at the very moment of the next request.
        self._http = httpx.AsyncClient(
            base_url=self.url,
            trust_env=False,
            verify=False,  # noqa: S501
            timeout=30,
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    def base_url(self, route: Route) -> str:
        """Return the base URL for clients of the API."""
        return f"{self.url}/{route}/api/v3"

    async def wait_ready(self, seconds: float = 15) -> None:
        """Wait until the server answers.

        Raises:
            TimeoutError: it did not within `seconds`.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                (await self._http.get("/_ark/health")).raise_for_status()
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no local Ark at {self.url} after {seconds:g} s") from None
                await asyncio.sleep(0.05)
            else:
                return

    async def ledger(self) -> list[CreateEntry]:
        """Return every POST to create, in the order in which they came."""
        return [CreateEntry.model_validate(entry) for entry in (await self._get("ledger"))["creates"]]

    async def leaks(self) -> list[Leak]:
        """Return every `Authorization` header that was sent to a result URL."""
        return [Leak.model_validate(leak) for leak in (await self._get("ledger"))["leaks"]]

    async def tasks(self) -> list[dict[str, Any]]:
        """Return every task, erased ones included, with its inner state."""
        tasks: list[dict[str, Any]] = (await self._get("tasks"))["tasks"]
        return tasks

    async def release(self, task_id: str | None = None) -> list[str]:
        """Release a task that a fault holds, or all, and return their ids."""
        released: list[str] = (await self._post("release", {"task_id": task_id}))["released"]
        return released

    async def add_foreign(self, route: Route, **fields: Any) -> list[str]:
        """Add tasks of other applications, and return their ids. `fields`: those of `admin.Foreign`."""
        added: list[str] = (await self._post("foreign", {"route": route, **fields}))["added"]
        return added

    async def requests(self) -> Requests:
        """Return the counters of gets, lists, deletes and downloads."""
        return Requests.model_validate(await self._get("requests"))

    async def deliveries(self) -> list[Delivery]:
        """Return every try to deliver a callback."""
        return [Delivery.model_validate(one) for one in (await self._get("callbacks"))["deliveries"]]

    async def fault(self, on: Operation, fault: str, **fields: Any) -> int:
        """Arm a fault, and return its id. `fields`: those of `faults.Fault`; it fires once unless `times` says so."""
        checked = Fault.model_validate({"on": on, "fault": fault, **fields})
        armed: int = (await self._post("faults", checked.model_dump(exclude_unset=True)))["id"]
        return armed

    async def armed(self) -> list[Armed]:
        """Return the faults that can still fire."""
        return [Armed.model_validate(armed) for armed in (await self._get("faults"))["armed"]]

    async def fired(self, fault_id: int | None = None) -> list[Firing]:
        """Return every firing of all faults, or of one."""
        fired = [Firing.model_validate(one) for one in (await self._get("faults"))["fired"]]
        return [one for one in fired if fault_id in (None, one.fault_id)]

    async def clear_faults(self, fault_id: int | None = None) -> None:
        """Disarm all faults, or one. The record of firings stays."""
        path = "faults" if fault_id is None else f"faults/{fault_id}"
        (await self._http.delete(f"/_ark/{path}")).raise_for_status()

    async def configure(self, **fields: Any) -> dict[str, Any]:
        """Change switches (the fields of `settings.Settings`), if any are given, and return all of them."""
        return await self._post("config", fields)

    async def set_key_valid(self, route: Route, valid: bool) -> None:
        """Revoke or restore the keys of an account."""
        await self._account(route, AccountChange(key_valid=valid))

    async def set_standing(self, route: Route, standing: str) -> None:
        """Set the standing of an account: `ok`, or a code such as `AccountOverdueError` or `SetLimitExceeded`."""
        await self._account(route, AccountChange(standing=standing))

    async def keys(self, route: Route) -> list[Key]:
        """Return the keys of an account, with the project and the permission of each."""
        return [Key.model_validate(key) for key in (await self._get("accounts"))[route]["keys"]]

    async def set_key(
        self, route: Route, key: str, *, project: str = DEFAULT_PROJECT, models: Collection[str] | None = None
    ) -> None:
        """Add a key to an account, or replace what the account knows of it: nothing of that is kept.

        Tasks stay in the project of the key that created them, so a key that moves to another project loses sight of
        its own.

        Args:
            route: Whose account.
            key: The key itself.
            project: The project that the key belongs to from now on.
            models: Permission Custom: the model ids and `ep-` ids that the key names. None: permission All.
        """
        wanted = Key(key=key, project=project, models=None if models is None else frozenset(models))
        await self._post(f"accounts/{route}/keys", wanted.model_dump(mode="json"))

    async def remove_key(self, route: Route, key: str) -> None:
        """Remove a key from an account: it gets 401 from now on. Raises for a key that the account does not have."""
        path = f"/_ark/accounts/{route}/keys/{quote(key, safe='')}"
        (await self._http.delete(path)).raise_for_status()

    async def video_bytes(self, task_id: str, file: str = "video.mp4") -> bytes:
        """Return the bytes of a result (or `last_frame.png`, `last_frame.jpeg`), counted nowhere."""
        return (await self._http.get(f"/_ark/results/{task_id}/{file}")).raise_for_status().content

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _account(self, route: Route, change: AccountChange) -> None:
        await self._post(f"accounts/{route}", change.model_dump(exclude_none=True))

    async def _get(self, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = (await self._http.get(f"/_ark/{path}")).raise_for_status().json()
        return answer

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = (await self._http.post(f"/_ark/{path}", json=body)).raise_for_status().json()
        return answer
