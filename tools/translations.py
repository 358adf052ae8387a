"""Compares each Chinese page with its English one, section by section: `python -m tools.translations`.

Under each Chinese title a comment has the hash of the English section that was translated:

    ## 安装
    <!-- en: 1a2b3c4d -->

If the English section changes, its translation is stale, and tests/unit/tools/test_translations.py fails. When a
translator has looked at it, `--write docs/NAME.md` writes the hashes of all its sections. The Chinese page of
docs/NAME.md is docs/zh-CN/NAME.md, and that of README.md is README.zh-CN.md.
"""

import argparse
import hashlib
import posixpath
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from urllib.parse import unquote

from tools.markdown_pages import ROOT, Section, sections

TRANSLATED = (
    "README.md",
    "docs/quick-start.md",
    "docs/install.md",
    "docs/troubleshooting.md",
    "docs/alarms.md",
    "docs/notifications.md",
)
"""The English pages that have a Chinese one, for example docs/quick-start.md."""

GLOSSARY = {
    "image": "镜像",
    "copy": "镜像副本",
    "registry": "镜像仓库",
    "repository": "存储库",
    "rule": "规则",
    "webhook": "准入 webhook",
}
"""One Chinese term each. A copy as a verb is 复制."""

# Around an English word; Chinese letters may be there, and a host such as registry.k8s.io is no word.
_BEFORE, _AFTER = r"(?<![A-Za-z0-9_.-])(?i:", r")(?![A-Za-z0-9_.-])"
# What would be another term for one of these, and the term. ECR's Chinese console says 存储库.
_OTHER_TERMS = {
    r"映像|影像": GLOSSARY["image"],
    r"拷贝|(?<!镜像)副本(?![数集])": f"{GLOSSARY['copy']}, as a verb 复制",
    r"(?<!镜像)仓库": f"{GLOSSARY['registry']} or {GLOSSARY['repository']}; of source code 代码库",
    r"注册表|注册中心|镜像库": GLOSSARY["registry"],
    rf"{_BEFORE}(?:registry|registries){_AFTER}": GLOSSARY["registry"],
    rf"储存库|资源库|{_BEFORE}(?:repository|repositories){_AFTER}": GLOSSARY["repository"],
    # A group robot of WeCom or DingTalk has an address that they call a webhook.
    rf"(?<!准入 )(?<!机器人 ){_BEFORE}webhooks?{_AFTER}|钩子": GLOSSARY["webhook"],
}
# What a screen shows in English, such as the title of a graph: its words are not terms of the page.
_SHOWN = re.compile(r"“[ -~]+”")
_HAN = r"[\u3400-\u9fff\u3000-\u303f\uff00-\uffef]"
_HASH = re.compile(r"\s*en: ([0-9a-f]{8})\s*")
# Amazon's sites in China that have the same pages as the global ones.
_SAME_SITES = {
    "https://docs.amazonaws.cn/": "https://docs.aws.amazon.com/",
    "https://console.amazonaws.cn/": "https://console.aws.amazon.com/",
    "https://www.amazonaws.cn/": "https://aws.amazon.com/",
}
Pages = Mapping[str, str]


def chinese_of(page: str) -> str:
    """Return the path of the Chinese page of an English one."""
    folder, name = posixpath.split(page)
    return f"{folder}/zh-CN/{name}" if folder else f"{name.removesuffix('.md')}.zh-CN.md"


def english_of(page: str) -> str | None:
    """Return the path of the English page of a Chinese one; None if it is not Chinese."""
    if page.endswith(".zh-CN.md"):
        return page.removesuffix(".zh-CN.md") + ".md"
    return page.replace("/zh-CN/", "/") if "/zh-CN/" in page else None


def hash_of(section: Section) -> str:
    """Return the hash of an English section's text; where its lines break does not matter."""
    return hashlib.sha256(" ".join(section.source.split()).encode()).hexdigest()[:8]


# ---- the comparison of two pages ----


@dataclass(frozen=True)
class Problem:
    """What is wrong with a Chinese page, at a line of it."""

    page: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def problems(page: str, pages: Pages) -> list[Problem]:
    """Return what is wrong with the Chinese of an English page; `pages` has the texts of all pages by their paths."""
    chinese = chinese_of(page)
    if chinese not in pages:
        return [Problem(chinese, 1, f"there is no Chinese page of {page}")]
    ours, theirs = sections(pages[chinese]), sections(pages[page])
    if differs := _title_problem(ours, theirs):
        return [Problem(chinese, *differs)]
    found = []
    for our, their in zip(ours, theirs, strict=True):
        found += [Problem(chinese, our.line, text) for text in _differences(page, our, their, pages)]
    return found


def _title_problem(ours: list[Section], theirs: list[Section]) -> tuple[int, str] | None:
    """Return the line at which the levels of the titles begin to differ, and how; None if they are the same."""
    for our, their in zip_longest(ours, theirs):
        if our is None or their is None or our.level != their.level:
            has, misses = (f"{'#' * each.level} {each.title}" if each else "no title" for each in (our, their))
            return (our or ours[-1]).line, f"the titles differ: {has}, in English {misses}"
    return None


def _differences(page: str, our: Section, their: Section, pages: Pages) -> Iterator[str]:
    chinese = chinese_of(page)
    yield from _hash_problem(our, their)
    yield from _compared("code block", map(_without_comments, our.fences), map(_without_comments, their.fences))
    yield from _compared("inline code", our.code, their.code)
    yield from _compared("link", _targets(chinese, our, pages), _targets(page, their, pages))
    if our.first_cells != their.first_cells and Counter(our.code) == Counter(their.code):
        yield f"the first cells of a table differ: {our.first_cells}, in English {their.first_cells}"
    yield from _english_links(chinese, page, our, pages)
    for text in our.prose:
        yield from term_problems(text)


def _hash_problem(our: Section, their: Section) -> Iterator[str]:
    noted = [match[1] for comment in our.comments if (match := _HASH.fullmatch(comment))]
    if len(noted) != 1:
        yield f"{len(noted)} hashes of the English section, not one: <!-- en: {hash_of(their)} -->"
    elif noted != [hash_of(their)]:
        yield f"stale: the English section has changed, from {noted[0]} to {hash_of(their)}"


def _compared(what: str, ours: Iterable[str], theirs: Iterable[str]) -> Iterator[str]:
    """Yield what only one of both has; in which order does not matter."""
    our, their = Counter(ours), Counter(theirs)
    for text in (their - our).elements():
        yield f"{what} only in English: {text}"
    for text in (our - their).elements():
        yield f"{what} only in Chinese: {text}"


def _without_comments(fence: tuple[str, str]) -> str:
    """Return the language and the lines of a code block without comments, and a diagram without its texts."""
    language, content = fence
    cut = re.compile(r": .*| as .*|\s*%%.*" if language == "mermaid" else r"(^|\s+)#.*$")
    lines = (cut.sub("", line).rstrip() for line in content.splitlines())
    return "\n".join([language, *(line for line in lines if line)])


# ---- links ----


def _targets(page: str, section: Section, pages: Pages) -> list[str]:
    return [_target(page, link, pages) for link in section.links]


def _target(page: str, link: str, pages: Pages) -> str:
    """Return where a link leads, the same for both languages: an English path, and the number of the title."""
    if re.match(r"[a-z]+:", link):
        for china, everywhere in _SAME_SITES.items():
            link = link.replace(china, everywhere)
        return re.sub(r"(?<=\.com)/(en_us|zh_cn)(?=/)", "", link)
    path, anchor = _resolved(page, link)
    english = english_of(path) or path
    if not anchor:
        return english
    known = [each.anchor for each in sections(pages[path])] if path in pages else []
    return f"{english}, title {known.index(anchor) + 1}" if anchor in known else f"{path}#{anchor}"


def _resolved(page: str, link: str) -> tuple[str, str]:
    path, _, anchor = unquote(link).partition("#")
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), path)) if path else page, anchor


def _english_links(chinese: str, page: str, section: Section, pages: Pages) -> Iterator[str]:
    """Yield each link to an English page that has a Chinese one, except to the page's own."""
    for link in section.links:
        path = "" if re.match(r"[a-z]+:", link) else _resolved(chinese, link)[0]
        if path != page and path in pages and not english_of(path) and chinese_of(path) in pages:
            yield f"this link leads to the English page, not to {chinese_of(path)}: {link}"


# ---- terms ----


def term_problems(text: str) -> Iterator[str]:
    """Yield each other term for one of the glossary, and each line that breaks where a space would be wrong."""
    on_one_line = _SHOWN.sub("“”", text.replace("\n", " "))
    for pattern, term in _OTHER_TERMS.items():
        for found in re.finditer(pattern, on_one_line):
            around = on_one_line[max(0, found.start() - 8) : found.end() + 8]
            yield f"{found[0]!r} in {around!r}: say {term}"
    for found in re.finditer(rf"({_HAN})\n(?=({_HAN}))", text):
        if not re.match(r"[，。；：、？！）」”]", found[1]):
            yield f"a line breaks after {found[1]!r}, where GitHub shows a space: break it after a punctuation mark"


# ---- the hashes ----


def with_hashes(chinese: str, english: str) -> str:
    """Return a Chinese page with the hash of each English section under its title.

    If the titles differ, there is no telling which section is which, and the page stays as it is.
    """
    ours, theirs = sections(chinese), sections(english)
    if _title_problem(ours, theirs):
        return chinese
    lines = chinese.splitlines()
    for our, their in reversed(list(zip(ours, theirs, strict=True))):
        start, end = our.line - 1, our.line - 1 + len(our.source.splitlines())
        kept = [line for line in lines[start:end] if not re.fullmatch(r"<!-- en: [0-9a-f]{8} -->", line)]
        title = 1 if our.level else 0
        lines[start:end] = [*kept[:title], f"<!-- en: {hash_of(their)} -->", *kept[title:]]
    return "\n".join(lines) + "\n"


def read_pages(root: Path = ROOT) -> dict[str, str]:
    """Return the texts of the pages by their paths."""
    found = [*root.glob("*.md"), *(root / "docs").rglob("*.md")]
    return {page.relative_to(root).as_posix(): page.read_text(encoding="utf-8") for page in found}


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Print what is wrong with the Chinese pages, and return 1 if something is; --write writes the hashes first."""
    what = argparse.ArgumentParser(prog="python -m tools.translations", description=(__doc__ or "").splitlines()[0])
    what.add_argument("page", nargs="*", help="English pages, such as docs/install.md; default: all with a Chinese one")
    what.add_argument(
        "--write", action="store_true", help="write the hashes: a translator has looked at all sections of these pages"
    )
    given = what.parse_args(arguments)
    if given.write and not given.page:
        what.error("--write needs the pages that were looked at: all others could be stale")
    pages = read_pages(root)
    wanted = given.page or sorted({*TRANSLATED, *(english for page in pages if (english := english_of(page)))})
    if given.write:
        for chinese, page in ((chinese_of(page), page) for page in wanted if chinese_of(page) in pages):
            pages[chinese] = with_hashes(pages[chinese], pages[page])
            (root / chinese).write_text(pages[chinese], encoding="utf-8")
    found = [problem for page in wanted for problem in problems(page, pages)]
    print(*found, f"{len(wanted)} translated pages, {len(found)} problems", sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
