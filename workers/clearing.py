"""Remove secrets from the failures of activities, which Temporal keeps in the job's history."""

from __future__ import annotations

from typing import Any

from temporalio.exceptions import ApplicationError, FailureError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from seedance_temporal.urls import redacted

# Of a failure's message. The server cuts failures of some kilobytes.
_LONGEST_MESSAGE = 2_000


class ClearedFailures(Interceptor):
    """Clear the failures of all activities of a worker.

    Args:
        secrets: What no message may hold.
    """

    def __init__(self, secrets: tuple[str, ...]) -> None:
        self._secrets = secrets

    def intercept_activity(
        self,
        next: ActivityInboundInterceptor,  # noqa: A002 - the SDK's name
    ) -> ActivityInboundInterceptor:
        return _Clearing(next, self._secrets)


class _Clearing(ActivityInboundInterceptor):
    def __init__(self, inner: ActivityInboundInterceptor, secrets: tuple[str, ...]) -> None:
        super().__init__(inner)
        self._secrets = secrets

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        try:
            return await super().execute_activity(input)
        except ApplicationError as error:
            raise ApplicationError(
                self._cleared(error.message),
                *error.details,
                type=error.type,
                non_retryable=error.non_retryable,
                next_retry_delay=error.next_retry_delay,
                category=error.category,
            ) from None
        except FailureError:
            raise
        except Exception as error:
            # Without its traceback, and without its cause, whose texts are other libraries'.
            raise ApplicationError(self._cleared(str(error)), type=type(error).__name__) from None

    def _cleared(self, message: str) -> str:
        return redacted(message, self._secrets, _LONGEST_MESSAGE)
