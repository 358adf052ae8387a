"""A stolen token or session opens what docs/security.md says, for as long as it says, and nothing else.

Both accounts federate as the shipped templates make them. The proof of a limit also shows what succeeds without it:
so nothing else has stopped the thief.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from e2e.fakes.federation import Account, RefusedError, Role, Session
from e2e.fakes.policies import Decision, Request, evaluate
from e2e.harness.authorization import actions, resource_of
from e2e.harness.federated import BUILD, CHINA_ISSUER, GLOBAL_ISSUER, PUSH, RECONCILER, START
from e2e.harness.stacks import CHINA, GLOBAL, Place
from e2e.harness.stolen_key import PROJECTS, request, variables
from e2e.test_federation import Pair, globally, in_china
from e2e.test_stolen_key import holes
from image_mirror.federation import AUDIENCE
from support.buildspec_runner import IMAGE, TARGET
from support.federated import statement
from support.stolen import LIMITS, STOLEN

ROUTES = {"reconciler": (RECONCILER, START, CHINA_ISSUER), "build": (BUILD, PUSH, GLOBAL_ISSUER)}
"""Who asks for the token, the role that it opens, and its issuer."""
OF = {
    "a token of the reconciler": "reconciler",
    "a session of StartRole": "reconciler",
    "a token of a build": "build",
    "a session of PushRole": "build",
}
TOKENS = [name for name in OF if name.startswith("a token")]
SESSIONS = [name for name in OF if name.startswith("a session")]
COPY = {"RepositoryName": "mirror/gcr.io/team/app"}
OWN = (*PROJECTS, resource_of("ecr:PutImage", CHINA, **COPY), "*")
SERVICES = ("codebuild", "ecr", "iam", "lambda", "logs", "s3", "secretsmanager", "sts")


class Theft(Pair):
    """The two accounts, and what is stolen, by its name in the page."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.source, self.role, self.issuer = ROUTES[OF[name]]
        self.owners = self.china if self.role == PUSH else self.world
        self.seconds = STOLEN[name].seconds

    def stolen(self) -> str:
        """Return a token as the role gets it."""
        return self.token(self.source)

    def use(self, token: str, role: str = "", seconds: int | None = None) -> Session:
        """Return the session that a token is exchanged for."""
        return self.federation.assume_role_with_web_identity(role or self.role, token, seconds)

    def forged(self, **claims: Any) -> str:
        """Return a token of the true issuer with other claims, as another role of the account could get it."""
        now = int(self.now)
        usual = {"iss": f"https://{self.issuer}", "aud": AUDIENCE, "sub": self.source, "iat": now, "exp": now + 300}
        [account] = [each for each in self.federation.accounts if each.issuer == self.issuer]
        return self.federation.signed(account, usual | claims)

    def stranger(self, partition: str, *, audience: str = AUDIENCE, subject: str = "") -> str:
        """Add an account with a role that trusts the issuer, and return the role."""
        account = Account(partition, "999999999999", providers={self.issuer: [audience]})
        provider = {"Federated": account.arn(f"oidc-provider/{self.issuer}")}
        condition = {"StringEquals": {f"{self.issuer}:sub": subject or self.source}}
        action = "sts:AssumeRoleWithWebIdentity"
        account.roles["r"] = Role(statement(Principal=provider, Action=action, Condition=condition))
        self.federation.accounts = [self.china, self.world, account]
        return account.arn("role/r")

    def policies(self) -> list[Any]:
        """Return the policies of a session's role, as deployed."""
        return in_china().policies("PushRole") if self.role == PUSH else globally().policies("StartRole")


@contextmanager
def refused(message: str) -> Iterator[None]:
    with pytest.raises(RefusedError, match=message):
        yield


@pytest.fixture
def theft(name: str) -> Theft:
    return Theft(name)


def test_the_page_has_each_token_and_each_session() -> None:
    assert STOLEN.keys() == OF.keys()


# ---- what a thief can do ----


@pytest.mark.parametrize("name", TOKENS)
def test_a_token_opens_one_role_of_both_accounts(theft: Theft) -> None:
    token, opened = theft.stolen(), []
    for account in (theft.china, theft.world):
        for role in account.roles:
            try:
                opened.append(theft.use(token, account.arn(f"role/{role}")).role_arn)
            except RefusedError:
                continue
    assert opened == [theft.role]
    assert [arn.split("-")[-2] for arn in opened] == STOLEN[theft.name].opens


@pytest.mark.parametrize("name", SESSIONS)
def test_a_session_may_do_what_the_page_says_and_nothing_else(theft: Theft) -> None:
    context = request().context
    may = {
        action
        for service in SERVICES
        for action in actions(service)
        for resource in OWN
        if evaluate(theft.policies(), Request(action, resource, context)) is Decision.ALLOWED
    }
    assert may == set(STOLEN[theft.name].opens)


# ---- for how long ----


@pytest.mark.parametrize("name", TOKENS)
def test_a_token_can_be_exchanged_and_its_sessions_last_as_long_as_the_page_says(theft: Theft) -> None:
    length, longest = theft.seconds
    token = theft.token(theft.source, seconds=length)
    with refused("AccessDenied"):
        theft.token(theft.source, seconds=length + 1)
    theft.now += length - 1
    assert theft.use(token, seconds=longest).expires_at == theft.now + longest
    with refused("MaxSessionDuration"):
        theft.use(token, seconds=longest + 1)
    theft.now += 1
    with refused("ExpiredToken"):
        theft.use(token)


@pytest.mark.parametrize("name", SESSIONS)
def test_a_session_lasts_as_long_as_the_page_says(theft: Theft) -> None:
    longest, *of_its_own = theft.seconds
    session = theft.use(theft.stolen(), seconds=longest)
    theft.now += longest - 1
    assert theft.federation.caller(session.access_key_id, session.token) == session
    theft.now += 1
    with refused("ExpiredToken"):
        theft.federation.caller(session.access_key_id, session.token)
    assert of_its_own == ([] if theft.role == START else [3600]), "test_federation_login.py compares it with a build"


@pytest.mark.parametrize("name", SESSIONS)
def test_sessions_that_are_revoked_end_and_a_stolen_token_makes_new_ones_only_until_its_end(theft: Theft) -> None:
    token = theft.stolen()
    old = theft.use(token)
    [action, *_] = STOLEN[theft.name].opens
    asked = Request(action, "*" if action == "ecr:GetAuthorizationToken" else PROJECTS[0], request().context)
    theft.federation.check(old, asked)

    def revoke() -> None:
        now = datetime.fromtimestamp(theft.now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        condition = {"DateLessThan": {"aws:TokenIssueTime": now}}
        denial = {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": condition}
        role = theft.owners.roles[theft.role.partition(":role/")[2]]
        role.policies = [*role.policies, {"Version": "2012-10-17", "Statement": [denial]}]

    theft.now += 1
    revoke()
    with refused("explicit deny"):
        theft.federation.check(old, asked)
    new = theft.use(token)
    theft.federation.check(new, asked)
    theft.now += 300
    revoke()
    with refused("explicit deny"):
        theft.federation.check(new, asked)
    with refused("ExpiredToken"):
        theft.use(token)
    theft.federation.check(theft.use(theft.stolen()), asked)  # the project's own next session


# ---- what limits the thief ----


def audience(theft: Theft) -> None:
    for audiences in (["another"], [AUDIENCE, "another"]):
        with refused("AccessDenied"):
            theft.token(theft.source, *audiences)
    role = theft.stranger(theft.owners.partition, audience="another")
    with refused("Incorrect token audience"):
        theft.use(theft.stolen(), role)
    assert theft.use(theft.stolen(), theft.stranger(theft.owners.partition))
    # Others may share the provider, and add an audience of their own.
    theft.owners.providers[theft.issuer].append("another")
    with refused("Not authorized"):
        theft.use(theft.forged(aud="another"))
    assert theft.use(theft.forged())


def subject(theft: Theft) -> None:
    with refused("Not authorized"):
        theft.use(theft.forged(sub=theft.source + "2"))
    assert theft.use(theft.forged())
    second = theft.stranger(theft.owners.partition, subject=theft.source + "2")
    with refused("Not authorized"):
        theft.use(theft.stolen(), second)
    assert theft.use(theft.stolen(), theft.stranger(theft.owners.partition))


def partition(theft: Theft) -> None:
    [own] = {"aws", "aws-cn"} - {theft.owners.partition}
    with refused("same partition"):
        theft.use(theft.stolen(), theft.stranger(own))
    assert theft.use(theft.stolen(), theft.stranger(theft.owners.partition))


def end(theft: Theft) -> None:
    token = theft.stolen()
    session = theft.use(token)
    theft.now += 300
    with refused("ExpiredToken"):
        theft.use(token)
    asker, region = (BUILD, GLOBAL.region) if theft.role == START else (RECONCILER, CHINA.region)
    with refused("AccessDenied"):
        theft.federation.get_web_identity_token(session, region, [AUDIENCE], "ES384", 300)
    assert theft.token(asker), "another role of the session's account may ask"


def denials(theft: Theft) -> None:
    policies = theft.policies()
    assert policies == globally().policies("ImagePullUser"), "the key's"
    assert holes(policies) == []
    assert evaluate(policies, request()) is Decision.ALLOWED
    for name in ("CHINA_PUSH_ROLE_ARN", "COPY_PROBE"):
        more = variables(DOCKER_IMAGE=IMAGE, NEW_DOCKER_IMAGE=TARGET, **{name: "x"})
        assert evaluate(policies, request(environmentVariablesOverride=more)) is Decision.DENIED


def projects(theft: Theft) -> None:
    for action in STOLEN[theft.name].opens:
        asked = [Request(action, project, request().context) for project in PROJECTS]
        assert {evaluate(theft.policies(), each) for each in asked} == {Decision.ALLOWED}
        others = [resource_of(action, GLOBAL, ProjectName="Other")]
        others += [resource_of(action, replace(GLOBAL, account="999999999999"), ProjectName="ImagePullProject")]
        for other in others:
            assert evaluate(theft.policies(), replace(asked[0], resource=other)) is Decision.NOT_ALLOWED


def prefix(theft: Theft) -> None:
    def decision(action: str, repository: str, place: Place = CHINA) -> Decision:
        return evaluate(theft.policies(), Request(action, resource_of(action, place, RepositoryName=repository)))

    assert theft.policies() == in_china().policies("ImagePushUser"), "the key's"
    pushing = [action for action in STOLEN[theft.name].opens if action != "ecr:GetAuthorizationToken"]
    assert pushing
    for action in pushing:
        assert decision(action, COPY["RepositoryName"]) is Decision.ALLOWED
        for other in ("app", "mirror", "mirrored/app", "other/mirror/app"):
            assert decision(action, other) is Decision.NOT_ALLOWED
        for place in (replace(CHINA, account="999999999999"), replace(CHINA, region="cn-north-1")):
            assert decision(action, COPY["RepositoryName"], place) is Decision.NOT_ALLOWED
    assert not [action for action in pushing if "Delete" in action]


def no_other_role(theft: Theft) -> None:
    for action in (each for each in actions("sts") if "AssumeRole" in each):
        for role in (START, PUSH, RECONCILER, BUILD, "*"):
            assert evaluate(theft.policies(), Request(action, role)) is Decision.NOT_ALLOWED
    # A trust policy that names the session's account or role is enough without the session's own policies.
    for stack in (in_china(), globally()):
        resources = stack.template["Resources"]
        for name in (each for each in resources if resources[each]["Type"] == "AWS::IAM::Role"):
            trust = stack.properties(name)["AssumeRolePolicyDocument"]
            document = json.loads(trust) if isinstance(trust, str) else trust
            assert all(each["Principal"].keys() <= {"Service", "Federated"} for each in document["Statement"]), name


PROOFS: dict[str, Callable[[Theft], None]] = {
    "audience": audience,
    "subject": subject,
    "partition": partition,
    "end": end,
    "denials": denials,
    "projects": projects,
    "prefix": prefix,
    "no other role": no_other_role,
}


def test_each_limit_of_the_page_has_its_proof() -> None:
    assert PROOFS.keys() == LIMITS.keys()


@pytest.mark.parametrize(("name", "limit"), [(name, limit) for name in STOLEN for limit in STOLEN[name].limits])
def test_the_page_s_limits_stop_a_thief(theft: Theft, limit: str) -> None:
    PROOFS[limit](theft)
