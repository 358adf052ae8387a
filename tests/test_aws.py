"""Clients are made in one place, each with the patience that its caller states."""

from image_mirror import reconciler, webhook
from image_mirror.aws import AccessKey, Patience, connect
from image_mirror.progress import _RESERVE


def test_a_client_has_the_patience_that_is_asked_for(cloud: object) -> None:  # noqa: ARG001 - the environment it sets
    client = connect("dynamodb", Patience(connect=0.25, read=0.75, attempts=3, connections=7))
    config = client.meta.config
    assert (config.connect_timeout, config.read_timeout, config.max_pool_connections) == (0.25, 0.75, 7)
    assert (config.retries["mode"], config.retries["total_max_attempts"]) == ("standard", 3)
    assert client.meta.region_name == "cn-northwest-1"


def test_a_client_of_another_account_has_its_key_and_region(cloud: object) -> None:  # noqa: ARG001
    client = connect("codebuild", Patience(connect=1, read=1, attempts=1), AccessKey("us-west-2", "AKIA", "secret"))
    assert client.meta.region_name == "us-west-2"
    assert client._request_signer._credentials.access_key == "AKIA"


def test_the_webhook_s_calls_fit_into_the_answer_of_the_shipped_configuration() -> None:
    patience = webhook._PATIENCE
    assert patience.connect + patience.read <= 5 / 4
    assert patience.attempts == 2


def test_the_reconciler_s_calls_fit_into_its_reserve() -> None:
    patience = reconciler._PATIENCE
    assert 2 * patience.attempts * (patience.connect + patience.read) <= _RESERVE
