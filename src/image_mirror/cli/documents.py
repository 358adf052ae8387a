"""Reads the documents in a YAML or JSON text as JSON values: PyYAML, with its unwanted features turned off."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # a PyYAML without libyaml
    from yaml import SafeLoader  # type: ignore[assignment]

_DEEPEST = 100  # levels of nesting; people write fewer than 30
_MOST_ALIASED = 100_000  # values that all aliases of a text may expand to; ten lines can expand to billions
_TAGS = ("str", "float", "merge", "value", "timestamp")
_STR, _FLOAT, _MERGE, _VALUE, _TIMESTAMP = map("tag:yaml.org,2002:{}".format, _TAGS)
_JSON_START = re.compile(r"\s*\{")


@dataclass(eq=False)
class UnreadableError(Exception):
    """A document does not parse: the `cause`, and the `line` of the text, from 1."""

    line: int
    cause: str


def read_documents(text: str) -> Iterator[object]:
    """Yield each document as None, a text, a number, a boolean, a list, or a dict whose keys are texts.

    Raises UnreadableError if a document does not parse; the documents before it have been yielded by then.
    """
    try:
        documents = list(_json_texts(text))
    except (ValueError, RecursionError):
        documents = []  # usually YAML; wrong JSON is also wrong YAML, and that parser says where
    try:
        yield from documents or yaml.load_all(text, Loader=_Loader)
    except yaml.reader.ReaderError as error:
        line = text.encode()[: error.position].count(b"\n") + 1
        raise UnreadableError(line, f"the character U+{error.character:04X} is not allowed") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        cause = " ".join(part for part in (error.context, error.problem) if part)
        raise UnreadableError(mark.line + 1 if mark else 1, f"not valid YAML: {cause}") from error
    except RecursionError as error:
        raise UnreadableError(1, f"nested more than {_DEEPEST} levels deep") from error


def _json_texts(text: str) -> Iterator[object]:
    """Yield JSON objects that follow one another, as jq prints them, with \\u pairs, which libyaml refuses."""
    decoder, position = json.JSONDecoder(object_pairs_hook=_unique), 0
    while start := _JSON_START.match(text, position):
        value, position = decoder.raw_decode(text, start.end() - 1)
        json.dumps(value, allow_nan=False)  # Python reads NaN and 1e999, which JSON does not have
        yield value
    if text[position:].strip():
        raise ValueError("not a JSON object")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key is there twice")
    return value


class _Loader(SafeLoader):
    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.values_left = len(stream) + _MOST_ALIASED  # each value that is not an alias takes at least one character

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        # Kubernetes (sigs.k8s.io/yaml) reads 2020-01-01, = and 12:30 (750 in PyYAML) as texts, and 1e5 as a number.
        tag = super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]
        return _STR if kind is yaml.ScalarNode and (":" in value or tag in (_VALUE, _TIMESTAMP)) else tag

    def construct_document(self, node: Any) -> Any:
        pending = [(node, 1)]  # everything that aliases expand to, before PyYAML merges any of it
        while pending:
            found, depth = pending.pop()
            self.values_left -= 1
            if depth > _DEEPEST:
                raise _error(found, f"nested more than {_DEEPEST} levels deep")
            if self.values_left < 0:
                raise _error(found, f"aliases expand to more than {_MOST_ALIASED} values")
            if isinstance(found, yaml.MappingNode):
                pending += [(value, depth + 1) for pair in found.value for value in pair]
            elif isinstance(found, yaml.SequenceNode):
                pending += [(value, depth + 1) for value in found.value]
        return super().construct_document(node)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
            if not isinstance(value, str | list | dict):
                json.dumps(value, allow_nan=False)
        except (ValueError, TypeError, LookupError) as error:  # PyYAML itself fails on some numbers
            cause = f"JSON has no {node.tag.rpartition(':')[2]} {node.value!s:.40}; put it in quotes if it is a text"
            raise _error(node, cause) from error
        return value

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        value = super().construct_mapping(node, deep)
        return {key if isinstance(key, str) else json.dumps(key): below for key, below in value.items()}

    def flatten_mapping(self, node: Any) -> None:
        # PyYAML accepts equal keys, and merges differently from version to version (6.0.4: the last source wins).
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _error(key, "a key must be a text, not a mapping or a list")
            if key.tag != _MERGE:
                if key.value in own:
                    raise _error(key, f"the key {key.value} is there twice")
                own[key.value] = (key, value)
                continue
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(source, yaml.MappingNode):
                    raise _error(source, "<< needs a mapping or a list of mappings")
                self.flatten_mapping(source)
                for pair in source.value:
                    merged.setdefault(pair[0].value, pair)
        node.value = list((merged | own).values())


_Loader.add_implicit_resolver(_FLOAT, re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]{1,3}$"), list("-+0123456789"))


def _error(node: yaml.Node, cause: str) -> UnreadableError:
    return UnreadableError(node.start_mark.line + 1, cause)
