"""`image-mirror webhook-config`: the webhook's configuration for a cluster, ready for `kubectl apply -f -`."""

import re
from enum import StrEnum
from typing import Annotated
from urllib.parse import urlsplit

import typer

from image_mirror.cli.accounts import Account
from image_mirror.cli.errors import NoAnswerError
from image_mirror.cli.options import ChinaProfile, ChinaRegion, StackName
from image_mirror.cli.output import say
from image_mirror.cli.stacks import china_stack
from image_mirror.cli.webhook_manifest import CONTROL_PLANE, SHIPPED, Choices, shipped_text
from image_mirror.swap_when import VALUES, SwapWhen, parse_swap_when

_URL = re.compile(r"[!-~]+")  # what urlsplit would drop, such as a tab, is not among these
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # a label by RFC 1123


class FailurePolicy(StrEnum):
    """What the API server does with a pod while the webhook does not answer."""

    IGNORE = "Ignore"
    FAIL = "Fail"


def webhook_config(
    failure_policy: Annotated[
        FailurePolicy,
        typer.Option(help="While the webhook does not answer: Ignore starts pods as written, Fail starts no pods."),
    ] = FailurePolicy.IGNORE,
    timeout: Annotated[
        int, typer.Option(min=1, max=30, metavar="SECONDS", help="How long a pod waits while the endpoint hangs.")
    ] = SHIPPED.timeout,
    namespaces: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Only pods in these namespaces. Default: all.")
    ] = None,
    exclude_namespaces: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="No pods in these namespaces.")
    ] = None,
    modes: Annotated[
        str | None,
        typer.Option(
            metavar="VALUE,...",
            help="Values of the namespace label image-mirror/swap-when that have an effect: always, copied, paused.",
        ),
    ] = None,
    pause: Annotated[
        bool, typer.Option("--pause", help="Request no copies, and only use those in ECR.", show_default=False)
    ] = False,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="The webhook's URL. Default: read it from the stack.")
    ] = None,
    china_profile: ChinaProfile = None,
    china_region: ChinaRegion = None,
    stack_name: StackName = None,
) -> None:
    """Print the webhook configuration for a cluster, with the stack's URL filled in. Does not contact the cluster.

    The output is mutating-webhook.yaml with its comments. You can save it and change it by hand:

    \b
    image-mirror webhook-config --china-profile china | kubectl apply -f -

    The URL contains the token: anyone who has the output can call the webhook. With --failure-policy Fail, no pod
    starts while the webhook is down. Exclude the control plane's namespace, or the cluster may not recover by itself:

    \b
    image-mirror webhook-config --failure-policy Fail --exclude-namespaces kube-system | kubectl apply -f -

    Pods and namespaces with the label image-mirror/skip=true are always excluded.

    With --modes, the label image-mirror/swap-when of a namespace decides instead of the stack's SwapWhen. Only the
    values that you name have an effect; a namespace with another value is like one without the label. A pod's own
    label wins, and needs no option:

    \b
    image-mirror webhook-config --modes always,copied,paused | kubectl apply -f -

    With --pause, new pods get the copies that are in ECR, and no copy is requested, refreshed or tried again. Give
    the other options as before. To end the pause, apply the configuration without --pause:

    \b
    image-mirror webhook-config --pause | kubectl apply -f -

    Exits with 2 if an option is wrong, and with 3 if the URL cannot be read from AWS.
    """
    choices = Choices(
        failure_policy=failure_policy.value,
        timeout=timeout,
        namespaces=_names("--namespaces", namespaces),
        excluded=_names("--exclude-namespaces", exclude_namespaces),
        modes=_modes(modes),
        paused=pause,
    )
    both = sorted({*choices.namespaces} & {*choices.excluded})
    if both:
        raise typer.BadParameter(f"{', '.join(both)}: also in --namespaces", param_hint="--exclude-namespaces")
    if url is None:
        stack = china_stack(Account("china", china_profile, china_region), stack_name)
        if choices.modes or choices.paused:
            stack.output("SwapWhenRoutes")  # without these routes, the API would answer 404
        found = stack.output("APIGatewayURL")
        if problem := _problem(found):
            raise NoAnswerError(f"the stack's output APIGatewayURL {problem}; give the right one with --url")
    else:
        found = url
        if problem := _problem(found):
            # The message does not quote the URL because it may contain a password.
            raise typer.BadParameter(f"it {problem}", param_hint="--url")
        found = _plain(url, choices)
    if choices.stops_the_control_plane:
        say(
            f"Warning: while the webhook is down, no pod starts in {CONTROL_PLANE} either, not even the control "
            f"plane's, and the cluster may not recover; add --exclude-namespaces {CONTROL_PLANE}"
        )
    typer.echo(shipped_text(found, choices), nl=False)


def _plain(url: str, choices: Choices) -> str:
    """Return the plain URL if a cluster's own URL is given, which may be the route of a value, such as paused.

    Without --modes and --pause, the route stays as it is, because it may be chosen for the whole cluster.
    """
    plain, _, last = url.rstrip("/").rpartition("/")
    if last not in VALUES:
        return url
    if choices.modes or choices.paused:
        return plain
    say(f"Note: this URL is the route of {last}, for all namespaces; without /{last} at its end it is the plain one")
    return url


def _names(option: str, text: str | None) -> tuple[str, ...]:
    """Return the namespaces that an option names, each once. Raises typer.BadParameter."""
    # Empty is no namespace's name: an unset "$NAMES" in a script must not mean all namespaces.
    names = () if text is None else tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if not _NAMESPACE.fullmatch(name):
            raise typer.BadParameter(
                f"{name!r}: is not a namespace: lower-case letters, digits, hyphens, at most 63; commas between names",
                param_hint=option,
            )
    return names


def _modes(text: str | None) -> tuple[SwapWhen, ...]:
    """Return the values that --modes names, each once. Raises typer.BadParameter."""
    try:
        names = () if text is None else tuple(dict.fromkeys(name.strip() for name in text.split(",")))
        return tuple(parse_swap_when(name) for name in names)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: each {error}; commas between them", param_hint="--modes") from error


def _problem(url: str) -> str | None:
    """Say what is wrong with a URL, by the API server's rules for clientConfig.url, or return None."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is not a URL"
    if not _URL.fullmatch(url) or '"' in url or "\\" in url:
        return "is not a URL: it contains a space, or a character that must be written with %"
    if parts.scheme != "https" or not host:
        return "must begin with https:// and a host"
    if "@" in parts.netloc or "?" in url or "#" in url:
        return "must have no user, no query (?) and no fragment (#)"
    return None
