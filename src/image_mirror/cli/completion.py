"""What the shell offers for a word that the operator types: images, pods, namespaces, contexts and profiles.

An answer comes within two seconds (IMAGE_MIRROR_COMPLETION_SECONDS) or not at all, and no error is printed, because the
operator is typing.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from io import StringIO
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from image_mirror.cli.kubernetes import Cluster

_WITHIN = "2"  # seconds
_MOST_RECORDS = 5_000  # reading more takes too long for a key press


def images(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the sources of the records, without those that are typed already."""

    def read() -> list[str]:
        from image_mirror.cli.accounts import Account  # noqa: PLC0415 - only for a completion
        from image_mirror.cli.image_selection import title  # noqa: PLC0415
        from image_mirror.cli.stacks import china_stack, records_of  # noqa: PLC0415

        options = ctx.params
        account = Account("china", options.get("china_profile"), options.get("china_region"))
        if account.asks_for_a_code:  # the question would be in the middle of the line that the operator types
            return []
        found: list[str] = []
        for page in records_of(china_stack(account, options.get("stack_name"))).pages():
            found += map(title, page)
            if len(found) >= _MOST_RECORDS:
                break
        return found

    typed = ctx.params.get("images") or ()
    return sorted(set(_begun(_soon(read), incomplete)) - set(typed))


def namespaces(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the cluster's namespaces."""
    return sorted(_begun(_soon(lambda: _names(ctx, "namespaces")), incomplete))


def pods(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the names of the pods in the namespace that is typed, or in the context's."""
    namespace = ctx.params.get("namespace")
    where = [f"--namespace={namespace}"] if namespace else []
    return sorted(_begun(_soon(lambda: _names(ctx, "pods", *where)), incomplete))


def contexts(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the contexts of the kubeconfig."""

    def read() -> list[str]:
        return [each["name"] for each in _cluster(ctx).config().get("contexts") or []]

    return sorted(_begun(_soon(read), incomplete))


def profiles(incomplete: str) -> list[str]:
    """Return the AWS CLI's profiles."""

    def read() -> list[str]:
        from botocore.session import Session  # noqa: PLC0415 - only for a completion

        return list(Session().available_profiles)

    return sorted(_begun(_soon(read), incomplete))


@contextmanager
def whole_images(environ: MutableMapping[str, str]) -> Iterator[None]:
    """Let a completion for bash see an image with a tag as one word: bash by default splits it at each colon.

    Changes COMP_WORDS and COMP_CWORD, as bash gives them. What is printed in the context is without the part up to the
    last colon, which bash keeps.
    """
    split = environ.get("COMP_WORDS", "").split("\n")
    words, current = merged(split, int(environ.get("COMP_CWORD") or 0))
    # Without a colon in COMP_WORDBREAKS, the word is whole already, and bash replaces all of it.
    cut = words[current].rfind(":") + 1 if current < len(words) and words[current] not in split else 0
    environ.update({"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(current)})
    printed = StringIO()
    try:
        with redirect_stdout(printed):
            yield
    finally:
        for line in printed.getvalue().splitlines():
            typer.echo(line[cut:])


def merged(words: Sequence[str], current: int) -> tuple[list[str], int]:
    """Return the words of a line, joined at each colon, and the number that the word `current` then has."""
    joined: list[str] = []
    after = 0
    for number, word in enumerate(words):
        if joined and (word == ":" or words[number - 1] == ":"):
            joined[-1] += word
        else:
            joined.append(word)
        if number == current:
            after = len(joined) - 1
    return joined, after if current < len(words) else len(joined)


def _names(ctx: typer.Context, *what: str) -> list[str]:
    return [each["metadata"]["name"] for each in _cluster(ctx).get(*what)["items"]]


def _cluster(ctx: typer.Context) -> "Cluster":
    from image_mirror.cli.kubernetes import Cluster  # noqa: PLC0415 - only for a completion

    return Cluster(ctx.params.get("kubeconfig"), ctx.params.get("context"))


def _begun(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _soon(read: Callable[[], list[str]]) -> list[str]:
    """Return what `read` returns, or nothing if it fails or takes too long."""
    found: list[str] = []

    def run() -> None:
        with suppress(Exception):  # a completion that cannot be made is none
            found.extend(read())

    thread = threading.Thread(target=run, daemon=True)  # it does not hold back the end of the process
    thread.start()
    with suppress(ValueError):  # the variable is no number: nothing is offered
        thread.join(float(os.environ.get("IMAGE_MIRROR_COMPLETION_SECONDS") or _WITHIN))
    return found if not thread.is_alive() else []
