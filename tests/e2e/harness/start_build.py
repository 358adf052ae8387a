"""StartBuild as IAM sees it: the members of its request by botocore's model, and the condition keys that they set."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from botocore.loaders import Loader
from botocore.model import ListShape, ServiceModel, Shape, StringShape, StructureShape

Json = dict[str, Any]

SET_BY_THE_RECONCILER = frozenset(("projectName", "environmentVariablesOverride", "idempotencyToken"))

# From the Service Authorization Reference of CodeBuild. A key of a whole member says that the member is present. Keys
# of its parts have their values; those that do not matter here (codebuild:artifacts.location and so on) are left out.
WHOLES: Mapping[str, str] = {
    "artifactsOverride": "codebuild:artifacts",
    "autoRetryLimitOverride": "codebuild:autoRetryLimit",
    "buildspecOverride": "codebuild:source.buildspec",
    "cacheOverride": "codebuild:cache",
    "certificateOverride": "codebuild:environment.certificate",
    "computeTypeOverride": "codebuild:environment.computeType",
    "encryptionKeyOverride": "codebuild:encryptionKey",
    "environmentTypeOverride": "codebuild:environment.type",
    "imageOverride": "codebuild:environment.image",
    "imagePullCredentialsTypeOverride": "codebuild:environment.imagePullCredentialsType",
    "insecureSslOverride": "codebuild:source.insecureSsl",
    "logsConfigOverride": "codebuild:logsConfig",
    "privilegedModeOverride": "codebuild:environment.privilegedMode",
    "registryCredentialOverride": "codebuild:environment.registryCredential",
    "secondaryArtifactsOverride": "codebuild:secondaryArtifacts",
    "secondarySourcesOverride": "codebuild:secondarySources",
    "serviceRoleOverride": "codebuild:serviceRole",
    "sourceLocationOverride": "codebuild:source.location",
}
PARTS: Mapping[str, Mapping[str, str]] = {
    "buildStatusConfigOverride": {
        "context": "codebuild:source.buildStatusConfig.context",
        "targetUrl": "codebuild:source.buildStatusConfig.targetUrl",
    },
    "fleetOverride": {"fleetArn": "codebuild:environment.fleet.fleetArn"},
    "sourceAuthOverride": {"resource": "codebuild:source.auth.resource", "type": "codebuild:source.auth.type"},
}
VARIABLE_NAMES = "codebuild:environment.environmentVariables.name"
VARIABLE_VALUE = "codebuild:environment.environmentVariables/{name}.value"


def start_build_context(request: Mapping[str, Any]) -> dict[str, str | tuple[str, ...]]:
    """Return the condition keys that a StartBuild request sets, with their values."""
    context: dict[str, str | tuple[str, ...]] = {}
    for member, value in request.items():
        if member in WHOLES:
            context[WHOLES[member]] = value if isinstance(value, str) else "true"
        for part, key in PARTS.get(member, {}).items():
            if part in value:
                context[key] = str(value[part])
    variables = request.get("environmentVariablesOverride", ())
    if variables:
        context[VARIABLE_NAMES] = tuple(variable["name"] for variable in variables)
        context |= {VARIABLE_VALUE.format(name=variable["name"]): variable["value"] for variable in variables}
    return context


@cache
def overrides() -> dict[str, Shape]:
    """Return the members of StartBuild's request that the reconciler does not set."""
    model = ServiceModel(Loader().load_service_model("codebuild", "service-2"), "codebuild")
    shape = model.operation_model("StartBuild").input_shape
    assert isinstance(shape, StructureShape)
    return {name: member for name, member in shape.members.items() if name not in SET_BY_THE_RECONCILER}


def example(shape: Shape) -> Any:
    """Return a value of the shape, with every member of a structure."""
    if isinstance(shape, StructureShape):
        return {name: example(member) for name, member in shape.members.items()}
    if isinstance(shape, ListShape):
        return [example(shape.member)]
    if isinstance(shape, StringShape):
        return shape.enum[0] if shape.enum else "arn:aws:s3:::attacker/value"
    return {"boolean": True, "integer": 1}[shape.type_name]
