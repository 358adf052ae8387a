"""--debug: each request is a line on standard error, and no line has a secret."""

import json
from pathlib import Path

import pytest

from image_mirror.cli.doctor import webhook
from support.operators import TOKEN, Operated
from support.recorded import record, run, write


def debugged(stderr: str) -> list[str]:
    return [line.removeprefix("debug: ") for line in stderr.splitlines() if line.startswith("debug: ")]


def test_each_request_to_aws_is_a_line_with_its_answer(operated: Operated) -> None:
    write(operated.cloud.dynamodb, [record("gcr.io/a:1")])
    result = run("status", "--debug")
    assert result.exit_code == 0
    lines = debugged(result.stderr)
    [stack, *scans] = lines
    assert stack.startswith(
        "china account (profile china): DescribeStacks: POST https://cloudformation.cn-northwest-1."
    )
    assert ".amazonaws.com.cn/: 200" in stack
    assert scans
    assert all(": Scan: POST https://dynamodb.cn-northwest-1.amazonaws.com.cn/: 200" in line for line in scans)
    assert all(line.endswith(" ms") for line in lines)
    assert result.stdout == run("status").stdout
    assert not debugged(run("status").stderr)  # it was for that command only


def test_an_error_of_aws_is_named(operated: Operated) -> None:
    operated.cloud.dynamodb.delete_table(TableName="ImageListTable")
    result = run("status", "--debug")
    assert result.exit_code == 3
    assert ": 400 ResourceNotFoundException" in debugged(result.stderr)[-1]


@pytest.mark.usefixtures("operated")
def test_the_option_may_stand_before_the_command() -> None:
    assert debugged(run("--debug", "status").stderr)
    assert not debugged(run("status").stderr)


@pytest.mark.usefixtures("operated")
def test_a_login_in_an_endpoints_url_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDFORMATION", "http://user:pass-word@127.0.0.1:9/")
    lines = debugged(run("status", "--debug").stderr)
    assert lines
    assert not [line for line in lines if "pass-word" in line]


@pytest.mark.usefixtures("operated")
def test_a_request_that_gets_no_answer_is_named_as_often_as_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDFORMATION", "http://127.0.0.1:9/")
    result = run("status", "--debug")
    lines = debugged(result.stderr)
    assert len(lines) == 3
    assert all("DescribeStacks: POST http://127.0.0.1:9/: EndpointConnectionError" in line for line in lines)


def test_a_run_of_kubectl_is_a_line_without_what_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "kubectl"
    program.write_text("#!/bin/sh\necho '{\"items\": []}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    [line] = debugged(run("pods", "-A", "--context", "a b", "--debug").stderr)
    assert line.startswith("kubectl get pods --field-selector=status.phase=Pending --all-namespaces")
    assert "'--context=a b'" in line


def test_no_line_has_a_key_or_the_token(operated: Operated, monkeypatch: pytest.MonkeyPatch) -> None:
    key, secret = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    stored = {"Region": "cn-northwest-1", "AccessKey": key, "AccessSecretKey": secret}
    operated.global_secrets.put_secret_value(SecretId="ImagePullSecret", SecretString=json.dumps(stored))
    posted, real = [], webhook._post

    def post(url: str, body: bytes) -> object:
        posted.append(url)
        return real(url, body)

    monkeypatch.setattr(webhook, "_post", post)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nothing leaves this machine
    lines = debugged(run("doctor", "--debug").stderr)
    url, paused = sorted(posted)
    assert TOKEN in url
    assert paused == f"{url}/paused"
    assert any(line.startswith(f"POST {webhook.masked(url)}, ") for line in lines)
    assert any(": GetSecretValue: " in line for line in lines)
    printed = "\n".join(lines)
    assert not [each for each in (TOKEN, key, secret) if each in printed]
