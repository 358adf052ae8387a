"""What CodeBuild's Lambda compute refuses, by its user guide ("Limitations of AWS Lambda compute")."""

from collections.abc import Mapping
from typing import Any

MINUTES = 15
"""How long a build may take."""
_UNKNOWN = ("TimeoutInMinutes", "QueuedTimeoutInMinutes", "Cache", "VpcConfig", "BadgeEnabled")
_OVERRIDES = ("timeoutInMinutesOverride", "queuedTimeoutInMinutesOverride", "cacheOverride")


def is_lambda(properties: Mapping[str, Any]) -> bool:
    """Return whether a project, by its properties in CloudFormation, runs its builds on Lambda compute."""
    kind: str = properties.get("Environment", {}).get("Type", "LINUX_CONTAINER")
    return kind.endswith("_LAMBDA_CONTAINER")


def refusal(properties: Mapping[str, Any], request: Mapping[str, Any] | None = None) -> str | None:
    """Return why CodeBuild refuses a project, or a StartBuild for it, with these settings; None if it does not."""
    if not is_lambda(properties):
        return None
    given = request or {}
    names = [name for name in _UNKNOWN if name in properties] + [name for name in _OVERRIDES if name in given]
    if properties["Environment"].get("PrivilegedMode") or given.get("privilegedModeOverride"):
        names.append("PrivilegedMode")
    if not names:
        return None
    return f"Cannot specify {names[0][0].lower()}{names[0][1:].removesuffix('Override')} for lambda compute"
