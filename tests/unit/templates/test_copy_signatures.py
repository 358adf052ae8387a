"""Signatures beside an image: how the build finds them, within which limits, and that they never fail a copy."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.copy_program import PROGRAM

IMAGE = "sha256:" + "1" * 64
TAG = "sha256-" + "1" * 64
ONE, TWO, THREE = ("sha256:" + digit * 64 for digit in "abc")
TARGET = "123456789012.dkr.ecr.cn-northwest-1.amazonaws.com.cn/mirror/gcr.io/team/app:1"
SETTINGS = {
    "PATH": "/usr/bin:/bin",
    "COPY_PAUSES": "0 0",
    "COPY_STALL_SECONDS": "3600",
    "COPY_WATCH_SECONDS": "0.01",
    "MAX_IMAGE_GIGABYTES": "40",
    "BUILD_TIMEOUT_MINUTES": "240",
}
LOGIN = {"username": "user", "password": 'a "word\\'}
BASIC = "Basic dXNlcjphICJ3b3JkXA=="


class Api:
    """A source: answers by their place; the rest is 404. `asked` are the places in order, HEADs with a mark."""

    def __init__(self, answers: Mapping[str, tuple[int, str, bytes]]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def ask(self, place: str, *, head: bool = False) -> tuple[int, str, bytes]:
        self.asked.append(f"HEAD {place}" if head else place)
        status, digest, body = self.answers.get(place, (404, "", b""))
        return status, digest, b"" if head else body


def index(*digests: str) -> bytes:
    return json.dumps({"manifests": [{"digest": digest} for digest in digests]}).encode()


FALLBACK_OF_NOTHING = [f"HEAD manifests/{TAG}"]
COSIGN_2 = [f"HEAD manifests/{TAG}{kind}" for kind in (".sig", ".att", ".sbom")]


@pytest.mark.parametrize(
    ("answers", "found", "asked"),
    [
        pytest.param(
            {f"referrers/{IMAGE}": (200, "", index(ONE, TWO, ONE))},
            [(ONE, f"@{ONE}"), (TWO, f"@{TWO}")],
            COSIGN_2,
            id="by the referrers API, each once",
        ),
        pytest.param({f"referrers/{IMAGE}": (200, "", index())}, [], COSIGN_2, id="the referrers API knows none"),
        pytest.param({}, [], [*FALLBACK_OF_NOTHING, *COSIGN_2], id="no API and no tag: HEADs only"),
        pytest.param(
            {f"manifests/{TAG}": (200, THREE, index(ONE))},
            [(ONE, f"@{ONE}")],
            [*FALLBACK_OF_NOTHING, f"manifests/{TAG}", *COSIGN_2],
            id="by the tag, which is not copied itself",
        ),
        pytest.param(
            {f"referrers/{IMAGE}": (200, "", b"<html>"), f"manifests/{TAG}": (200, "", index(ONE))},
            [(ONE, f"@{ONE}")],
            [*FALLBACK_OF_NOTHING, f"manifests/{TAG}", *COSIGN_2],
            id="an API that answers with a page",
        ),
        pytest.param(
            {f"manifests/{TAG}.sig": (200, ONE, b""), f"manifests/{TAG}.sbom": (200, TWO, b"")},
            [(ONE, f":{TAG}.sig"), (TWO, f":{TAG}.sbom")],
            [*FALLBACK_OF_NOTHING, *COSIGN_2],
            id="cosign 2's tags",
        ),
    ],
)
def test_artifacts_are_found_with_few_requests(
    answers: Mapping[str, tuple[int, str, bytes]], found: list[tuple[str, str]], asked: list[str]
) -> None:
    api = Api(answers)
    assert PROGRAM.artifacts_of(api, IMAGE) == (found, "")
    assert api.asked == [f"referrers/{IMAGE}", *asked]


@pytest.mark.parametrize("status", [401, 403, 429, 500])
@pytest.mark.parametrize("place", [f"referrers/{IMAGE}", f"manifests/{TAG}", f"manifests/{TAG}.sig"])
def test_a_source_that_does_not_answer_is_a_problem_and_the_rest_is_found(place: str, status: int) -> None:
    api = Api({place: (status, "", b""), f"manifests/{TAG}.att": (200, ONE, b"")})
    found = [(ONE, f":{TAG}.att")]
    assert PROGRAM.artifacts_of(api, IMAGE) == (found, f"the source answered {status} for {place}")


@pytest.mark.parametrize(
    ("place", "answer", "words"),
    [
        pytest.param(f"manifests/{TAG}.sig", (200, "sha512:x", b""), "does not say which digest", id="no digest"),
        pytest.param(f"manifests/{TAG}", (200, "", b"<html>"), "no list of artifacts", id="no list"),
    ],
)
def test_what_cannot_be_read_is_a_reason(place: str, answer: tuple[int, str, bytes], words: str) -> None:
    found, problem = PROGRAM.artifacts_of(Api({place: answer}), IMAGE)
    assert found == []
    assert words in problem


@pytest.mark.parametrize("status", [400, 404, 405])
def test_a_source_without_the_referrers_api_is_no_problem(status: int) -> None:
    assert PROGRAM.artifacts_of(Api({f"referrers/{IMAGE}": (status, "", b"")}), IMAGE) == ([], "")


@given(st.binary() | st.recursive(st.none() | st.text(), st.lists).map(lambda value: json.dumps(value).encode()))
def test_a_hostile_list_of_artifacts_is_read_as_none(body: bytes) -> None:
    assert PROGRAM.listed_in(body) in (None, [])


def test_only_digests_are_taken_from_a_list() -> None:
    assert PROGRAM.listed_in(b"[" * 100_000) is None
    assert PROGRAM.listed_in(index(ONE, f"{TWO}$(x)", "../../x")) == [ONE]
    assert PROGRAM.listed_in(json.dumps({"manifests": [{"digest": {}}]}).encode()) is None


def source_api(folder: Path, answers: Callable[..., Any], login: Mapping[str, str] | None = LOGIN) -> Any:
    api = PROGRAM.SourceApi(PROGRAM.Build(SETTINGS, folder), PROGRAM.Source("gcr.io", "team/app", ":1"), login)
    api.request = answers
    return api


CHALLENGE = 'Bearer realm="https://auth.example/token",service="a b"'
ODD_CHALLENGE = 'BEARER\tREALM="https://auth.example/token", Service="a b"'
TOKEN_URL = "https://auth.example/token?scope=repository%3Ateam%2Fapp%3Apull&service=a+b"


@pytest.mark.parametrize(
    ("challenge", "body", "asked", "authorization"),
    [
        pytest.param(CHALLENGE, b'{"token": "t"}', TOKEN_URL, "Bearer t", id="token"),
        pytest.param(
            'bearer realm="https://auth.example/token?x=1",scope="repository:other:pull"',
            b'{"access_token": "t"}',
            "https://auth.example/token?x=1&scope=repository%3Ateam%2Fapp%3Apull",
            "Bearer t",
            id="access_token, and the scope is our own",
        ),
        pytest.param('Bearer realm="http://169.254.169.254/x"', b'{"token": "t"}', None, "", id="not by https"),
        pytest.param('Bearer realm="https://a b"', b'{"token": "t"}', None, "", id="a space in the URL"),
        pytest.param("Bearer", b'{"token": "t"}', None, BASIC, id="no realm"),
        pytest.param(f'{CHALLENGE}, Basic realm="x"', b'{"token": "t"}', TOKEN_URL, "Bearer t", id="Bearer first"),
        pytest.param(f'Basic realm="x", {CHALLENGE}', b'{"token": "t"}', TOKEN_URL, "Bearer t", id="Basic first"),
        pytest.param(ODD_CHALLENGE, b'{"token": "t"}', TOKEN_URL, "Bearer t", id="odd case"),
        pytest.param(CHALLENGE, b"[" * 100_000, TOKEN_URL, "", id="deep brackets"),
        pytest.param('Bearer service="x"', b'{"token": "t"}', None, "", id="only a service"),
        pytest.param(CHALLENGE, b'{"token": "t\\nX: y"}', TOKEN_URL, "", id="a line break"),
        pytest.param(CHALLENGE, b'{"token": 1}', TOKEN_URL, "", id="a number"),
        pytest.param(CHALLENGE, b"[]", TOKEN_URL, "", id="a list"),
        pytest.param(CHALLENGE, b"<html>", TOKEN_URL, "", id="a page"),
        pytest.param('Basic realm="x"', b"", None, BASIC, id="Basic"),
        pytest.param("", b"", None, BASIC, id="no challenge"),
    ],
)  # fmt: skip
def test_a_challenge_is_answered_with_a_token_or_the_login(
    tmp_path: Path, challenge: str, body: bytes, asked: str | None, authorization: str
) -> None:
    requests: list[tuple[str, str]] = []

    def request(url: str, with_login: str, **_: object) -> tuple[int, dict[str, str], bytes]:
        requests.append((url, with_login))
        return 200, {}, body

    assert source_api(tmp_path, request).authorization_for(challenge) == authorization
    assert requests == ([(asked, BASIC)] if asked else [])


def test_a_login_that_is_an_identity_token_is_sent_to_nobody(tmp_path: Path) -> None:
    requests: list[str] = []

    def request(_: str, with_login: str, **__: object) -> tuple[int, dict[str, str], bytes]:
        requests.append(with_login)
        return 401, {"www-authenticate": 'Basic realm="x"'}, b""

    source_api(tmp_path, request, {"identitytoken": "secret"}).ask("x")
    assert requests == ["", ""]


def test_a_source_that_refuses_everything_is_asked_for_one_token(tmp_path: Path) -> None:
    requests: list[str] = []

    def request(url: str, _: str, **__: object) -> tuple[int, dict[str, str], bytes]:
        requests.append(url)
        return 401, {"www-authenticate": 'Bearer realm="https://auth.example/token"'}, b"{}"

    api = source_api(tmp_path, request)
    assert [api.ask("x")[0], api.ask("y")[0]] == [401, 401]
    base = "https://gcr.io/v2/team/app/"
    token = "https://auth.example/token?scope=repository%3Ateam%2Fapp%3Apull"
    assert requests == [f"{base}x", token, f"{base}x", f"{base}y"]


def test_the_login_is_given_to_nobody_whom_another_host_names(tmp_path: Path) -> None:
    requests: list[str] = []

    def request(url: str, _: str, **__: object) -> tuple[int, dict[str, str], bytes]:
        requests.append(url)
        return 401, {"www-authenticate": CHALLENGE, "redirected": "1"}, b""

    assert source_api(tmp_path, request).ask("x")[0] == 401
    assert requests == ["https://gcr.io/v2/team/app/x"]


def test_docker_hub_is_asked_at_the_host_of_its_api(tmp_path: Path) -> None:
    source = PROGRAM.Source("docker.io", "library/nginx", ":1")
    api = PROGRAM.SourceApi(PROGRAM.Build(SETTINGS, tmp_path), source, None)
    assert api.base == "https://registry-1.docker.io/v2/library/nginx/"


def curl(tmp_path: Path, stdout: str, headers: str) -> tuple[Any, list[tuple[str, ...]]]:
    """Return the API whose curl prints a status and leaves headers, and the commands that are run."""
    build, commands = PROGRAM.Build(SETTINGS, tmp_path), list[tuple[str, ...]]()

    def run(*command: str, **_: object) -> tuple[int, str, str]:
        commands.append(command)
        (tmp_path / "headers.txt").write_text(headers)
        (tmp_path / "body").write_bytes(b"body")
        return 0, stdout, ""

    build.run = run
    return PROGRAM.SourceApi(build, PROGRAM.Source("gcr.io", "team/app", ":1"), LOGIN), commands


def test_no_login_is_on_a_command_line_and_the_last_answer_counts(tmp_path: Path) -> None:
    redirected = (
        "HTTP/1.1 307 x\r\nDocker-Content-Digest: wrong\r\n\r\nHTTP/2 200\r\nDocker-Content-Digest: right\r\n\r\n"
    )
    api, commands = curl(tmp_path, "200 1", redirected)
    assert api.request("https://gcr.io/v2/x", BASIC) == (
        200,
        {"docker-content-digest": "right", "redirected": "1"},
        b"body",
    )
    [command] = commands
    assert not [word for word in command if BASIC[6:] in word]
    assert "--head" not in command
    assert "--location" in command
    assert "--location-trusted" not in command
    assert "--globoff" in command
    assert command[command.index("--max-filesize") + 1] == "4000000"
    assert 0 < int(command[command.index("--max-time") + 1]) <= 240 * 60
    assert (tmp_path / "curl.txt").read_text() == f'header = "Authorization: {BASIC}"\n'
    assert command[command.index("--proto") + 1] == "=https"
    assert command[command.index("--proto-redir") + 1] == "=https"


def test_a_look_at_a_tag_is_a_head_which_is_no_pull(tmp_path: Path) -> None:
    api, commands = curl(tmp_path, "200 0", "HTTP/2 200\r\nDocker-Content-Digest: sha256:x\r\n\r\n")
    assert api.ask("manifests/x", head=True)[:2] == (200, "sha256:x")
    assert "--head" in commands[0]


def test_all_challenges_of_an_answer_are_read(tmp_path: Path) -> None:
    two = 'HTTP/2 401\r\nWWW-Authenticate: Bearer realm="https://a"\r\nwww-authenticate: Basic realm="b"\r\n\r\n'
    api, _ = curl(tmp_path, "401 0", two)
    assert api.request("https://gcr.io/v2/x", "")[1]["www-authenticate"] == 'Bearer realm="https://a", Basic realm="b"'


def test_a_token_is_masked_and_a_very_short_one_is_not(tmp_path: Path) -> None:
    def token(text: str) -> Any:
        api = source_api(tmp_path, lambda *_, **__: (200, {}, json.dumps({"token": text}).encode()))
        assert api.authorization_for(CHALLENGE) == f"Bearer {text}"
        return api.build

    assert token("a-secret-token").shown("x a-secret-token y") == "x *** y"
    assert token("e").shown("the copy") == "the copy"


def test_the_search_has_the_same_minute_as_the_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builds: list[Any] = []

    def artifacts_of(api: Any, _: str) -> Any:
        builds.append(api.build)
        return [], ""

    monkeypatch.setattr(PROGRAM, "artifacts_of", artifacts_of)
    build = PROGRAM.Build(SETTINGS, tmp_path)
    source = PROGRAM.Source("gcr.io", "team/app", ":1")
    assert PROGRAM.copied_signatures(build, "crane", source, IMAGE, TARGET, None) == "0"
    assert builds[0].deadline < build.deadline


def test_a_reason_shows_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PROGRAM.Build, "shown", lambda _self, text: text.replace("p4ssword", "***"))
    said = signatures(tmp_path, monkeypatch, PROGRAM.Ended("UNREACHABLE", "curl: p4ssword"), answers())
    assert said == "curl: ***"


def test_a_curl_without_an_answer_ends_the_search(tmp_path: Path) -> None:
    api, _ = curl(tmp_path, "", "")
    with pytest.raises(PROGRAM.Ended) as raised:
        api.request("https://gcr.io/v2/x", "")
    assert raised.value.result == "UNREACHABLE"


def signatures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: Any, run: Callable[..., Any], problem: str = ""
) -> str:
    """Return what the build says of `found` artifacts, whose copies are runs of `run`."""

    def artifacts_of(*_: object) -> Any:
        if isinstance(found, Exception):
            raise found
        return [(each, f"@{each}") for each in found], problem

    monkeypatch.setattr(PROGRAM, "artifacts_of", artifacts_of)
    monkeypatch.setattr(PROGRAM.Build, "run", run)
    source = PROGRAM.Source("gcr.io", "team/app", ":1")
    said: str = PROGRAM.copied_signatures(PROGRAM.Build(SETTINGS, tmp_path), "crane", source, IMAGE, TARGET, None)
    return said


def answers(*results: Any) -> Callable[..., Any]:
    """Return a Build.run that ends with each of `results` in turn: a status with errors, or an exception."""
    left = list(results)

    def run(*_: object, **__: object) -> tuple[int, str, str]:
        result = left.pop(0)
        if isinstance(result, Exception):
            raise result
        status, errors = result
        return status, "", errors

    return run


@pytest.mark.parametrize(
    ("found", "results", "said"),
    [
        pytest.param([], [], "0", id="none"),
        pytest.param([ONE, TWO], [(0, ""), (0, "")], "2", id="all"),
        pytest.param(
            [ONE, TWO, THREE],
            [(0, ""), (1, "Error: GET https://gcr.io/v2/x/blobs/y: unexpected status code 503"), (0, "")],
            "2 of 3: GET https://gcr.io/v2/x/blobs/y: unexpected status code 503",
            id="one fails",
        ),
        pytest.param(
            [ONE, TWO], [(0, ""), PROGRAM.Ended("STALLED", "x")], "1 of 2: not copied in 60 s", id="time over"
        ),
        pytest.param(
            [ONE, TWO],
            [(0, ""), PROGRAM.Ended("OUT_OF_TIME", "x")],
            "1 of 2: not copied in 60 s",
            id="time over in the fast lane",
        ),
        pytest.param(
            [ONE, TWO], [PROGRAM.Ended("TOO_LARGE", "x")], "0 of 2: they have more than 100 MB", id="too large"
        ),
        pytest.param(PROGRAM.Ended("UNREACHABLE", "curl: (6) x"), [], "curl: (6) x", id="no answer"),
        pytest.param(RuntimeError("secret"), [], "a bug of the build: RuntimeError", id="a bug"),
        pytest.param([ONE], [RuntimeError("secret")], "0 of 1: a bug of the build: RuntimeError", id="a bug in a copy"),
    ],
)
def test_signatures_never_fail_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: Any, results: list[Any], said: str
) -> None:
    assert signatures(tmp_path, monkeypatch, found, answers(*results)) == said


def test_a_source_that_cannot_be_asked_is_a_reason_and_not_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert signatures(tmp_path, monkeypatch, [], answers(), "the source answered 403") == "the source answered 403"


def test_more_than_fifty_artifacts_are_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [f"sha256:{number:064}" for number in range(51)]
    said = signatures(tmp_path, monkeypatch, many, answers(*[(0, "")] * 50))
    assert said == "50 of 51: at most 50 are copied"


def test_many_quick_artifacts_do_not_take_more_than_the_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(build: Any, *_: object) -> tuple[int, str, str]:
        build.deadline = 0.0
        return 0, "", ""

    assert signatures(tmp_path, monkeypatch, [ONE, TWO, THREE], run) == "1 of 3: not copied in 60 s"


def test_the_megabytes_of_all_artifacts_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []

    def run(build: Any, *_: object) -> tuple[int, str, str]:
        limits.append(build.most_bytes)
        build.read = 30_000_000
        return 0, "", ""

    assert signatures(tmp_path, monkeypatch, [ONE, TWO, THREE], run) == "3"
    assert limits == [100e6, 70e6, 40e6]


def test_the_search_and_the_copies_have_a_minute_and_a_hundred_megabytes(tmp_path: Path) -> None:
    build = PROGRAM.Build(SETTINGS, tmp_path)
    limited = build.limited(PROGRAM.SIGNATURE_SECONDS, PROGRAM.MOST_ARTIFACT_BYTES)
    assert limited.deadline < build.deadline
    assert (limited.most_bytes, build.most_bytes) == (100e6, 40e9)
    short = PROGRAM.Build(SETTINGS | {"BUILD_TIMEOUT_MINUTES": "0.5"}, tmp_path)
    assert short.limited(60, 1).deadline == short.deadline
    limited.hide("a token")
    assert build.shown("a token") == "***"
