"""A template as in a deployed stack, with the values of parameters, conditions and resource names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from support.templates import carry_out, load_template, parameters_of

Json = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """The account and region of a stack."""

    partition: str
    region: str
    account: str


CHINA = Place("aws-cn", "cn-northwest-1", "123456789012")
GLOBAL = Place("aws", "us-west-2", "210987654321")

# The values of Ref and GetAtt for a resource called NAME, from the type's page in CloudFormation's reference.
_ARN = "arn:${AWS::Partition}:SERVICE:${AWS::Region}:${AWS::AccountId}:"
_RETURNED: Mapping[str, Mapping[str, str]] = {
    "AWS::CodeBuild::Project": {"Ref": "NAME", "Arn": _ARN.replace("SERVICE", "codebuild") + "project/NAME"},
    "AWS::DynamoDB::Table": {
        "Ref": "NAME",
        "Arn": _ARN.replace("SERVICE", "dynamodb") + "table/NAME",
        "StreamArn": _ARN.replace("SERVICE", "dynamodb") + "table/NAME/stream/2026-11-24T19:25:00.000",
    },
    "AWS::IAM::ManagedPolicy": {"Ref": "arn:${AWS::Partition}:iam::${AWS::AccountId}:policy/NAME"},
    "AWS::IAM::OIDCProvider": {"Ref": "arn:${AWS::Partition}:iam::${AWS::AccountId}:oidc-provider/NAME"},
    "AWS::IAM::User": {"Ref": "NAME"},
    "AWS::IAM::Role": {"Arn": "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/NAME"},
    "AWS::Logs::LogGroup": {"Ref": "NAME", "Arn": _ARN.replace("SERVICE", "logs") + "log-group:NAME:*"},
    "AWS::SecretsManager::Secret": {"Ref": _ARN.replace("SERVICE", "secretsmanager") + "secret:NAME-AbCdEf"},
    "AWS::SQS::Queue": {"Arn": _ARN.replace("SERVICE", "sqs") + "NAME"},
}


class Stack:
    """A template of the repository, or one at an absolute path, deployed with `parameters` in `place`."""

    def __init__(self, template: str, place: Place, **parameters: str) -> None:
        self.template = load_template(template)
        self.place = place
        suffix = ".cn" if place.partition == "aws-cn" else ""
        self._values = {
            **parameters_of(self.template, **parameters),
            "AWS::AccountId": place.account,
            "AWS::Partition": place.partition,
            "AWS::Region": place.region,
            "AWS::StackName": "stack",
            "AWS::URLSuffix": "amazonaws.com" + suffix,
        }

    def properties(self, name: str) -> Json:
        """Return a resource's properties with all functions evaluated."""
        found: Json = self.resolve(self.template["Resources"][name]["Properties"])
        return found

    def policies(self, name: str) -> list[Json]:
        """Return the policy documents of a role or a user: inline policies and the managed policies it names."""
        properties = self.template["Resources"][name]["Properties"]
        managed = [self.template["Resources"][each["Ref"]] for each in properties.get("ManagedPolicyArns", ())]
        holders = [*properties.get("Policies", ()), *(each["Properties"] for each in managed)]
        return [holder["PolicyDocument"] for holder in self.resolve(holders)]

    def role_of(self, function: str) -> str:
        """Return the logical ID of a function's role."""
        name, attribute = self.template["Resources"][function]["Properties"]["Role"]["Fn::GetAtt"]
        assert attribute == "Arn"
        return str(name)

    def environment(self) -> dict[str, str]:
        """Return the variables that the SAM template gives to each of its functions."""
        variables: dict[str, str] = self.resolve(self.template["Globals"]["Function"]["Environment"]["Variables"])
        return variables

    def outputs(self, *names: str) -> dict[str, str]:
        """Return those of these outputs that the stack has."""
        listed = {name: self.template["Outputs"][name] for name in names}
        return {
            name: self.resolve(each["Value"])
            for name, each in listed.items()
            if "Condition" not in each or self.resolve({"Condition": each["Condition"]})
        }

    def resolve(self, node: Any) -> Any:
        """Return `node` with its functions evaluated. Raises KeyError for an unknown value."""
        return carry_out(node, self.template, self._values, self._returned)

    def _returned(self, name: str, attribute: str) -> str:
        resource = self.template["Resources"][name]
        properties = resource.get("Properties", {})
        named = properties.get("TableName") or properties.get("Name") or properties.get("Url")
        given = self.resolve(named or f"stack-{name}-1A2B3C4D5E6F").removeprefix("https://")
        text: str = self.resolve({"Fn::Sub": _RETURNED[resource["Type"]][attribute]})
        return text.replace("NAME", given)
