"""`make site`: Sphinx builds it without a warning, and a browser needs no other server to show it."""

import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from e2e.harness.processes import absent
from support.templates import ROOT

# Attributes by which a browser loads something without being asked; a link (<a href>) is not one.
_LOADING = {"src", "srcset", "poster", "data", "background", "xlink:href"}
_IN_CSS = re.compile(r"""url\(\s*['"]?([^'")]+)|@import\s+['"]([^'"]+)""")


class Page(HTMLParser):
    """What a page loads, where it links to, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self._style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._style = tag == "style"
        for name, value in attrs:
            text = value or ""
            if name == "srcset":
                self.loaded += [each.split()[0] for each in text.split(",")]
            elif name in _LOADING or (name == "href" and tag in {"link", "image", "use"}):
                self.loaded.append(text)
            elif name == "href" and tag == "a":
                self.links.append(text)
            elif name == "style":
                self.loaded += in_css(text)
            elif name == "id":
                self.anchors.add(text)

    def handle_data(self, data: str) -> None:
        if self._style:
            self.loaded += in_css(data)

    def handle_endtag(self, tag: str) -> None:
        self._style = self._style and tag != "style"


def in_css(text: str) -> list[str]:
    """Return what a style sheet loads."""
    without_comments = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    return [first or second for first, second in _IN_CSS.findall(without_comments)]


def outside(references: list[str]) -> list[str]:
    """Return those of other servers: data: is in the page itself."""
    return [each for each in references if urlsplit(each).scheme not in {"", "data"} or each.startswith("//")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    program = ROOT / ".venv-site" / "bin" / "sphinx-build"
    if not program.exists():
        absent("Sphinx is not installed: make .venv-site/.done")
    made = tmp_path_factory.mktemp("site")
    options: list[str | Path] = ["-W", "--keep-going", "-q", "-d", made / "read", "-c", ROOT / "tools" / "site"]
    built = subprocess.run([program, *options, ROOT, made / "html"], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return made / "html"


def pages_of(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def test_the_site_has_each_page(site: Path) -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        assert (site / page.relative_to(ROOT).with_suffix(".html")).exists(), page


def test_no_script_style_font_or_image_comes_from_another_server(site: Path) -> None:
    pages = pages_of(site)
    assert any(page.loaded for page in pages.values())
    for path, page in pages.items():
        assert outside(page.loaded) == [], path
    sheets = list(site.rglob("*.css"))
    assert sheets
    for path in sheets:
        assert outside(in_css(path.read_text(encoding="utf-8"))) == [], path
    for path in site.rglob("*.svg"):
        text = path.read_text(encoding="utf-8")
        assert outside(Page(text).loaded + in_css(text)) == [], path


def test_all_that_a_page_loads_or_links_to_in_the_site_is_there(site: Path) -> None:
    pages = pages_of(site)
    for path, page in pages.items():
        for reference in page.loaded + page.links:
            parts = urlsplit(reference)
            if parts.scheme or path.name == "search.html":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), f"{path}: {reference}"
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].anchors, f"{path}: {reference}"


def test_the_contents_lead_to_the_commands(site: Path) -> None:
    links = Page((site / "docs" / "index.html").read_text(encoding="utf-8")).links
    assert "commands.html" in links
    assert "commands/status.html" in links, "in the sidebar"


def test_a_picture_follows_the_colours_of_the_site(site: Path) -> None:
    text = (site / "docs" / "commands" / "status.html").read_text(encoding="utf-8")
    for shown, colours in (("only-light", "light"), ("only-dark", "dark")):
        [image] = re.findall(rf'<img [^>]*class="{shown}"[^>]*>', text)
        assert f'src="../../_images/status-{colours}.svg"' in image


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example/a.js"></script>',
        '<script src="//cdn.example/a.js"></script>',
        '<link rel="stylesheet" href="https://cdn.example/a.css">',
        '<img src="https://cdn.example/a.png">',
        '<source srcset="a.png 1x, https://cdn.example/a.png 2x">',
        '<p style="background: url(https://cdn.example/a.png)">',
        "<style>@font-face { src: url('https://cdn.example/a.woff2') }</style>",
        '<style>@import "https://cdn.example/a.css";</style>',
        '<svg><image xlink:href="https://cdn.example/a.png"/></svg>',
        '<iframe src="http://cdn.example/"></iframe>',
    ],
)
def test_what_another_server_would_have_to_give_is_found(text: str) -> None:
    assert len(outside(Page(text).loaded)) == 1


@pytest.mark.parametrize("text", ['<a href="https://docs.example/">', '<img src="data:image/png;base64,AA==">'])
def test_a_link_and_what_is_in_the_page_itself_are_no_such_things(text: str) -> None:
    assert outside(Page(text).loaded) == []
