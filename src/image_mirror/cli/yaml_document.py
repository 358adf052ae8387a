"""Reads one YAML document as kubectl does: as the JSON value that sigs.k8s.io/yaml (go.yaml.in/yaml/v2) makes of it.

PyYAML's C parser reads the text. What it refuses, although kubectl accepts it (an anchor that is set twice, `fd00::` in
a flow list), ruamel.yaml's parser reads. What the plain scalars mean, and which of two equal keys counts, is decided
here for both.
"""

import base64
import binascii
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.resolver import BaseResolver

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # a PyYAML without libyaml
    from yaml import SafeLoader  # type: ignore[assignment]

_DEEPEST = 100  # levels of nesting; people write fewer than 30
_MOST_ALIASED = 100_000  # values that all aliases of a text may expand to; ten lines can expand to billions
_LONGEST_AGAIN = 3 * 1024 * 1024  # the API server takes no longer object; ruamel.yaml reads some 100 KB in a second
_REFUSED_BY_ALL = re.compile(r"[\x85\u2028\u2029]|\\u[dD][89a-fA-F]")  # kubectl refuses them too, but not ruamel.yaml

_PLAIN = "plain"  # instead of a tag: a scalar without quotes and without a tag, whose text says what it is
_TAGS = ("null", "bool", "int", "float", "str", "binary", "timestamp", "merge")
_NULL, _BOOL, _INT, _FLOAT, _STR, _BINARY, _TIMESTAMP, _MERGE = map("tag:yaml.org,2002:{}".format, _TAGS)
# The table and the expressions of yaml/v2's resolve.go.
_WORDS: dict[str, tuple[str, object]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), (_NULL, None)),
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), (_BOOL, True)),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), (_BOOL, False)),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), (_FLOAT, math.nan)),
    **{f"{sign}{word}": (_FLOAT, float(f"{sign}inf")) for word in (".inf", ".Inf", ".INF") for sign in ("", "+", "-")},
}
_NUMBER_STARTS = frozenset("+-.0123456789")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:$|[Tt ])")
_INTEGER = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*))")
_BASES = (16, 2, 8, 10)
_LONGEST_INTEGER = 70  # a sign, a prefix and 64 bits
_LARGEST = 1 << 64
_DECIMAL = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


@dataclass(eq=False)
class UnreadableError(Exception):
    """A document does not parse: the `cause`, and the `line` of the text, from 1."""

    line: int
    cause: str


@dataclass(slots=True)
class YamlReader:
    """Reads the documents of one text. `values_left` bounds what all their aliases may expand to.

    `remarks` has what kubectl accepts without a word although it is probably a mistake: lines, from 1, and sentences.
    """

    values_left: int
    remarks: dict[tuple[int, str], None] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str) -> "YamlReader":
        """Make a reader for the documents of `text`."""
        return cls(len(text) + _MOST_ALIASED)  # each value that is not an alias takes at least one character

    def read(self, text: str) -> object:
        """Return the first document as None, a text, a number, a boolean, a list, or a dict whose keys are texts.

        Like kubectl, ignores what follows the first document, but with a remark. Raises UnreadableError.
        """
        try:
            return self._read(text, _Loader)
        except yaml.reader.ReaderError as error:
            line = text.encode()[: error.position].count(b"\n") + 1
            raise UnreadableError(line, f"the character U+{error.character:04X} is not allowed") from error
        except yaml.MarkedYAMLError as error:
            is_deep = "nesting depth" in (error.problem or "")
            if not is_deep and len(text) <= _LONGEST_AGAIN and not _REFUSED_BY_ALL.search(text):
                try:
                    return self._read(text, _SecondLoader)
                except (yaml.YAMLError, RecursionError):
                    pass  # the first parser's message is the one that people know
            mark = error.problem_mark or error.context_mark
            cause = " ".join(part for part in (error.context, error.problem) if part)
            raise UnreadableError(mark.line + 1 if mark else 1, f"not valid YAML: {cause}") from error
        except RecursionError as error:
            raise UnreadableError(1, f"nested more than {_DEEPEST} levels deep") from error

    def _read(self, text: str, loader_of: Callable[[str], Any]) -> object:
        loader = loader_of(text)
        if not loader.check_node():
            return None
        root = loader.get_node()
        try:
            has_more = loader.check_node()
        except yaml.YAMLError:
            has_more = True
        self._check_size(root)
        value = self._value(root)
        if has_more:
            self._remark(root, "kubectl ignores what follows this document without a separator ---")
        return value

    def _check_size(self, root: Any) -> None:
        """Raise UnreadableError for what is too deep or expands to too much, before any of it is built."""
        pending = [(root, 1)]
        while pending:
            node, depth = pending.pop()
            self.values_left -= 1
            if depth > _DEEPEST:
                raise _error(node, f"nested more than {_DEEPEST} levels deep")
            if self.values_left < 0:
                raise _error(node, f"aliases expand to more than {_MOST_ALIASED} values")
            if isinstance(node, yaml.MappingNode):
                pending += [(value, depth + 1) for pair in node.value for value in pair]
            elif isinstance(node, yaml.SequenceNode):
                pending += [(value, depth + 1) for value in node.value]

    def _value(self, node: Any) -> Any:
        if isinstance(node, yaml.SequenceNode):
            return [self._value(child) for child in node.value]
        if isinstance(node, yaml.MappingNode):
            found: dict[str, Any] = {}
            self._fill(found, node)
            return found
        return _scalar(node)

    def _fill(self, found: dict[str, Any], node: Any) -> None:
        """Put a mapping's entries into `found`, in order. Of two equal keys, merged or not, the last counts."""
        own: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _error(key, "a key must be a text, not a mapping or a list")
            if key.tag == _MERGE or (key.tag == _PLAIN and key.value == "<<"):
                for source in _merged(value):
                    self._fill(found, source)
                continue
            name = _key(key)
            if name in own:
                self._remark(key, repeated_key(name))
            own.add(name)
            found[name] = self._value(value)

    def _remark(self, node: Any, sentence: str) -> None:
        self.remarks[node.start_mark.line + 1, sentence] = None


def repeated_key(key: str) -> str:
    """Return the remark on a key that is there twice in one mapping."""
    return f"the key {key} is there twice; the last one counts"


def _merged(value: Any) -> Iterator[Any]:
    """Yield the mappings that << names; the first of a list counts most, so it comes last."""
    for source in value.value[::-1] if isinstance(value, yaml.SequenceNode) else [value]:
        if not isinstance(source, yaml.MappingNode):
            raise _error(source, "<< needs a mapping or a list of mappings")
        yield source


def _key(node: Any) -> str:
    value = _scalar(node)
    if value is None:
        raise _error(node, "a key must be a text, not null; put it in quotes")
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _scalar(node: Any) -> object:
    """Return what a scalar is: `resolve` and `scalar` of yaml/v2, and what JSON can say of it."""
    text, tag = node.value, node.tag
    if tag == _BINARY:
        try:
            return base64.b64decode("".join(text.splitlines()), validate=True).decode(errors="replace")
        except (binascii.Error, ValueError) as error:
            raise _error(node, "!!binary needs base64") from error
    if tag not in (_PLAIN, _NULL, _BOOL, _INT, _FLOAT, _TIMESTAMP):
        return text  # quoted, !!str, or a tag that means nothing here
    found, value = resolve(text)
    if tag == _FLOAT and found == _INT and isinstance(value, int):
        found, value = _FLOAT, float(value)
    is_fit = tag in (_PLAIN, found) or (tag == _TIMESTAMP and _DATE.match(text))
    if not is_fit or (isinstance(value, float) and not math.isfinite(value)):
        named = (found if tag == _PLAIN else tag).rpartition(":")[2]
        raise _error(node, f"JSON has no {named} {text:.40}; put it in quotes if it is a text")
    return value


def resolve(text: str) -> tuple[str, object]:
    """Return the tag and the value of a scalar without quotes. A date and 12:30 are texts."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_STARTS:
        return _STR, text
    plain = text if text[0] == "." else text.replace("_", "")
    if len(plain) <= _LONGEST_INTEGER and (match := _INTEGER.fullmatch(plain)):
        sign, *digits = match.groups()
        value = next(int(part, base) for part, base in zip(digits, _BASES, strict=True) if part)
        value = -value if sign == "-" else value
        if -_LARGEST // 2 <= value < _LARGEST:
            return _INT, value
    if _DECIMAL.fullmatch(plain) and math.isfinite(number := float(plain)):
        return _FLOAT, number
    return _STR, text


class _Tags:
    """Names the tag of what has none in the text; both parsers ask for it."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:  # noqa: ARG002 - the parsers give it
        return _PLAIN if kind is yaml.ScalarNode and implicit[0] else _STR


class _Loader(_Tags, SafeLoader):
    pass


class _SecondLoader(_Tags, Composer, BaseResolver):
    """PyYAML's composer over ruamel.yaml's parser. An anchor may be set again: the latest counts."""

    def __init__(self, text: str) -> None:
        Composer.__init__(self)
        BaseResolver.__init__(self)
        self._events = _events(text)
        self._next: Any = None

    def peek_event(self) -> Any:
        self._next = self._next or next(self._events)
        return self._next

    def get_event(self) -> Any:
        event, self._next = self.peek_event(), None
        return event

    def check_event(self, *kinds: type) -> bool:
        return isinstance(self.peek_event(), kinds)

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if not isinstance(event, yaml.AliasEvent):
            self.anchors.pop(event.anchor, None)
        return super().compose_node(parent, index)


def _events(text: str) -> Iterator[Any]:
    """Yield what ruamel.yaml parses as PyYAML's events. Raises yaml.YAMLError."""
    from ruamel.yaml import YAML  # noqa: PLC0415 - it takes 60 ms, and few texts need it
    from ruamel.yaml.error import YAMLError  # noqa: PLC0415

    parser = YAML(typ="safe", pure=True)
    parser.version = (1, 1)
    try:
        for event in parser.parse(text):
            kind = getattr(yaml, type(event).__name__)
            made = kind.__new__(kind)
            for name in ("start_mark", "end_mark", "anchor", "implicit", "value", "style", "flow_style", "tag"):
                setattr(made, name, getattr(event, name, None))
            yield made
    # The others are ruamel's own for escapes above U+10FFFF and for unknown versions of YAML.
    except (YAMLError, ValueError, OverflowError, AssertionError) as error:
        raise yaml.YAMLError(str(error) or "it is no YAML") from error


def _error(node: Any, cause: str) -> UnreadableError:
    return UnreadableError(node.start_mark.line + 1, cause)
