"""Records the AWS calls of the functions, in each client that `image_mirror.aws.connect` makes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from botocore.model import OperationModel
from botocore.session import Session


@dataclass(frozen=True)
class Call:
    """One call as the code made it: the principal, the service, the operation and the parameters.

    `service` is the service's prefix in IAM; `principal` is the function's role, or the access key if the client was
    made with one.
    """

    principal: str
    region: str
    service: str
    operation: str
    parameters: Mapping[str, Any]

    @property
    def action(self) -> str:
        """The call's action in IAM, which has the operation's name in each service used here."""
        return f"{self.service}:{self.operation}"


class _RecordingSession(Session):
    """A botocore session whose clients record each call, including those of paginators."""

    def __init__(self, calls: list[Call]) -> None:
        super().__init__()
        self.role = "nobody"
        self._calls = calls

    def create_client(self, *arguments: Any, **options: Any) -> Any:
        client = super().create_client(*arguments, **options)
        principal = options.get("aws_access_key_id") or self.role

        def record(params: Mapping[str, Any], model: OperationModel, **_: object) -> None:
            service = model.service_model.signing_name
            self._calls.append(Call(principal, client.meta.region_name, service, model.name, dict(params)))

        client.meta.events.register("provide-client-params.*.*", record)
        return client


class Recorder:
    """The calls so far; `acting_as` sets the role of clients that are made from then on."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._session = _RecordingSession(self.calls)

    def acting_as(self, role: str) -> None:
        """Set the role of clients that are made from now on."""
        self._session.role = role

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Make `connect` return recording clients while the context is active."""
        with mock.patch("image_mirror.aws._session", return_value=self._session):
            yield
