"""What the site needs beyond MyST, so that the pages can be plain Markdown: contents, pictures, diagrams, Chinese."""

import posixpath
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

CONTENTS = ("docs/index", "docs/commands")
"""Pages whose lists say which pages follow, and in which order."""
_CHINESE = re.compile(r"(^|/)zh-CN/|\.zh-CN$")
_HAN = re.compile(r"[\u3000-\u303f\u3400-\u9fff\uff00-\uffef]")
_DARK = re.compile(r'<source (?=[^>]*prefers-color-scheme: dark)[^>]*srcset="([^"]+)"')
_LIGHT = re.compile(r'<img (?=[^>]*alt="([^"]+)")[^>]*src="([^"]+)"')


class Contents(SphinxTransform):
    """Make the tree of pages from the lists of a page in CONTENTS: the first link of each item is a page."""

    default_priority = 20

    def apply(self, **_: Any) -> None:
        """Put a tree behind each list; its caption is the title of the section, except of the page's own."""
        if self.env.docname not in CONTENTS:
            return
        for found in list(self.document.findall(nodes.bullet_list)):
            section = found.parent
            pages = [page for item in found if (page := _page(item))]
            if pages and isinstance(section, nodes.section):
                caption = section[0].astext() if isinstance(section.parent, nodes.section) else None
                section.append(_tree(self.env.docname, pages, caption))


def _page(item: nodes.Node) -> str | None:
    links = (each for each in item.findall(addnodes.pending_xref) if each["refdomain"] == "doc")
    return next((str(link["reftarget"]) for link in links), None)


def _tree(of: str, pages: list[str], caption: str | None) -> nodes.Node:
    tree = addnodes.toctree(parent=of, entries=[(None, page) for page in pages], includefiles=pages, rawentries=[])
    tree.update_all_atts({"caption": caption, "rawcaption": caption, "maxdepth": 1, "numbered": 0})
    tree.update_all_atts({"glob": False, "reversed": False, "includehidden": False, "hidden": True, "titlesonly": True})
    return nodes.compound("", tree, classes=["toctree-wrapper"])


class Folders(SphinxTransform):
    """Show a link to a folder of the repository as text: the site has no list of its files."""

    default_priority = 20

    def apply(self, **_: Any) -> None:
        """Replace each such link by its text."""
        for link in list(self.document.findall(addnodes.pending_xref)):
            if link["refdomain"] is None and Path(self.env.relfn2path(link["reftarget"])[1]).is_dir():
                link.replace_self(link.children)


class Pictures(SphinxTransform):
    """Show a <picture>, which follows the system's colours, by two images that follow the switch of the site too."""

    default_priority = 20

    def apply(self, **_: Any) -> None:
        """Replace each <picture>."""
        for raw in list(self.document.findall(nodes.raw)):
            light, dark = _LIGHT.search(raw.astext()), _DARK.search(raw.astext())
            if light and dark:
                images = {"only-light": light[2], "only-dark": dark[1]}
                both = [nodes.image(uri=path, alt=light[1], classes=[name]) for name, path in images.items()]
                raw.replace_self(nodes.container("", *both, classes=["picture"]))


class Texts(SphinxTransform):
    """Show the text of a diagram, which needs a script to be drawn, and no space at a line's end within Chinese."""

    default_priority = 20

    def apply(self, **_: Any) -> None:
        """Change code blocks and texts."""
        for block in self.document.findall(nodes.literal_block):
            if block.get("language") == "mermaid":
                block["language"] = "text"
        for paragraph in list(self.document.findall(nodes.paragraph)):
            places = range(len(paragraph))
            paragraph.children = [paragraph[place] for place in places if not _breaks_chinese(paragraph, place)]


def _breaks_chinese(paragraph: nodes.paragraph, place: int) -> bool:
    """Say whether a part of a paragraph is the end of a line between two Chinese letters or punctuation marks."""
    if paragraph[place] != "\n" or not 0 < place < len(paragraph) - 1:
        return False
    before, after = paragraph[place - 1].astext(), paragraph[place + 1].astext()
    return bool(_HAN.match(before[-1:]) and _HAN.match(after[:1]))


def _own_pages_outside_the_contents(app: Sphinx, docname: str, _source: list[str]) -> None:
    """Let a page out of docs/, such as CHANGELOG.md, be in no list; Sphinx reports the others."""
    if posixpath.dirname(docname).partition("/")[0] != "docs":
        app.env.metadata[docname]["orphan"] = ""


def _language(_app: Sphinx, pagename: str, _template: str, context: dict[str, Any], _doctree: Any) -> None:
    """Give a Chinese page its language, by which a browser chooses the font."""
    if _CHINESE.search(pagename):
        context["language"] = "zh-CN"


def setup(app: Sphinx) -> dict[str, bool]:
    """Register all of it with Sphinx."""
    for transform in (Contents, Folders, Pictures, Texts):
        app.add_transform(transform)
    app.connect("source-read", _own_pages_outside_the_contents)
    app.connect("html-page-context", _language)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
