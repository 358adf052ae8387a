"""`image-mirror nudge`: lets the kubelet pull at once what it would try within five minutes, and what was missed."""

import time
from collections.abc import Iterator
from typing import Annotated, NoReturn

import typer

from image_mirror.cli import completion
from image_mirror.cli.accounts import Account
from image_mirror.cli.errors import ExitCode, NoAnswerError, describe_aws_error
from image_mirror.cli.kubernetes import Cluster
from image_mirror.cli.nudging import Nudged, Row, Wish, nudge_pods, sentence, shown, summary
from image_mirror.cli.options import (
    AllNamespaces,
    ChinaProfile,
    ChinaRegion,
    Kubeconfig,
    KubeContext,
    Namespace,
    Selector,
    StackName,
    require_one_scope,
)
from image_mirror.cli.output import Output, OutputOption, print_document, say, show
from image_mirror.cli.pod_reading import Where
from image_mirror.cli.stacks import Stack, china_stack
from image_mirror.cli.terminal import again

_EVERY = 10.0  # seconds


def nudge(
    pod: Annotated[
        str | None, typer.Argument(metavar="POD", help="Only this pod.", autocompletion=completion.pods)
    ] = None,
    namespace: Namespace = None,
    all_namespaces: AllNamespaces = False,
    selector: Selector = None,
    missed: Annotated[
        bool, typer.Option("--missed", help="Give pods that name a source the copy that a rule makes of it.")
    ] = False,
    jobs: Annotated[
        bool, typer.Option("--jobs", help="Also patch pods of Jobs and others that run only once.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be patched; change nothing.")] = False,
    watching: Annotated[bool, typer.Option("-w", "--watch", help="Look again every 10 seconds, until Ctrl-C.")] = False,
    output: OutputOption = Output.TABLE,
    kubeconfig: Kubeconfig = None,
    context: KubeContext = None,
    china_profile: ChinaProfile = None,
    china_region: ChinaRegion = None,
    stack_name: StackName = None,
) -> None:
    """Let pods pull at once what is in ECR now, without waiting for the kubelet's next try.

    \b
    image-mirror nudge -A --dry-run
    image-mirror nudge -n shop
    image-mirror nudge -n shop --missed web-7d4b9c-x2x

    After each failure the kubelet waits longer, up to five minutes. It waits by the image's text. So the image of a
    container that waits for a copy which ECR holds now is changed to the same copy with its digest, NAME:TAG@DIGEST,
    and the kubelet pulls at once. Only containers and init containers in ErrImagePull or ImagePullBackOff are changed.

    --missed is for pods that were made while the webhook did not answer: a container that waits for a source gets what
    the webhook would have written, the copy's name and the annotation with the original, if ECR holds the copy.
    Otherwise run image-mirror warm --cluster first.

    Nothing is deleted, and no container that runs is changed. What cannot be patched is named, with what to do: image
    volumes, ephemeral containers, static pods, and with --missed the pods that run. Pods of Jobs, and others that run
    only once, are patched only with --jobs. A container whose node cannot pull (no space, no permission, a time-out) is
    left, unless you name its pod. So is one whose author names another digest than ECR has under the tag.

    A patched pod stays on that digest, also with imagePullPolicy Always. New pods are not affected. Needs the
    permission to patch pods, which is as strong as the permission to create them.

    \b
    --output json (or yaml) prints a list of objects, one for each image of a pod, with the keys
      result     patched, would be patched, not patched, no longer waits, failed; with --missed
                 also not waiting
      namespace, pod
      field      containers/NAME or initContainers/NAME
      image      the source
      becomes    the new image, or null
      why, do    why it was not patched and what to do, or null
    With --watch it prints an object on one line (with yaml: a document that begins with ---) for
    each result that is new.

    Exits with 1 if something that waits to be pulled was not patched, and with 3 if you may not patch pods. Ctrl-C
    stops it, and what was done until then is printed.
    """
    require_one_scope(namespace, all_namespaces=all_namespaces)
    if pod is not None and (all_namespaces or selector):
        raise typer.BadParameter("cannot be combined with -A or -l", param_hint="POD")
    if watching and output is Output.NAME:
        raise typer.BadParameter("cannot be combined with --watch", param_hint=f"--output {output}")
    cluster = Cluster(kubeconfig, context)
    where = Where(None if all_namespaces else namespace or "", selector)
    wish = Wish(where=where, pod=pod, missed=missed, jobs=jobs, dry_run=dry_run)
    stack = china_stack(Account("china", china_profile, china_region), stack_name)
    if watching:
        _watch(cluster, stack, wish, output)
    done = nudge_pods(cluster, stack, wish)

    def name(row: Row) -> str:
        return f"{row.namespace} pod/{row.pod}" if all_namespaces else f"pod/{row.pod}"

    show(done.rows, output, name=name, table=lambda: shown(done.rows))
    for note in done.notes:
        say(f"Note: {note}")
    elsewhere = "" if done.rows or all_namespaces or pod else "; -A looks in all namespaces"
    say(summary(done, missed=missed) + elsewhere)
    done.require_all()
    if not done.is_well and not dry_run:
        raise typer.Exit(ExitCode.NOT_WELL)


def _watch(cluster: Cluster, stack: Stack, wish: Wish, output: Output) -> NoReturn:
    """Patch again and again, and print each result once.

    Raises an error of the first round, and of a missing permission.
    """
    for row in _new_rows(again(lambda: nudge_pods(cluster, stack, wish), _EVERY, _trouble)):
        if output.is_table:
            typer.echo(f"{time.strftime('%H:%M:%S')}  {sentence(row)}")
        else:
            print_document(row, output)
    raise AssertionError("the rounds never end")


def _trouble(error: Exception) -> str | None:
    return f"no answer now: {error}" if isinstance(error, NoAnswerError) else describe_aws_error(error)


def _new_rows(rounds: Iterator[tuple[Nudged, str]]) -> Iterator[Row]:
    """Yield each row that the round before does not have. Raises NoAnswerError for a missing permission."""
    before: set[Row] = set()
    noted: set[str] = set()
    for done, cause in rounds:
        for note in (cause, *done.notes):
            if note and note not in noted:
                noted.add(note)
                say(f"Note: {note}")
        yield from (row for row in done.rows if row not in before)
        before = set(done.rows)
        done.require_all()
