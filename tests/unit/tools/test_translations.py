"""Chinese pages have the titles, code and links of the English ones, and the terms of the glossary."""

import posixpath
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import translations
from tools.translations import TRANSLATED, chinese_of, english_of, problems, read_pages, term_problems, with_hashes

PAGE, CHINESE = "docs/install.md", "docs/zh-CN/install.md"
ENGLISH_TEXT = """\
# Install

English · [简体中文](zh-CN/install.md)

Needs `python` and `make`; see [rules](rules.md#which), the [upgrade](#upgrade) and
[Lambda](https://docs.aws.amazon.com/lambda/latest/dg/x.html).

```console
$ make demo   # the demo
```

## Upgrade

| option | meaning |
| --- | --- |
| `--rotate` | new keys, not `--keys` |
| none | [cost](cost.md) |

![status](pictures/status.svg)
"""
CHINESE_TEXT = """\
# 安装

[English](../install.md) · 简体中文

需要 `python` 和 `make`；参见[规则](rules.md#哪些)、[升级](#升级)和
[Lambda](https://docs.amazonaws.cn/zh_cn/lambda/latest/dg/x.html)。

```console
# 演示
$ make demo
```

## 升级

| 选项 | 含义 |
| --- | --- |
| `--rotate` | 新的密钥，不是 `--keys` |
| 无 | [费用](../cost.md) |

![状态](../pictures/status.svg)
"""
OTHERS = {
    "docs/rules.md": "# Rules\n\n## Which\n\n## Others\n",
    "docs/zh-CN/rules.md": "# 规则\n\n## 哪些\n\n## 其他\n",
    "docs/cost.md": "# Cost\n",
}


def found(chinese: str, english: str = ENGLISH_TEXT) -> list[str]:
    """Return what is wrong with a Chinese page, which gets the hashes of ENGLISH_TEXT."""
    pages = OTHERS | {PAGE: english, CHINESE: with_hashes(chinese, ENGLISH_TEXT)}
    return [problem.text for problem in problems(PAGE, pages)]


def test_a_translation_with_all_code_and_links_has_no_problem() -> None:
    assert found(CHINESE_TEXT) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        pytest.param("## 升级", "### 升级", "the titles differ: ### 升级, in English ## Upgrade", id="level"),
        pytest.param("## 升级", "升级", "the titles differ: no title, in English ## Upgrade", id="title missing"),
        pytest.param(
            "## 升级", "## 删除\n\n## 升级", "the titles differ: ## 升级, in English no title", id="title too many"
        ),
        pytest.param("$ make demo", "$ make test", "code block only in English: console\n$ make demo", id="code block"),
        pytest.param(
            "```console", "```text", "code block only in Chinese: text\n$ make demo", id="language of a block"
        ),
        pytest.param("`make`", "make", "inline code only in English: make", id="code missing"),
        pytest.param("需要", "需要 `pip`、", "inline code only in Chinese: pip", id="code too many"),
        pytest.param(
            "`--rotate` | 新的密钥，不是 `--keys`",
            "`--keys` | 不是 `--rotate`",
            "the first cells of a table differ: [[], ['--keys'], []], in English [[], ['--rotate'], []]",
            id="first cell",
        ),
        pytest.param("| 无 | [费用](../cost.md) |\n", "", "link only in English: docs/cost.md", id="row missing"),
        pytest.param("(../cost.md)", "(https://a.example/)", "link only in Chinese: https://a.example/", id="link"),
        pytest.param("#哪些", "#其他", "link only in Chinese: docs/rules.md, title 3", id="another title"),
        pytest.param("#哪些", "#which", "link only in Chinese: docs/zh-CN/rules.md#which", id="an English anchor"),
        pytest.param(
            "rules.md#哪些",
            "../rules.md#which",
            "this link leads to the English page, not to docs/zh-CN/rules.md: ../rules.md#which",
            id="English although there is a Chinese page",
        ),
        pytest.param("lambda/latest", "lambda/old", "link only in English: ", id="another page of AWS"),
        pytest.param(
            "../pictures/status", "../pictures/pods", "link only in Chinese: docs/pictures/pods.svg", id="picture"
        ),
        pytest.param("需要", "仓库需要", "'仓库' in '仓库需要 ` 和 `'", id="term"),
    ],
)
def test_a_difference_is_found(old: str, new: str, problem: str) -> None:
    assert old in CHINESE_TEXT
    assert any(each.startswith(problem) for each in found(CHINESE_TEXT.replace(old, new)))


def test_a_row_without_code_that_is_missing_is_found() -> None:
    english, chinese = (
        text.replace("[cost](cost.md)", "x").replace("[费用](../cost.md)", "x") for text in (ENGLISH_TEXT, CHINESE_TEXT)
    )
    pages = OTHERS | {PAGE: english, CHINESE: with_hashes(chinese.replace("| 无 | x |\n", ""), english)}
    assert [each.text for each in problems(PAGE, pages)] == [
        "the first cells of a table differ: [[], ['--rotate']], in English [[], ['--rotate'], []]"
    ]


def test_a_section_is_stale_if_only_its_english_has_changed() -> None:
    [problem] = problems(
        PAGE,
        OTHERS
        | {
            PAGE: ENGLISH_TEXT.replace("new keys", "other keys"),
            CHINESE: with_hashes(CHINESE_TEXT, ENGLISH_TEXT),
        },
    )
    assert problem.text.startswith("stale: the English section has changed, from ")
    assert str(problem).startswith("docs/zh-CN/install.md:14: stale")


def test_a_section_is_not_stale_if_only_the_lines_break_elsewhere() -> None:
    assert found(CHINESE_TEXT, ENGLISH_TEXT.replace("and\n[Lambda]", "\nand [Lambda]")) == []


@pytest.mark.parametrize(
    ("change", "count"),
    [
        pytest.param(lambda _: [], 0, id="missing"),
        pytest.param(lambda line: [line, line], 2, id="twice"),
    ],
)
def test_each_section_has_one_hash(change: Callable[[str], list[str]], count: int) -> None:
    lines = with_hashes(CHINESE_TEXT, ENGLISH_TEXT).splitlines()
    assert lines[1].startswith("<!-- en: ")
    lines[1:2] = change(lines[1])
    [problem] = problems(PAGE, OTHERS | {PAGE: ENGLISH_TEXT, CHINESE: "\n".join(lines)})
    assert problem.text.startswith(f"{count} hashes of the English section, not one: <!-- en: ")


def test_a_page_that_is_missing_is_found() -> None:
    assert [str(each) for each in problems(PAGE, {PAGE: ENGLISH_TEXT})] == [
        "docs/zh-CN/install.md:1: there is no Chinese page of docs/install.md"
    ]


def test_a_diagram_may_have_chinese_texts_but_no_other_arrows() -> None:
    english = "# A\n\n```mermaid\nsequenceDiagram\n    participant U as a user\n    U->>A: a pod\n```\n"
    chinese = english.replace("a user", "用户").replace("a pod", "一个 Pod")
    for text, count in ((chinese, 0), (chinese.replace("U->>A", "A->>U"), 2)):
        assert (
            len(problems("docs/a.md", {"docs/a.md": english, "docs/zh-CN/a.md": with_hashes(text, english)})) == count
        )


# ---- terms ----


@pytest.mark.parametrize(
    "text",
    [
        "镜像副本在存储库里，源镜像仓库拒绝请求，准入 webhook 按规则改写镜像。",
        "复制一个镜像。",
        "Deployment 的副本数，ReplicaSet 是副本集。",
        "钉钉机器人 webhook 的地址",
        "准入\nwebhook",
        "查看图表“Webhook: what was not admitted”",
        "registry.k8s.io 和 MutatingWebhookConfiguration",
        "第一行，\n第二行",
        "镜像 `\n` 第二行",
    ],
)
def test_the_terms_of_the_glossary_are_no_problem(text: str) -> None:
    assert list(term_problems(text)) == []


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("容器映像", "镜像"),
        ("一个拷贝", "镜像副本"),
        ("它的副本", "镜像副本"),
        ("源仓库", "镜像仓库"),
        ("注册表", "镜像仓库"),
        ("源registry的", "镜像仓库"),
        ("私有 Registry", "镜像仓库"),
        ("储存库", "存储库"),
        ("ECR 的 repository", "存储库"),
        ("Webhook 没有响应", "准入 webhook"),
        ("准入webhook", "准入 webhook"),
        ("准入钩子", "准入 webhook"),
        ("“Webhook 出错”", "准入 webhook"),
        ("一行里\n断开", "break it after a punctuation mark"),
    ],
)
def test_another_term_is_found(text: str, term: str) -> None:
    [problem] = term_problems(text)
    assert term in problem


# ---- the hashes, and the command ----


def test_a_page_has_its_chinese_page_in_a_folder_and_the_readme_beside_it() -> None:
    assert (chinese_of(PAGE), chinese_of("README.md")) == (CHINESE, "README.zh-CN.md")
    assert [english_of(page) for page in (CHINESE, "README.zh-CN.md", PAGE, "README.md")] == [
        PAGE,
        "README.md",
        None,
        None,
    ]


def test_hashes_are_written_once_under_their_titles() -> None:
    written = with_hashes(CHINESE_TEXT, ENGLISH_TEXT)
    assert with_hashes(written, ENGLISH_TEXT) == written
    lines = written.splitlines()
    assert [lines[place - 1] for place, line in enumerate(lines) if line.startswith("<!-- en: ")] == [
        "# 安装",
        "## 升级",
    ]
    assert [line for line in lines if not line.startswith("<!-- en: ")] == CHINESE_TEXT.splitlines()


def test_no_hash_is_written_if_the_titles_differ() -> None:
    assert with_hashes(CHINESE_TEXT + "\n## 费用\n", ENGLISH_TEXT) == CHINESE_TEXT + "\n## 费用\n"


def test_the_command_lists_what_is_stale_and_writes_the_hashes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, text in {PAGE: ENGLISH_TEXT, CHINESE: CHINESE_TEXT, **OTHERS}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    assert translations.main([PAGE], tmp_path) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "1 translated pages, 2 problems"
    assert translations.main(["--write", PAGE], tmp_path) == 0
    assert capsys.readouterr().out == "1 translated pages, 0 problems\n"
    assert translations.main([PAGE], tmp_path) == 0
    (tmp_path / PAGE).write_text(ENGLISH_TEXT.replace("new keys", "keys"), encoding="utf-8")
    assert translations.main([PAGE], tmp_path) == 1
    assert "install.md:14: stale" in capsys.readouterr().out


def test_hashes_are_written_only_into_pages_that_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        translations.main(["--write"], tmp_path)
    assert "--write needs the pages that were looked at" in capsys.readouterr().err


# ---- the product's pages ----


def test_the_chinese_pages_are_those_that_the_tool_names() -> None:
    assert {english for page in read_pages() if (english := english_of(page))} == set(TRANSLATED)


def test_each_chinese_page_says_what_the_english_one_says() -> None:
    pages = read_pages()
    assert [str(each) for page in TRANSLATED for each in problems(page, pages)] == []


@pytest.mark.parametrize("page", TRANSLATED)
def test_each_language_has_the_switch_to_the_other_at_the_head_of_the_page(page: str) -> None:
    pages, chinese = read_pages(), chinese_of(page)
    there, back = (posixpath.relpath(to, posixpath.dirname(of)) for of, to in ((page, chinese), (chinese, page)))
    assert pages[page].splitlines()[1:3] == ["", f"**English** | [简体中文]({there})"]
    assert pages[chinese].splitlines()[2:4] == ["", f"[English]({back}) | **简体中文**"]
