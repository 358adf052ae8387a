"""YAML and JSON are read as the API server reads them; errors have the line."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from image_mirror.cli.documents import UnreadableError, read_documents

steady = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])


def read(text: str) -> list[Any]:
    return list(read_documents(text))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        pytest.param("", [], id="nothing"),
        pytest.param("---\n# empty\n---\na: b\n...\n---\n", [None, {"a": "b"}, None], id="empty-documents-count"),
        pytest.param(
            "[1.10, 5, yes, off, ~, 0x1F, 1e5, 1.5E-7]",
            [[1.1, 5, True, False, None, 31, 1e5, 1.5e-7]],
            id="what-is-no-text",
        ),
        pytest.param("['5', \"yes\", !!str 5, '~']", [["5", "yes", "5", "~"]], id="what-is-quoted-is-a-text"),
        pytest.param("- |-\n  5\n- >-\n  yes\n", [["5", "yes"]], id="blocks-are-texts"),
        pytest.param(
            "{8080: a, on: b, ~: c, '<<': d, 2020-01-01: e, =: f}",
            [{"8080": "a", "true": "b", "null": "c", "<<": "d", "2020-01-01": "e", "=": "f"}],
            id="keys-are-texts",
        ),
        pytest.param('{"a": "\\ud83d\\ude00"}', [{"a": "😀"}], id="pairs-of-escapes-in-json"),
        pytest.param('\n{"a": 1}\n{"a": 2}{\n\t"a": 3}\n', [{"a": 1}, {"a": 2}, {"a": 3}], id="json-after-json"),
    ],
)
def test_values_are_those_that_the_api_server_sees(text: str, values: list[Any]) -> None:
    documents = read(text)
    assert documents == values
    assert list(map(repr, documents)) == list(map(repr, values))  # True is not 1


@pytest.mark.parametrize(
    "scalar",
    ["nginx", "1.2.3", "1e", "12e4f", "2020-01-01", "2020-99-99", "2020-01-01T00:00:00Z", "12:30", "1:30:15.5", "="],
)
def test_versions_dates_and_times_are_texts_as_the_api_server_sees_them(scalar: str) -> None:
    assert read(f"[{scalar}]") == [[scalar]]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("{<<: {a: 1, b: 2}, b: 3}", {"a": 1, "b": 3}, id="own-keys-come-first"),
        pytest.param("{b: 3, <<: {a: 1, b: 2}}", {"a": 1, "b": 3}, id="at-any-place"),
        pytest.param("{<<: [{a: 1}, {a: 2, b: 2}], c: 3}", {"a": 1, "b": 2, "c": 3}, id="earlier-sources-come-first"),
        pytest.param(
            "{a: &a {k: 1, x: 1}, b: &b {<<: *a, k: 2}, c: {<<: *b}, d: {<<: [*a, *b]}, e: {<<: [*b, *a]}}",
            {key: {"k": 1, "x": 1} for key in "ad"} | {key: {"k": 2, "x": 1} for key in "bce"},
            id="what-is-merged-may-itself-be-merged",
        ),
        pytest.param("{x: {y: &b {<<: {k: 1}, k: 2}}, z: {<<: *b}}", {"x": {"y": {"k": 2}}, "z": {"k": 2}}, id="deep"),
    ],
)
def test_merge_keys_are_followed(text: str, value: object) -> None:
    assert read(text) == [value]


@pytest.mark.parametrize(
    ("text", "line", "cause"),
    [
        pytest.param("kind: Pod\nkind: Job", 2, "the key kind is there twice", id="key-twice"),
        pytest.param('{"a": {"b": 1,\n "b": 2}}', 2, "the key b is there twice", id="key-twice-in-json"),
        pytest.param("x: {<<: {a: 1}, b: 1,\n b: 2}", 2, "the key b is there twice", id="key-twice-beside-a-merge"),
        pytest.param("a: {{ .Values.a }}", 1, "a key must be a text, not a mapping or a list", id="key-is-a-mapping"),
        pytest.param("a: b\n? [c]\n: d", 2, "a key must be a text, not a mapping or a list", id="key-is-a-list"),
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
            "spec:\n\timage: x",
            2,
            "not valid YAML: while scanning for the next token found character that cannot start any token",
            id="tab",
        ),
        pytest.param("a: é\nb: \x00", 2, "the character U+0000 is not allowed", id="nul"),
        pytest.param("a: *b", 1, "not valid YAML: found undefined alias", id="alias-of-nothing"),
        pytest.param("a: &a x\n---\nb: *a", 3, "not valid YAML: found undefined alias", id="alias-of-another-document"),
        pytest.param("<<: x", 1, "<< needs a mapping or a list of mappings", id="merge-of-a-text"),
        pytest.param("\na: !Ref x", 2, "not valid YAML: could not determine a constructor", id="unknown-tag"),
        pytest.param("a:\n- .nan", 2, "JSON has no float .nan; put it in quotes if it is a text", id="not-a-number"),
        pytest.param('{"a": 1e999}', 1, "JSON has no float 1e999; put it in quotes", id="beyond-all-numbers"),
        pytest.param("-.INF: a", 1, "JSON has no float -.INF; put it in quotes if it is a text", id="infinite-key"),
        pytest.param("a: 0x_", 1, "JSON has no int 0x_; put it in quotes", id="number-without-digits"),
        pytest.param("!!bool x", 1, "JSON has no bool x; put it in quotes", id="tag-that-does-not-fit"),
        pytest.param("!!timestamp 2020-01-01", 1, "JSON has no timestamp 2020-01-01;", id="timestamp-by-tag"),
        pytest.param("!!binary eA==", 1, "JSON has no binary eA==;", id="binary"),
        pytest.param("!!set {a, b}", 1, "JSON has no set ", id="set"),
    ],
)
def test_what_does_not_parse_is_refused_with_its_line(text: str, line: int, cause: str) -> None:
    with pytest.raises(UnreadableError) as caught:
        read(text)
    assert caught.value.line == line
    assert caught.value.cause.startswith(cause)


def test_documents_before_a_wrong_one_are_yielded() -> None:
    documents = read_documents("a: b\n---\nc: [")
    assert next(documents) == {"a": "b"}
    with pytest.raises(UnreadableError):
        next(documents)


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
            "\n---\n".join(["a: &a [" + "x, " * 500 + "]\nb: [" + "*a, " * 100 + "]"] * 5),
            "aliases expand to more than 100000 values",
            id="aliases-in-many-documents",
        ),
        pytest.param("a: &a [*a]", "nested more than 100 levels deep", id="a-list-within-itself"),
        pytest.param("a: &a {<<: *a}", "nested more than 100 levels deep", id="a-mapping-merged-into-itself"),
        pytest.param("? &a [*a]\n: x", "nested more than 100 levels deep", id="a-key-within-itself"),
        pytest.param("[" * 500 + "]" * 500, "nested more than 100 levels deep", id="deep-lists"),
        pytest.param(
            "a0: &a0 x\n" + "\n".join(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 200)),
            "nested more than 100 levels deep",
            id="deep-by-aliases",
        ),
        pytest.param('{"a":' * 100_000, "nest", id="json-without-end"),
        pytest.param("[" * 100_000, "nest", id="lists-without-end"),
        pytest.param("- " * 5_000, "nest", id="dashes"),
        pytest.param("? " * 5_000, "nest", id="question-marks"),
        pytest.param("a: " + "9" * 5_000, "JSON has no int 9999", id="a-number-longer-than-python-reads"),
        pytest.param("a: 0x" + "f" * 5_000, "JSON has no int 0xffff", id="or-writes"),
        pytest.param('{"a": ' + "9" * 5_000 + "}", "JSON has no int 9999", id="the-same-in-json"),
    ],
)
def test_hostile_input_is_refused_at_once(text: str, cause: str) -> None:
    with pytest.raises(UnreadableError) as caught:
        read(text)
    assert cause in caught.value.cause
    assert len(caught.value.cause) < 200


def test_a_long_text_of_many_values_is_no_bomb() -> None:
    assert len(read("- a\n- {b: c}\n" * 30_000)[0]) == 60_000


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
    try:
        values = read(text)
    except UnreadableError:
        return
    assert json.loads(json.dumps(values, allow_nan=False)) == values


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
)


@steady
@given(st.lists(PLAIN, min_size=1, max_size=3), st.sampled_from([True, False, None]), st.sampled_from("'\""))
def test_what_pyyaml_writes_in_quotes_is_read_back_as_it_was(
    documents: list[object], flow: bool | None, quote: str
) -> None:
    text = yaml.safe_dump_all(documents, default_flow_style=flow, default_style=quote, explicit_start=True)
    assert read(text) == documents


@steady
@given(st.lists(st.dictionaries(TEXTS, PLAIN), min_size=1, max_size=3))
def test_json_texts_and_yaml_documents_read_alike(documents: list[object]) -> None:
    texts = [json.dumps(document, ensure_ascii=False) for document in documents]
    assert read("\n".join(texts)) == documents
    assert read("".join(f"--- # YAML\n{text}\n" for text in texts)) == documents
