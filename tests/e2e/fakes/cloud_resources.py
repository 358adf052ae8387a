"""Resource types that moto's CloudFormation lacks, created in moto's own services."""

import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from moto.apigatewayv2.models import apigatewayv2_backends
from moto.awslambda.models import lambda_backends
from moto.cloudwatch.models import Dimension, Metric, MetricDataQuery, MetricStat, cloudwatch_backends
from moto.codebuild.models import codebuild_backends
from moto.core.common_models import CloudFormationModel
from moto.iam.models import iam_backends
from moto.secretsmanager.models import secretsmanager_backends
from moto.sns.models import sns_backends
from moto.utilities.utils import get_partition

from e2e.fakes.lambda_compute import refusal

Json = dict[str, Any]


@dataclass(frozen=True)
class Made:
    """A created resource: the values of Ref and GetAtt, and how to delete it."""

    reference: str
    remove: Callable[[], object]
    attributes: Mapping[str, str] = field(default_factory=dict)


def define(name: str, make: Callable[[Json, str, str], Made]) -> type[CloudFormationModel]:
    """Define a resource type: `make` gets the properties, the account and the region."""

    class Resource(CloudFormationModel):
        __module__ = "e2e.resources"  # moto reads a service's name out of it

        def __init__(self, made: Made) -> None:
            self.made = made

        @property
        def physical_resource_id(self) -> str:
            return self.made.reference

        @staticmethod
        def cloudformation_name_type() -> str:
            return ""

        @staticmethod
        def cloudformation_type() -> str:
            return name

        @classmethod
        def create_from_cloudformation_json(  # type: ignore[override]
            cls, _name: str, cloudformation_json: Json, account_id: str, region_name: str, **_more: Any
        ) -> Any:
            return cls(make(cloudformation_json["Properties"], account_id, region_name))

        @classmethod
        def update_from_cloudformation_json(  # type: ignore[override]
            cls, *, original_resource: Any, cloudformation_json: Json, account_id: str, region_name: str, **_more: Any
        ) -> Any:
            original_resource.made.remove()
            return cls(make(cloudformation_json["Properties"], account_id, region_name))

        def delete(self, *_where: str) -> None:
            self.made.remove()

        def get_cfn_attribute(self, attribute_name: str) -> str:
            return self.made.attributes[attribute_name]

    return Resource


def call(operation: Callable[..., Any], properties: Json) -> Any:
    """Call a backend's operation with CloudFormation's properties; an unknown property is an error."""
    named = {re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower(): value for name, value in properties.items()}
    known = inspect.signature(operation).parameters
    if unknown := named.keys() - known.keys():
        raise ValueError(f"{operation.__name__} knows no {', '.join(sorted(unknown))}")
    return operation(**{name: named.get(name) for name in known})


def lower(value: Any) -> Any:
    """Return CloudFormation's property names as the service's API spells them."""
    if isinstance(value, dict):
        return {name[0].lower() + name[1:]: lower(each) for name, each in value.items()}
    # moto leaves a None in a list instead of AWS::NoValue.
    return [lower(each) for each in value if each is not None] if isinstance(value, list) else value


def api(properties: Json, account: str, region: str) -> Made:
    """Make an HTTP API; Ref gives its ID."""
    backend = apigatewayv2_backends[account][region]
    made = call(backend.create_api, properties)
    return Made(made.api_id, lambda: backend.delete_api(made.api_id))


def integration(properties: Json, account: str, region: str) -> Made:
    """Make the integration of an HTTP API; Ref gives its ID."""
    backend = apigatewayv2_backends[account][region]
    made = call(backend.create_integration, properties)
    return Made(made.id, lambda: backend.delete_integration(properties["ApiId"], made.id))


def route(properties: Json, account: str, region: str) -> Made:
    """Make a route of an HTTP API; Ref gives its ID."""
    backend = apigatewayv2_backends[account][region]
    made = call(backend.create_route, properties)
    return Made(made.route_id, lambda: backend.delete_route(properties["ApiId"], made.route_id))


def stage(properties: Json, account: str, region: str) -> Made:
    """Make a stage of an HTTP API; Ref gives its name."""
    backend = apigatewayv2_backends[account][region]
    settings = {name: value for name, value in properties.items() if name != "ApiId"}
    backend.create_stage(properties["ApiId"], lower(settings))
    name = properties["StageName"]
    return Made(name, lambda: backend.delete_stage(properties["ApiId"], name))


def invoke_config(properties: Json, account: str, region: str) -> Made:
    """Configure a function's asynchronous calls; Ref, which nobody uses, gives its name."""
    backend = lambda_backends[account][region]
    name = properties["FunctionName"]
    backend.put_function_event_invoke_config(name, properties)
    return Made(name, lambda: backend.delete_function_event_invoke_config(name))


def secret(properties: Json, account: str, region: str) -> Made:
    """Make a secret; Ref gives its ARN."""
    backend = secretsmanager_backends[account][region]
    made = json.loads(call(backend.create_secret, properties))
    return Made(made["ARN"], lambda: backend.delete_secret(made["ARN"], None, True))


def project(properties: Json, account: str, region: str) -> Made:
    """Make a CodeBuild project; Ref gives its name, and GetAtt its ARN."""
    backend = codebuild_backends[account][region]
    if refused := refusal(properties):
        raise ValueError(refused)
    settings = lower(properties)
    # The API's names of properties with other names in CloudFormation. moto's API requires a location for NO_SOURCE.
    settings["source"]["buildspec"] = settings["source"].pop("buildSpec")
    made = backend.create_project(
        project_name=settings["name"],
        description=settings["description"],
        project_source=settings["source"],
        artifacts=settings["artifacts"],
        environment=settings["environment"],
        service_role=settings["serviceRole"],
        tags=None,
        cache=None,
        timeout=settings.get("timeoutInMinutes"),
        queued_timeout=settings.get("queuedTimeoutInMinutes"),
        source_version=None,
        logs_config=settings["logsConfig"],
        vpc_config=None,
    )
    return Made(made["name"], lambda: backend.delete_project(made["name"]), {"Arn": made["arn"]})


def alarm(properties: Json, account: str, region: str) -> Made:
    """Make an alarm; Ref gives its name, and GetAtt its ARN."""
    backend = cloudwatch_backends[account][region]
    name = properties["AlarmName"]
    made = backend.put_metric_alarm(
        name=name,
        namespace=properties.get("Namespace", ""),
        metric_name=properties.get("MetricName", ""),
        comparison_operator=properties["ComparisonOperator"],
        evaluation_periods=properties["EvaluationPeriods"],
        period=properties.get("Period", 0),
        threshold=properties["Threshold"],
        statistic=properties.get("Statistic", ""),
        description=properties["AlarmDescription"],
        dimensions=properties.get("Dimensions", []),
        alarm_actions=list(filter(None, properties["AlarmActions"])),
        metric_data_queries=[query(each) for each in properties.get("Metrics", ())] or None,
        datapoints_to_alarm=properties.get("DatapointsToAlarm"),
        ok_actions=list(filter(None, properties["OKActions"])),
        treat_missing_data=properties["TreatMissingData"],
    )
    return Made(name, lambda: backend.delete_alarms([name]), {"Arn": made.alarm_arn})


def query(properties: Json) -> MetricDataQuery:
    """Return one of an alarm's metrics or expressions, as moto stores them."""
    given = properties.get("MetricStat")
    absent: Any = None  # moto's own calls pass it where its types say text
    measured = None
    if given:
        metric = given["Metric"]
        dimensions = [Dimension(each["Name"], each["Value"]) for each in metric["Dimensions"]]
        measured = MetricStat(
            Metric(metric["MetricName"], metric["Namespace"], dimensions), given["Period"], given["Stat"], absent
        )
    return MetricDataQuery(
        query_id=properties["Id"],
        label=properties.get("Label", absent),
        period=absent,
        return_data=properties["ReturnData"],
        expression=properties.get("Expression"),
        metric_stat=measured,
    )


def oidc_provider(properties: Json, account: str, region: str) -> Made:
    """Make an OIDC provider; Ref gives its ARN. Raises if the account has one for this issuer."""
    backend = iam_backends[account][get_partition(region)]
    made = backend.create_open_id_connect_provider(properties["Url"], [], properties["ClientIdList"], [])
    return Made(made.arn, lambda: backend.delete_open_id_connect_provider(made.arn), {"Arn": made.arn})


def subscription(properties: Json, account: str, region: str) -> Made:
    """Subscribe to a topic; Ref gives the subscription's ARN."""
    backend = sns_backends[account][region]
    made = call(backend.subscribe, properties)
    return Made(made.arn, lambda: backend.unsubscribe(made.arn))


TYPES = (
    define("AWS::ApiGatewayV2::Api", api),
    define("AWS::ApiGatewayV2::Integration", integration),
    define("AWS::ApiGatewayV2::Route", route),
    define("AWS::ApiGatewayV2::Stage", stage),
    define("AWS::CloudWatch::Alarm", alarm),
    define("AWS::CodeBuild::Project", project),
    define("AWS::IAM::OIDCProvider", oidc_provider),
    define("AWS::Lambda::EventInvokeConfig", invoke_config),
    define("AWS::SNS::Subscription", subscription),
    define("AWS::SecretsManager::Secret", secret),
)
"""The types; moto knows them as soon as they are defined."""
