"""Reads Markdown pages section by section: titles with GitHub's anchors, links, code, tables and paragraphs.

The parser is markdown-it-py with GitHub's tables; the site's MyST uses the same one.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
_PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
_IN_HTML = re.compile(r'\b(?:src|srcset|href)="([^"]+)"')
_NOT_PAGES = {"build", "dist", "node_modules"}


@dataclass
class Section:
    """A title and what follows it up to the next title of any level. A page without a title has one of level 0.

    `line` is the number of its first line, `source` its lines; `anchor` is what GitHub makes of the title. `fences` has
    the language and the content of each code block, `code` each inline code, `links` the target of each link and
    picture. `first_cells` has the inline code of the first cell of each row of its tables, `prose` all other text, a
    paragraph or cell each, with "`" in the place of code. `paragraphs` has the lines of each paragraph: the first and
    one behind the last. `comments` has each HTML comment.
    """

    level: int
    title: str
    anchor: str
    line: int
    source: str
    fences: list[tuple[str, str]] = field(default_factory=list)
    code: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    first_cells: list[list[str]] = field(default_factory=list)
    prose: list[str] = field(default_factory=list)
    paragraphs: list[tuple[int, int]] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)


def product_pages() -> list[Path]:
    """Return all Markdown files of the product."""
    folders = [each for each in ROOT.iterdir() if each.is_dir() and each.name not in _NOT_PAGES]
    shown = [each for each in folders if not each.name.startswith(".") or each.name in {".github", ".gitee"}]
    return sorted([*ROOT.glob("*.md"), *(page for folder in shown for page in folder.rglob("*.md"))])


def anchor_of(title: str) -> str:
    """Return GitHub's anchor of a title, also of a Chinese one: letters and digits of any script stay."""
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


def sections(text: str) -> list[Section]:
    """Read a page."""
    tokens = _PARSER.parse(text)
    starts = [token.map[0] for token in tokens if token.type == "heading_open" and token.map and token.level == 0]
    lines = text.splitlines()
    found: list[Section] = []
    seen: Counter[str] = Counter()
    if not starts or "".join(lines[: starts[0]]).strip():
        end = starts[0] if starts else len(lines)
        found.append(Section(0, "", "", 1, "\n".join(lines[:end])))
    in_first_cell = False
    for place, token in enumerate(tokens):
        if token.type == "heading_open" and token.level == 0 and token.map:
            end = next((start for start in starts if start > token.map[0]), len(lines))
            title = _plain(tokens[place + 1])
            anchor = anchor_of(title)
            numbered = f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor
            seen[anchor] += 1
            source = "\n".join(lines[token.map[0] : end])
            found.append(Section(int(token.tag[1:]), title, numbered, token.map[0] + 1, source))
        elif token.type == "tr_open":
            in_first_cell = True
            found[-1].first_cells.append([])
        elif token.type in {"th_close", "td_close"}:
            in_first_cell = False
        elif token.type == "paragraph_open" and token.map:
            found[-1].paragraphs.append((token.map[0], token.map[1]))
        elif token.type == "inline":
            _read_inline(found[-1], token, in_first_cell=in_first_cell)
        elif token.type in {"fence", "code_block"}:
            found[-1].fences.append((token.info.strip(), token.content))
        elif token.type == "html_block":
            _read_html(found[-1], token.content)
    return found


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's titles."""
    return {each.anchor for each in sections(page.read_text(encoding="utf-8"))}


def text_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of each line that is in no table, code block or HTML."""
    lines = text.splitlines()
    inside: set[int] = set()
    for token in _PARSER.parse(text):
        if token.type in {"fence", "code_block", "html_block", "table_open"} and token.map:
            inside |= set(range(*token.map))
    yield from ((number + 1, line) for number, line in enumerate(lines) if number not in inside)


def _plain(inline: Token) -> str:
    return "".join(child.content for child in inline.children or () if child.type in {"text", "code_inline"})


def _read_inline(section: Section, token: Token, *, in_first_cell: bool) -> None:
    prose = []
    for child in token.children or ():
        if child.type == "code_inline":
            section.code.append(child.content)
            prose.append("`")
            if in_first_cell:
                section.first_cells[-1].append(child.content)
        elif child.type == "link_open":
            section.links.append(str(child.attrs["href"]))
        elif child.type == "image":
            section.links.append(str(child.attrs["src"]))
            prose.append(child.content)
        elif child.type in {"softbreak", "hardbreak"}:
            prose.append("\n")
        elif child.type == "html_inline":
            _read_html(section, child.content)
        else:
            prose.append(child.content)
    section.prose.append("".join(prose))


def _read_html(section: Section, text: str) -> None:
    section.links += _IN_HTML.findall(text)
    section.comments += re.findall(r"<!--(.*?)-->", text, re.DOTALL)
