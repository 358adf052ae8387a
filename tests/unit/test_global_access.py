"""Calls with the global key: it is read from the secret, cached, read again when refused, and never printed."""

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError

from image_mirror.aws import AccessKey
from image_mirror.aws_errors import DelayedError, delayed_by
from image_mirror.global_access import GlobalAccount, SecretKey
from image_mirror.record import BuildResult
from support.cloud import SECRET_KEY, Cloud

Operation = Callable[[Any], str]


class Connections:
    """Replaces CodeBuild: makes a named client for each key and counts them; with a clock that tests set."""

    def __init__(self) -> None:
        self.keys: list[AccessKey] = []
        self.now = 0.0

    def __call__(self, key: AccessKey) -> Any:
        self.keys.append(key)
        return f"client of {key.access_key_id}"


@pytest.fixture
def connections() -> Connections:
    return Connections()


@pytest.fixture
def account(cloud: Cloud, connections: Connections) -> GlobalAccount:
    return GlobalAccount(SecretKey(cloud.secrets, "GlobalAKSK", lambda: connections.now), connections)


def put_secret(cloud: Cloud, text: str) -> None:
    cloud.secrets.put_secret_value(SecretId="GlobalAKSK", SecretString=text)


def rotate(cloud: Cloud, access_key_id: str = "AKIANEW") -> None:
    put_secret(cloud, json.dumps({"G_AWS_REGION": "us-west-2", "G_ACCESS_KEY": access_key_id, "G_SECRET_KEY": "s"}))


def error(code: str, message: str = "message", status: int = 400) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "StartBuild")


def failing(*errors: Exception) -> Operation:
    """Return an operation that raises each error in turn, and then returns its client."""
    left = list(errors)

    def operation(client: Any) -> str:
        if left:
            raise left.pop(0)
        return str(client)

    return operation


def test_the_secret_is_read_once_in_five_minutes(
    cloud: Cloud, account: GlobalAccount, connections: Connections
) -> None:
    assert account.call("StartBuild", failing()) == "client of AKIAIOSFODNN7EXAMPLE"
    assert connections.keys == [AccessKey("us-west-2", "AKIAIOSFODNN7EXAMPLE", SECRET_KEY)]
    rotate(cloud)
    connections.now = 299.0
    assert account.call("StartBuild", failing()) == "client of AKIAIOSFODNN7EXAMPLE"
    connections.now = 300.0
    assert account.call("StartBuild", failing()) == "client of AKIANEW"


def test_a_secret_that_did_not_change_makes_no_new_client(account: GlobalAccount, connections: Connections) -> None:
    account.call("StartBuild", failing())
    connections.now = 1000.0
    account.call("StartBuild", failing())
    assert len(connections.keys) == 1


@pytest.mark.parametrize(
    "code",
    ["UnrecognizedClientException", "InvalidSignatureException", "AccessDeniedException", "ExpiredTokenException"],
)
def test_a_refused_key_is_read_again_once(cloud: Cloud, account: GlobalAccount, code: str) -> None:
    account.call("StartBuild", failing())
    rotate(cloud)
    assert account.call("StartBuild", failing(error(code))) == "client of AKIANEW"


def test_a_key_refused_twice_delays(account: GlobalAccount) -> None:
    refusal = error("UnrecognizedClientException")
    with pytest.raises(DelayedError, match="StartBuild: AWS answered UnrecognizedClientException") as caught:
        account.call("StartBuild", failing(refusal, refusal))
    assert not caught.value.no_capacity


@pytest.mark.parametrize(
    ("cause", "message", "busy"),
    [
        pytest.param(error("AccountLimitExceededException"), "AccountLimitExceededException", True, id="queue full"),
        pytest.param(error("ThrottlingException"), "ThrottlingException", True, id="throttled"),
        pytest.param(
            error("ResourceNotFoundException", "Project cannot be found"),
            "ResourceNotFoundException: Project cannot be found",
            False,
            id="no project",
        ),
        pytest.param(error("InternalFailure"), "InternalFailure", False, id="AWS fails"),
        pytest.param(ConnectTimeoutError(endpoint_url="https://x"), "ConnectTimeoutError", False, id="network"),
    ],
)
def test_any_failure_of_a_call_delays(account: GlobalAccount, cause: Exception, message: str, busy: bool) -> None:
    with pytest.raises(DelayedError) as caught:
        account.call("StartBuild", failing(cause))
    assert str(caught.value).endswith(message)
    assert caught.value.no_capacity is busy


@pytest.mark.parametrize(
    ("cause", "uncertain"),
    [
        pytest.param(ConnectTimeoutError(endpoint_url="https://x"), True, id="no answer"),
        pytest.param(error("InternalFailure", status=500), True, id="AWS broke"),
        pytest.param(error("AccessDeniedException"), False, id="refused"),
    ],
)
def test_a_call_that_may_have_taken_effect_has_its_own_error(cause: ClientError, uncertain: bool) -> None:
    assert delayed_by("StartBuild", cause).uncertain is uncertain


@pytest.mark.parametrize(
    ("cause", "key"),
    [
        pytest.param(error("UnrecognizedClientException"), True, id="refused"),
        pytest.param(error("AccessDeniedException"), True, id="not allowed"),
        pytest.param(error("AccountLimitExceededException"), False, id="queue full"),
        pytest.param(error("ResourceNotFoundException"), False, id="no project"),
        pytest.param(ConnectTimeoutError(endpoint_url="https://x"), False, id="no answer"),
    ],
)
def test_a_call_for_which_the_key_is_refused_has_its_own_error(
    account: GlobalAccount, cause: Exception, key: bool
) -> None:
    with pytest.raises(DelayedError) as caught:
        account.call("StartBuild", failing(cause, cause))
    assert caught.value.key is key


@pytest.mark.parametrize(
    ("code", "key"),
    [
        pytest.param("ResourceNotFoundException", True, id="no such secret"),
        pytest.param("InvalidRequestException", True, id="marked for deletion"),
        pytest.param("AccessDeniedException", True, id="not to be read"),
        pytest.param("ThrottlingException", False, id="throttled"),
        pytest.param("InternalServiceError", False, id="AWS fails"),
    ],
)
def test_a_secret_that_is_not_there_counts_as_a_missing_key_for_all_that_wait(
    connections: Connections, code: str, key: bool
) -> None:
    secrets = CountingSecrets(None, code)
    account = reading(secrets, connections)
    for _ in range(2):
        with pytest.raises(DelayedError) as caught:
            account.call("StartBuild", failing())
        assert caught.value.key is key


def test_a_bug_is_no_delay(account: GlobalAccount) -> None:
    with pytest.raises(KeyError):
        account.call("StartBuild", failing(KeyError("x")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(SECRET_KEY, "must be a JSON object with the entries G_AWS_REGION, G_ACCESS_KEY", id="no JSON"),
        pytest.param(json.dumps([SECRET_KEY]), "must be a JSON object", id="no object"),
        pytest.param(json.dumps({"G_SECRET_KEY": SECRET_KEY}), "lacks G_AWS_REGION, G_ACCESS_KEY", id="missing"),
        pytest.param(
            json.dumps({"G_AWS_REGION": "us-west-2", "G_ACCESS_KEY": " ", "G_SECRET_KEY": 5}),
            "lacks G_ACCESS_KEY, G_SECRET_KEY",
            id="empty, and no text",
        ),
        pytest.param(
            json.dumps({"G_AWS_REGION": "evil.example/x", "G_ACCESS_KEY": "A", "G_SECRET_KEY": SECRET_KEY}),
            "G_AWS_REGION is not a region",
            id="a region that would change the host",
        ),
    ],
)
def test_a_secret_of_another_shape_delays_and_is_not_quoted(
    cloud: Cloud, account: GlobalAccount, text: str, message: str
) -> None:
    put_secret(cloud, text)
    with pytest.raises(DelayedError) as caught:
        account.call("StartBuild", failing())
    assert f"the secret GlobalAKSK" in str(caught.value)  # noqa: F541
    assert message in str(caught.value)
    assert caught.value.key
    logging.getLogger().exception("x", exc_info=caught.value)
    chain = [caught.value, caught.value.__cause__, caught.value.__context__]
    assert not any(SECRET_KEY in str(link) + str(getattr(link, "doc", "")) for link in chain)


def test_a_secret_that_is_missing_delays(cloud: Cloud, connections: Connections) -> None:
    account = GlobalAccount(SecretKey(cloud.secrets, "NoSuchSecret", lambda: 0.0), connections)
    with pytest.raises(DelayedError, match="reading the secret NoSuchSecret: AWS answered ResourceNotFoundException"):
        account.call("StartBuild", failing())


def test_a_secret_made_later_is_found(cloud: Cloud, connections: Connections) -> None:
    account = GlobalAccount(SecretKey(cloud.secrets, "MadeLater", lambda: connections.now), connections)
    with pytest.raises(DelayedError):
        account.call("StartBuild", failing())
    secret = {"G_AWS_REGION": "us-west-2", "G_ACCESS_KEY": "AKIALATER", "G_SECRET_KEY": "s"}
    cloud.secrets.create_secret(Name="MadeLater", SecretString=json.dumps(secret))
    with pytest.raises(DelayedError, match="MadeLater"):
        account.call("StartBuild", failing())
    connections.now = 30.0
    assert account.call("StartBuild", failing()) == "client of AKIALATER"


class CountingSecrets:
    """Replaces Secrets Manager: counts the reads, and fails while it has no text."""

    def __init__(self, text: str | None, code: str = "InternalServiceError") -> None:
        self.text = text
        self.code = code
        self.readings = 0

    def get_secret_value(self, **_: object) -> dict[str, str]:
        self.readings += 1
        if self.text is None:
            raise error(self.code)
        return {"SecretString": self.text}


def reading(secrets: CountingSecrets, connections: Connections) -> GlobalAccount:
    key = SecretKey(secrets, "GlobalAKSK", lambda: connections.now)  # type: ignore[arg-type]
    return GlobalAccount(key, connections)


def test_a_secret_that_cannot_be_read_is_read_once_for_all_that_wait(connections: Connections) -> None:
    secrets = CountingSecrets(None)
    account = reading(secrets, connections)
    for _ in range(20):
        with pytest.raises(DelayedError, match="InternalServiceError"):
            account.call("StartBuild", failing())
    assert secrets.readings == 1


def test_all_callers_that_wait_for_a_secret_get_the_same_error(connections: Connections) -> None:
    secrets = CountingSecrets(None, "ThrottlingException")
    account = reading(secrets, connections)
    for _ in range(2):
        with pytest.raises(DelayedError, match="ThrottlingException") as caught:
            account.call("StartBuild", failing())
        assert caught.value.no_capacity
    assert secrets.readings == 1


def test_a_key_that_stays_refused_is_read_once_more_and_tried_once_for_each_call(connections: Connections) -> None:
    key = json.dumps({"G_AWS_REGION": "us-west-2", "G_ACCESS_KEY": "AKIA", "G_SECRET_KEY": "s"})
    secrets = CountingSecrets(key)
    account = reading(secrets, connections)
    tried: list[object] = []

    def refused(client: Any) -> str:
        tried.append(client)
        raise error("UnrecognizedClientException")

    for _ in range(20):
        with pytest.raises(DelayedError, match="UnrecognizedClientException"):
            account.call("StartBuild", refused)
    assert (secrets.readings, len(tried)) == (2, 20)
    secrets.text = key.replace("AKIA", "AKIANEW")
    connections.now = 30.0
    assert account.call("StartBuild", failing(error("UnrecognizedClientException"))) == "client of AKIANEW"


def test_a_key_prints_without_its_secret() -> None:
    assert SECRET_KEY not in repr(AccessKey("us-west-2", "AKIA", SECRET_KEY))


DENY = (
    "User: arn:aws:iam::210987654321:user/starter is not authorized to perform: codebuild:StartBuild on resource: "
    "arn:aws:codebuild:us-west-2:210987654321:project/ImagePullProject "
)


@pytest.mark.parametrize(
    ("reason", "key", "refusal"),
    [
        pytest.param("with an explicit deny in an identity-based policy", False, BuildResult.DELAYED, id="of a copy"),
        pytest.param("because no identity-based policy allows the action", True, None, id="of the key"),
    ],
)
def test_a_build_that_the_policy_denies_says_nothing_about_the_key(
    account: GlobalAccount, reason: str, key: bool, refusal: BuildResult | None
) -> None:
    """A pod with an image of a host outside SourceRegistries must not stop the copies of all others."""
    denied = ClientError({"Error": {"Code": "AccessDeniedException", "Message": DENY + reason}}, "StartBuild")
    with pytest.raises(DelayedError, match="not authorized") as caught:
        account.call("StartBuild", failing(denied, denied))
    assert (caught.value.key, caught.value.refusal) == (key, refusal)
