"""The two stacks as they federate, and the modelled STS with their roles and providers."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from e2e.fakes.federation import Account, Federation, Role, Session, issuers_over_http, security_token_service
from e2e.harness.stacks import CHINA, GLOBAL, Stack

CHINA_ISSUER, GLOBAL_ISSUER = "1111.tokens.sts.global.api.aws", "2222.tokens.sts.global.api.aws"


def role_arn(stack: Stack, name: str) -> str:
    """Return the ARN of a role of a stack."""
    found: str = stack.resolve({"Fn::GetAtt": [name, "Arn"]})
    return found


_CHINA = Stack("sam-template.yaml", CHINA, WebhookToken="t" * 32)
_GLOBAL = Stack("image-pulling.yaml", GLOBAL, Region=CHINA.region)
RECONCILER, BUILD = role_arn(_CHINA, "ReconcilerRole"), role_arn(_GLOBAL, "CodeBuildRole")
START, PUSH = role_arn(_GLOBAL, "StartRole"), role_arn(_CHINA, "PushRole")
IN_CHINA = {
    "GlobalIssuer": GLOBAL_ISSUER,
    "GlobalBuildRoleArn": BUILD,
    "GlobalStartRoleArn": START,
    "GlobalRegion": GLOBAL.region,
}
"""The parameters with which China's stack federates."""
GLOBALLY = {"ChinaIssuer": CHINA_ISSUER, "ChinaReconcilerRoleArn": RECONCILER, "ChinaPushRoleArn": PUSH}
"""The parameters with which the global stack federates."""


def federation_of(china: Stack, world: Stack, clock: Callable[[], float] = time.time) -> Federation:
    """Return the STS of both accounts, with the stacks as deployed."""
    return Federation(
        [
            _account(china, CHINA_ISSUER, "GlobalProvider", "ReconcilerRole", "PushRole"),
            _account(world, GLOBAL_ISSUER, "ChinaProvider", "CodeBuildRole", "StartRole"),
        ],
        clock,
    )


def _account(stack: Stack, issuer: str, provider: str, *names: str) -> Account:
    """Return the account of a stack, with these roles and its OIDC provider as the template makes them."""
    made = stack.properties(provider)
    providers = {made["Url"].removeprefix("https://"): made["ClientIdList"]}
    found = Account(stack.place.partition, stack.place.account, issuer, providers=providers)
    for name in names:
        properties = stack.properties(name)
        trust = properties["AssumeRolePolicyDocument"]
        document = json.loads(trust) if isinstance(trust, str) else trust
        role = Role(document, stack.policies(name), properties.get("MaxSessionDuration", 3600))
        found.roles[role_arn(stack, name).partition(":role/")[2]] = role
    return found


@contextmanager
def functions_environment(federation: Federation, china: Stack, function: str) -> Iterator[dict[str, str]]:
    """Serve STS while the context is active, and yield the variables of a function that has its role and this STS."""
    session = federation.sign_in(role_arn(china, china.role_of(function)), 12 * 3600)
    with issuers_over_http(federation), security_token_service(federation) as url:
        yield credentials(session) | {"AWS_ENDPOINT_URL_STS": url}


def credentials(session: Session) -> dict[str, str]:
    """Return the variables with a session's credentials."""
    return {
        "AWS_ACCESS_KEY_ID": session.access_key_id,
        "AWS_SECRET_ACCESS_KEY": session.secret_access_key,
        "AWS_SESSION_TOKEN": session.token,
    }
