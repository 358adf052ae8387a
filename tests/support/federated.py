"""Two accounts in two partitions that federate, in the modelled STS: a role in China and a role that trusts it."""

from typing import Any

from e2e.fakes.federation import Account, Federation, Role, Session

AUDIENCE = "image-mirror"
ISSUER = "1111.tokens.sts.global.api.aws"
OTHER_ISSUER = "2222.tokens.sts.global.api.aws"


def statement(**more: Any) -> Any:
    """Return a policy that allows one thing."""
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **more}]}


SOURCE = "arn:aws-cn:iam::123456789012:role/reconciler"
TARGET = "arn:aws:iam::210987654321:role/start"
MAY_ASK = statement(
    Action="sts:GetWebIdentityToken",
    Resource="*",
    Condition={
        "ForAllValues:StringEquals": {"sts:IdentityTokenAudience": AUDIENCE},
        "Null": {"sts:IdentityTokenAudience": "false"},
        "NumericLessThanEquals": {"sts:DurationSeconds": "300"},
        "StringEquals": {"sts:SigningAlgorithm": "ES384"},
    },
)


def trusting(subject: str = SOURCE, audience: str = AUDIENCE, issuer: str = ISSUER) -> Role:
    """Return a role that only this subject of this issuer can assume, and that may call svc:Read."""
    trust = statement(
        Principal={"Federated": f"arn:aws:iam::210987654321:oidc-provider/{issuer}"},
        Action="sts:AssumeRoleWithWebIdentity",
        Condition={"StringEquals": {f"{issuer}:aud": audience, f"{issuer}:sub": subject}},
    )
    return Role(trust, [statement(Action="svc:Read", Resource="*")])


class Setting:
    """Two accounts that federate, a clock in seconds, and the session of the role in China."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.china = Account("aws-cn", "123456789012", ISSUER, roles={"reconciler": Role(statement(), [MAY_ASK])})
        self.world = Account("aws", "210987654321", "", providers={ISSUER: [AUDIENCE]}, roles={"start": trusting()})
        self.federation = Federation([self.china, self.world], lambda: self.now)
        self.session = self.federation.sign_in(SOURCE)

    def ask(
        self, *audiences: str, algorithm: str = "ES384", seconds: int | None = 300, session: Session | None = None
    ) -> str:
        found = self.federation.get_web_identity_token(
            session or self.session, "cn-northwest-1", audiences or [AUDIENCE], algorithm, seconds
        )
        return found[0]

    def claims(self, **changed: Any) -> dict[str, Any]:
        now = int(self.now)
        return {"iss": f"https://{ISSUER}", "aud": AUDIENCE, "sub": SOURCE, "iat": now, "exp": now + 300, **changed}

    def sign(self, **changed: Any) -> str:
        return self.federation.signed(self.china, self.claims(**changed))

    def exchange(self, token: str | None = None, seconds: int | None = None, role: str = TARGET) -> Session:
        return self.federation.assume_role_with_web_identity(
            role, token if token is not None else self.ask(), seconds, "us-west-2"
        )
