"""Decides like IAM whether a policy allows a request. Pure: a policy document and a request in, a decision out.

It knows what this project's policies use, by IAM's references of policy elements, condition operators and evaluation
logic. Anything else is an error, so that a policy that it cannot read does not pass a test.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

Json = Mapping[str, Any]


class Decision(Enum):
    """The answer of IAM. A denial decides, whatever else allows the request."""

    ALLOWED = "allowed"
    DENIED = "denied by a statement"
    NOT_ALLOWED = "allowed by no statement"


@dataclass(frozen=True)
class Request:
    """One call as IAM sees it: action, resource (an ARN, or "*" for an action without one) and condition values by key.

    A key that AWS lists as an array has a tuple, any other a string.
    """

    action: str
    resource: str
    context: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Grant:
    """One action on one resource of an Allow statement, as patterns."""

    action: str
    resource: str

    def covers(self, request: Request) -> bool:
        """Return whether this grants what the request needs; conditions are ignored."""
        return matches_action(self.action, request.action) and matches_resource(self.resource, request.resource)


class UnsupportedPolicyError(ValueError):
    """The policy has an element that this evaluator does not know."""


def evaluate(documents: Sequence[Json], request: Request) -> Decision:
    """Return the decision of one principal's policies. Raises UnsupportedPolicyError."""
    effects = {each["Effect"] for document in documents for each in statements(document) if _applies(each, request)}
    if "Deny" in effects:
        return Decision.DENIED
    return Decision.ALLOWED if "Allow" in effects else Decision.NOT_ALLOWED


def evaluate_trust(document: Json, principal: Mapping[str, str], request: Request) -> Decision:
    """Return the decision of a role's trust policy about a principal, such as {"Federated": ARN OF A PROVIDER}.

    Raises UnsupportedPolicyError.
    """
    effects = {
        each["Effect"]
        for each in _checked(document, "Principal")
        if each["Principal"] == principal and _applies(each | {"Resource": request.resource}, request)
    }
    if "Deny" in effects:
        return Decision.DENIED
    return Decision.ALLOWED if "Allow" in effects else Decision.NOT_ALLOWED


def grants(documents: Sequence[Json]) -> Iterator[Grant]:
    """Yield all grants of the policies' Allow statements."""
    for document in documents:
        for statement in statements(document):
            if statement["Effect"] == "Allow":
                for action in _listed(statement["Action"]):
                    yield from (Grant(action, resource) for resource in _listed(statement["Resource"]))


def statements(document: Json) -> Sequence[Any]:
    """Return the statements of an identity-based policy. Raises UnsupportedPolicyError."""
    return _checked(document, "Resource")


def _checked(document: Json, about: str) -> Sequence[Any]:
    """Return the statements of a policy, in which each statement must have the element `about`."""
    if document["Version"] != "2012-10-17":
        raise UnsupportedPolicyError(f"version {document['Version']}")
    for statement in document["Statement"]:
        unknown = set(statement) - {"Sid", "Effect", "Action", about, "Condition"}
        missing = {"Effect", "Action", about} - set(statement)
        if unknown or missing or statement["Effect"] not in ("Allow", "Deny"):
            raise UnsupportedPolicyError(f"a statement with {sorted(unknown)}, without {sorted(missing)}: {statement}")
    found: Sequence[Any] = document["Statement"]
    return found


def matches_action(pattern: str, action: str) -> bool:
    """Return whether an Action element matches the action; IAM ignores upper and lower case here."""
    return _like(pattern.lower(), action.lower())


def matches_resource(pattern: str, resource: str) -> bool:
    """Return whether a Resource element matches the ARN: part by part, so no wildcard crosses the first five colons."""
    if "*" in (pattern, resource):
        return pattern == "*"
    parts, there = pattern.split(":", 5), resource.split(":", 5)
    if len(parts) != 6 or len(there) != 6:
        raise UnsupportedPolicyError(f"no ARN: {pattern} or {resource}")
    return all(map(_like, parts, there))


def _applies(statement: Json, request: Request) -> bool:
    return (
        any(matches_action(pattern, request.action) for pattern in _listed(statement["Action"]))
        and any(matches_resource(pattern, request.resource) for pattern in _listed(statement["Resource"]))
        and all(
            _holds(operator, key, _listed(wanted), request)
            for operator, block in statement.get("Condition", {}).items()
            for key, wanted in block.items()
        )
    )


def _equal(pattern: str, value: str) -> bool:
    return pattern == value


def _at_most(limit: str, value: str) -> bool:
    return float(value) <= float(limit)


def _before(limit: str, value: str) -> bool:
    return datetime.fromisoformat(value) < datetime.fromisoformat(limit)


def _holds(operator: str, key: str, wanted: Sequence[str], request: Request) -> bool:
    values = next((found for name, found in request.context.items() if name.lower() == key.lower()), None)
    if operator == "Null":
        [says] = wanted
        if says not in ("true", "false"):
            raise UnsupportedPolicyError(f"Null: {says}")
        return (values is None) == (says == "true")
    quantifier, _, name = operator.rpartition(":")
    if name not in _COMPARISONS or quantifier not in ("", "ForAnyValue", "ForAllValues"):
        raise UnsupportedPolicyError(f"operator {operator}")
    negated, compare = _COMPARISONS[name]

    def holds(value: str) -> bool:
        return any(compare(pattern, value) for pattern in wanted) != negated

    if quantifier == "ForAnyValue":
        return any(map(holds, _listed(values or ())))  # false where the key is missing, negated or not
    if quantifier == "ForAllValues":
        return all(map(holds, _listed(values or ())))  # true where the key is missing
    if values is None:
        return negated  # "key is not among ..." is true of a request that lacks the key
    if not isinstance(values, str):
        raise UnsupportedPolicyError(f"{operator} compares one value, and {key} may have several")
    return holds(values)


def _like(pattern: str, text: str) -> bool:
    if "${" in pattern:
        raise UnsupportedPolicyError(f"a policy variable: {pattern}")
    wild = {"*": ".*", "?": "."}
    return re.fullmatch("".join(wild.get(c, re.escape(c)) for c in pattern), text, re.DOTALL) is not None


_COMPARISONS = {
    "StringEquals": (False, _equal),
    "StringNotEquals": (True, _equal),
    "StringLike": (False, _like),
    "StringNotLike": (True, _like),
    "Bool": (False, _equal),  # "true" or "false", as texts
    "NumericLessThanEquals": (False, _at_most),
    "DateLessThan": (False, _before),  # in IAM's denial of sessions that were revoked
}
"""Each operator's comparison, and whether it is true if no pattern matches (instead of if one matches)."""


def _listed(value: str | Sequence[str]) -> Sequence[str]:
    return (value,) if isinstance(value, str) else value
