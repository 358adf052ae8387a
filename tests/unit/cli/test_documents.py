"""Manifests are read as kubectl reads them: what its own decoder said is compared. Errors have the line."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from image_mirror.cli import yaml_document
from image_mirror.cli.documents import Document, decode, read_documents, split
from image_mirror.cli.yaml_document import resolve

steady = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])

# tests/README.md says how kubectl's decoder wrote the answers.
KUBECTL: dict[str, Any] = json.loads((Path(__file__).parents[2] / "kubectl" / "cases.json").read_text(encoding="utf-8"))


def read(text: str) -> list[Document]:
    return list(read_documents(text))


def values(text: str) -> list[Any]:
    documents = read(text)
    assert [document.error for document in documents] == [None] * len(documents)
    return [document.value for document in documents]


def errors(text: str) -> list[tuple[int, str]]:
    return [(document.error.line, document.error.cause) for document in read(text) if document.error]


def as_go(value: Any) -> Any:
    """Return a value with all its numbers as floats: JSON does not tell 5 from 5.0."""
    if isinstance(value, dict):
        return {key: as_go(below) for key, below in value.items()}
    if isinstance(value, list):
        return [as_go(below) for below in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


@pytest.mark.parametrize("name", [pytest.param(name, id=name) for name in KUBECTL])
def test_a_text_has_the_documents_that_kubectl_reads_in_it(name: str) -> None:
    case = KUBECTL[name]
    text, _ = decode(bytes.fromhex(case["hex"]) if "hex" in case else case.get("text", "").encode())
    documents = read(text)
    found = [as_go(document.value) for document in documents if document.value is not None]
    expected = [as_go(value) for value in case["documents"] if value is not None]
    has_error = any(document.error for document in documents)
    assert has_error == ("error" in case)
    # kubectl stops at the first fault. Here the documents after it, and the one before a wrong separator, are read too.
    found = found[: len(expected)] if has_error else found
    assert json.dumps(found, sort_keys=True) == json.dumps(expected, sort_keys=True)  # True is not 1


def test_the_cases_include_what_only_one_of_the_parsers_reads() -> None:
    for name in ("anchor-twice", "ipv6-in-a-flow-list", "key-twice", "utf-16-little-endian", "json-surrogates"):
        assert "error" not in KUBECTL[name]
    for name in ("template-of-a-chart", "tab-before-a-key", "key-null"):
        assert "error" in KUBECTL[name]


@pytest.mark.parametrize(
    ("text", "line", "cause"),
    [
        pytest.param("a: {{ .Values.a }}", 1, "a key must be a text, not a mapping or a list", id="key-is-a-mapping"),
        pytest.param("a: b\n? [c]\n: d", 2, "a key must be a text, not a mapping or a list", id="key-is-a-list"),
        pytest.param("a: b\n~: c", 2, "a key must be a text, not null; put it in quotes", id="key-is-null"),
        pytest.param(
            "kind: [Pod\nspec: x",
            2,
            "not valid YAML: while parsing a flow sequence did not find expected ',' or ']'",
            id="yaml-torn",
        ),
        pytest.param(
            '{"kind": "Pod",\n "spec" "x"}',
            2,
            "not valid YAML: while parsing a flow mapping did not find expected ',' or '}'",
            id="json-torn",
        ),
        pytest.param(
            '{"kind": "Pod"}\n{"kind": "Pod",\n "spec" "x"}',
            3,
            "not valid YAML: while parsing a flow mapping did not find expected ',' or '}'",
            id="json-torn-after-json",
        ),
        pytest.param(
            "spec:\n\timage: x",
            2,
            "not valid YAML: while scanning for the next token found character that cannot start any token",
            id="tab",
        ),
        pytest.param("a: é\nb: \x00", 2, "the character U+0000 is not allowed", id="nul"),
        pytest.param("a: *b", 1, "not valid YAML: found undefined alias", id="alias-of-nothing"),
        pytest.param("a: &a x\n---\nb: *a", 3, "not valid YAML: found undefined alias", id="alias-of-another-document"),
        pytest.param("a: &a x\nc: &a y\nb: *d", 2, "not valid YAML: found duplicate anchor", id="both-parsers-refuse"),
        pytest.param("<<: x", 1, "<< needs a mapping or a list of mappings", id="merge-of-a-text"),
        pytest.param("a:\n- .nan", 2, "JSON has no float .nan; put it in quotes if it is a text", id="not-a-number"),
        pytest.param("-.INF: a", 1, "JSON has no float -.INF; put it in quotes if it is a text", id="infinite-key"),
        pytest.param("!!bool x", 1, "JSON has no bool x; put it in quotes", id="tag-that-does-not-fit"),
        pytest.param("a: !!binary '*'", 1, "!!binary needs base64", id="binary-that-is-none"),
        pytest.param(
            "a: b\n--- {c: d}\ne: f",
            2,
            "only a comment may follow on a line with ---, not {c: d}",
            id="separator-with-more",
        ),
    ],
)
def test_what_does_not_parse_is_refused_with_its_line(text: str, line: int, cause: str) -> None:
    ((found, sentence),) = errors(text)
    assert found == line
    assert sentence.startswith(cause)


def test_a_wrong_document_hides_none_before_or_after_it() -> None:
    documents = read("a: b\n---\nc: [\n--- # comment\nd: e\n---\n# x\n---\nf: &x g\nh: &x i\n")
    assert [(document.number, document.value, document.error is not None) for document in documents] == [
        (1, {"a": "b"}, False),
        (2, None, True),
        (3, {"d": "e"}, False),
        (4, None, False),
        (5, {"f": "g", "h": "i"}, False),
    ]


@pytest.mark.parametrize(
    ("text", "remarks"),
    [
        pytest.param("a: 1\nb: 2", [], id="nothing"),
        pytest.param("a: 1\na: 2", [(2, "the key a is there twice; the last one counts")], id="in-yaml"),
        pytest.param(
            '{"a": {"b": 1,\n "b": 2}}', [(None, "the key b is there twice; the last one counts")], id="in-json"
        ),
        pytest.param(
            "x\n---\ny: {a: 1, a: 2,\na: 3, '1': 4, 1: 5}",
            [
                (line, f"the key {key} is there twice; the last one counts")
                for line, key in ((3, "a"), (4, "a"), (4, "1"))
            ],
            id="each-with-its-line-in-the-file",
        ),
        pytest.param(
            "a: &a {k: 1, k: 2}\nb: *a", [(1, "the key k is there twice; the last one counts")], id="once-with-aliases"
        ),
        pytest.param("a: &a {k: 1}\nb: {k: 0, <<: *a}", [], id="not-where-it-is-merged"),
        pytest.param(
            "\na: 1\n...\nb: 2",
            [(2, "kubectl ignores what follows this document without a separator ---")],
            id="what-kubectl-ignores",
        ),
        pytest.param(
            "a: 1\n---\n{}\n{}",
            [(3, "kubectl ignores what follows this document without a separator ---")],
            id="json-that-kubectl-ignores",
        ),
    ],
)
def test_what_kubectl_accepts_without_a_word_gets_a_remark(text: str, remarks: list[tuple[int | None, str]]) -> None:
    assert [remark for document in read(text) for remark in document.remarks] == remarks


def test_the_comments_before_the_first_separator_are_no_document_of_their_own() -> None:
    numbers = [(document.number, document.value) for document in read("# a licence\n\n---\na: b\n---\n# no\n---\nc: d")]
    assert [pair for pair in numbers if pair[1]] == [(1, {"a": "b"}), (3, {"c": "d"})]
    assert values("# a licence\n") == [None]


@pytest.mark.parametrize(
    ("data", "text", "remark"),
    [
        pytest.param(b"", "", None, id="nothing"),
        pytest.param("é".encode(), "é", None, id="utf-8"),
        pytest.param("é".encode("utf-8-sig"), "é", None, id="utf-8-with-a-mark"),
        pytest.param(b"\xff\xfe" + "é".encode("utf-16-le"), "é", None, id="utf-16-little-endian"),
        pytest.param(b"\xfe\xff" + "é".encode("utf-16-be"), "é", None, id="utf-16-big-endian"),
        pytest.param(
            b"# caf\xe9",
            "# caf\ufffd",
            "byte 6 is not UTF-8, and is read as U+FFFD; save the file as UTF-8",
            id="latin-1",
        ),
        pytest.param(
            b"\xef\xbb\xbf\xe9",
            "\ufffd",
            "byte 4 is not UTF-8, and is read as U+FFFD; save the file as UTF-8",
            id="latin-1-after-a-mark",
        ),
        pytest.param(
            b"\xff\xfea\x00b",
            "a\ufffd",
            "byte 5 is not UTF-16, and is read as U+FFFD; save the file as UTF-8",
            id="half-a-character",
        ),
    ],
)
def test_the_byte_order_mark_says_how_the_bytes_are_read(data: bytes, text: str, remark: str | None) -> None:
    assert decode(data) == (text, remark)


def reader_of_apimachinery(text: str) -> list[str] | str:
    """Split as YAMLReader.Read of k8s.io/apimachinery/pkg/util/yaml does; a text is what is wrong with a separator."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if lines[-1] == "":
        lines.pop()
    found, buffer = [], ""
    for line in lines:
        if line.startswith("---"):
            trimmed = line[3:].strip()
            if trimmed and trimmed[0] != "#":
                return trimmed
            if buffer:
                found.append(buffer)
                buffer = ""
                continue
        buffer += f"{line}\n"
    return [*found, buffer] if buffer else found


LINES = st.lists(
    st.sampled_from(["---", "--- # a", "---#", "---  ", "----", "--- a", " ---", "--", "", "a: b", "# c", "...", "- é"])
    | st.text("-# a\t\x85\u2028", max_size=6),
    max_size=12,
)


@steady
@given(LINES, st.sampled_from(["", "\n"]), st.sampled_from(["\n", "\r\n"]))
def test_a_text_is_split_as_kubectl_splits_it(lines: list[str], ending: str, newline: str) -> None:
    text = newline.join(lines) + ending
    expected = reader_of_apimachinery(text)
    parts = list(split(text))
    if isinstance(expected, str):
        assert next(part.junk for part in parts if part.junk) == expected
    else:
        assert [part.text.replace("\r", "") for part in parts] == expected
        assert not any(part.junk for part in parts)


@steady
@given(LINES, st.sampled_from(["", "\n"]))
def test_no_line_is_lost_and_each_part_knows_its_line(lines: list[str], ending: str) -> None:
    text = "\n".join(lines) + ending
    every = text.removesuffix("\n").split("\n") if text else []
    separators = set(range(len(every)))
    for part in split(text):
        held = part.text.removesuffix("\n").split("\n")
        places = range(part.line - 1, part.line - 1 + len(held))
        assert [every[place] for place in places] == held
        assert separators.issuperset(places)
        separators -= set(places)
    assert all(every[place].startswith("---") for place in separators)


@steady
@given(st.lists(st.sampled_from([*"0123456789+-._xXoObBeE:aAfFyYnN~ TtZz"])).map("".join) | st.text(max_size=6))
def test_a_scalar_is_a_number_only_if_it_has_a_finite_value(text: str) -> None:
    _, value = resolve(text)
    if isinstance(value, float) and text.lower().lstrip("+-") not in (".nan", ".inf"):
        assert math.isfinite(value)
    assert not isinstance(value, str) or value == text


def bomb(first: str, level: str) -> str:
    """Return YAML in which each level has ten aliases of the level before."""
    levels = (f"a{n}: &a{n} " + level.format(",".join([f"*a{n - 1}"] * 10)) for n in range(1, 40))
    return "\n".join([f"a0: &a0 {first}", *levels])


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        pytest.param(bomb("[x, x]", "[{}]"), "aliases expand to more than 100000 values", id="aliases"),
        pytest.param(bomb("{k: v}", "{{<<: [{}]}}"), "aliases expand to more than 100000 values", id="merge-keys"),
        pytest.param(
            bomb("[x, x]", "[{}]") + "\nb: &a0 y",
            "aliases expand to more than 100000 values",
            id="in-the-second-parser",
        ),
        pytest.param(
            "\n---\n".join(["a: &a [" + "x, " * 500 + "]\nb: [" + "*a, " * 100 + "]"] * 5),
            "aliases expand to more than 100000 values",
            id="aliases-in-many-documents",
        ),
        pytest.param("a: &a [*a]", "nested more than 100 levels deep", id="a-list-within-itself"),
        pytest.param("a: &a {<<: *a}", "nested more than 100 levels deep", id="a-mapping-merged-into-itself"),
        pytest.param("? &a [*a]\n: x", "nested more than 100 levels deep", id="a-key-within-itself"),
        pytest.param("[" * 500 + "]" * 500, "nested more than 100 levels deep", id="deep-lists"),
        pytest.param("[fd00::, " + "[" * 150 + "]" * 151, "nested more than 100", id="deep-lists-in-the-second-parser"),
        pytest.param(
            "a0: &a0 x\n" + "\n".join(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 200)),
            "nested more than 100 levels deep",
            id="deep-by-aliases",
        ),
        pytest.param('{"a":' * 100_000, "nest", id="json-without-end"),
        pytest.param("[" * 100_000, "nest", id="lists-without-end"),
        pytest.param("{" * 100_000, "nest", id="mappings-without-end"),
        pytest.param("- " * 5_000, "nest", id="dashes"),
        pytest.param("? " * 5_000, "nest", id="question-marks"),
    ],
)
def test_hostile_input_is_refused_at_once(text: str, cause: str) -> None:
    sentences = [sentence for _, sentence in errors(text)]
    assert cause in sentences[0]
    assert len(sentences[0]) < 200


@pytest.mark.parametrize("digits", ["9" * 5_000, "0x" + "f" * 5_000, "1e5000"])
def test_a_number_that_no_computer_holds_is_a_text(digits: str) -> None:
    assert values(f"a: {digits}") == values(f'{{"a": {digits}}}') == [{"a": digits}]


def test_a_long_text_of_many_values_is_no_bomb() -> None:
    assert len(values("- a\n- {b: c}\n" * 30_000)[0]) == 60_000


def test_the_slow_parser_is_not_tried_with_a_text_that_is_no_object(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise AssertionError("it is slow")

    monkeypatch.setattr(yaml_document, "_SecondLoader", refuse)
    assert values("a: b") == [{"a": "b"}]
    assert errors("[fd00::, " + "x" * 4_000_000 + "]")
    assert errors("{" * 2_000)
    with pytest.raises(AssertionError, match="it is slow"):
        read("[fd00::]")


TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc", "Cn", "Zl", "Zp")), max_size=8)
TOKENS = [
    "{",
    "}",
    "[",
    "]",
    "&a ",
    "*a",
    "!!int ",
    "!",
    "|",
    ">",
    "%",
    "@",
    "'",
    '"',
    "#",
    "- ",
    ": ",
    "? ",
    ",",
    "\n",
]
TOKENS += [
    "!!float ",
    "!!bool ",
    "!!set ",
    "!!omap ",
    "!!null ",
    "<<",
    "=",
    "~",
    " ",
    "\t",
    "a",
    "1",
    ".",
    "_",
    "0x",
    "-",
]
TOKENS += ["2020-01-01", "1:30", ".inf", "on", "---\n", "\x00", "é"]


@steady
@given(st.lists(st.sampled_from(TOKENS)).map("".join) | TEXTS)
def test_any_text_is_read_as_values_that_json_can_say_or_refused(text: str) -> None:
    found = [document.value for document in read(text)]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
)


@steady
@given(st.lists(PLAIN, min_size=1, max_size=3), st.sampled_from([True, False, None]), st.sampled_from("'\""))
def test_what_pyyaml_writes_in_quotes_is_read_back_as_it_was(
    documents: list[object], flow: bool | None, quote: str
) -> None:
    parts = [yaml.safe_dump(document, default_flow_style=flow, default_style=quote) for document in documents]
    found = values("---\n" + "---\n".join(parts))
    assert as_go(found) == as_go(documents)


@steady
@given(st.lists(st.dictionaries(TEXTS, PLAIN), min_size=1, max_size=3))
def test_json_texts_and_yaml_documents_read_alike(documents: list[object]) -> None:
    texts = [json.dumps(document, ensure_ascii=False) for document in documents]
    assert values("\n".join(texts)) == documents
    assert as_go(values("".join(f"--- # YAML\n{text}\n" for text in texts))) == as_go(documents)


@steady
@given(
    st.lists(st.dictionaries(TEXTS, PLAIN, max_size=4), min_size=1, max_size=3), st.sampled_from([True, False, None])
)
def test_both_parsers_read_the_same_in_what_both_accept(documents: list[object], flow: bool | None) -> None:
    text = yaml.safe_dump(documents, default_flow_style=flow, allow_unicode=True)
    assert values(f"- &a x\n- &a y\n---\n{text}")[1:] == values(text)
    first, second = (loader(text) for loader in (yaml_document._Loader, yaml_document._SecondLoader))
    assert first.check_node()
    assert second.check_node()
    reader = yaml_document.YamlReader.of(text)
    assert reader._value(second.get_node()) == reader._value(first.get_node())
