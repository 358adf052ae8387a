"""Reads the CloudFormation templates as plain data, `!Ref X` as {"Ref": "X"}, and evaluates their functions."""

import copy
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]


class _Loader(yaml.SafeLoader):
    pass


def _construct(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _construct)


def load_template(name: str) -> dict[str, Any]:
    return copy.deepcopy(_parsed((ROOT / name).read_text(encoding="utf-8")))


@cache
def _parsed(text: str) -> dict[str, Any]:
    template = yaml.load(text, Loader=_Loader)
    assert isinstance(template, dict)
    return template


def sam_template() -> dict[str, Any]:
    return load_template("sam-template.yaml")


def webhook_configuration() -> dict[str, Any]:
    return load_template("mutating-webhook.yaml")


def parameters_of(template: Mapping[str, Any], **given: str) -> dict[str, str]:
    """Return the values of a template's parameters: the given ones, and the defaults of the others."""
    defaults = {name: str(entry.get("Default", "")) for name, entry in template["Parameters"].items()}
    assert given.keys() <= defaults.keys(), "no such parameter"
    return defaults | given


_NO_VALUE = object()  # the value of AWS::NoValue


def carry_out(
    node: Any, template: Mapping[str, Any], values: Mapping[str, str], returned: Callable[[str, str], Any]
) -> Any:
    """Return `node` of a template with its intrinsic functions evaluated as CloudFormation's reference says.

    `values` has the parameters and the pseudo parameters. Every other value comes from `returned`, which is called with
    a logical ID and an attribute, or "Ref". Raises KeyError for a function that is not used in these templates.
    """

    def value(name: str, attribute: str) -> Any:
        if name == "AWS::NoValue":
            return _NO_VALUE
        return values[name] if name in values else returned(name, attribute)

    def substitute(match: re.Match[str]) -> str:
        name, _, attribute = match[1].partition(".")
        return str(value(name, attribute or "Ref"))

    def resolve(node: Any) -> Any:
        if isinstance(node, list):
            return [each for each in map(resolve, node) if each is not _NO_VALUE]
        if not isinstance(node, dict):
            return node
        match list(node.items()):
            case [("Ref", str(name))]:
                return value(name, "Ref")
            case [("Fn::GetAtt", [name, attribute])]:
                return value(name, attribute)
            case [("Fn::Sub", str(text))]:
                return re.sub(r"\$\{([^}]+)\}", substitute, text)
            case [("Fn::Sub", [str(text), dict(more)])]:
                named = {name: str(resolve(each)) for name, each in more.items()}
                return re.sub(r"\$\{([^}]+)\}", lambda match: named.get(match[1]) or substitute(match), text)
            case [("Fn::Split", [separator, text])]:
                return str(resolve(text)).split(separator)
            case [("Fn::FindInMap", [name, first, second])]:
                return template["Mappings"][name][first][second]
            case [("Fn::Join", [separator, parts])]:
                return separator.join(resolve(parts))
            case [("Fn::Equals", both)]:
                left, right = map(str, resolve(both))
                return left == right
            case [("Fn::Not", [condition])]:
                return not resolve(condition)
            case [("Fn::And", conditions)]:
                return all(map(resolve, conditions))
            case [("Fn::Or", conditions)]:
                return any(map(resolve, conditions))
            case [("Condition", str(condition))]:
                return resolve(template["Conditions"][condition])
            case [("Fn::If", [condition, then, otherwise])]:
                return resolve(then if resolve(template["Conditions"][condition]) else otherwise)
            case [(str(name), _)] if name.startswith("Fn::"):
                raise KeyError(name)
        resolved = {key: resolve(each) for key, each in node.items()}
        return {key: each for key, each in resolved.items() if each is not _NO_VALUE}

    return resolve(node)
