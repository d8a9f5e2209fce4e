"""Every time-out, retry policy and interval of the workflow, each with its reason.

Waits that depend on settings (polling, recovery, back-off) come back with the activities' answers, so that they can
be tuned, and stand in the history.
"""

from __future__ import annotations

from datetime import timedelta

from temporalio.common import RetryPolicy

# A step that is repeated until it succeeds has failed for so long before a person hears of it: shorter outages pass by
# themselves, and most of the 24 hours of a result URL are still left to fix what is wrong.
PATIENCE = timedelta(hours=1)

# Ledger: a few small requests to the bucket. Without the ledger nothing is safe to do, so it is waited for, for ever.
LEDGER_TIMEOUT = timedelta(seconds=90)
LEDGER_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1), backoff_coefficient=2, maximum_interval=timedelta(minutes=1)
)

# References are downloaded before a create: each has the time that a create has, some at a time, and there may be 50 of
# the largest. A worker that died is noticed by its missing heartbeat.
REFERENCES_TIMEOUT = timedelta(hours=1)
REFERENCES_HEARTBEAT = timedelta(seconds=30)
# A host that is away for a minute is waited for; after that, a person should hear of it. Nothing is claimed yet.
REFERENCES_RETRY = RetryPolicy(initial_interval=timedelta(seconds=4), backoff_coefficient=2, maximum_attempts=5)

# The paid POST: Temporal itself must never send it again.
CREATE_RETRY = RetryPolicy(maximum_attempts=1)
# On top of the create's own total time, which begins before the claim: its outcome is written after it, and the
# server's clock started a little earlier. After a crash, this is how long the run waits to learn of it.
CREATE_MARGIN = timedelta(seconds=30)
# After somebody else's claim on the same attempt: long enough for most creates to be answered.
CONFLICT_WAIT = timedelta(seconds=5)

# GET and DELETE: one short request each, free, so repeated until the provider is back.
OBSERVE_TIMEOUT = timedelta(seconds=60)
OBSERVE_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=2), backoff_coefficient=2, maximum_interval=timedelta(minutes=1)
)
# A callback whose task GET cannot show must not hold up the job that it was meant for. It can be ahead of GET by
# seconds, so the task is asked for again; a run ends, or creates, only after the last of these pauses, or when it has
# listened for so long: somebody could name one task after the other.
IDENTIFY_PAUSES = (timedelta(seconds=2), timedelta(seconds=5), timedelta(seconds=15), timedelta(seconds=40))
LISTEN_AT_MOST = timedelta(minutes=3)
# Where GET or the bucket is away, a task that was named is not forgotten; nothing waits for it any longer.
IDENTIFY_LATER = timedelta(minutes=5)
IDENTIFY_RETRY = RetryPolicy(initial_interval=timedelta(seconds=1), backoff_coefficient=2, maximum_attempts=3)

# LIST: one page a second for the whole account, for all who wait; the lister has nothing else to do than to repeat it.
LIST_TIMEOUT = timedelta(minutes=2)
LIST_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=5), backoff_coefficient=2, maximum_interval=timedelta(minutes=1)
)
# Seven days of a busy account; a listing that does not end is not worth more.
MOST_PAGES = 200
# Answers that one activity carries out: some 200 kB, of the 2 MiB that an argument may have.
ANSWERS_AT_ONCE = 500
ANSWER_TIMEOUT = timedelta(minutes=2)
# A lister that nobody asks ends, and the next one who asks starts it again.
LISTER_IDLE = timedelta(minutes=10)
# Whether LIST shows our identifiers is worth a question after the first job, and not worth holding up its result.
ECHO_RETRY = RetryPolicy(maximum_attempts=2)
# A question stands until the lister answers it. It is repeated, after so many times the usual wait, only because the
# lister can be ended by hand: hundreds of jobs that ask over and over would hold it up.
LISTING_PATIENCE = 5
# Listings of one attempt that are kept: two prove absence, more only if they came close together.
MOST_LISTINGS = 40

# The copy: one try may take as long as a slow link needs for the largest video; a worker that died is noticed by its
# missing heartbeat. A result URL allows 100 downloads in its 24 hours, and a try spends one at least: so the interval
# grows to 20 minutes, which is some 75 tries.
COPY_TIMEOUT = timedelta(hours=1)
COPY_HEARTBEAT = timedelta(minutes=1)
COPY_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=2), backoff_coefficient=2, maximum_interval=timedelta(minutes=20)
)
# A stopped clock or a long outage can leave nothing of the 24 hours: the video may be there all the same.
COPY_AT_LEAST = timedelta(minutes=10)
# How long a result URL lives, from the success on.
URL_LIFE = timedelta(hours=24)
# A copy that has not come about by then is in danger, with most of the day left to mend what keeps it from it.
COPY_AT_RISK = timedelta(hours=1)
# A copy that begins later than that is in danger once it has not come about at the first go.
COPY_GRACE = timedelta(minutes=1)

# Another object in the place of the video keeps it out until a person moves that away. Each look costs a listing, and
# a download only where nothing was verified before.
CONFLICT_PAUSE = timedelta(minutes=10)

# The answer to a cancel is due within 10 seconds; what is not known by then is "requested".
CANCEL_ANSWER = timedelta(seconds=8)
# An operator's word costs one GET and a few requests to the bucket, while the operator waits.
RESOLVE_TIMEOUT = timedelta(seconds=60)
RESOLVE_RETRY = RetryPolicy(maximum_attempts=2)

# Callbacks that name tasks which are not known are checked by a GET each: a bound for what a leaked URL can cause.
MOST_CALLBACKS = 50
# And one more with each of these, so that no flood closes the ear for good.
ONE_MORE_CALLBACK = timedelta(minutes=1)
# Callbacks that announce an end which GET does not show: after so many, only the timer is followed.
MOST_FRUITLESS_CALLBACKS = 20
