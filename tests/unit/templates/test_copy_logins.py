"""Which login of the secret of RegistryAuthSecretArn the build sends to a source, and which secrets it refuses."""

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.copy_program import PROGRAM


def entry(password: str, user: str = "robot") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def found(auths: dict[str, Any], host: str, path: str, **more: Any) -> Any:
    login = PROGRAM.login_of(json.dumps({"auths": auths, **more}), PROGRAM.Source(host, path, ":1"))
    return login and (login[0], login[1].get("password"))


@pytest.mark.parametrize(
    ("keys", "host", "path", "key"),
    [
        pytest.param(["ghcr.io"], "ghcr.io", "a/b", "ghcr.io", id="host"),
        pytest.param(["ghcr.io", "ghcr.io/a"], "ghcr.io", "a/b", "ghcr.io/a", id="the longer key"),
        pytest.param(["ghcr.io/a/b", "ghcr.io/a"], "ghcr.io", "a/b", "ghcr.io/a/b", id="the repository itself"),
        pytest.param(["ghcr.io/org-a"], "ghcr.io", "org-ab/x", None, id="a path that only begins alike"),
        pytest.param(["ghcr.io/org-a"], "ghcr.io", "other/x", None, id="another path"),
        pytest.param(["https://ghcr.io"], "ghcr.io", "a/b", "https://ghcr.io", id="https"),
        pytest.param(["https://ghcr.io/v2/"], "ghcr.io", "a/b", "https://ghcr.io/v2/", id="v2"),
        pytest.param(["http://ghcr.io/v1"], "ghcr.io", "a/b", "http://ghcr.io/v1", id="v1"),
        pytest.param(
            ["https://index.docker.io/v1/"], "docker.io", "library/x", "https://index.docker.io/v1/", id="hub"
        ),
        pytest.param(["registry-1.docker.io"], "docker.io", "a/b", "registry-1.docker.io", id="hub's registry"),
        pytest.param(["docker.io/a", "index.docker.io"], "docker.io", "a/b", "docker.io/a", id="hub by path"),
        pytest.param(["GHCR.io"], "ghcr.io", "a/b", "GHCR.io", id="upper case"),
        pytest.param(["ghcr.io:443"], "ghcr.io", "a/b", None, id="another port"),
        pytest.param(["quay.io"], "ghcr.io", "a/b", None, id="another host"),
        pytest.param(["hcr.io", "ghcr.io.evil.example"], "ghcr.io", "a/b", None, id="part of a host"),
    ],
)
def test_the_most_specific_key_decides(keys: list[str], host: str, path: str, key: str | None) -> None:
    assert found({each: entry(f"for {each}") for each in keys}, host, path) == (key and (key, f"for {key}"))


@pytest.mark.parametrize(
    "login",
    [
        pytest.param(entry("p:w"), id="auth"),
        pytest.param({"username": "robot", "password": "p:w"}, id="user and password"),
        pytest.param({"auth": "", "username": "robot", "password": "p:w"}, id="an empty auth beside them"),
        pytest.param({"auth": entry("p:w")["auth"] + "\n"}, id="a line end"),
        pytest.param({"auth": base64.b64encode(b"robot:p:w\0\0").decode()}, id="zeros at the end, as docker writes"),
    ],
)
def test_each_form_of_a_login_is_read(login: dict[str, str]) -> None:
    text = json.dumps({"auths": {"ghcr.io": login}})
    key, read = PROGRAM.login_of(text, PROGRAM.Source("ghcr.io", "a", ":1"))
    assert (key, read) == ("ghcr.io", {"username": "robot", "password": "p:w"})
    config = json.loads(PROGRAM.crane_config("ghcr.io", read, "t", "ecr"))
    assert config == {"auths": {"ghcr.io": entry("p:w"), "t": entry("ecr", "AWS")}}
    hidden = PROGRAM.secrets_of(read)
    assert {"p:w", base64.b64encode(b"p:w").decode(), entry("p:w")["auth"]} <= set(hidden)


def test_a_token_is_a_login_too() -> None:
    text = json.dumps({"auths": {"ghcr.io": {"identitytoken": "secret"}}})
    _, read = PROGRAM.login_of(text, PROGRAM.Source("ghcr.io", "a", ":1"))
    config = json.loads(PROGRAM.crane_config("ghcr.io", read, "t", "ecr"))
    assert config["auths"]["ghcr.io"] == {"identitytoken": "secret"}
    assert "secret" in PROGRAM.secrets_of(read)


def test_docker_hubs_login_is_written_under_the_key_that_crane_reads() -> None:
    config = json.loads(PROGRAM.crane_config("docker.io", {"username": "u", "password": "p"}, "t", "ecr"))
    assert set(config["auths"]) == {"https://index.docker.io/v1/", "t"}


def test_no_secret_means_no_login() -> None:
    assert PROGRAM.login_of(" \n", PROGRAM.Source("ghcr.io", "a", ":1")) is None


@pytest.mark.parametrize(
    ("text", "fault", "remedy"),
    [
        pytest.param("{", "is not a JSON object", "docker login", id="no JSON"),
        pytest.param("[]", "is not a JSON object", "docker login", id="a list"),
        pytest.param("{}", 'has no logins under "auths"', "docker login", id="nothing"),
        pytest.param('{"auths": {}}', 'has no logins under "auths"', "docker login", id="no logins"),
        pytest.param('{"auths": {"a": "b"}}', 'has no logins under "auths"', "docker login", id="a text for a login"),
        pytest.param('{"credsStore": "ecr-login"}', "credential store", "docker login", id="credsStore"),
        pytest.param('{"auths": {}, "credHelpers": {"a": "b"}}', "credential store", "docker login", id="credHelpers"),
        pytest.param(
            '{"apiVersion":"v1","kind":"Secret","data":{".dockerconfigjson":"e30="}}',
            *("a whole Secret of Kubernetes", "decoded text"),
            id="a whole Secret",
        ),
        pytest.param('{".dockerconfigjson":"e30="}', "a whole Secret", "decoded text", id="the data of a Secret"),
        pytest.param('{"ghcr.io":{"auth":"cm9ib3Q6eA=="}}', "an old .dockercfg", 'under "auths"', id="old file"),
        pytest.param(
            '{"username":"u","password":"p"}', "a login without its registry", "docker login", id="only a login"
        ),
        pytest.param('{"auths":{"ghcr.io":{}}}', "has no login for ghcr.io", '"username" and "password"', id="empty"),
        pytest.param('{"auths":{"ghcr.io":{"auth":"%%%"}}}', "is not base64", "USER:PASSWORD", id="broken base64"),
        pytest.param(
            '{"auths":{"ghcr.io":{"auth":"cm9ib3Q="}}}', "is not USER:PASSWORD", "USER:PASSWORD", id="no colon"
        ),
        pytest.param('{"auths":{"ghcr.io":{"auth":"/w=="}}}', "is not base64", "USER:PASSWORD", id="no text"),
        pytest.param('{"auths":{"ghcr.io":{"username":"u"}}}', "has no login for ghcr.io", '"auth"', id="no password"),
    ],
)
def test_a_secret_that_the_copy_would_ignore_is_refused_with_its_remedy(text: str, fault: str, remedy: str) -> None:
    with pytest.raises(PROGRAM.Ended) as raised:
        PROGRAM.login_of(text, PROGRAM.Source("ghcr.io", "a", ":1"))
    assert raised.value.result == "AUTH_FILE"
    assert raised.value.reason.startswith("the secret of RegistryAuthSecretArn ")
    assert fault in raised.value.reason
    assert remedy in raised.value.reason.partition(";")[2]


def test_a_broken_login_for_another_registry_does_not_stop_a_copy() -> None:
    assert found({"quay.io": {"auth": "%"}, "ghcr.io": entry("p")}, "ghcr.io", "a") == ("ghcr.io", "p")


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=5),
        lambda each: (
            st.dictionaries(
                st.sampled_from(["auths", "auth", "ghcr.io", "username", "password", "kind", "x"]), each, max_size=3
            )
            | st.lists(each, max_size=2)
        ),
    )
)
def test_any_json_is_a_login_no_login_or_a_reason(document: Any) -> None:
    with contextlib.suppress(PROGRAM.Ended):  # with AUTH_FILE, as the tests above show
        login = PROGRAM.login_of(json.dumps(document), PROGRAM.Source("ghcr.io", "a", ":1"))
        assert login is None or set(login[1]) in ({"username", "password"}, {"identitytoken"})
