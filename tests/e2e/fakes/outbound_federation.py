"""IAM's operations about outbound identity federation and OIDC providers that moto lacks, by IAM's API reference."""

from typing import Any

from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, EmptyResult
from moto.iam.responses import IamResponse

ISSUERS = {"aws-cn": "1111.tokens.sts.global.api.aws", "aws": "2222.tokens.sts.global.api.aws"}
"""Who signs the tokens of the account of each partition, once outbound federation is on there."""
_on: set[str] = set()


class FeatureDisabledError(ServiceException):
    """Outbound federation is off."""

    code = "FeatureDisabled"
    message = "Outbound web identity federation is not enabled for this account."


class FeatureEnabledError(ServiceException):
    """Outbound federation is on already."""

    code = "FeatureEnabled"
    message = "Outbound web identity federation is already enabled for this account."


def enable(self: IamResponse) -> ActionResult:
    """Switch it on."""
    if self.partition in _on:
        raise FeatureEnabledError
    _on.add(self.partition)
    return ActionResult({"IssuerIdentifier": f"https://{ISSUERS[self.partition]}"})


def disable(self: IamResponse) -> ActionResult:
    """Switch it off."""
    _on.discard(self.partition)
    return EmptyResult()


def info(self: IamResponse) -> ActionResult:
    """Return the issuer."""
    if self.partition not in _on:
        raise FeatureDisabledError
    return ActionResult({"IssuerIdentifier": f"https://{ISSUERS[self.partition]}", "JwtVendingEnabled": True})


def add_audience(self: IamResponse) -> ActionResult:
    """Add a client ID to an OIDC provider."""
    provider: Any = self.backend.get_open_id_connect_provider(self._get_param("OpenIDConnectProviderArn"))
    provider.client_id_list.append(self._get_param("ClientID"))
    return EmptyResult()


def remove_audience(self: IamResponse) -> ActionResult:
    """Remove a client ID from an OIDC provider."""
    provider: Any = self.backend.get_open_id_connect_provider(self._get_param("OpenIDConnectProviderArn"))
    provider.client_id_list.remove(self._get_param("ClientID"))
    return EmptyResult()


OPERATIONS = {
    "enable_outbound_web_identity_federation": enable,
    "disable_outbound_web_identity_federation": disable,
    "get_outbound_web_identity_federation_info": info,
    "add_client_id_to_open_id_connect_provider": add_audience,
    "remove_client_id_from_open_id_connect_provider": remove_audience,
}
"""The operations by the names of moto's methods."""
