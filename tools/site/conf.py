"""The site of `make site`: Sphinx, MyST and Furo over the Markdown pages, which are written for GitHub and Gitee.

The source directory is the repository, so that each relative link leads to the same file as on GitHub. A file that is
not a page, such as a template, becomes a download. The order of the pages comes from the lists of docs/index.md and
docs/commands.md. Nothing is loaded from another server: tests/e2e/test_site.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "image-mirror"
extensions = ["myst_parser", "plain_pages"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "docs/**/*.md", "tests/README.md"]
exclude_patterns = [".*", "build", "node_modules"]

# GitHub's Markdown and no more: what MyST adds would be noise there.
myst_disable_syntax = ["myst_role", "myst_block_break", "myst_line_comment", "myst_target"]
myst_heading_anchors = 6

smartquotes = False  # they would turn the dashes of an option into one

html_theme = "furo"
html_title = "image-mirror"
html_static_path = ["static"]
html_css_files = ["pages.css"]
html_extra_path = ["extra"]
html_copy_source = False
html_show_sourcelink = False
html_use_index = False
html_show_copyright = False
pygments_style = "friendly"
pygments_dark_style = "native"

_LATIN = '-apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans"'
_FONTS = f'{_LATIN}, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif'
_CODE = '"SFMono-Regular", Menlo, Consolas, "Liberation Mono", "DejaVu Sans Mono", monospace'
html_theme_options = {
    "light_css_variables": {"font-stack": _FONTS, "font-stack--monospace": _CODE},
    "footer_icons": [],
}
