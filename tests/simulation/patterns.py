"""Event patterns, as in the template's filter of the stream and rule of EventBridge."""

from collections.abc import Mapping
from typing import Any


def matches(pattern: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    """Return whether `event` matches every field of `pattern`: a list has the possible values, an object has fields.

    Raises ValueError for a matcher that is not modelled.
    """
    return all(_meets(wanted, event.get(name)) for name, wanted in pattern.items())


def _meets(wanted: Any, value: Any) -> bool:
    if isinstance(wanted, Mapping):
        return isinstance(value, Mapping) and matches(wanted, value)
    return any(_is(each, value) for each in wanted)


def _is(matcher: Any, value: Any) -> bool:
    if not isinstance(matcher, Mapping):
        return bool(matcher == value)
    [(kind, operand)] = matcher.items()
    if kind == "prefix":
        return isinstance(value, str) and value.startswith(operand)
    if kind == "exists":
        return (value is not None) is operand
    raise ValueError(f"the matcher {kind!r} is not modelled")
