"""Parses and applies DynamoDB's expressions: conditions, key conditions, and updates by SET, REMOVE and ADD.

    condition := term { OR term }        term := factor { AND factor }
    factor    := NOT factor | "(" condition ")" | function "(" path ")" | operand comparator operand
                 | operand IN "(" operand { "," operand } ")"
    update    := { SET path "=" operand { "," path "=" operand } | REMOVE path { "," path }
                 | ADD path operand { "," path operand } }

Syntax that the product does not use (functions with two arguments, document paths, arithmetic) is an error.
"""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from typing import Any

Item = dict[str, dict[str, str]]
Operand = Callable[["Scope"], dict[str, str] | None]
Condition = Callable[["Scope"], bool]

_TOKEN = re.compile(r"\s*(<>|<=|>=|[=<>(),]|[#:]?[A-Za-z_][A-Za-z0-9_]*)")
_COMPARATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class ExpressionError(ValueError):
    """An expression that DynamoDB refuses with a ValidationException, or that this parser does not know."""


@dataclass(frozen=True, slots=True)
class Scope:
    """An item, with the names and values that an expression uses."""

    item: Mapping[str, dict[str, str]]
    names: Mapping[str, str]
    values: Mapping[str, dict[str, str]]


@dataclass
class _Reader:
    tokens: list[str]
    used: set[str] = field(default_factory=set)

    def peek(self) -> str:
        return self.tokens[0] if self.tokens else ""

    def take(self, *expected: str) -> str:
        token = self.peek()
        if not token or (expected and token.upper() not in expected):
            raise ExpressionError(f"found {token or 'the end'!r}, but {expected or 'more'} was expected")
        return self.tokens.pop(0)

    def path(self) -> Callable[[Scope], str]:
        token = self.take()
        if not re.match(r"[#A-Za-z_]", token):
            raise ExpressionError(f"{token!r} is no attribute's name")
        self.used.add(token)
        return (lambda scope: scope.names[token]) if token.startswith("#") else (lambda _: token)

    def operand(self) -> Operand:
        if self.peek().startswith(":"):
            token = self.take()
            self.used.add(token)
            return lambda scope: scope.values[token]
        path = self.path()
        return lambda scope: scope.item.get(path(scope))

    def condition(self) -> Condition:
        terms = [self.term()]
        while self.peek().upper() == "OR":
            self.take()
            terms.append(self.term())
        return terms[0] if len(terms) == 1 else lambda scope: any(term(scope) for term in terms)

    def term(self) -> Condition:
        factors = [self.factor()]
        while self.peek().upper() == "AND":
            self.take()
            factors.append(self.factor())
        return factors[0] if len(factors) == 1 else lambda scope: all(factor(scope) for factor in factors)

    def factor(self) -> Condition:
        token = self.peek()
        if token.upper() == "NOT":
            self.take()
            negated = self.factor()
            return lambda scope: not negated(scope)
        if token == "(":
            self.take()
            inner = self.condition()
            self.take(")")
            return inner
        if token in ("attribute_exists", "attribute_not_exists"):
            self.take()
            self.take("(")
            path = self.path()
            self.take(")")
            wanted = token == "attribute_exists"
            return lambda scope: (path(scope) in scope.item) is wanted
        left, comparator = self.operand(), self.take("IN", *_COMPARATORS).upper()
        if comparator == "IN":
            self.take("(")
            choices = [self.operand()]
            while self.take(",", ")") == ",":
                choices.append(self.operand())
            return lambda scope: any(_compare("=", left(scope), choice(scope)) for choice in choices)
        right = self.operand()
        return lambda scope: _compare(comparator, left(scope), right(scope))


@dataclass(frozen=True, slots=True)
class Parsed:
    """A condition or the changes of an update, and the placeholders and bare names that it uses."""

    holds: Condition
    assignments: tuple[tuple[Callable[[Scope], str], Operand], ...]
    removals: tuple[Callable[[Scope], str], ...]
    additions: tuple[tuple[Callable[[Scope], str], Operand], ...]
    used: frozenset[str]


@cache
def parse_condition(text: str) -> Parsed:
    """Read a ConditionExpression or KeyConditionExpression. Raises ExpressionError."""
    reader = _Reader(_tokens(text))
    holds = reader.condition()
    if reader.tokens:
        raise ExpressionError(f"{text!r}: {reader.peek()!r} after the end")
    return Parsed(holds, (), (), (), frozenset(reader.used))


@cache
def parse_update(text: str) -> Parsed:
    """Read an UpdateExpression. Raises ExpressionError."""
    reader = _Reader(_tokens(text))
    assignments, removals, additions = [], [], []
    while reader.tokens:
        verb = reader.take("SET", "REMOVE", "ADD").upper()
        while True:
            path = reader.path()
            if verb == "SET":
                reader.take("=")
                assignments.append((path, reader.operand()))
            elif verb == "ADD":
                additions.append((path, reader.operand()))
            else:
                removals.append(path)
            if reader.peek() != ",":
                break
            reader.take()
    used = frozenset(reader.used)
    return Parsed(lambda _: True, tuple(assignments), tuple(removals), tuple(additions), used)


def apply_update(parsed: Parsed, scope: Scope) -> Item:
    """Return the item after the update; every operand is read from the item before it."""
    item = dict(scope.item)
    for path, operand in parsed.assignments:
        value = operand(scope)
        if value is None:
            raise ExpressionError("an operand names an attribute that the item lacks")
        item[path(scope)] = value
    for path in parsed.removals:
        item.pop(path(scope), None)
    for path, operand in parsed.additions:
        number, value = item.get(path(scope), {"N": "0"}), operand(scope)
        if value is None or "N" not in value or "N" not in number:
            raise ExpressionError("only numbers are added here")
        item[path(scope)] = {"N": str(Decimal(number["N"]) + Decimal(value["N"]))}
    return item


def _tokens(text: str) -> list[str]:
    tokens, position = [], 0
    while position < len(text.rstrip()):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ExpressionError(f"{text!r}: unknown syntax at {position}")
        tokens.append(match[1])
        position = match.end()
    return tokens


def _compare(comparator: str, left: dict[str, str] | None, right: dict[str, str] | None) -> bool:
    """Compare two values. Values of different types, and missing values, are never equal and have no order."""
    if left is None or right is None or left.keys() != right.keys():
        return comparator == "<>"
    (kind, first), second = next(iter(left.items())), next(iter(right.values()))
    pair = (Decimal(first), Decimal(second)) if kind == "N" else (first, second)
    return _COMPARATORS[comparator](*pair)
