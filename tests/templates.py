"""Reads the CloudFormation templates as plain data: `!Ref X` as {"Ref": "X"}, `!Sub X` as {"Fn::Sub": "X"}."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]


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
    template = yaml.load((ROOT / name).read_text(encoding="utf-8"), Loader=_Loader)
    assert isinstance(template, dict)
    return template


def sam_template() -> dict[str, Any]:
    return load_template("sam-template.yaml")


def webhook_configuration() -> dict[str, Any]:
    return load_template("mutating-webhook.yaml")
