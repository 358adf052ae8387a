"""All Markdown of the product: links, anchors, length and width. What the pages say is tested in test_docs.py."""

import re
from collections.abc import Iterator
from pathlib import Path
from unicodedata import east_asian_width
from urllib.parse import unquote

import pytest

from support.templates import ROOT
from tools.markdown_pages import anchor_of, anchors, product_pages, sections, text_lines

PAGES = {str(page.relative_to(ROOT)): page for page in product_pages()}
WRITTEN = [name for name in PAGES if not name.startswith("docs/commands")]  # not generated
LINES, README_LINES, PARAGRAPH, WIDTH = 199, 150, 4, 120
# It has an entry for each release, and is not read from its beginning to its end.
GROWS = {"CHANGELOG.md"}


def text_of(name: str) -> str:
    return PAGES[name].read_text(encoding="utf-8")


def is_readme(name: str) -> bool:
    return name.startswith("README")


# ---- links ----


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    assert list(broken(PAGES[name], text_of(name))) == []


def broken(page: Path, text: str) -> Iterator[str]:
    """Yield each link and picture of a page that does not lead to a file, or to a title in it."""
    own = {each.anchor for each in sections(text)}
    for section in sections(text):
        for target in section.links:
            if re.match(r"https://|mailto:", target):
                continue
            path, _, anchor = unquote(target).partition("#")
            file = page.parent / path
            if not file.exists() or (anchor and anchor not in (anchors(file) if path else own)):
                yield target


@pytest.mark.parametrize(
    ("link", "is_broken"),
    [
        ("[a](README.md)", False),
        ("[a](README.md#image-mirror)", False),
        ("[a](#two-words)", False),
        ("[a](#两个-字)", False),
        ("[a](#%E4%B8%A4%E4%B8%AA-%E5%AD%97)", False),
        ("[a](#two-words-1)", False),
        ("[a](docs)", False),
        ("[a](https://example.com/nothing)", False),
        ("`[a](nothing.md)`", False),
        ("```text\n[a](nothing.md)\n```", False),
        ("[a](nothing.md)", True),
        ("[a](README.md#nothing)", True),
        ("[a](#nothing)", True),
        ("[a](http://example.com)", True),
        ("![a](nothing.svg)", True),
        ("[a][b]\n\n[b]: nothing.md", True),
        ('<picture>\n<img src="nothing.svg">\n</picture>', True),
        ("| a |\n| --- |\n| [b](nothing.md) |", True),
    ],
)
def test_a_broken_link_is_found(link: str, is_broken: bool) -> None:
    page = f"# Two words\n\n## Two words\n\n## 两个：字\n\n## 两个 字\n\n{link}\n"
    assert bool(list(broken(ROOT / "page.md", page))) == is_broken


@pytest.mark.parametrize(
    ("title", "anchor"),
    [
        ("Ignore or Fail", "ignore-or-fail"),
        ("What if it's `null`?", "what-if-its-null"),
        ("SNS：企业微信、钉钉", "sns企业微信钉钉"),
        ("`image-mirror pods`", "image-mirror-pods"),
        ("a_b – c", "a_b--c"),
    ],
)
def test_an_anchor_is_the_one_that_github_makes(title: str, anchor: str) -> None:
    assert sections(f"# {title}")[0].anchor == anchor_of(title.replace("`", "")) == anchor


def texts_of_code() -> list[str]:
    """Return the files that are no pages, and tell a reader of one."""
    files = [ROOT / "Makefile", *ROOT.glob("*.yaml"), *(ROOT / ".github").rglob("*.yml")]
    for folder in ("src", "buildspec", "benchmarks", "samples"):
        files += [each for each in (ROOT / folder).rglob("*") if each.suffix in {".py", ".sh", ".yaml"}]
    return [each.read_text(encoding="utf-8") for each in files]


def test_each_page_that_the_code_names_is_there() -> None:
    found = {each for text in texts_of_code() for each in re.findall(r"\bdocs/[\w./-]+\.md(?:#[\w-]+)?", text)}
    assert found
    for each in found:
        path, _, anchor = each.partition("#")
        assert (ROOT / path).exists(), each
        assert not anchor or anchor in anchors(ROOT / path), each


def test_each_title_under_which_a_message_sends_its_reader_is_in_that_page() -> None:
    named = re.compile(r"\b(docs/[\w-]+\.md) says[^.;\n]*?,? under \"([^\"\n]+)\"")
    found = {each for text in texts_of_code() for each in named.findall(text)}
    assert found
    for page, title in found:
        assert title in {each.title for each in sections(text_of(page))}, (page, title)


def test_each_page_of_the_folder_is_in_the_contents() -> None:
    listed = {target for section in sections(text_of("docs/index.md")) for target in section.links}
    pages = {name.removeprefix("docs/") for name in PAGES if re.fullmatch(r"docs/(zh-CN/)?[\w-]+\.md", name)}
    assert pages - listed == {"index.md"}


def test_the_contents_have_a_line_for_each_page() -> None:
    links = [target for section in sections(text_of("docs/index.md")) for target in section.links]
    assert len(links) == len(set(links))
    items = [line for line in text_of("docs/index.md").splitlines() if line.startswith("- ")]
    assert all(re.fullmatch(r"- \[[^]]+\]\([^)]+\)[:：] ?\S.*", line) for line in items)


# ---- length and width ----


def is_too_long(name: str) -> bool:
    return name not in GROWS and len(text_of(name).splitlines()) > (README_LINES if is_readme(name) else LINES)


def long_paragraphs(name: str) -> list[int]:
    """Return the first line of each paragraph that is too long."""
    found = (each for section in sections(text_of(name)) for each in section.paragraphs)
    return [start + 1 for start, end in found if end - start > PARAGRAPH]


def wide_lines(name: str) -> list[int]:
    """Return each line of text that is too wide. A link's target cannot be broken, so it does not count."""
    return [number for number, line in text_lines(text_of(name)) if columns(re.sub(r"\]\([^)]*\)", "]", line)) > WIDTH]


def columns(line: str) -> int:
    """Return how many columns a terminal or an editor needs: two for a Chinese character."""
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in line)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_page_is_short(name: str) -> None:
    assert not is_too_long(name)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_line_is_no_wider_than_an_editor(name: str) -> None:
    assert wide_lines(name) == []


@pytest.mark.parametrize("name", [name for name in PAGES if is_readme(name)])
def test_a_paragraph_of_the_readme_is_short(name: str) -> None:
    assert long_paragraphs(name) == []


def test_a_chinese_character_takes_two_columns() -> None:
    assert columns("镜像 a，") == 8
