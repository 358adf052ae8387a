"""Takes the bytes of a manifest apart into documents, as kubectl does. A document that does not parse hides no other.

kubectl (k8s.io/apimachinery/pkg/util/yaml) splits the text before it parses any of it. The rules of YAMLReader:

- The byte order mark says whether the text is UTF-8 or UTF-16; without one it is UTF-8.
- A line that begins with `---` separates two documents; only a comment may follow on it. At the start of the text, or
  after another separator, the line belongs to the document that follows.
- A text that begins with `{` is read as JSON objects that follow one another, and what is left as YAML.
"""

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from image_mirror.cli.yaml_document import UnreadableError, YamlReader, repeated_key

_SEPARATOR = "---"
_ENCODINGS = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be", codecs.BOM_UTF8: "utf-8"}

_JSON_START = re.compile(r"\s*\{")

Remarks = list[tuple[int | None, str]]


@dataclass(frozen=True, slots=True)
class Part:
    """What is between two separators: its text, and the line at which that begins, from 1.

    `junk` is what stands on the separator before it, although it is no comment.
    """

    line: int
    text: str
    junk: str = ""


@dataclass(slots=True)
class Document:
    """One document: its number in the text, from 1, and its value (None for an empty one), or why it has none.

    `remarks` has a line, if that is known, and a sentence for each thing that kubectl accepts without a word.
    """

    number: int
    value: object = None
    error: UnreadableError | None = None
    remarks: Remarks = field(default_factory=list)


def decode(data: bytes) -> tuple[str, str | None]:
    """Return the text of a file, and a sentence about the first byte that its encoding does not have, or None."""
    mark = next((mark for mark in _ENCODINGS if data.startswith(mark)), b"")
    encoding = _ENCODINGS.get(mark, "utf-8")
    try:
        return data[len(mark) :].decode(encoding), None
    except UnicodeDecodeError as error:
        byte = len(mark) + error.start + 1
        remark = f"byte {byte} is not {encoding[:6].rstrip('-').upper()}, and is read as U+FFFD; save the file as UTF-8"
        return data[len(mark) :].decode(encoding, errors="replace"), remark


def split(text: str) -> Iterator[Part]:
    """Yield the parts of a text. Each of its lines is in one of them, or is a separator."""
    start, junk, lines = 1, "", list[str]()
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], start=1):
        if line.startswith(_SEPARATOR):
            rest = line.removeprefix(_SEPARATOR).strip()
            is_wrong = rest != "" and not rest.startswith("#")
            if lines or is_wrong:
                if lines:
                    yield Part(start, "\n".join([*lines, ""]), junk)
                start, junk, lines = number + 1, rest if is_wrong else "", []
                if is_wrong:
                    start, lines = number, [line]
                continue
        lines.append(line)
    if lines:
        yield Part(start, "\n".join([*lines, ""]), junk)


def read_documents(text: str) -> Iterator[Document]:
    """Yield each document. Its value is None, a text, a number, a boolean, a list, or a dict whose keys are texts."""
    reader, number = YamlReader.of(text), 0
    for index, part in enumerate(split(text)):
        if index == 0:
            objects, part = _json_objects(part)
            yield from objects
            number = len(objects)
            if objects and not part.text.strip():
                continue
        # The comments at the top of a file, before the first separator, are no document of their own for people.
        number += index > 0 or not _is_preamble(part, text)
        yield _read(reader, part, number)


def _read(reader: YamlReader, part: Part, number: int) -> Document:
    document, before = Document(number), part.line - 1
    if part.junk:
        document.error = UnreadableError(
            part.line, f"only a comment may follow on a line with ---, not {part.junk:.40}"
        )
        return document
    try:
        document.value = reader.read(part.text)
    except UnreadableError as error:
        document.error = UnreadableError(before + error.line, error.cause)
    document.remarks += [(before + line, sentence) for line, sentence in reader.remarks]
    reader.remarks.clear()
    return document


def _is_preamble(part: Part, text: str) -> bool:
    lines = [line.strip() for line in part.text.split("\n")]
    return len(part.text) < len(text) and all(not line or line.startswith("#") for line in lines)


def _json_objects(part: Part) -> tuple[list[Document], Part]:
    """Read JSON objects that follow one another; return them, and what is left after them."""
    documents: list[Document] = []
    repeated: dict[str, None] = {}

    def as_dict(pairs: list[tuple[str, object]]) -> dict[str, object]:
        value = dict(pairs)
        if len(value) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            repeated.update(dict.fromkeys(key for key in value if counts[key] > 1))
        return value

    decoder, text, position = json.JSONDecoder(object_pairs_hook=as_dict), part.text, 0
    while start := _JSON_START.match(text, position):
        repeated.clear()
        try:
            value, end = decoder.raw_decode(text, start.end() - 1)
            json.dumps(value, allow_nan=False)  # Python reads NaN and 1e999, which JSON does not have
        except (ValueError, RecursionError):
            break  # usually YAML; wrong JSON is also wrong YAML, and that parser says where
        position = end
        remarks: Remarks = [(None, repeated_key(key)) for key in repeated]
        documents.append(Document(len(documents) + 1, value, remarks=remarks))
    return documents, Part(part.line + text.count("\n", 0, position), text[position:], part.junk)
