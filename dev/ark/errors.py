"""The service's error envelope, and its refusals as exceptions."""

import uuid

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

_TYPES = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    429: "TooManyRequests",
}


class ArkError(Exception):
    """A refusal, as the service words it.

    Args:
        status: HTTP status.
        code: the service's own code, such as `InvalidParameter`.
        message: for people; the request id is added to it.
        param: the field that is wrong, where there is one.
        retry_after: seconds for a `Retry-After` header; none is sent without it.
    """

    def __init__(
        self, status: int, code: str, message: str, *, param: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after = retry_after

    def response(self, request_id: str) -> Response:
        """Return the envelope. `X-Request-Id` is set for every answer alike, by `stamp`."""
        error = {
            "code": self.code,
            "message": f"{self.message} Request id: {request_id}",
            "param": self.param,
            "type": _TYPES.get(self.status, "InternalServerError"),
        }
        headers = {} if self.retry_after is None else {"Retry-After": f"{self.retry_after:g}"}
        return JSONResponse({"error": error}, self.status, headers)


def invalid(param: str, problem: str) -> ArkError:
    """Return the refusal of a field's value."""
    message = f"The parameter `{param}` specified in the request is not valid: {problem}."
    return ArkError(400, "InvalidParameter", message, param=param)


def missing(param: str) -> ArkError:
    """Return the refusal of a request without a required field."""
    message = f"The request is missing a required parameter: `{param}`."
    return ArkError(400, "MissingParameter", message, param=param)


def no_access(param: str, model_given: str) -> ArkError:
    """A model or an endpoint that does not exist, or not for this key: the service does not say which."""
    message = f"The model or endpoint {model_given} does not exist or you do not have access to it."
    return ArkError(404, "InvalidEndpointOrModel.NotFound", message, param=param)


def gateway_page(status: int) -> Response:
    """Return the page of a gateway in front of the service, without the envelope."""
    return HTMLResponse(
        f"<html><head><title>{status}</title></head><body><h1>{status}</h1><hr>nginx</body></html>", status
    )


def new_request_id() -> str:
    return f"02{uuid.uuid4().hex}"


def stamp(response: Response, request: Request, request_id: str) -> Response:
    """Add the headers that the service sends with every answer, and return the answer."""
    response.headers["X-Request-Id"] = request_id
    client_request_id = request.headers.get("x-client-request-id")
    if client_request_id is not None:
        response.headers["X-Client-Request-Id"] = client_request_id
    return response
