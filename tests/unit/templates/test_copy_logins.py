"""What the build does with the secret of RegistryAuthSecretArn: crane's login, what is masked, the result."""

import base64
import json

import pytest

from support.copy_program import PROGRAM


def entry(password: str, user: str = "robot") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_crane_gets_the_login_of_the_source_and_no_log_shows_it() -> None:
    auths = {"ghcr.io/a": entry("p:w"), "ghcr.io": entry("other")}
    key, read = PROGRAM.login_for(PROGRAM.Source("ghcr.io", "a/b", ":1"), json.dumps({"auths": auths}))
    assert key == "ghcr.io/a"
    config = json.loads(PROGRAM.crane_config("ghcr.io", read, "t", "ecr"))
    assert config == {"auths": {"ghcr.io": entry("p:w"), "t": entry("ecr", "AWS")}}
    hidden = PROGRAM.secrets_of(read)
    assert {"p:w", base64.b64encode(b"p:w").decode(), entry("p:w")["auth"]} <= set(hidden)


def test_crane_gets_a_token_too() -> None:
    text = json.dumps({"auths": {"ghcr.io": {"identitytoken": "secret"}}})
    _, read = PROGRAM.login_for(PROGRAM.Source("ghcr.io", "a", ":1"), text)
    config = json.loads(PROGRAM.crane_config("ghcr.io", read, "t", "ecr"))
    assert config["auths"]["ghcr.io"] == {"identitytoken": "secret"}
    assert "secret" in PROGRAM.secrets_of(read)


def test_docker_hubs_login_is_written_under_the_key_that_crane_reads() -> None:
    config = json.loads(PROGRAM.crane_config("docker.io", {"username": "u", "password": "p"}, "t", "ecr"))
    assert set(config["auths"]) == {"https://index.docker.io/v1/", "t"}


def test_no_secret_means_no_login() -> None:
    assert PROGRAM.login_for(PROGRAM.Source("ghcr.io", "a", ":1"), "") is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(
            '{"auths": {"ghcr.io": {"auth": "%%%"}}}',
            'has a login for ghcr.io whose "auth" is not base64; encode USER:PASSWORD in base64',
            id="one login",
        ),
        pytest.param(
            '{"ghcr.io": {"auth": "cm9ib3Q6ZXhhbXBsZQ=="}}',
            'is an old .dockercfg without "auths"; put its content under "auths"',
            id="the whole text",
        ),
    ],
)
def test_a_secret_that_the_copy_would_ignore_ends_the_build(text: str, reason: str) -> None:
    with pytest.raises(PROGRAM.Ended) as raised:
        PROGRAM.login_for(PROGRAM.Source("ghcr.io", "a", ":1"), text)
    assert raised.value.result == "AUTH_FILE"
    assert raised.value.reason == f"the secret of RegistryAuthSecretArn {reason}"
