"""moto as a server (`python cloud.py PORT`), with the parts of CloudFormation that the templates need and moto lacks.

These are the SAM transform (by AWS's own translator), China's partition, updates in the order of their dependencies,
conditions of conditions, resources that depend on conditions, the updates of a table, an event source mapping, a role
and a managed policy, the resources of cloud_resources.py, and the operations of outbound_federation.py.
"""

import json
import sys
from typing import Any
from unittest import mock

import boto3
from moto.awslambda.models import EventSourceMapping, LambdaBackend, lambda_backends
from moto.cloudformation import models as cloudformation
from moto.cloudformation import parsing
from moto.cloudformation.parsing import ResourceMap, get_model_map, parse_and_update_resource
from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.table import Table
from moto.iam.models import ManagedPolicy, Role, iam_backends
from moto.iam.responses import IamResponse
from moto.server import main
from moto.utilities.utils import get_partition
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

from e2e.fakes.cloud_resources import TYPES
from e2e.fakes.outbound_federation import OPERATIONS

Json = dict[str, Any]


class Resources(ResourceMap):
    """A stack's resources; an update changes a resource before the resources that refer to it."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        self._outdated: set[str] = set()
        super().__init__(*arguments, **more)
        suffix = "amazonaws.com.cn" if self._region_name.startswith("cn-") else "amazonaws.com"
        self._parsed_resources |= {"AWS::Partition": get_partition(self._region_name), "AWS::URLSuffix": suffix}

    def __getitem__(self, key: str) -> Any:
        if key in self._outdated:
            self._outdated.remove(key)
            definition = self._resource_json_map[key]
            changed: Any = parse_and_update_resource(key, definition, self, self._account_id, self._region_name)
            if changed is None:
                raise NotImplementedError(f"{key} changes, and moto cannot update an {definition['Type']}")
            self._parsed_resources[key] = changed
        return super().__getitem__(key)

    def update(self, template: Json, parameters: Json | None = None) -> None:
        """Update the stack to `template` and `parameters`."""
        before, given = self._resource_json_map, parameters or {}
        previous = {name: each.get("Default") for name, each in self._template.get("Parameters", {}).items()}
        previous |= self.input_parameters
        changed = [name for name in given if str(given[name]) != str(previous.get(name))]
        conditions = template.get("Conditions", {})
        while more := [name for name, each in conditions.items() if name not in changed and _mentions(each, changed)]:
            changed += more
        self._template, self.input_parameters = template, given
        self.load_mapping()
        self.load_parameters()
        self.load_conditions()
        # moto also lists resources whose condition is false, and then fails on them.
        after = {
            name: each
            for name, each in template["Resources"].items()
            if "Condition" not in each or self.lazy_condition_map[each["Condition"]]
        }
        self._resource_json_map = after
        common = before.keys() & after.keys()
        self._outdated = {
            name for name in common if _differ(before[name], after[name]) or _mentions(after[name], changed)
        }
        renamed = [name for name in sorted(self._outdated) if self._is_renamed(name)]
        self._outdated |= {name for name in common if _mentions(after[name], renamed)}
        for name in after:
            _ = self[name]
        # Delete in reverse order: later resources refer to earlier ones.
        for name in [name for name in reversed(self._parsed_resources) if name in before.keys() - after.keys()]:
            gone = self._parsed_resources.pop(name)
            if before[name].get("DeletionPolicy") != "Retain":
                self._delete_resource(gone, before[name])

    def _is_renamed(self, name: str) -> bool:
        """Return whether an update replaces a table, so that what refers to it changes too."""
        resource, properties = self._parsed_resources.get(name), self._resource_json_map[name].get("Properties", {})
        return isinstance(resource, Table) and clean_json(properties["TableName"], self) != resource.name


_clean_json = parsing.clean_json


def clean_json(value: Any, resources: ResourceMap) -> Any:
    """Evaluate a value of a template; in a list, AWS::NoValue removes its entry, which moto leaves as null."""
    if isinstance(value, list):
        return [each for each in (clean_json(each, resources) for each in value) if each is not None]
    return _clean_json(value, resources)


_parse_condition = parsing.parse_condition


def parse_condition(condition: Any, resources: ResourceMap, conditions: Json) -> bool:
    """Evaluate a condition; moto reads !Condition as a function that it does not know."""
    if isinstance(condition, dict) and "Fn::Condition" in condition:
        return bool(conditions[condition["Fn::Condition"]])
    return bool(_parse_condition(condition, resources, conditions))


def _differ(before: Json, after: Json) -> bool:
    """Return whether an update changes a resource itself, and not only its Metadata, to which `sam build` adds."""
    return any(before.get(key) != after.get(key) for key in before.keys() | after.keys() if key != "Metadata")


def _mentions(resource: Json, changed: list[str]) -> bool:
    """Return whether a resource or a condition depends on one of these parameters and conditions."""
    text = json.dumps(resource)
    return any(
        any(each in text for each in (f'"Ref": "{name}"', f"${{{name}}}", f"${{{name}.", *_calls(name)))
        for name in changed
    )


def _calls(name: str) -> list[str]:
    return [f'Condition": "{name}"', *(f'"Fn::{function}": ["{name}"' for function in ("If", "GetAtt"))]


def apply(change_set: cloudformation.ChangeSet) -> None:
    """Execute a change set, and give the stack its template and outputs."""
    stack = change_set.stack
    stack.resource_map.update(change_set.template_dict, change_set.parameters)
    stack.template, stack.template_dict = change_set.template, change_set.template_dict
    stack.parameters = change_set.parameters
    stack.output_map = stack._create_output_map()


_create_change_set = cloudformation.CloudFormationBackend.create_change_set


def create_change_set(
    backend: cloudformation.CloudFormationBackend, *, template: str, parameters: Json, **more: Any
) -> tuple[str, str]:
    """Make a change set from the transformed template."""
    parsed = cloudformation.Stack.parse_template(template)
    if parsed.get("Transform") == "AWS::Serverless-2016-10-31":
        texts = {name: str(value) for name, value in parameters.items()}
        session = boto3.Session(region_name=backend.region_name)
        template = json.dumps(Translator({}, Parser(), boto_session=session).translate(parsed, texts))
    return _create_change_set(backend, template=template, parameters=parameters, **more)


_update_stack = cloudformation.CloudFormationBackend.update_stack


def update_stack(
    backend: cloudformation.CloudFormationBackend, *, name: str, parameters: list[Json], **more: Any
) -> cloudformation.Stack:
    """Update a stack. A parameter with UsePreviousValue keeps its value, also if nobody ever gave it another one."""
    stack = backend.get_stack(name)
    stack.parameters = stack.stack_parameters | stack.parameters
    return _update_stack(backend, name=name, parameters=parameters, **more)


def update_table(
    original_resource: Table, new_resource_name: str, cloudformation_json: Json, account_id: str, region_name: str
) -> Table:
    """Change a table in place, as CloudFormation does, or make one with another name and keep the old one.

    Refuse other keys, because the new table could not have the same name.
    """
    properties = cloudformation_json["Properties"]
    if new_resource_name != original_resource.name:
        if cloudformation_json.get("UpdateReplacePolicy") != "Retain":
            raise ValueError(f"{original_resource.name} would be deleted")
        made: Table = Table.create_from_cloudformation_json(
            new_resource_name, cloudformation_json, account_id, region_name
        )
        return made
    if properties["KeySchema"] != original_resource.schema:
        raise ValueError(f"{original_resource.name} has a name of its own and would have to be replaced")
    existing = {index.name for index in original_resource.global_indexes}
    wanted = {index["IndexName"]: index for index in properties.get("GlobalSecondaryIndexes", ())}
    new = [{"Create": wanted[name]} for name in wanted.keys() - existing]
    if len(new) > 1:
        raise ValueError("DynamoDB adds one index in an update")
    stream = properties.get("StreamSpecification")
    return dynamodb_backends[account_id][region_name].update_table(
        name=original_resource.name,
        attr_definitions=properties["AttributeDefinitions"],
        global_index=new + [{"Delete": {"IndexName": name}} for name in existing - wanted.keys()],
        throughput=properties.get("ProvisionedThroughput") or {},
        billing_mode=properties.get("BillingMode") or "PROVISIONED",
        stream_spec={} if original_resource.latest_stream_label else stream or {},
        deletion_protection_enabled=None,
        warm_throughput=None,
    )


def update_policy(
    original_resource: ManagedPolicy, cloudformation_json: Json, account_id: str, region_name: str, **_more: Any
) -> ManagedPolicy:
    """Give a managed policy a new version with another document, as CloudFormation does."""
    document = json.dumps(cloudformation_json["Properties"]["PolicyDocument"])
    backend = iam_backends[account_id][get_partition(region_name)]
    backend.create_policy_version(original_resource.arn, document, set_as_default=True)
    return original_resource


_create_role = Role.create_from_cloudformation_json


def create_role(_name: str, cloudformation_json: Json, account_id: str, region_name: str, **_more: Any) -> Role:
    """Make a role with all that the template says of it."""
    properties = cloudformation_json["Properties"]
    without_policies = {"Properties": {name: value for name, value in properties.items() if name != "Policies"}}
    return with_policies(_create_role(_name, without_policies, account_id, region_name), properties)


def update_role(original_resource: Role, cloudformation_json: Json, **_more: Any) -> Role:
    """Give a role another trust policy and other policies, as CloudFormation does."""
    return with_policies(original_resource, cloudformation_json["Properties"])


def with_policies(role: Role, properties: Json) -> Role:
    """Give a role exactly the policies of its properties; a trust policy may be a text there."""
    trust = properties["AssumeRolePolicyDocument"]
    role.assume_role_policy_document = json.dumps(json.loads(trust) if isinstance(trust, str) else trust)
    role.max_session_duration = properties.get("MaxSessionDuration", 3600)
    role.policies = {each["PolicyName"]: json.dumps(each["PolicyDocument"]) for each in properties.get("Policies", ())}
    backend = iam_backends[role.account_id][role.partition]
    # moto has no policies of AWS's own.
    wanted = {arn for arn in properties.get("ManagedPolicyArns", ()) if ":iam::aws:policy/" not in arn}
    for arn in role.managed_policies.keys() - wanted:
        backend.detach_role_policy(arn, role.name)
    for arn in wanted - role.managed_policies.keys():
        backend.attach_role_policy(arn, role.name)
    return role


_update_mapping = EventSourceMapping.update_from_cloudformation_json


def update_mapping(
    original_resource: EventSourceMapping, cloudformation_json: Json, account_id: str, region_name: str, **more: Any
) -> EventSourceMapping:
    """Change an event source mapping; for another source, make another one and delete the old one."""
    where: Any = {"account_id": account_id, "region_name": region_name}
    changed = {"cloudformation_json": cloudformation_json, **where}
    if cloudformation_json["Properties"]["EventSourceArn"] == original_resource.event_source_arn:
        return _update_mapping(original_resource=original_resource, **changed, **more)
    lambda_backends[account_id][region_name].delete_event_source_mapping(original_resource.uuid)
    return EventSourceMapping.create_from_cloudformation_json(resource_name="", **changed)


REPLACED: tuple[tuple[Any, str, object], ...] = (
    (cloudformation, "ResourceMap", Resources),
    (cloudformation.ChangeSet, "apply", apply),
    (parsing, "clean_json", clean_json),
    (parsing, "parse_condition", parse_condition),
    (cloudformation.CloudFormationBackend, "create_change_set", create_change_set),
    (cloudformation.CloudFormationBackend, "update_stack", update_stack),
    (Table, "update_from_cloudformation_json", staticmethod(update_table)),
    (EventSourceMapping, "update_from_cloudformation_json", staticmethod(update_mapping)),
    (Role, "create_from_cloudformation_json", staticmethod(create_role)),
    (Role, "update_from_cloudformation_json", staticmethod(update_role)),
    (ManagedPolicy, "update_from_cloudformation_json", staticmethod(update_policy)),
    # Functions are stored and never run: moto would need Docker. So entries of the stream stay until a test reads them.
    (LambdaBackend, "send_dynamodb_items", lambda *_: False),
)
ADDED = tuple((IamResponse, name, operation) for name, operation in OPERATIONS.items())

if __name__ == "__main__":
    # moto lists the types once, through weak references.
    assert {kind.cloudformation_type() for kind in TYPES} <= get_model_map().keys()
    for place, name, replacement in REPLACED:
        mock.patch.object(place, name, replacement).start()
    for place, name, operation in ADDED:
        mock.patch.object(place, name, operation, create=True).start()
    main(["--port", sys.argv[1]])
