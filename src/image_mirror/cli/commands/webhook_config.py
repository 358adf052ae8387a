"""`image-mirror webhook-config`: the webhook's configuration for a cluster, ready for `kubectl apply -f -`."""

import re
from enum import StrEnum
from typing import Annotated
from urllib.parse import urlsplit

import typer

from image_mirror.cli.accounts import Account
from image_mirror.cli.errors import NoAnswerError
from image_mirror.cli.options import ChinaProfile, ChinaRegion, StackName
from image_mirror.cli.stacks import china_stack
from image_mirror.cli.webhook_manifest import CONTROL_PLANE, SHIPPED, Choices, shipped_text

_URL = re.compile(r"[!-~]+")  # what urlsplit would drop, such as a tab, is not among these
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # a label by RFC 1123


class FailurePolicy(StrEnum):
    """What the API server does with a pod while the webhook gives no answer."""

    IGNORE = "Ignore"
    FAIL = "Fail"


def webhook_config(
    failure_policy: Annotated[
        FailurePolicy,
        typer.Option(help="While the webhook gives no answer: pods start as they are written, or do not start."),
    ] = FailurePolicy.IGNORE,
    timeout: Annotated[
        int, typer.Option(min=1, max=30, metavar="SECONDS", help="How long a pod waits while the endpoint hangs.")
    ] = SHIPPED.timeout,
    namespaces: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Only pods of these namespaces; by default, of all.")
    ] = None,
    exclude_namespaces: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="No pods of these namespaces.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="The webhook's URL; AWS is then not asked for it.")
    ] = None,
    china_profile: ChinaProfile = None,
    china_region: ChinaRegion = None,
    stack_name: StackName = None,
) -> None:
    """Print the cluster's webhook configuration, with the URL of the stack filled in. The cluster is not asked.

    It is mutating-webhook.yaml with its comments, so that it can be read, kept, and changed by hand:

    \b
    image-mirror webhook-config --china-profile china | kubectl apply -f -

    The URL holds the token: whoever reads what is printed can call the webhook. With --failure-policy Fail no pod
    starts while the webhook is down; leave the control plane's own out, or a cluster may not come up again by itself:

    \b
    image-mirror webhook-config --failure-policy Fail --exclude-namespaces kube-system | kubectl apply -f -

    Pods and namespaces that are labelled image-mirror/skip=true are left out in any case.

    Exits with 2 where an option is wrong, with 3 where AWS does not say what the URL is.
    """
    choices = Choices(
        failure_policy=failure_policy.value,
        timeout=timeout,
        namespaces=_names("--namespaces", namespaces),
        excluded=_names("--exclude-namespaces", exclude_namespaces),
    )
    both = sorted({*choices.namespaces} & {*choices.excluded})
    if both:
        raise typer.BadParameter(f"{', '.join(both)}: is named by --namespaces too", param_hint="--exclude-namespaces")
    if url is None:
        found = china_stack(Account("china", china_profile, china_region), stack_name).output("APIGatewayURL")
        if problem := _problem(found):
            raise NoAnswerError(f"the stack's output APIGatewayURL {problem}; give the right one by --url")
    else:
        found = url
        if problem := _problem(found):
            # It is not quoted, for it may hold a password.
            raise typer.BadParameter(f"it {problem}", param_hint="--url")
    if choices.stops_the_control_plane:
        typer.echo(
            f"Warning: while the webhook is down, no pod starts in {CONTROL_PLANE} either, the control plane's own "
            f"included, and a cluster may not come up again; add --exclude-namespaces {CONTROL_PLANE}",
            err=True,
        )
    typer.echo(shipped_text(found, choices), nl=False)


def _names(option: str, text: str | None) -> tuple[str, ...]:
    """Return the namespaces that an option names, each once. Raises typer.BadParameter."""
    # Empty is no namespace's name: "$NAMES" of a script that failed must not mean all of them.
    names = () if text is None else tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if not _NAMESPACE.fullmatch(name):
            raise typer.BadParameter(
                f"{name!r}: is no namespace: lower-case letters, digits and hyphens, at most 63, split by commas",
                param_hint=option,
            )
    return names


def _problem(url: str) -> str | None:
    """Say what is wrong with a URL, by the API server's rules for clientConfig.url, or return None."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is no URL"
    if not _URL.fullmatch(url) or '"' in url or "\\" in url:
        return "is no URL: it holds a space, or a character that must be written with %"
    if parts.scheme != "https" or not host:
        return "must begin with https:// and a host"
    if "@" in parts.netloc or "?" in url or "#" in url:
        return "must have no user, no query (?) and no fragment (#)"
    return None
