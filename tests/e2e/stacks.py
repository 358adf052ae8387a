"""A template as a deployed stack shows it: parameters, conditions and the names of resources filled in."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from templates import load_template

Json = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a stack is deployed."""

    partition: str
    region: str
    account: str


CHINA = Place("aws-cn", "cn-northwest-1", "123456789012")
GLOBAL = Place("aws", "us-west-2", "210987654321")

# What Ref and GetAtt return of a resource called NAME, by the resource type's page in CloudFormation's reference.
_ARN = "arn:${AWS::Partition}:SERVICE:${AWS::Region}:${AWS::AccountId}:"
_RETURNED: Mapping[str, Mapping[str, str]] = {
    "AWS::CodeBuild::Project": {"Ref": "NAME", "Arn": _ARN.replace("SERVICE", "codebuild") + "project/NAME"},
    "AWS::DynamoDB::Table": {
        "Ref": "NAME",
        "Arn": _ARN.replace("SERVICE", "dynamodb") + "table/NAME",
        "StreamArn": _ARN.replace("SERVICE", "dynamodb") + "table/NAME/stream/2026-11-24T19:25:00.000",
    },
    "AWS::IAM::Role": {"Arn": "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/NAME"},
    "AWS::Logs::LogGroup": {"Ref": "NAME", "Arn": _ARN.replace("SERVICE", "logs") + "log-group:NAME:*"},
    "AWS::SecretsManager::Secret": {"Ref": _ARN.replace("SERVICE", "secretsmanager") + "secret:NAME-AbCdEf"},
    "AWS::SQS::Queue": {"Arn": _ARN.replace("SERVICE", "sqs") + "NAME"},
}


class _NoValue:
    """What AWS::NoValue stands for."""


class Stack:
    """A template of the repository, or one at an absolute path, deployed with `parameters` in `place`."""

    def __init__(self, template: str, place: Place, **parameters: str) -> None:
        self.template = load_template(template)
        self.place = place
        suffix = ".cn" if place.partition == "aws-cn" else ""
        defaults = {name: str(entry.get("Default", "")) for name, entry in self.template["Parameters"].items()}
        assert set(parameters) <= set(defaults), "no such parameter"
        self._values: dict[str, Any] = {
            **defaults,
            **parameters,
            "AWS::AccountId": place.account,
            "AWS::NoValue": _NoValue,
            "AWS::Partition": place.partition,
            "AWS::Region": place.region,
            "AWS::StackName": "stack",
            "AWS::URLSuffix": "amazonaws.com" + suffix,
        }

    def properties(self, name: str) -> Json:
        """Return a resource's properties with all functions carried out."""
        found: Json = self.resolve(self.template["Resources"][name]["Properties"])
        return found

    def policies(self, name: str) -> list[Json]:
        """Return the policy documents of a role or a user: its own and those of the managed policies it names."""
        properties = self.template["Resources"][name]["Properties"]
        managed = [self.template["Resources"][each["Ref"]] for each in properties.get("ManagedPolicyArns", ())]
        holders = [*properties.get("Policies", ()), *(each["Properties"] for each in managed)]
        documents: list[Json] = self.resolve([holder["PolicyDocument"] for holder in holders])
        return documents

    def role_of(self, function: str) -> str:
        """Return the logical ID of the role that a function runs with."""
        name, attribute = self.template["Resources"][function]["Properties"]["Role"]["Fn::GetAtt"]
        assert attribute == "Arn"
        return str(name)

    def environment(self) -> dict[str, str]:
        """Return the variables that the SAM template gives to each of its functions."""
        variables: dict[str, str] = self.resolve(self.template["Globals"]["Function"]["Environment"]["Variables"])
        return variables

    def resolve(self, node: Any) -> Any:
        """Return `node` with its functions carried out. Raises KeyError for what it does not know."""
        if isinstance(node, list):
            return [value for value in map(self.resolve, node) if value is not _NoValue]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            [(name, value)] = node.items()
            if name == "Ref":
                return self._returned(value, "Ref")
            if name == "Fn::GetAtt":
                return self._returned(*value)
            if name == "Fn::Sub":
                return self._substituted(value)
            if name == "Fn::Join":
                return value[0].join(self.resolve(value[1]))
            if name == "Fn::Equals":
                left, right = map(str, self.resolve(value))
                return left == right
            if name == "Fn::Not":
                return not self.resolve(value[0])
            if name == "Fn::If":
                holds = self.resolve(self.template["Conditions"][value[0]])
                return self.resolve(value[1 if holds else 2])
            if name.startswith("Fn::"):
                raise KeyError(name)
        resolved = {key: self.resolve(value) for key, value in node.items()}
        return {key: value for key, value in resolved.items() if value is not _NoValue}

    def _substituted(self, text: str) -> str:
        def value(match: re.Match[str]) -> str:
            name, _, attribute = match[1].partition(".")
            return str(self._returned(name, attribute or "Ref"))

        return re.sub(r"\$\{([^}]+)\}", value, text)

    def _returned(self, name: str, attribute: str) -> Any:
        if name in self._values:
            return self._values[name]
        resource = self.template["Resources"][name]
        properties = resource.get("Properties", {})
        given = self.resolve(properties.get("TableName") or properties.get("Name") or f"stack-{name}-1A2B3C4D5E6F")
        return self._substituted(_RETURNED[resource["Type"]][attribute]).replace("NAME", given)
