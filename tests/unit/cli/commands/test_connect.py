"""`image-mirror connect` with two emulated accounts, whose services accept a key only if IAM has it, like AWS."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from moto.cloudformation.models import cloudformation_backends
from moto.iam.models import AccessKeyLastUsed, iam_backends
from typer.testing import CliRunner, Result

from image_mirror.aws import AccessKey
from image_mirror.cli import app
from image_mirror.cli.accounts import Account
from image_mirror.cli.keys import probe, rotation
from image_mirror.cli.keys.rotation import still_underway, underway_since
from support.operators import CHINA_OUTPUTS, FAST_PROJECT, GLOBAL_OUTPUTS, PULL_USER, PUSH_USER, TOKEN, Operated

Json = dict[str, Any]
Refuse = Callable[..., None]
REFUSED = {"Code": "UnrecognizedClientException", "Message": "The security token included in the request is invalid."}
WRONG = {"Code": "InvalidSignatureException", "Message": "The Canonical String for this request should have been ..."}


@dataclass
class Accounts:
    """Both accounts as connect finds them, and the parts that tests check.

    `refusals` is how often AWS refuses each new key; `denied` is its answer to a call with a valid signature.
    """

    operated: Operated
    refusals: int = 0
    denied: str = ""
    asked: dict[str, int] = field(default_factory=dict)

    def connect(self, *arguments: str) -> Result:
        result = CliRunner().invoke(app, ["connect", *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        for key in [*self.secret("ImagePullSecret").values(), *self.secret("GlobalAKSK").values()]:
            assert len(str(key)) < 16 or str(key) not in result.output
        return result

    def secret(self, name: str) -> Json:
        client = self.operated.global_secrets if name == "ImagePullSecret" else self.operated.cloud.secrets
        if name not in [each["Name"] for each in client.list_secrets()["SecretList"]]:
            return {}
        found: Json = json.loads(client.get_secret_value(SecretId=name, VersionStage="AWSCURRENT")["SecretString"])
        return found

    def versions(self) -> list[str]:
        answer = self.operated.global_secrets.list_secret_version_ids(SecretId="ImagePullSecret")
        return [each["VersionId"] for each in answer["Versions"]]

    def keys(self, user: str) -> list[Json]:
        iam = self.operated.china_iam if user == PUSH_USER else self.operated.global_iam
        return [dict(key) for key in iam.list_access_keys(UserName=user)["AccessKeyMetadata"]]

    def ids(self) -> list[list[str]]:
        return [[key["AccessKeyId"] for key in self.keys(user)] for user in (PUSH_USER, PULL_USER)]

    def given(self) -> list[list[str]]:
        return [[self.secret("ImagePullSecret")["AccessKey"]], [self.secret("GlobalAKSK")["G_ACCESS_KEY"]]]

    def age(self, user: str, *, hours: int, used: bool) -> None:
        """Make a user's keys older."""
        partition = "aws-cn" if user == PUSH_USER else "aws"
        for key in iam_backends["123456789012"][partition].users[user].access_keys:
            key.create_date -= timedelta(hours=hours)
            key.last_used = AccessKeyLastUsed(datetime.now(UTC), "ecr", "cn-northwest-1") if used else None

    def verdict(self, key: AccessKey) -> dict[str, str] | None:
        """Return AWS's error for a call that is signed with `key`, or None."""
        partition = "aws-cn" if key.region.startswith("cn-") else "aws"
        users = iam_backends["123456789012"][partition].users.values()
        known = {each.access_key_id: each for user in users for each in user.access_keys}
        found = known.get(key.access_key_id)
        self.asked[key.access_key_id] = self.asked.get(key.access_key_id, 0) + 1
        if found is None or found.status != "Active" or self.asked[key.access_key_id] <= self.refusals:
            return REFUSED
        if found.secret_access_key != key.secret_access_key:
            return WRONG
        if self.denied:
            return {"Code": self.denied, "Message": f"User {found.user_name} is not authorized to do this"}
        return None


@pytest.fixture
def accounts(operated: Operated, monkeypatch: pytest.MonkeyPatch) -> Accounts:
    """The global secret is a placeholder, China's secret does not exist, and there is no key."""
    arn = operated.global_secrets.describe_secret(SecretId="ImagePullSecret")["ARN"]
    deploy_global(operated, arn)
    operated.cloud.secrets.delete_secret(SecretId="GlobalAKSK", ForceDeleteWithoutRecovery=True)
    found = Accounts(operated)

    make = Account.client

    def client_as_of_aws(account: Account, service: str, key: AccessKey | None = None) -> Any:
        client = make(account, service, key)
        if key is None:
            return client

        def answer(**_: object) -> Any:
            error = found.verdict(key)
            return error and (SimpleNamespace(status_code=400), {"Error": error, "ResponseMetadata": {}})

        client.meta.events.register("before-call", answer)
        return client

    monkeypatch.setattr(Account, "client", client_as_of_aws)
    # Only the command's own pauses advance this clock, so that a slow machine has as many attempts as a fast one.
    passed = [0.0]

    def pause(seconds: float) -> None:
        passed[0] += seconds

    monkeypatch.setattr(probe, "time", SimpleNamespace(monotonic=lambda: passed[0], sleep=pause))
    return found


def deploy_global(operated: Operated, secret: str, **parameters: str) -> None:
    outputs = {**GLOBAL_OUTPUTS, "ImagePullSecretArn": secret}
    given = {"ChinaAccountId": "123456789012", **parameters}
    operated.deploy("image-pulling.yaml", "us-west-2", "image-pulling", outputs, **given)


def test_each_accounts_key_is_made_tested_and_stored_in_the_others_secret(accounts: Accounts) -> None:
    done = accounts.connect()
    assert (done.exit_code, done.stderr) == (0, "")
    [[push], [pull]] = accounts.ids()
    kept = accounts.secret("ImagePullSecret")
    assert (kept["Region"], kept["AccessKey"]) == ("cn-northwest-1", push)
    started = accounts.secret("GlobalAKSK")
    assert (started["G_AWS_REGION"], started["G_ACCESS_KEY"]) == ("us-west-2", pull)
    assert accounts.verdict(AccessKey("cn-northwest-1", push, kept["AccessSecretKey"])) is None
    assert accounts.verdict(AccessKey("us-west-2", pull, started["G_SECRET_KEY"])) is None
    assert done.stdout.splitlines() == [
        "secret ImagePullSecret (global): it contains no key yet",
        "secret GlobalAKSK (china): it does not exist yet",
        f"{PUSH_USER} (china): created key ...{push[-4:]} and stored it in the secret ImagePullSecret (global)",
        f"{PULL_USER} (global): created key ...{pull[-4:]} and stored it in the secret GlobalAKSK (china)",
        f"{PUSH_USER} (china): key ...{push[-4:]} works: ECR login in cn-northwest-1",
        f"{PULL_USER} (global): key ...{pull[-4:]} works: BatchGetBuilds of ImagePullProject in us-west-2",
        f"secret ImagePullSecret (global): its current key is now ...{push[-4:]}, for cn-northwest-1",
        "Both accounts are connected; `image-mirror selftest` copies a small image to show it.",
    ]


def test_a_second_run_changes_nothing_and_says_so(accounts: Accounts) -> None:
    accounts.connect()
    before = accounts.ids(), accounts.secret("ImagePullSecret"), accounts.secret("GlobalAKSK")
    versions = accounts.versions()
    done = accounts.connect()
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (
        0,
        "Both accounts are connected; there is nothing to change.",
    )
    assert (accounts.ids(), accounts.secret("ImagePullSecret"), accounts.secret("GlobalAKSK")) == before
    assert accounts.versions() == versions


def test_a_dry_run_says_what_would_be_done_and_does_nothing(accounts: Accounts) -> None:
    done = accounts.connect("--dry-run")
    assert done.exit_code == 0
    assert f"  {PUSH_USER} (china): create a key" in done.stdout.splitlines()
    assert accounts.ids() == [[], []]
    assert accounts.secret("GlobalAKSK") == {}
    accounts.connect()
    before = accounts.ids()
    done = accounts.connect("--rotate", "--dry-run")
    assert f"(china): delete key ...{before[0][0][-4:]}, when the new key is in the secret and no build" in done.stdout
    assert accounts.ids() == before


def test_rotation_puts_new_keys_in_the_place_of_the_old_ones_and_keeps_other_entries(accounts: Accounts) -> None:
    accounts.connect()
    before = accounts.ids()
    accounts.operated.cloud.secrets.put_secret_value(
        SecretId="GlobalAKSK", SecretString=json.dumps({**accounts.secret("GlobalAKSK"), "note": ["mine"]})
    )
    done = accounts.connect("--rotate")
    assert (done.exit_code, done.stderr) == (0, "")
    assert accounts.ids() == accounts.given()
    assert not {*before[0], *before[1]} & {*accounts.ids()[0], *accounts.ids()[1]}
    assert accounts.secret("GlobalAKSK")["note"] == ["mine"]
    assert f"{PUSH_USER} (china): deleted key ...{before[0][0][-4:]}" in done.stdout
    assert (
        done.stdout.splitlines()[-1]
        == "Both accounts are connected; `image-mirror selftest` copies a small image to show it."
    )


def test_a_new_key_that_is_refused_at_first_is_waited_for(accounts: Accounts) -> None:
    accounts.refusals = 3
    done = accounts.connect()
    assert done.exit_code == 0
    waits = [line for line in done.stderr.splitlines() if line.startswith("Waiting until AWS accepts key ...")]
    assert len(waits) == 2 == len(done.stderr.splitlines())
    made = accounts.ids()
    assert made == accounts.given()
    accounts.asked.clear()  # as where the run before was cut off
    assert accounts.connect().stdout.splitlines()[-1] == "Both accounts are connected; there is nothing to change."
    assert accounts.ids() == made


def test_a_new_key_that_stays_refused_leaves_the_old_ones_and_the_next_run_goes_on_with_it(accounts: Accounts) -> None:
    accounts.connect()
    before = accounts.ids()
    accounts.refusals = 100_000
    accounts.asked = dict.fromkeys([before[0][0], before[1][0]], accounts.refusals)  # these are known everywhere
    done = accounts.connect("--rotate")
    assert done.exit_code == 1
    assert "still refused after a minute: ECR login in cn-northwest-1: UnrecognizedClientException" in done.stderr
    assert "To continue, run the same command." in done.stderr
    assert accounts.given() == before
    made = accounts.ids()
    assert [len(each) for each in made] == [2, 2]
    plain = accounts.connect()
    assert "is kept: a rotation was interrupted; `image-mirror connect --rotate` continues it" in plain.stdout
    assert accounts.ids() == made
    accounts.refusals = 0
    assert accounts.connect("--rotate").exit_code == 0
    assert (
        accounts.ids()
        == accounts.given()
        == [[key for key in each if key not in old] for each, old in zip(made, before, strict=True)]
    )


def test_a_key_whose_user_may_not_use_it_is_reported_and_no_other_is_made(accounts: Accounts) -> None:
    accounts.connect()
    before = accounts.ids()
    accounts.age(PUSH_USER, hours=1, used=True)
    accounts.age(PULL_USER, hours=1, used=True)
    accounts.denied = "AccessDeniedException"
    done = accounts.connect("--rotate")
    assert (done.exit_code, done.stdout) == (1, "")
    printed = [line.split(" is accepted")[0] for line in done.stderr.splitlines()]
    assert printed == [
        f"Error: key ...{before[0][0][-4:]} of {PUSH_USER} (china)",
        f"Error: key ...{before[1][0][-4:]} of {PULL_USER} (global)",
    ]
    assert "AccessDeniedException: User" in done.stderr
    assert accounts.ids() == before


def test_an_error_that_says_nothing_about_a_new_key_ends_the_run_and_the_next_one_continues(accounts: Accounts) -> None:
    accounts.denied = "InternalFailure"
    done = accounts.connect()
    assert done.exit_code == 3
    assert "InternalFailure" in done.stderr
    made = accounts.ids()
    accounts.denied = ""
    assert accounts.connect().exit_code == 0
    assert accounts.ids() == made == accounts.given()


@pytest.mark.parametrize(
    ("service", "operation", "side"),
    [
        pytest.param("iam", "CreateAccessKey", 0, id="making-a-key"),
        pytest.param("secretsmanager", "PutSecretValue", 0, id="keeping-it"),
        pytest.param("secretsmanager", "CreateSecret", 1, id="making-the-secret"),
    ],
)
def test_without_a_permission_what_was_made_is_undone_or_named(
    accounts: Accounts, refuse: Refuse, service: str, operation: str, side: int
) -> None:
    refuse(service, operation)
    done = accounts.connect()
    assert done.exit_code == 3
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert f"{operation}: AccessDeniedException" in done.stderr.splitlines()[-1]
    assert accounts.ids()[side] == []
    assert ("is deleted again" in done.stderr) is (operation != "CreateAccessKey")
    assert "To continue, run the same command." in done.stderr
    assert ("created key" in done.stdout) is (side == 1)  # the first side's key waits in its secret


@pytest.mark.parametrize(
    ("service", "operation"),
    [
        pytest.param("cloudformation", "DescribeStacks", id="stacks"),
        pytest.param("iam", "ListAccessKeys", id="keys"),
        pytest.param("secretsmanager", "DescribeSecret", id="secret"),
        pytest.param("secretsmanager", "GetSecretValue", id="its-value"),
    ],
)
def test_what_may_not_be_read_is_reported_and_nothing_is_done(
    accounts: Accounts, refuse: Refuse, service: str, operation: str
) -> None:
    refuse(service, operation)
    done = accounts.connect()
    assert (done.exit_code, done.stdout) == (3, "")
    assert "ask for this permission" in done.stderr
    assert done.stderr.count("\n") == 1
    assert accounts.ids() == [[], []]


@pytest.mark.parametrize(
    ("china", "other", "words"),
    [
        pytest.param({}, {"Region": "cn-north-1"}, ["Region", "cn-north-1", "cn-northwest-1"], id="region"),
        pytest.param({}, {"ChinaAccountId": "999999999999"}, ["ChinaAccountId", "999999999999"], id="account"),
        pytest.param({}, {"RepositoryPrefix": "team"}, ["RepositoryPrefix", "team", "mirror"], id="prefix"),
        pytest.param({"GlobalProjectName": "Other"}, {}, ["GlobalProjectName", "Other"], id="project"),
        pytest.param(
            {"GlobalProjectName": "Other"},
            {"RepositoryPrefix": "team"},
            ["GlobalProjectName", "RepositoryPrefix"],
            id="two-at-once",
        ),
    ],
)
def test_stacks_that_do_not_fit_together_are_reported_with_the_remedy_before_any_key_is_made(
    accounts: Accounts, china: dict[str, str], other: dict[str, str], words: list[str]
) -> None:
    arn = accounts.operated.global_secrets.describe_secret(SecretId="ImagePullSecret")["ARN"]
    if china:
        given = {"WebhookToken": TOKEN, **china}
        accounts.operated.deploy("sam-template.yaml", "cn-northwest-1", "image-mirror", CHINA_OUTPUTS, **given)
    if other:
        deploy_global(accounts.operated, arn, **other)
    done = accounts.connect()
    assert (done.exit_code, done.stdout) == (1, "")
    assert all(word in done.stderr for word in [*words, "--parameter-overrides"])
    assert len(done.stderr.splitlines()) == len(china) + len(other)
    assert accounts.ids() == [[], []]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        pytest.param("UPDATE_IN_PROGRESS", "wait until it has ended", id="being-updated"),
        pytest.param("UPDATE_ROLLBACK_FAILED", "check its events", id="broken"),
    ],
)
def test_a_stack_that_is_not_complete_is_reported(accounts: Accounts, status: str, words: str) -> None:
    backend = cloudformation_backends["123456789012"]["us-west-2"]
    next(each for each in backend.stacks.values() if each.name == "image-pulling").status = status
    done = accounts.connect()
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"global account (profile global): the stack image-pulling is {status}; {words}" in done.stderr
    assert accounts.ids() == [[], []]


def test_a_key_of_another_user_is_replaced_and_stays_where_it_belongs(accounts: Accounts) -> None:
    older = accounts.operated.china_iam
    older.create_user(UserName="older")
    key = older.create_access_key(UserName="older")["AccessKey"]
    entries = {"Region": "cn-northwest-1", "AccessKey": key["AccessKeyId"], "AccessSecretKey": key["SecretAccessKey"]}
    accounts.operated.global_secrets.put_secret_value(SecretId="ImagePullSecret", SecretString=json.dumps(entries))
    done = accounts.connect("--rotate")
    assert done.exit_code == 0
    assert f"key ...{key['AccessKeyId'][-4:]} does not belong to {PUSH_USER} (china)" in done.stdout
    assert accounts.ids() == accounts.given()
    assert len(older.list_access_keys(UserName="older")["AccessKeyMetadata"]) == 1


def test_an_inactive_key_is_replaced_and_only_a_rotation_deletes_it(accounts: Accounts) -> None:
    accounts.connect()
    [[push], [pull]] = accounts.ids()
    accounts.operated.china_iam.update_access_key(UserName=PUSH_USER, AccessKeyId=push, Status="Inactive")
    done = accounts.connect()
    assert done.exit_code == 0
    assert f"key ...{push[-4:]} of {PUSH_USER} (china) is inactive" in done.stdout
    assert accounts.ids()[0] == [push, accounts.secret("ImagePullSecret")["AccessKey"]]
    assert accounts.ids()[1] == [pull]
    printed = accounts.connect().stdout
    assert f"key ...{push[-4:]} (inactive, created " in printed
    assert "it was in this secret before; `image-mirror connect --rotate` deletes it" in printed
    accounts.connect("--rotate")
    assert accounts.ids() == accounts.given() == [accounts.ids()[0], [pull]]


def test_a_wrong_region_and_a_wrong_secret_part_are_corrected(accounts: Accounts) -> None:
    accounts.connect()
    before = accounts.ids()
    client = accounts.operated.global_secrets
    entries = {**accounts.secret("ImagePullSecret"), "Region": "cn-north-1"}
    client.put_secret_value(SecretId="ImagePullSecret", SecretString=json.dumps(entries))
    done = accounts.connect()
    assert "secret ImagePullSecret (global): its current key is now" in done.stdout
    assert (accounts.secret("ImagePullSecret")["Region"], accounts.ids()) == ("cn-northwest-1", before)
    client.put_secret_value(
        SecretId="ImagePullSecret",
        SecretString=json.dumps({**accounts.secret("ImagePullSecret"), "AccessSecretKey": "no-such-part"}),
    )
    accounts.age(PUSH_USER, hours=1, used=True)
    done = accounts.connect()
    assert (done.exit_code, "refused: ECR login in cn-northwest-1: InvalidSignatureException" in done.stdout) == (
        0,
        True,
    )
    assert accounts.given()[0] == accounts.ids()[0][1:]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("AKIA: x", "it contains no JSON object", id="no-json"),
        pytest.param(
            '["AKIA"]',
            "it contains no JSON object; if nothing needs its content, run `aws secretsmanager put-secret-value "
            "--profile china --region cn-northwest-1 --secret-id GlobalAKSK --secret-string '{}'`, then run this again",
            id="a-list",
        ),
    ],
)
def test_a_secret_that_cannot_be_read_is_reported_and_not_overwritten(
    accounts: Accounts, text: str, words: str
) -> None:
    accounts.operated.cloud.secrets.create_secret(Name="GlobalAKSK", SecretString=text)
    result = CliRunner().invoke(app, ["connect"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"secret GlobalAKSK (china): {words}" in result.stderr
    assert text not in result.stderr
    assert accounts.ids() == [[], []]


def test_a_secret_that_is_marked_for_deletion_is_reported(accounts: Accounts) -> None:
    accounts.operated.cloud.secrets.create_secret(Name="GlobalAKSK", SecretString="{}")
    accounts.operated.cloud.secrets.delete_secret(SecretId="GlobalAKSK")
    result = CliRunner().invoke(app, ["connect"])
    assert result.exit_code == 1
    restore = "`aws secretsmanager restore-secret --profile china --region cn-northwest-1 --secret-id GlobalAKSK`"
    assert f"it is marked for deletion; restore it with {restore}, then run this again" in result.stderr


def test_a_stacks_secret_that_was_deleted_is_reported(accounts: Accounts) -> None:
    accounts.operated.global_secrets.delete_secret(SecretId="ImagePullSecret", ForceDeleteWithoutRecovery=True)
    result = CliRunner().invoke(app, ["connect"])
    assert result.exit_code == 1
    assert (
        "secret ImagePullSecret (global): it does not exist any more; deploy the stack image-pulling again; "
        in result.stderr
    )
    assert "REVERT_DRIFT undoes it; then run this again" in result.stderr
    assert accounts.ids() == [[], []]


def test_two_unknown_keys_are_named_and_an_inactive_one_is_deleted_to_make_room(accounts: Accounts) -> None:
    ids = [accounts.operated.china_iam.create_access_key(UserName=PUSH_USER)["AccessKey"]["AccessKeyId"] for _ in "12"]
    done = accounts.connect()
    assert done.exit_code == 1
    assert f"{PUSH_USER} (china) has two keys, which is the maximum" in done.stderr
    user = f"--profile china --region cn-northwest-1 --user-name {PUSH_USER}"
    assert f"{user} --access-key-id '<the one that ends in {ids[0][-4:]}>'" in done.stderr
    assert f"`aws iam list-access-keys {user}` prints the IDs" in done.stderr
    assert accounts.ids() == [ids, []]
    accounts.age(PUSH_USER, hours=1000, used=False)
    assert accounts.connect().exit_code == 1
    assert accounts.ids() == [ids, []]
    accounts.operated.china_iam.update_access_key(UserName=PUSH_USER, AccessKeyId=ids[0], Status="Inactive")
    done = accounts.connect()
    assert done.exit_code == 0
    assert f"key ...{ids[0][-4:]} (inactive, created" in done.stdout
    assert accounts.ids()[0] == [ids[1], accounts.secret("ImagePullSecret")["AccessKey"]]


def test_an_old_key_is_deleted_only_when_the_builds_that_began_with_it_have_ended(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts.connect()
    [[push], [pull]] = accounts.ids()
    monkeypatch.setattr(rotation, "underway_since", lambda *_: ["ImagePullProject:1"])
    monkeypatch.setattr(rotation, "still_underway", lambda _, ids: ids)
    monkeypatch.setattr(rotation, "_PAUSE", 0.01)
    monkeypatch.setattr(rotation, "_LONGEST_WAIT", 0.1)
    done = accounts.connect("--rotate")
    assert done.exit_code == 1
    assert "Waiting for builds that started with the old key (1)" in done.stderr
    assert "when they have ended, `image-mirror connect --rotate` deletes the old key" in done.stderr
    [first, second] = accounts.ids()
    assert (len(first), first[0], accounts.given()[0]) == (2, push, [first[1]])
    monkeypatch.setattr(rotation, "still_underway", lambda *_: [])
    done = accounts.connect("--rotate")
    assert done.exit_code == 0
    assert f"{PUSH_USER} (china): deleted key ...{push[-4:]}" in done.stdout
    last = done.stdout.splitlines()[-1]
    assert "This run has finished an earlier rotation. It has created no other key" in last
    assert f"{PUSH_USER} (china) and {PULL_USER} (global)" in last
    assert accounts.ids()[0] == [first[1]]
    assert pull not in accounts.ids()[1]
    assert accounts.ids()[1] == [second[-1]]


@pytest.mark.parametrize(
    ("lane", "projects"),
    [
        pytest.param({}, ["ImagePullProject"], id="one-lane"),
        pytest.param({"FastProjectName": FAST_PROJECT}, ["ImagePullProject", FAST_PROJECT], id="two-lanes"),
    ],
)
def test_the_builds_of_each_lane_are_waited_for(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch, lane: dict[str, str], projects: list[str]
) -> None:
    accounts.connect()
    if lane:
        arn = accounts.operated.global_secrets.describe_secret(SecretId="ImagePullSecret")["ARN"]
        outputs, parameters = GLOBAL_OUTPUTS | {"ImagePullSecretArn": arn} | lane, {"ChinaAccountId": "123456789012"}
        accounts.operated.deploy("image-pulling.yaml", "us-west-2", "image-pulling", outputs, **parameters)
    asked: list[str] = []
    waited: list[list[str]] = []

    def underway(_: object, project: str, *__: object) -> list[str]:
        asked.append(project)
        return [f"{project}:1"]

    def still(_: object, ids: list[str]) -> list[str]:
        waited.append(ids)
        return []

    monkeypatch.setattr(rotation, "underway_since", underway)
    monkeypatch.setattr(rotation, "still_underway", still)
    monkeypatch.setattr(rotation, "_PAUSE", 0.0)
    given = {"WebhookToken": TOKEN, "GlobalFastProjectName": FAST_PROJECT}
    accounts.operated.deploy("sam-template.yaml", "cn-northwest-1", "image-mirror", CHINA_OUTPUTS, **given)
    assert accounts.connect("--rotate").exit_code == 0
    assert (asked, waited) == (projects, [[f"{project}:1" for project in projects]])


def test_a_rotation_days_after_one_that_waited_for_builds_makes_new_keys(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts.connect()
    [[oldest], _] = accounts.ids()
    monkeypatch.setattr(rotation, "underway_since", lambda *_: ["ImagePullProject:1"])
    monkeypatch.setattr(rotation, "_LONGEST_WAIT", 0.0)
    assert accounts.connect("--rotate").exit_code == 1
    before = accounts.ids()
    assert before[0][0] == oldest

    class DaysLater(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(days=2)

    monkeypatch.setattr(rotation, "datetime", DaysLater)
    planned = accounts.connect("--rotate", "--dry-run").stdout
    assert f"{PUSH_USER} (china): delete key ...{oldest[-4:]}, when no build needs it" in planned
    assert accounts.connect("--rotate").exit_code == 1  # its builds still run: nothing is touched
    assert accounts.ids() == before
    monkeypatch.setattr(rotation, "underway_since", lambda *_: [])
    done = accounts.connect("--rotate")
    assert (done.exit_code, done.stderr, done.stdout.splitlines()[-1]) == (
        0,
        "",
        "Both accounts are connected; `image-mirror selftest` copies a small image to show it.",
    )
    assert accounts.ids() == accounts.given()
    assert not {*before[0], *before[1]} & {*accounts.ids()[0], *accounts.ids()[1]}


def test_a_key_is_tried_by_its_own_accounts_profile_and_by_no_other(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    accounts.connect()
    config = tmp_path / "config"
    elsewhere = "endpoint_url = http://localhost:1\nca_bundle = /no/such/file\n"
    config.write_text(f"{Path(os.environ['AWS_CONFIG_FILE']).read_text()}\n[default]\n{elsewhere}")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    for profile in ("no-such-profile", "default"):
        monkeypatch.setenv("AWS_PROFILE", profile)
        done = accounts.connect("--china-profile", "china", "--global-profile", "global")
        assert (done.exit_code, done.stderr) == (0, "")


def test_ctrl_c_prints_the_state_and_a_second_run_continues(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts.refusals = 2
    clock = vars(probe)["time"]
    sleep = clock.sleep

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(clock, "sleep", interrupt)
    done = accounts.connect()
    assert done.exit_code == 130
    assert "To continue, run the same command." in done.stderr
    made = accounts.ids()
    monkeypatch.setattr(clock, "sleep", sleep)
    assert accounts.connect().exit_code == 0
    assert accounts.ids() == made == accounts.given()


def test_ctrl_c_while_nothing_has_been_done_says_that(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rotation, "_listed", interrupt)
    done = accounts.connect()
    assert (done.exit_code, done.stdout, done.stderr) == (130, "", "Nothing has been changed.\n")


@pytest.mark.usefixtures("operated")
@pytest.mark.parametrize(
    ("arguments", "environ", "words"),
    [
        pytest.param([], {"AWS_ENDPOINT_URL": "http://localhost:1"}, "check the network", id="no-network"),
        pytest.param(["--china-profile", "none"], {}, "config profile (none) could not be found", id="no-such-profile"),
        pytest.param(["--china-profile", "global"], {}, "us-west-2 is not in China", id="profiles-exchanged"),
        pytest.param(["--stack-name", "none"], {}, "no stack 'none' in cn-northwest-1", id="no-such-stack"),
        pytest.param(["--global-stack-name", "none"], {}, "no stack 'none' in us-west-2", id="no-such-global-stack"),
    ],
)
def test_what_cannot_be_reached_ends_with_one_line_and_3(
    arguments: list[str], environ: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(app, ["connect", *arguments])
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    assert words in done.stderr


NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


class CodeBuild:
    """Return two pages of builds, the latest first."""

    def __init__(self, builds: list[Json]) -> None:
        self.builds = builds
        self.pages = 0

    def get_paginator(self, _: str) -> "CodeBuild":
        return self

    def paginate(self, *, projectName: str) -> Any:  # noqa: N803
        assert projectName == "P"
        for start in range(0, max(len(self.builds), 1), 2):
            self.pages += 1
            yield {"ids": [build["id"] for build in self.builds[start : start + 2]]}

    def batch_get_builds(self, *, ids: list[str]) -> Json:
        assert 0 < len(ids) <= 100
        return {"builds": [build for build in self.builds if build["id"] in ids]}


def build(name: str, hours: float, status: str = "IN_PROGRESS", phase: str = "BUILD") -> Json:
    started = NOW - timedelta(hours=hours)
    return {"id": name, "startTime": started, "buildStatus": status, "currentPhase": phase}


@pytest.mark.parametrize(
    ("builds", "expected", "pages"),
    [
        pytest.param([], [], 1, id="none"),
        pytest.param([build("new", -1), build("old", 1), build("older", 2)], ["old", "older"], 2, id="began-before"),
        pytest.param([build("waits", 1, phase="QUEUED")], [], 1, id="in-the-queue"),
        pytest.param([build("sent", 1, phase="SUBMITTED")], [], 1, id="not-even-there"),
        pytest.param([build("starts", 1, phase="PROVISIONING")], ["starts"], 1, id="beginning"),
        pytest.param([build("done", 1, "SUCCEEDED"), build("failed", 1, "FAILED")], [], 1, id="ended"),
        pytest.param([build("old", 1), build("x", 13), build("lost", 20)], ["old", "x"], 1, id="not-all-pages"),
    ],
)
def test_the_builds_that_may_hold_the_old_key_are_those_that_began_before(
    builds: list[Json], expected: list[str], pages: int
) -> None:
    codebuild: Any = CodeBuild(builds)
    assert underway_since(codebuild, "P", NOW, timedelta(hours=4)) == expected
    assert codebuild.pages == pages


def test_builds_are_waited_for_until_they_end() -> None:
    codebuild: Any = CodeBuild([build(str(number), 1) for number in range(150)] + [build("done", 1, "STOPPED")])
    everything = [each["id"] for each in codebuild.builds]
    assert still_underway(codebuild, everything) == everything[:-1]
    assert still_underway(codebuild, []) == []
