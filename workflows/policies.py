"""Every time-out, retry policy and interval of the workflow, each with its reason.

Waits that depend on settings (polling, recovery, back-off) come with the results of activities, so that they can be
tuned, and are part of the history.
"""

from __future__ import annotations

from datetime import timedelta

from temporalio.common import Priority, RetryPolicy

# Activities have the priority of their job (3, or 4 in a batch) and its user's share, but for these. A lower key goes
# first, over all jobs. First of all a copy whose result URL lives no longer than this.
URL_ENDS_SOON = timedelta(hours=6)
BEFORE_URL_ENDS = Priority(priority_key=1)
# A callback, a cancel or an operator asks, so somebody waits; routine polls of all jobs must not come between.
ASKED_FOR = Priority(priority_key=2)
AS_THE_JOB = Priority.default

# An operator is called when a step has failed for this long: shorter outages pass by themselves, and most of the 24
# hours of a result URL are still left to fix the cause.
PATIENCE = timedelta(hours=1)

# At the end of that time, a step still gets one try.
ONE_TRY = timedelta(minutes=1)

# A new run takes over between two steps once a history has grown so far: a replay of it takes about a second, and a
# server ends a run at 51,200 events or 50 MB.
MOST_EVENTS = 1_500
# A flood of callbacks fills the history of a run that only waits, and a worker that takes it over replays all of that.
# Far from what any run begins with, or each would end its waits at once.
MOST_EVENTS_OF_A_WAIT = 2 * MOST_EVENTS
MOST_HISTORY_BYTES = 1_500_000

# Ledger: a few small requests to the bucket. No step is safe without the ledger, so they are retried for ever.
LEDGER_TIMEOUT = timedelta(seconds=90)
# A damaged object does not mend itself: the operator is called at once, and the step is tried again after a pause.
LEDGER_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2,
    maximum_interval=timedelta(minutes=1),
    non_retryable_error_types=["LedgerDamaged"],
)
# That grows to an hour, for a history that months of it do not fill.
DAMAGE_PAUSE = timedelta(minutes=5)
MOST_DAMAGE_PAUSE = timedelta(hours=1)

# References are downloaded before a create: each has the time that a create has, two at a time, and there may be 50 of
# the largest. Where they take longer than the patience, an operator is called, and they are tried again. A worker that
# died is noticed by its missing heartbeat.
REFERENCES_TRIES = 5
REFERENCES_HEARTBEAT = timedelta(seconds=30)
# A host that is away for a minute is waited for; after that the job ends. Nothing is claimed yet.
REFERENCES_RETRY = RetryPolicy(initial_interval=timedelta(seconds=4), backoff_coefficient=2, maximum_attempts=5)

# The paid POST: Temporal itself must never send it again.
CREATE_RETRY = RetryPolicy(maximum_attempts=1)
# On top of the create's own total time, which begins before the claim: its outcome is written after it, and the
# server's clock started a little earlier. After a crash, this is how long the run waits to learn of it.
CREATE_MARGIN = timedelta(seconds=30)
# A create that waits for a worker is withdrawn for a task that was just named. A sender of made-up names must not hold
# it back for good.
MOST_WITHDRAWALS = 3
# After another run's claim on the same attempt: long enough for most creates to be answered.
CONFLICT_WAIT = timedelta(seconds=5)

# A report to the gate is one signal, and a wait of seconds until the queue is held. A job that cannot report waits for
# itself, as without a gate; one that has its task must not wait for the report for long.
REPORT_WITHIN = timedelta(minutes=1)
REPORT_RETRY = RetryPolicy(initial_interval=timedelta(seconds=1), backoff_coefficient=2, maximum_attempts=5)
# While a rate cannot be set, a gate holds nothing, or holds for too long.
SET_RATE_TIMEOUT = timedelta(seconds=30)
SET_RATE_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1), backoff_coefficient=2, maximum_interval=timedelta(minutes=1)
)
# Temporal can withdraw a worker's permission to set rates while the gate holds: it tries until it has it again.
RATE_NOT_ALLOWED_PAUSE = timedelta(seconds=1)
RATE_NOT_ALLOWED_LONGEST_PAUSE = timedelta(minutes=5)
# A free call that is not answered says as much as a refusal: the next one follows after the pause.
KEY_ACCEPTED_WITHIN = timedelta(minutes=3)
KEY_ACCEPTED_RETRY = RetryPolicy(maximum_attempts=2)
# A probe takes a claim and a create, for which references are signed. After that, the next job probes.
PROBE_GRACE = timedelta(minutes=10)
# Jobs that reported a refusal while it was fresh; any of them can probe.
MOST_PROBERS = 20
# The longest pause between two probes, in times of the first: an hour, by default.
LONGEST_PROBE_PAUSE = 120
# After a reopening, the rate rises by these shares of the configured one, so that creates that are refused once more
# are few. Each step takes so many times the first probe's pause: a minute, by default.
RAMP = (0.1, 0.25, 0.5)
RAMP_STEP = 2

# GET: one short request, free, so repeated until the provider is back.
OBSERVE_TIMEOUT = timedelta(seconds=60)
OBSERVE_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=2), backoff_coefficient=2, maximum_interval=timedelta(minutes=1)
)
# A cancel that is not served must not keep the run from polling: the next poll sends it again. A few tries, because GET
# can lag behind a create.
CANCEL_WITHIN = timedelta(minutes=2)
CANCEL_RETRY = RetryPolicy(initial_interval=timedelta(seconds=2), backoff_coefficient=2, maximum_attempts=6)
# A callback whose task GET cannot show must not hold up the job that it was meant for. It can be ahead of GET by
# seconds, so the task is asked for again; a run ends, or creates, only after the last of these pauses, or when it has
# waited for so long: a sender could name one task after the other.
IDENTIFY_PAUSES = (timedelta(seconds=2), timedelta(seconds=5), timedelta(seconds=15), timedelta(seconds=40))
LISTEN_AT_MOST = timedelta(minutes=3)
# After that, nothing waits for a task that was named. It is asked for once more, or, where GET or the bucket is away,
# again and again.
IDENTIFY_LATER = timedelta(minutes=5)
IDENTIFY_RETRY = RetryPolicy(initial_interval=timedelta(seconds=1), backoff_coefficient=2, maximum_attempts=3)

# Callbacks of a run that has ended: at most MOST_CALLBACKS names in this time, and as many questions.
LATE_TASKS_IDLE = timedelta(minutes=10)
# A day of outage: after that, the result's URL is dead. Shorter pauses would make too long a history of so many names.
LATE_TASK_PAUSE = timedelta(hours=1)
LATE_TASK_WITHIN = timedelta(days=1)
FOLLOW_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1), backoff_coefficient=2, maximum_interval=timedelta(minutes=1)
)

# LIST: one page a second for the whole account, for all jobs that wait; the lister has nothing else to do.
LIST_TIMEOUT = timedelta(minutes=2)
LIST_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=5), backoff_coefficient=2, maximum_interval=timedelta(minutes=1)
)
# While LIST is down, requests are kept and arrive on: the lister looks after its own history between two listings.
LIST_WITHIN = timedelta(minutes=10)
# Seven days of a busy account; a listing that does not end gets no more pages.
MOST_PAGES = 200
# Nor one whose pages fill the history: the server ends a run at 50 MB.
MOST_LISTING_BYTES = 30_000_000
# Answers that one activity sends: some 200 kB, of the 2 MiB that an argument may have.
ANSWERS_AT_ONCE = 500
ANSWER_TIMEOUT = timedelta(minutes=2)
# A lister without requests ends, and the next request starts it again.
LISTER_IDLE = timedelta(minutes=10)
# After the first job, one listing shows whether LIST shows our identifiers; the job's result must not wait long for it.
IDENTIFIERS_LISTED_RETRY = RetryPolicy(maximum_attempts=2)
# The lister keeps a request until it answers. The request is repeated, after so many times the usual wait, only because
# an operator can end the lister: hundreds of jobs that ask over and over would block it.
LISTING_PATIENCE = 5
# Listings of one attempt in memory: two prove absence, more are needed only if they came close together.
MOST_LISTINGS = 40

# The copy: one try may take as long as a slow link needs for the largest video; a worker that died is noticed by its
# missing heartbeat. A result URL allows 100 downloads in its 24 hours, and a try spends one at least: so the interval
# grows to 20 minutes, which is some 75 tries.
COPY_TIMEOUT = timedelta(hours=1)
COPY_HEARTBEAT = timedelta(minutes=1)
COPY_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=2), backoff_coefficient=2, maximum_interval=timedelta(minutes=20)
)
# An Attention is not held up by the question for its cause.
ASK_TEMPORAL_WITHIN = timedelta(seconds=30)
ASK_TEMPORAL_RETRY = RetryPolicy(maximum_attempts=3)
# The one try of a copy that begins without a poll, because a callback announced the success. If it fails, a poll
# follows, and most of the hour is left before a paid video is at risk.
COPY_AT_ONCE = timedelta(minutes=15)
COPY_AT_ONCE_RETRY = RetryPolicy(maximum_attempts=1)
# An operator's retries of one copy: each begins with the quickest tries, and a URL can be opened a hundred times.
MOST_COPY_RETRIES = 10
# A stopped clock or a long outage can leave nothing of the 24 hours: the video may be there all the same.
COPY_AT_LEAST = timedelta(minutes=10)
# A video that is not stored this long after its task succeeded is at risk, with most of the day left to fix the cause.
COPY_AT_RISK = timedelta(hours=1)
# A copy that begins later than that has a minute before it is at risk.
COPY_GRACE = timedelta(minutes=1)

# Another object with the video's name blocks the copy until an operator moves it away. Each try costs a listing, and a
# download only where nothing was verified before.
CONFLICT_PAUSE = timedelta(minutes=10)

# A resolution costs one GET and a few requests to the bucket, while the operator waits.
RESOLVE_TIMEOUT = timedelta(seconds=60)
RESOLVE_RETRY = RetryPolicy(maximum_attempts=2)

# Each callback that names an unknown task costs a GET: a limit for a leaked URL.
MOST_CALLBACKS = 50
# The limit grows by one in this time, so that a flood does not shut out callbacks for good.
ONE_MORE_CALLBACK = timedelta(minutes=1)
# A step that fails for a day keeps a run from renewing. From so many events on, callbacks cause no more GETs: a server
# ends a run at 51,200.
MOST_EVENTS_OF_CALLBACKS = 15_000
# After so many callbacks that announce an end which GET does not show, only the timer causes polls.
MOST_FRUITLESS_CALLBACKS = 20

# Places. So many jobs are told at once that they have one; a server lets 2,000 signals to others wait.
TOLD_AT_ONCE = 200
# A first run asks the ledger for the tasks that exist, by the visibility store, which lags by about a second.
PLACES_REST = timedelta(seconds=10)
# That reads the ledger of each open job, some thousands at most.
PLACES_READ_TIMEOUT = timedelta(minutes=10)
PLACES_READ_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=2), backoff_coefficient=2, maximum_interval=timedelta(minutes=1)
)
# Where jobs wait and no place is free, each place that was not freed for so long is checked: most tasks take less.
PLACE_CHECK = timedelta(minutes=5)
# The requests that a new run of places, or of the lister, begins with: some 200 to 350 bytes each, and an argument may
# have 2 MiB. Jobs over that many ask again by themselves.
MOST_WAITING = 4_000
# A job that waits asks again after this time, and then half as often each time, up to the second: only because an
# operator can end the workflow that grants places.
PLACE_ASK_AGAIN = timedelta(minutes=10)
LONGEST_PLACE_PAUSE = timedelta(hours=1)
