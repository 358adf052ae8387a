"""docs/alarms-to-chat.yaml sends an alarm to a group in WeCom or DingTalk."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from support.templates import carry_out, load_template, parameters_of, sam_template

Json = dict[str, Any]
TEMPLATE = load_template("docs/alarms-to-chat.yaml")
RESOURCES: Json = TEMPLATE["Resources"]
CODE = RESOURCES["Function"]["Properties"]["Code"]["ZipFile"]
KEY = "693a91f6-7aaa-4bc4-97a0-0ec2000a5aaa"
WECOM = f"https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key={KEY}"
DINGTALK = f"https://oapi.dingtalk.com/robot/send?access_token={KEY}"
ALARM = {
    "AlarmName": "image-mirror-copy-failed",
    "AlarmDescription": "A copy failed for good, and new pods keep the image they name.",
    "AWSAccountId": "123456789012",
    "NewStateValue": "ALARM",
    "NewStateReason": "Threshold Crossed: 1 datapoint [1.0] was greater than the threshold (0.0).",
    "StateChangeTime": "2026-11-30T18:20:00.000+0000",
    "Region": "China (Ningxia)",
    "OldStateValue": "OK",
}
TEXT = """\
CloudWatch ALARM: image-mirror-copy-failed
2026-12-01 02:20:00 (UTC+8), China (Ningxia), 123456789012
A copy failed for good, and new pods keep the image they name.
Threshold Crossed: 1 datapoint [1.0] was greater than the threshold (0.0)."""


class Group(HTTPServer):
    """A group's server, which keeps what it gets and gives the answer it is told."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.taken: list[tuple[str, Json]] = []
        self.status, self.answer = 200, b'{"errcode": 0, "errmsg": "ok"}'

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/send?key={KEY}"


class _Handler(BaseHTTPRequestHandler):
    server: Group

    def do_POST(self) -> None:
        assert self.headers["Content-Type"] == "application/json"
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.taken.append((self.path, json.loads(body)))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.answer)

    def log_message(self, *args: Any) -> None:
        """Print nothing."""


@pytest.fixture
def group() -> Iterator[Group]:
    with Group() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def program() -> Json:
    names: Json = {}
    exec(compile(CODE, "index.py", "exec"), names)
    return names


def event(message: str) -> Json:
    return {"Records": [{"EventSource": "aws:sns", "Sns": {"Subject": "ALARM", "Message": message}}]}


def test_the_group_reads_the_alarm_its_time_in_china_and_its_reason(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOT_URL", group.url)
    monkeypatch.delenv("BOT_SECRET", raising=False)
    program()["handler"](event(json.dumps(ALARM)), None)
    assert group.taken == [(f"/send?key={KEY}", {"msgtype": "text", "text": {"content": TEXT}})]


def test_a_bot_with_a_secret_gets_the_signature_of_the_time(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOT_URL", group.url)
    monkeypatch.setenv("BOT_SECRET", "SECabc")
    names = program()
    names["handler"](event(json.dumps(ALARM)), None)
    [(path, _)] = group.taken
    found = re.fullmatch(rf"/send\?key={KEY}&timestamp=(\d{{13}})&sign=\S+", path)
    assert found
    assert path == names["signed"](f"/send?key={KEY}", "SECabc", int(found[1]))


def test_the_signature_is_dingtalk_s() -> None:
    """The value is openssl's: printf '1577262236757\\nSECabc' | openssl dgst -sha256 -hmac SECabc -binary | base64."""
    assert program()["signed"](DINGTALK, "SECabc", 1577262236757) == (
        f"{DINGTALK}&timestamp=1577262236757&sign=I5TKCOTTj6fad4sJ4q9RsIffw0PAChVQZQGTdtRbNEQ%3D"
    )


@pytest.mark.parametrize(
    ("message", "text"),
    [
        pytest.param(json.dumps(ALARM), TEXT, id="an alarm"),
        pytest.param(
            json.dumps(ALARM | {"AlarmDescription": None}),
            TEXT.replace("A copy failed for good, and new pods keep the image they name.\n", ""),
            id="an alarm without a description",
        ),
        pytest.param("a test", "CloudWatch\na test", id="a message of a person"),
        pytest.param('{"AlarmName": "x"}', 'CloudWatch\n{"AlarmName": "x"}', id="an event of another kind"),
        pytest.param("[1]", "CloudWatch\n[1]", id="a list"),
        pytest.param(
            json.dumps(ALARM | {"NewStateReason": 7}),
            TEXT.rpartition("\n")[0] + "\n7",
            id="an alarm whose reason is a number",
        ),
        pytest.param(
            LATE := '{"StateChangeTime": "9999-12-31T23:00:00.000+0000", "NewStateValue": "", "AlarmName": ""}',
            f"CloudWatch\n{LATE}",
            id="a time that is no time in China",
        ),
        pytest.param("[" * 100_000, f"CloudWatch\n{'[' * 2037}", id="lists within lists"),
        pytest.param(
            json.dumps(ALARM | {"AlarmDescription": None, "NewStateReason": "\ud800"}),
            TEXT.partition("A copy")[0] + "?",
            id="half a character",
        ),
    ],
)
def test_any_message_becomes_a_text_with_the_keyword(message: str, text: str) -> None:
    assert program()["text_of"](message) == text


def test_a_long_text_is_cut_to_what_wecom_takes_between_two_characters() -> None:
    text = program()["text_of"]("镜" * 3000)
    assert text.startswith("CloudWatch\n镜镜")
    assert len(text.encode()) in range(2046, 2049)


@pytest.mark.parametrize(
    ("status", "answer", "expected"),
    [
        pytest.param(
            200, b'{"errcode": 93000, "errmsg": "invalid webhook url"}', "refused: 93000 invalid", id="refused"
        ),
        pytest.param(500, b"", "the group's server answers 500", id="an error of the server"),
        pytest.param(200, b"<html>", "no answer of 127.0.0.1: JSONDecodeError", id="no JSON"),
        pytest.param(200, b"7", "no answer of 127.0.0.1: TypeError", id="a number"),
    ],
)
def test_a_message_that_the_group_did_not_get_is_an_error_without_the_url(
    group: Group, monkeypatch: pytest.MonkeyPatch, status: int, answer: bytes, expected: str
) -> None:
    """Lambda then calls the function again, and its log has the reason."""
    monkeypatch.setenv("BOT_URL", group.url)
    group.status, group.answer = status, answer
    with pytest.raises(RuntimeError, match=expected) as caught:
        program()["handler"](event("a test"), None)
    assert KEY not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        pytest.param(WECOM, True, id="WeCom"),
        pytest.param(DINGTALK, True, id="DingTalk"),
        pytest.param(WECOM.replace("https", "http"), False, id="not encrypted"),
        pytest.param("https://example.com/?key=1", False, id="another host"),
        pytest.param(f"{WECOM}&x=https://example.com", False, id="another parameter"),
        pytest.param(
            "https://oapi.dingtalk.com@example.com/robot/send?access_token=1", False, id="a host as user name"
        ),
        pytest.param("", False, id="none"),
    ],
)
def test_the_url_is_one_of_the_two_hosts(url: str, allowed: bool) -> None:
    assert (re.fullmatch(TEMPLATE["Parameters"]["BotUrl"]["AllowedPattern"], url) is not None) is allowed


def test_the_url_and_the_secret_are_shown_by_no_one_and_are_in_no_output() -> None:
    assert all(TEMPLATE["Parameters"][name]["NoEcho"] for name in ("BotUrl", "BotSecret"))
    assert "Bot" not in json.dumps(TEMPLATE["Outputs"])


def test_the_function_may_only_write_its_own_log() -> None:
    [policy] = RESOURCES["Role"]["Properties"]["Policies"]
    assert policy["PolicyDocument"]["Statement"] == [
        {
            "Effect": "Allow",
            "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
            "Resource": {"Fn::GetAtt": ["Logs", "Arn"]},
        }
    ]
    assert "ManagedPolicyArns" not in RESOURCES["Role"]["Properties"]


def test_the_code_fits_into_a_template() -> None:
    """CloudFormation's first limit of ZipFile, 4,096 bytes; it is higher now."""
    assert len(CODE.encode()) <= 4096


def test_sns_calls_the_function_and_its_topic_is_what_the_stack_in_china_takes() -> None:
    assert RESOURCES["Subscription"]["Properties"] == {
        "TopicArn": {"Ref": "Topic"},
        "Protocol": "lambda",
        "Endpoint": {"Fn::GetAtt": ["Function", "Arn"]},
    }
    assert RESOURCES["Permission"]["Properties"]["SourceArn"] == {"Ref": "Topic"}
    assert TEMPLATE["Outputs"]["TopicArn"]["Value"] == {"Ref": "Topic"}
    assert re.fullmatch(
        sam_template()["Parameters"]["AlarmTopicArn"]["AllowedPattern"],
        "arn:aws-cn:sns:cn-northwest-1:123456789012:alarms-to-chat-Topic-1ABCDEF",
    )


@pytest.mark.parametrize(("secret", "expected"), [("", {}), ("SECabc", {"BOT_SECRET": "SECabc"})])
def test_a_bot_without_a_secret_has_none_in_the_environment(secret: str, expected: Json) -> None:
    values = parameters_of(TEMPLATE, BotUrl=WECOM, BotSecret=secret)
    function = carry_out(RESOURCES["Function"], TEMPLATE, values, lambda logical, attribute: f"{logical}'s {attribute}")
    assert function["Properties"]["Environment"]["Variables"] == {"BOT_URL": WECOM} | expected
