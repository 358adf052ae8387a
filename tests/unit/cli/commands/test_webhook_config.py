"""`image-mirror webhook-config`: the shipped configuration with its URL and an operator's choices."""

import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from image_mirror.cli import app, resources, webhook_manifest
from image_mirror.cli.errors import NoAnswerError
from image_mirror.cli.webhook_manifest import Choices, shipped_configuration, shipped_text
from image_mirror.swap_when import VALUES, SwapWhen
from support.operators import CHINA_OUTPUTS, TOKEN, URL, Operated
from support.templates import ROOT, webhook_configuration

Json = dict[str, Any]
OPT_OUT = {"key": "image-mirror/skip", "operator": "NotIn", "values": ["true"]}
NAMESPACE = "kubernetes.io/metadata.name"


def webhook_config(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["webhook-config", *arguments])


def entry(done: Result) -> Json:
    """Return the webhook of the printed configuration; nothing else may be printed."""
    assert (done.exit_code, done.stderr) == (0, "")
    [found] = yaml.safe_load(done.stdout)["webhooks"]
    return dict(found)


@pytest.mark.usefixtures("operated")
def test_what_is_printed_is_the_shipped_file_with_the_stacks_url() -> None:
    expected = webhook_configuration()
    expected["webhooks"][0]["clientConfig"]["url"] = URL
    done = webhook_config()
    assert (done.exit_code, done.stderr) == (0, "")
    assert yaml.safe_load(done.stdout) == expected == shipped_configuration(URL)
    shipped = (ROOT / "mutating-webhook.yaml").read_text().splitlines()
    printed = done.stdout.splitlines()
    assert [line for line in shipped if line not in printed] == [shipped[0], "      url: <WEB-HOOK-URL>"]
    assert [line for line in printed if line not in shipped] == [f'      url: "{URL}"']


def test_a_url_that_is_given_needs_no_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:1")
    monkeypatch.setenv("IMAGE_MIRROR_CHINA_PROFILE", "no-such-profile")
    assert entry(webhook_config("--url", "https://x.example:8443/t"))["clientConfig"] == {
        "url": "https://x.example:8443/t"
    }


@pytest.mark.parametrize("route", ["", "/", "/paused", "/copied/"])
def test_the_url_of_a_paused_cluster_can_be_given_to_pause_it_again(route: str) -> None:
    url = f"https://x.example/t{route}"
    assert entry(webhook_config("--pause", "--url", url))["clientConfig"] == {"url": "https://x.example/t/paused"}
    done = webhook_config("--modes", "copied", "--url", url)
    assert done.exit_code == 0
    urls = [each["clientConfig"]["url"].rstrip("/") for each in yaml.safe_load(done.stdout)["webhooks"]]
    assert urls == ["https://x.example/t", "https://x.example/t/copied"]


def test_a_url_that_keeps_the_pause_is_named() -> None:
    done = webhook_config("--url", "https://x.example/t/paused")
    assert done.exit_code == 0
    assert yaml.safe_load(done.stdout)["webhooks"][0]["clientConfig"]["url"] == "https://x.example/t/paused"
    assert done.stderr.startswith(
        "Note: this URL is the route of paused, for all namespaces; without /paused at its end"
    )


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        pytest.param(["--failure-policy", "Ignore"], {"failurePolicy": "Ignore"}, id="ignore"),
        pytest.param(["--timeout", "1"], {"timeoutSeconds": 1}, id="shortest"),
        pytest.param(["--timeout", "30"], {"timeoutSeconds": 30}, id="longest"),
        pytest.param(
            ["--namespaces", "a,b"],
            {"namespaceSelector": [{"key": NAMESPACE, "operator": "In", "values": ["a", "b"]}]},
            id="only-these",
        ),
        pytest.param(
            ["--failure-policy", "Fail", "--exclude-namespaces", "kube-system"],
            {
                "failurePolicy": "Fail",
                "namespaceSelector": [{"key": NAMESPACE, "operator": "NotIn", "values": ["kube-system"]}],
            },
            id="fail",
        ),
        pytest.param(
            ["--namespaces", "on, no,on", "--exclude-namespaces", "1"],
            {
                "namespaceSelector": [
                    {"key": NAMESPACE, "operator": "In", "values": ["on", "no"]},
                    {"key": NAMESPACE, "operator": "NotIn", "values": ["1"]},
                ]
            },
            id="names-that-yaml-takes-for-something-else",
        ),
        pytest.param(
            ["--failure-policy", "Fail", "--namespaces", "a"], {"failurePolicy": "Fail"}, id="not-kube-system"
        ),
    ],
)
def test_each_option_changes_what_it_says_and_nothing_else(arguments: list[str], changes: Json) -> None:
    plain = entry(webhook_config("--url", URL))
    changed = entry(webhook_config("--url", URL, *arguments))
    selector = changes.pop("namespaceSelector", None)
    if selector is not None:
        assert changed["namespaceSelector"]["matchExpressions"] == [OPT_OUT, *selector]
        assert plain.pop("namespaceSelector") != changed.pop("namespaceSelector")
    elif "--namespaces" in arguments:
        del plain["namespaceSelector"], changed["namespaceSelector"]
    assert changed == plain | changes


SWAP_WHEN = "image-mirror/swap-when"


def entries(done: Result) -> dict[str, Json]:
    """Return the webhooks of the printed configuration by their names; nothing else may be printed."""
    assert (done.exit_code, done.stderr) == (0, "")
    return {each["name"]: each for each in yaml.safe_load(done.stdout)["webhooks"]}


@pytest.mark.usefixtures("operated")
def test_each_value_of_modes_has_a_webhook_that_differs_in_name_url_and_namespaces() -> None:
    plain = entry(webhook_config())
    printed = entries(webhook_config("--modes", "copied, paused"))
    assert list(printed) == [f"{begin}pods.image-mirror.webhook" for begin in ("", "copied.", "paused.")]
    for name, found in printed.items():
        value = name.partition(".")[0] if name.startswith(("copied", "paused")) else None
        chosen = (
            {"key": SWAP_WHEN, "operator": "In", "values": [value]}
            if value
            else {"key": SWAP_WHEN, "operator": "NotIn", "values": ["copied", "paused"]}
        )
        assert found.pop("namespaceSelector") == {"matchExpressions": [OPT_OUT, chosen]}
        assert found.pop("clientConfig") == {"url": f"{URL}/{value}" if value else URL}
        assert {**plain, "name": name}.items() >= found.items()
        assert found.keys() == plain.keys() - {"namespaceSelector", "clientConfig"}


@pytest.mark.usefixtures("operated")
@pytest.mark.parametrize("modes", [(), ("--modes", "always,copied,paused")], ids=["plain", "modes"])
def test_a_pause_changes_nothing_but_the_urls(modes: tuple[str, ...]) -> None:
    before = entries(webhook_config(*modes, "--failure-policy", "Fail", "--exclude-namespaces", "kube-system"))
    paused = entries(
        webhook_config(*modes, "--failure-policy", "Fail", "--exclude-namespaces", "kube-system", "--pause")
    )
    assert {each["clientConfig"].pop("url") for each in paused.values()} == {f"{URL}/paused"}
    assert [each["clientConfig"].pop("url") for each in before.values()].count(URL) == 1
    assert paused == before


@pytest.mark.parametrize("options", [("--pause",), ("--modes", "copied")], ids=str)
def test_a_stack_of_an_earlier_release_has_no_such_routes(operated: Operated, options: tuple[str, ...]) -> None:
    outputs = {name: value for name, value in CHINA_OUTPUTS.items() if name != "SwapWhenRoutes"}
    operated.deploy("sam-template.yaml", "cn-northwest-1", "image-mirror", outputs, WebhookToken=TOKEN)
    assert entry(webhook_config())["clientConfig"] == {"url": URL}
    done = webhook_config(*options)
    assert (done.exit_code, done.stdout) == (3, "")
    assert "has no output SwapWhenRoutes: it is of an older release" in done.stderr


def test_a_slash_at_the_end_of_the_url_is_not_doubled() -> None:
    assert entry(webhook_config("--url", URL + "/", "--pause"))["clientConfig"] == {"url": f"{URL}/paused"}


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="all-namespaces"),
        pytest.param(["--exclude-namespaces", "default"], id="another-one-is-omitted"),
        pytest.param(["--namespaces", "default,kube-system"], id="named"),
    ],
)
def test_fail_without_kube_system_omitted_is_warned_of(arguments: list[str]) -> None:
    done = webhook_config("--url", URL, "--failure-policy", "Fail", *arguments)
    assert done.exit_code == 0
    assert done.stderr.startswith("Warning: while the webhook is down, no pod starts in kube-system either")
    assert "add --exclude-namespaces kube-system" in done.stderr
    assert yaml.safe_load(done.stdout)["webhooks"][0]["failurePolicy"] == "Fail"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["--url", "http://x.example/t"], "must begin with https:// and a host", id="http"),
        pytest.param(["--url", "https:///t"], "must begin with https:// and a host", id="no-host"),
        pytest.param(["--url", "x.example/t"], "must begin with https:// and a host", id="no-scheme"),
        pytest.param(["--url", "<WEB-HOOK-URL>"], "must begin with https:// and a host", id="the-placeholder"),
        pytest.param(["--url", ""], "is not a URL", id="empty"),
        pytest.param(["--url", "https://u:hunter2@x.example/t"], "must have no user", id="user"),
        pytest.param(["--url", "https://x.example/t?timeout=1s"], "no query (?)", id="query"),
        pytest.param(["--url", "https://x.example/t?"], "no query (?)", id="empty-query"),
        pytest.param(["--url", "https://x.example/t#f"], "no fragment (#)", id="fragment"),
        pytest.param(["--url", "https://x.example/a b"], "a space, or a character", id="space"),
        pytest.param(["--url", "https://x.example/t\nkind: Pod"], "a space, or a character", id="line-break"),
        pytest.param(["--url", "https://x.example/\tt"], "a space, or a character", id="tab"),
        pytest.param(["--url", 'https://x.example/"t'], "a space, or a character", id="quote"),
        pytest.param(["--url", "https://x.example/\\t"], "a space, or a character", id="backslash"),
        pytest.param(["--url", "https://x.example:http/t"], "is not a URL", id="port"),
        pytest.param(["--url", "https://[x/t"], "is not a URL", id="brackets"),
        pytest.param(["--url", "https://例え.example/t"], "a space, or a character", id="not-ascii"),
        pytest.param(["--timeout", "0"], "Invalid value for '--timeout'", id="no-time"),
        pytest.param(["--timeout", "31"], "Invalid value for '--timeout'", id="too-long"),
        pytest.param(["--failure-policy", "ignore"], "Invalid value for '--failure-policy'", id="policy"),
        pytest.param(["--namespaces", "A"], "--namespaces: 'A': is not a namespace", id="upper-case"),
        pytest.param(["--namespaces", ""], "--namespaces: '': is not a namespace", id="none"),
        pytest.param(["--namespaces", "a,,b"], "--namespaces: '': is not a namespace", id="an-empty-one"),
        pytest.param(["--namespaces", "-a"], "'-a': is not a namespace", id="begins-with-a-hyphen"),
        pytest.param(["--namespaces", "a.b"], "'a.b': is not a namespace", id="dot"),
        pytest.param(["--namespaces", "a" * 64], "is not a namespace", id="too-long-a-name"),
        pytest.param(["--exclude-namespaces", 'a"]}'], "--exclude-namespaces: 'a\"]}': is not a namespace", id="yaml"),
        pytest.param(["--modes", "pause"], "--modes: 'pause': each must be always, copied or paused", id="mode"),
        pytest.param(["--modes", ""], "--modes: '': each must be always, copied or paused", id="no-mode"),
        pytest.param(["--modes", "always,,copied"], "each must be always", id="an-empty-mode"),
        pytest.param(["--modes", "always copied"], "each must be always", id="modes-without-a-comma"),
        pytest.param(["--namespaces", "a,b", "--exclude-namespaces", "b,c"], "b: also in --namespaces", id="both"),
    ],
)
def test_a_wrong_option_is_an_error_and_nothing_is_printed_on_standard_output(arguments: list[str], words: str) -> None:
    done = webhook_config(*(() if "--url" in arguments else ("--url", URL)), *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr
    assert "hunter2" not in done.stderr


def test_no_answer_of_aws_and_no_url_in_the_stack_end_with_3(operated: Operated, refuse: Callable[..., None]) -> None:
    operated.deploy(
        "sam-template.yaml",
        "cn-northwest-1",
        "image-mirror",
        {**CHINA_OUTPUTS, "APIGatewayURL": "none"},
        WebhookToken=TOKEN,
    )
    done = webhook_config()
    assert (done.exit_code, done.stdout) == (3, "")
    assert "the stack's output APIGatewayURL must begin with https://" in done.stderr
    refuse("cloudformation", "DescribeStacks")
    done = webhook_config()
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    assert "ask for this permission" in done.stderr


LABEL = st.from_regex(re.compile(r"[a-z0-9]([a-z0-9-]{0,9}[a-z0-9])?"), fullmatch=True)
NAMES = st.lists(st.one_of(LABEL, st.sampled_from(["y", "no", "on", "null", "1", "1e3", "0x1", "true"])), max_size=3)


@given(
    path=st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='"\\')),
    policy=st.sampled_from(["Ignore", "Fail"]),
    timeout=st.integers(1, 30),
    only=NAMES,
    excluded=NAMES,
    modes=st.lists(st.sampled_from(VALUES), unique=True),
    paused=st.booleans(),
)
def test_text_and_object_say_the_same(
    path: str, policy: Any, timeout: int, only: list[str], excluded: list[str], modes: list[SwapWhen], paused: bool
) -> None:
    url = f"https://x.example/{path}"
    names = {"namespaces": tuple(only), "excluded": tuple(excluded)}
    choices = Choices(failure_policy=policy, timeout=timeout, modes=tuple(modes), paused=paused, **names)
    text = shipped_text(url, choices)
    assert yaml.safe_load(text) == shipped_configuration(url, choices)
    plain = url.rstrip("/") + "/paused" if paused else url
    assert yaml.safe_load(text)["webhooks"][0]["clientConfig"]["url"] == plain


def test_a_line_that_is_no_more_in_the_file_does_not_go_unnoticed(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = (ROOT / "mutating-webhook.yaml").read_text().replace("timeoutSeconds: 5", "timeoutSeconds:  5")
    monkeypatch.setattr(webhook_manifest, "_shipped", lambda: changed)
    with pytest.raises(RuntimeError, match="does not have the lines"):
        shipped_text(URL, Choices(timeout=6))


def test_the_wheel_has_the_file_where_it_is_looked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included["mutating-webhook.yaml"] == "image_mirror/resources/mutating-webhook.yaml"
    assert all(target == f"image_mirror/resources/{source}" for source, target in included.items())
    assert webhook_manifest.FILE == "mutating-webhook.yaml"


def test_an_installed_package_prints_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "image_mirror"
    (package / "resources").mkdir(parents=True)
    monkeypatch.setattr(resources, "files", lambda _: package)
    monkeypatch.setattr(resources, "_CHECKOUT", tmp_path)
    with pytest.raises(NoAnswerError, match=r"does not have the file mutating-webhook\.yaml; install the wheel again"):
        shipped_text(URL)
    shutil.copy(ROOT / "mutating-webhook.yaml", package / "resources")
    assert f'url: "{URL}"' in shipped_text(URL)
