"""The connections of the relay as a process: bounded in number, and in the time that they wait for a request."""

from __future__ import annotations

import asyncio
import resource

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# A connection that sends no request in this time is closed.
_REQUEST_WITHIN_SECONDS = 5.0
# Of the open files that the system allows, those that are no connections: Temporal's, libraries', the log.
_OTHER_FILES = 100
_MOST_CONNECTIONS = 2_000
_READ_BYTES = 8 * 1024


class Connection(H11Protocol):
    """A connection to the relay, which ends where no request comes.

    Where there are as many as the system allows files, a new one takes the place of the one that has waited longest for
    its request: who only connects keeps no callback out.
    """

    most = max(10, min(resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _OTHER_FILES, _MOST_CONNECTIONS))
    _waits: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # asyncio has no public way to read less at a time: a body in pieces of one byte is much work for its bytes.
        transport.max_size = _READ_BYTES  # type: ignore[attr-defined]
        super().connection_made(transport)
        self._await_request()
        if len(self.connections) > self.most:
            waiting = [each for each in self.connections if isinstance(each, Connection) and each._waits is not None]
            min(waiting, key=lambda each: each._waits.when() if each._waits is not None else 0).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            # From here on, the application's own time limit counts.
            self._wait_no_more()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            # It was answered before its body came: nobody reads the rest.
            self.transport.close()
        else:
            self._await_request()

    def _await_request(self) -> None:
        self._wait_no_more()
        self._waits = self.loop.call_later(_REQUEST_WITHIN_SECONDS, self.transport.abort)

    def _wait_no_more(self) -> None:
        if self._waits is not None:
            self._waits.cancel()
            self._waits = None
