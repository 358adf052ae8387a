"""Which login of the secret's text is for a source, and which texts are refused with their remedy."""

import ast
import base64
import contextlib
import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_mirror.registry_login import LoginError, login_of, shown_key
from support.templates import ROOT


def entry(password: str, user: str = "robot") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def found(auths: dict[str, Any], host: str, path: str, **more: Any) -> Any:
    login = login_of(json.dumps({"auths": auths, **more}), host, path)
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
        pytest.param(["registry.hub.docker.com"], "docker.io", "a/b", "registry.hub.docker.com", id="hub's other name"),
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
    assert login_of(text, "ghcr.io", "a") == ("ghcr.io", {"username": "robot", "password": "p:w"})


def test_a_token_is_a_login_too() -> None:
    text = json.dumps({"auths": {"ghcr.io": {"identitytoken": "secret", "auth": "AA=="}}})
    assert login_of(text, "ghcr.io", "a") == ("ghcr.io", {"identitytoken": "secret"})


@pytest.mark.parametrize("text", ["", " \n"])
def test_no_text_means_no_login(text: str) -> None:
    assert login_of(text, "ghcr.io", "a") is None


@pytest.mark.parametrize(
    ("text", "fault", "remedy"),
    [
        pytest.param("{", "is not a JSON object", "docker login", id="no JSON"),
        pytest.param("[" * 3_000, "is not a JSON object", "docker login", id="too deep"),
        pytest.param("[]", "is not a JSON object", "docker login", id="a list"),
        pytest.param("{}", 'has no logins under "auths"', "docker login", id="nothing"),
        pytest.param(
            '{"auths": {"ghcr.io": {"username": "u", "password": "\\ud800"}}}',
            "is no text",
            "UTF-8",
            id="half a character",
        ),
        pytest.param('{"auths": {}}', 'has no logins under "auths"', "docker login", id="no logins"),
        pytest.param('{"auths": {"a": "b"}}', 'has no logins under "auths"', "docker login", id="a text for a login"),
        pytest.param('{"credsStore": "ecr-login"}', "credential store", "docker login", id="credsStore"),
        pytest.param(
            '{"auths": {"ghcr.io": {}}, "credsStore": "desktop"}',
            "credential store",
            "docker login",
            id="as docker login writes it with a credential store",
        ),
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
        pytest.param('{"auths":{"ghcr.io":{"auth":"\\u00e9"}}}', "is not base64", "USER:PASSWORD", id="no ASCII"),
        pytest.param('{"auths":{"ghcr.io":{"auth":"cm9ib3Q6"}}}', "is not USER:PASSWORD", "USER:PASSWORD", id="half"),
        pytest.param('{"auths":{"ghcr.io":{"username":"u"}}}', "has no login for ghcr.io", '"auth"', id="no password"),
    ],
)
def test_a_secret_that_the_copy_would_ignore_is_refused_with_its_remedy(text: str, fault: str, remedy: str) -> None:
    with pytest.raises(LoginError) as raised:
        login_of(text, "ghcr.io", "a")
    assert fault in raised.value.fault
    assert remedy in raised.value.remedy


def test_a_broken_login_for_another_registry_does_not_stop_a_copy() -> None:
    assert found({"quay.io": {"auth": "%"}, "ghcr.io": entry("p")}, "ghcr.io", "a") == ("ghcr.io", "p")


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        pytest.param("ghcr.io/a", "ghcr.io/a", id="as it is"),
        pytest.param("https://index.docker.io/v1/", "https://index.docker.io/v1/", id="a URL"),
        pytest.param("https://robot:secret@ghcr.io/a@b", "https://ghcr.io/a@b", id="a user and a password"),
        pytest.param("robot:secret@ghcr.io", "ghcr.io", id="a user and a password without a scheme"),
        pytest.param("ghcr.io\x1b[1m\n\u202e", "ghcr.io?[1m??", id="what is not printable"),
        pytest.param("a" * 200, "a" * 100, id="too long"),
    ],
)
def test_a_key_is_shown_without_secrets_and_in_printable_ascii(key: str, shown: str) -> None:
    assert shown_key(key) == shown


def test_no_message_quotes_a_password() -> None:
    for login in ({"auth": "c2VjcmV0"}, {"auth": "secret%"}, {"password": "secret"}, {"username": "secret"}):
        with pytest.raises(LoginError) as raised:
            login_of(json.dumps({"auths": {"u:secret@ghcr.io": entry("x"), "ghcr.io": login}}), "ghcr.io", "a")
        assert "secret" not in str(raised.value)


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
    with contextlib.suppress(LoginError):
        login = login_of(json.dumps(document), "ghcr.io", "a")
        assert login is None or set(login[1]) in ({"username", "password"}, {"identitytoken"})


def test_the_build_can_contain_the_module() -> None:
    """It is a part of a program that Python 3.9 runs without any package."""
    path = ROOT / "src" / "image_mirror" / "registry_login.py"
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
    imports = [each for each in ast.walk(tree) if isinstance(each, ast.Import | ast.ImportFrom)]
    names = {each.module or "" for each in imports if isinstance(each, ast.ImportFrom)}
    names |= {alias.name for each in imports if isinstance(each, ast.Import) for alias in each.names}
    assert {each.partition(".")[0] for each in names} <= sys.stdlib_module_names
