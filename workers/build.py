"""The workers of a route: which activities each queue runs, how many at once, and how many a second."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from temporalio.client import Client
from temporalio.worker import Worker

from activities.create import CreateActivities
from activities.gate import GateActivities
from activities.ledger import LedgerActivities
from activities.places import PlaceActivities
from activities.poll import PollActivities
from activities.recover import RecoverActivities
from activities.references import ReferenceActivities
from activities.store import StoreActivities, Transport
from activities.task_list import TaskListActivities
from seedance_temporal.contract import Queues
from seedance_temporal.gate_contract import probe_queue
from seedance_temporal.ledger.asset_ids import Assets
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.media.references import References
from seedance_temporal.provider.ark import Ark
from seedance_temporal.settings import Settings
from seedance_temporal.storage.bucket import Bucket
from workers.clearing import ClearedFailures
from workers.rates import Rates
from workers.read_ahead import NoReadAhead
from workflows.create_gate import CreateGate
from workflows.generate_video import GenerateVideo
from workflows.late_tasks import LateTasks
from workflows.list_tasks import ListTasks
from workflows.places import Places

WORKFLOWS: tuple[type, ...] = (GenerateVideo, LateTasks, ListTasks, Places, CreateGate)
# Few, though they mostly wait for the bucket: users take turns in Temporal's queue, and no longer in here.
BOOKKEEPING_AT_ONCE = 50
# Those of a user wait for each other in here; with more than this, the users' turns are Temporal's.
REFERENCES_AT_ONCE = 1_000
# At SIGTERM, a running create is awaited: its claim, its POST, its outcome.
GRACE_BEYOND_CREATE = timedelta(seconds=45)


def build_workers(
    client: Client,
    settings: Settings,
    bucket: Bucket,
    ark: Ark,
    search_attributes: frozenset[str],
    *,
    result_transport: Transport | None = None,
) -> list[Worker]:
    """Build the workers of all queues of a route, over one set of clients.

    Args:
        bucket: The bucket of the videos and of the ledger.
        search_attributes: The names that the namespace knows.
        result_transport: Makes the transport of each download of a result; by default one that reaches public
            addresses only.
    """
    queues = Queues(settings.ark_route)
    ledger = Ledger(bucket, settings.seedance_prefix)
    bookkeeping = LedgerActivities(ledger, settings, search_attributes)
    references = ReferenceActivities(References(bucket, settings), Assets(bucket, settings.seedance_prefix), settings)
    poll = PollActivities(ledger, ark, settings)
    recover = RecoverActivities(ledger, ark, settings)
    store = StoreActivities(bucket, ark, settings, result_transport)
    task_list = TaskListActivities(ledger, ark, settings)
    gate = GateActivities(ark, settings)
    worker = partial(
        Worker,
        client,
        interceptors=[ClearedFailures(settings.secrets)],
        workflow_runner=NoReadAhead(),
        graceful_shutdown_timeout=timedelta(seconds=settings.seedance_create_timeout_seconds) + GRACE_BEYOND_CREATE,
    )
    places = PlaceActivities(ledger, ark, settings)
    create = CreateActivities(ledger, bucket, ark, settings)
    # A workflow's worker can execute activities of its own queue past that queue's rate, so queues with a rate have no
    # workflows.
    rates = Rates.of(settings)
    return [
        worker(
            task_queue=queues.workflows,
            workflows=WORKFLOWS,
            activities=[
                bookkeeping.read_ledger,
                bookkeeping.write_outcome,
                bookkeeping.write_end,
                create.limits.reserve_quota,
                # Before it had a queue of its own: an open run can have a check waiting here.
                references.check_references,
                recover.settle_absent,
                recover.ask_later,
                recover.follow_known_task,
                task_list.ask_lister,
                task_list.answer_jobs,
                store.why_not_stored,
                places.ask_for_place,
                places.open_tasks,
                gate.report_create,
                gate.set_create_rate,
            ],
            max_concurrent_activities=BOOKKEEPING_AT_ONCE,
        ),
        worker(
            task_queue=queues.references,
            activities=[references.check_references],
            max_concurrent_activities=REFERENCES_AT_ONCE,
        ),
        *(
            worker(
                task_queue=queue,
                activities=[create.create_task],
                max_task_queue_activities_per_second=rate,
            )
            for queue, rate in {queues.create: rates.create, queues.create_4k: rates.create_4k}.items()
        ),
        # A gate sends one probe after another.
        *(
            worker(task_queue=probe_queue(queue), activities=[create.create_task], max_concurrent_activities=1)
            for queue in queues.creates
        ),
        worker(
            task_queue=queues.get,
            activities=[
                *(poll.get_task, poll.cancel_task, recover.identify_task, recover.resolve_attempt),
                places.check_places,
                gate.is_key_accepted,
            ],
            max_task_queue_activities_per_second=rates.get,
        ),
        worker(
            task_queue=queues.list,
            activities=[task_list.list_page],
            max_concurrent_activities=1,
            max_task_queue_activities_per_second=rates.list,
        ),
        worker(
            task_queue=queues.transfer,
            activities=[store.store_video],
            max_concurrent_activities=settings.seedance_copies_at_once,
            max_task_queue_activities_per_second=rates.transfer,
        ),
    ]
