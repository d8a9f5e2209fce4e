"""The jobs that wait for a place, and which of them is next. Nothing in here does I/O."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping
from datetime import datetime
from heapq import heapify, heappop, heappush

from seedance_temporal.places import PlaceRequest


class WaitingLine:
    """The requests for places.

    Next is the user with the fewest places; among equals the one who was served longest ago, then the one who has
    waited longest. So each user has an equal share, however many jobs wait. Within a user the highest priority goes
    first, then the first to come. Requests of a lower rank go before all others, also those of other users.
    """

    def __init__(self) -> None:
        self._of_user: dict[str, list[tuple[_Turn, PlaceRequest]]] = {}
        self._requests: dict[str, PlaceRequest] = {}
        self._served: dict[str, int] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, request: PlaceRequest) -> None:
        """Add a request, in place of an older one of the same job."""
        self.remove(request.job_id)
        self._requests[request.job_id] = request
        insort(self._of_user.setdefault(request.user, []), (_turn(request), request), key=_by_turn)

    def remove(self, job_id: str) -> None:
        """Remove the request of a job, if there is one."""
        request = self._requests.pop(job_id, None)
        if request is None:
            return
        requests = self._of_user[request.user]
        del requests[bisect_left(requests, _turn(request), key=_by_turn)]
        if not requests:
            del self._of_user[request.user]

    def take(self, places: Mapping[str, int]) -> PlaceRequest:
        """Remove and return the next request. ``places``: how many each user has."""
        user = min(self._of_user, key=lambda user: self._order(user, 0, places.get(user, 0)))
        request = self._of_user[user][0][1]
        self.remove(request.job_id)
        self._serial += 1
        self._served[user] = self._serial
        return request

    def before(self, job_id: str, places: Mapping[str, int]) -> int | None:
        """Return how many get a place before a job, if none was freed by its holder; None where it does not wait."""
        if (wanted := self._requests.get(job_id)) is None:
            return None
        heads = [(self._order(user, 0, places.get(user, 0)), user, 0) for user in self._of_user]
        heapify(heads)
        count = 0
        while True:
            _, user, at = heappop(heads)
            if user == wanted.user and self._of_user[user][at][1].job_id == job_id:
                return count
            count += 1
            if (following := at + 1) < len(self._of_user[user]):
                order = self._order(user, following, places.get(user, 0) + following, self._serial + count)
                heappush(heads, (order, user, following))

    def oldest(self, most: int) -> tuple[PlaceRequest, ...]:
        """Return the requests, or so many of them that have waited longest."""
        return tuple(sorted(self._requests.values(), key=lambda request: request.since)[:most])

    def _order(self, user: str, at: int, places: int, served: int | None = None) -> tuple[int, int, int, datetime, str]:
        """Return the order of a user's request; ``served``: when the user was served last."""
        request = self._of_user[user][at][1]
        return request.rank, places, self._served.get(user, 0) if served is None else served, request.since, user


_Turn = tuple[int, int, datetime, str]


def _turn(request: PlaceRequest) -> _Turn:
    return request.rank, -request.priority, request.since, request.job_id


def _by_turn(pair: tuple[_Turn, PlaceRequest]) -> _Turn:
    return pair[0]
