"""The API keys of an account: the project of each, and the models that it may use."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from .errors import invalid, missing, no_access
from .request import TaskRequest

DEFAULT_PROJECT = "default"


class Key(BaseModel):
    """One key. Its tasks belong to its project, and stay there when the key moves to another one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str = Field(min_length=1)
    project: str = DEFAULT_PROJECT
    models: frozenset[str] | None = Field(
        None, description="permission Custom: the model ids and ep- ids that it names; null: permission All"
    )

    def names(self, model_given: str) -> bool:
        """Return whether the key may use a model or an endpoint, as a create gives it.

        A model id means the model's preset endpoint, so it does not name another endpoint with the same model.
        """
        return self.models is None or model_given in self.models

    def sees(self, project: str, request: TaskRequest) -> bool:
        """Return whether GET, LIST and DELETE show the key a task of this project and request."""
        return self.project == project and self.names(request.model_given)

    def check_request(self, request: TaskRequest) -> None:
        """Refuse a create with a model or an endpoint that the key does not name.

        Raises:
            ArkError: 404 `InvalidEndpointOrModel.NotFound`.
        """
        if not self.names(request.model_given):
            raise no_access("model", request.model_given)  # ? its documented words fit; no document says so of keys

    def check_filter(self, models: Sequence[str], *, refuses_others: bool) -> None:
        """Check `filter.model` of a LIST: a Custom key must give exactly one value, and one that it names.

        Raises:
            ArkError: 400 without a value or with several; 404 for a value that the key does not name.
        """
        if self.models is None:
            return
        if not any(models):
            raise missing("filter.model")
        if len(models) > 1:
            raise invalid("filter.model", "expected one value")  # ? undocumented
        if not self.names(models[0]) and refuses_others:
            raise no_access("filter.model", models[0])  # ? undocumented; other answers are as conceivable

    def lets_pass(self, request: TaskRequest, model: str | None) -> bool:
        """Return whether a task passes `filter.model`, which means endpoints alone where the key is Custom."""
        if model is None or model == request.model_given:
            return True
        return self.models is None and model == request.model
