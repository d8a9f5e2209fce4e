"""Places: how many tasks of a class an account has at the provider at once, where the settings cap that.

A job takes a place before its create, and frees it when its task has ended. One workflow for each create queue,
``Places``, grants them; this is what it exchanges with jobs, workers and readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, TypeVar

from pydantic import AwareDatetime, Field
from temporalio.client import Client, WorkflowQueryFailedError
from temporalio.service import RPCError

from seedance_temporal import contract
from seedance_temporal.connection import is_unknown_workflow
from seedance_temporal.contract import Queues
from seedance_temporal.job import Shape
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings

# A worker refuses a query that reads ahead, and answers the next one.
_QUERIES = 3


# An empty id cannot be signalled, and would block the workflow that grants places.
JobId = Annotated[str, Field(min_length=1, max_length=200)]
T = TypeVar("T", bound=Shape)
# Thousands of requests are one argument, of 2 MiB at most.
_User = Annotated[str, Field(max_length=100)]
_Number = Annotated[int, Field(ge=-1_000_000, le=1_000_000)]


class PlaceRequest(Shape):
    """A job that needs a place.

    Attributes:
        user: The user, hashed: each has an equal share.
        rank: Temporal's priority key of the job: a lower one goes first, before the shares of users count.
        priority: The request's priority: among the jobs of one user, a higher one goes first.
        since: When the job first needed it.
    """

    job_id: JobId
    user: _User
    rank: _Number = 0
    priority: _Number = 0
    since: AwareDatetime


class Asked(Shape):
    """Requests for places, and how many places the settings of the worker that sends them allow; None: any number."""

    limit: int | None
    requests: tuple[PlaceRequest, ...]


class Lease(Shape):
    """A place that a job has.

    Attributes:
        since: When it was granted, or last shown to be needed.
    """

    job_id: JobId
    user: str
    since: AwareDatetime


class PlacesInput(Shape):
    """The argument of ``Places``.

    Attributes:
        queue: The create queue.
        limit: How many places there are; None: any number.
        leases, waiting: At continue-as-new, what the run before knew.
        known: Whether it knew: a first run asks the ledger which tasks the account has already.
    """

    route: str
    queue: str
    limit: int | None = None
    leases: tuple[Lease, ...] = ()
    waiting: tuple[PlaceRequest, ...] = ()
    known: bool = False


class HeldAmong(Shape):
    """Which of some jobs have a place, and of which that is just being checked."""

    held: frozenset[str] = frozenset()
    in_doubt: frozenset[str] = frozenset()


class Place(Shape):
    """A job's place, or its position among those that wait.

    Attributes:
        held: Whether it has a place.
        in_doubt: Whether it is just being checked that the place is needed.
        limit: How many places there are; None: any number.
        taken: How many of them are taken.
        before: How many jobs get a place before it, as things are: a job of a user with fewer places goes first.
        waiting: How many jobs wait.
    """

    held: bool = False
    in_doubt: bool = False
    limit: int | None = None
    taken: int = 0
    before: int | None = None
    waiting: int = 0


def places_in(queue: str, settings: Settings) -> int | None:
    """Return how many places a create queue has; None: any number."""
    is_4k = queue == Queues(settings.ark_route).create_4k
    return settings.seedance_tasks_at_once_4k if is_4k else settings.seedance_tasks_at_once


def queue_of(request: VideoRequest) -> str:
    """Return the create queue that a request needs a place of."""
    return Queues(request.route).create_for(request.resolution)


async def place_of(client: Client, queue: str, job_id: str, *, within: timedelta | None = None) -> Place | None:
    """Return the place of a job; None where no places are kept for its class.

    Args:
        queue: The create queue of the job.
        within: How long a worker is given to answer; as long as Temporal allows by default.

    Raises:
        RPCError: Temporal does not answer, or no worker.
    """
    return await _asked(client, queue, contract.QUERY_PLACE, job_id, Place, within)


async def held_of(client: Client, queue: str, job_ids: Sequence[str]) -> HeldAmong:
    """Return which of some jobs have a place; none where no places are kept for their class.

    Raises:
        RPCError: Temporal does not answer, or no worker.
    """
    return await _asked(client, queue, contract.QUERY_HELD_PLACES, job_ids, HeldAmong, None) or HeldAmong()


async def _asked(
    client: Client, queue: str, query: str, about: object, answer: type[T], within: timedelta | None
) -> T | None:
    handle = client.get_workflow_handle(contract.places_id(queue))
    for _ in range(_QUERIES):
        try:
            given: T = await handle.query(query, about, result_type=answer, rpc_timeout=within)
        except WorkflowQueryFailedError:
            continue
        except RPCError as error:
            if is_unknown_workflow(error):
                return None
            raise
        return given
    return None
