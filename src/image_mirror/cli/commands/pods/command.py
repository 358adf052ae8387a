"""The command itself: it reads the cluster and AWS, and prints groups of pods or one pod."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Annotated

import typer

from image_mirror.cli import completion
from image_mirror.cli.accounts import Account
from image_mirror.cli.commands.pods.groups import Group, grouped, shown, summary
from image_mirror.cli.commands.pods.one import full, read_one
from image_mirror.cli.commands.pods.watch import watch
from image_mirror.cli.errors import NoAnswerError
from image_mirror.cli.kubernetes import Cluster
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
from image_mirror.cli.output import Output, OutputOption, as_data, current_time, say, show
from image_mirror.cli.pod_reading import (
    LIVING,
    PENDING,
    CopiesView,
    Notes,
    Where,
    find,
    read_pods,
    view_cluster,
    view_copies,
)


def pods(
    pod: Annotated[
        str | None,
        typer.Argument(metavar="POD", help="One pod, to show it in full.", autocompletion=completion.pods),
    ] = None,
    namespace: Namespace = None,
    all_namespaces: AllNamespaces = False,
    selector: Selector = None,
    missed: Annotated[
        bool,
        typer.Option("--missed", help="Show pods, running ones too, that name a source which a rule would copy."),
    ] = False,
    all_phases: Annotated[
        bool, typer.Option("--all-phases", help="Also look at pods that have run; by default at Pending ones only.")
    ] = False,
    watching: Annotated[bool, typer.Option("-w", "--watch", help="Read again every 10 seconds, until Ctrl-C.")] = False,
    output: OutputOption = Output.TABLE,
    kubeconfig: Kubeconfig = None,
    context: KubeContext = None,
    china_profile: ChinaProfile = None,
    china_region: ChinaRegion = None,
    stack_name: StackName = None,
) -> None:
    """Show which pods cannot pull their images, why, and what to do; or one pod in full.

    \b
    image-mirror pods -A
    image-mirror pods -n shop web-7d4b9c-x2x
    image-mirror pods -A --missed

    There is one row for each image and cause, the one with the most pods first. The cause comes from the pod, its
    namespace, the webhook's configuration, the kubelet's status and events, the copy's record, and ECR. What cannot be
    known is said as "probably". Only pods must be readable: a note on standard error names what else could not be
    seen. Without AWS permissions, the default rules decide. Nothing is changed.

    The kubelet waits longer after each failure, up to five minutes. So a pod can wait that long after its copy has
    arrived.

    A pod with a container that has run before is not Pending, also while that container waits for its image again.
    --all-phases finds it too.

    --missed shows pods that name a source although a rule would copy it: they were made while the webhook did not
    answer or was not configured, or after their copy had failed. Those that run are shown too, because they cannot
    start on another node. Pods that are opted out are not shown.

    One pod is shown with the selectors that decide whether the webhook is asked, its rule, what the webhook does now
    with a pod like it and its warnings (a dry run, for which you must be allowed to create pods), the record of each
    copy, what ECR holds, and what the kubelet says. Its platforms are read from ECR's manifest, which counts as a pull.

    --output wide also names the pods. --output name prints pod/NAME, and with -A the namespace before it, as `xargs
    -L1 kubectl describe -n` reads it.

    \b
    --output json (or yaml) prints a list of objects, one for each row, with the keys
      image      the source; or the image that the pods name, if it is no copy
      cause      a word for programs, such as refused, copied, missed
      why, do    as in the table; do is "-" if nothing is to be done
      copy       the copy's name in ECR, or null
      next_try   when the kubelet tries again at the latest, in ISO 8601 and UTC, or null
      count      how many pods
      pods       a list of objects: namespace, name, phase, node, field (containers/NAME),
                 reason and message (the kubelet's)
    With --watch it prints an object on one line (with yaml: a document that begins with ---) for
    each image and cause that is new or has other pods; one that is gone has the count 0.
    For one pod it prints one object: pod, namespace, phase, node, made_at, owner, webhook (a
    sentence), selectors, dry_run (images by field, or null), warnings, notes, and images: a list of
    objects with field, image, source, rule, pull_policy, cause, why, do, copy, record, in_ecr
    (state, digest, size, pushed_at, platforms), reason, message, tries, last_try, next_try
    """
    require_one_scope(namespace, all_namespaces=all_namespaces)
    if pod is not None and (all_namespaces or selector or missed or all_phases or watching):
        cause = "cannot be combined with -A, -l, --missed, --all-phases or --watch"
        raise typer.BadParameter(cause, param_hint="POD")
    if watching and output is Output.NAME:
        raise typer.BadParameter("cannot be combined with --watch", param_hint=f"--output {output}")
    cluster, account = Cluster(kubeconfig, context), Account("china", china_profile, china_region)
    where = Where(None if all_namespaces else namespace or "", selector)
    if pod is not None:
        one = read_one(cluster, account, stack_name, where, pod)
        if output is Output.NAME:
            typer.echo(f"pod/{one.pod}")
        elif not output.is_table:
            typer.echo(as_data(asdict(one), output))
        else:
            typer.echo("\n".join(full(one, current_time(), _width())))
        _note(one.notes)
        return
    read = _reader(cluster, account, stack_name, where, missed=missed, all_phases=all_phases)
    wide = output is Output.WIDE
    if watching:
        watch(read, output, missed=missed, all_phases=all_phases)
    groups, notes = read()
    if output is Output.NAME:
        names = {(pod.namespace, pod.name) for group in groups for pod in group.pods}
        for space, name in sorted(names):
            typer.echo(f"{space} pod/{name}" if all_namespaces else f"pod/{name}")
    else:
        show(groups, output, name=lambda group: group.image, table=lambda: shown(groups, _width(), wide=wide))
    _note(notes)
    end = summary(groups, missed=missed, all_phases=all_phases)
    if not groups and not all_namespaces:
        end += " -A looks in all namespaces."
    say(end)


Read = Callable[[], tuple[list[Group], list[str]]]


def _reader(
    cluster: Cluster, account: Account, stack_name: str | None, where: Where, *, missed: bool, all_phases: bool
) -> Read:
    """Return a function that reads everything, and returns the groups and the notes. The stack is read once.

    It raises NoAnswerError if the pods cannot be read; or AWS, after it has once answered: other causes without AWS are
    no change of the pods.
    """
    known: list[CopiesView] = []
    answered: list[CopiesView] = []

    def read() -> tuple[list[Group], list[str]]:
        found = read_pods(cluster, where, LIVING if missed or all_phases else PENDING)
        notes, now = Notes(), current_time()
        if not found:
            return [], []
        view = view_cluster(cluster, found, notes, events=not missed)
        copies = known[0] if known else view_copies(account, stack_name, found, notes)
        if copies.stack is not None:
            known[:] = [copies]
        copies = replace(copies, records=None, held={})
        everything = find(view, copies, notes, now, missed=missed)
        if copies.is_whole:
            answered[:] = [copies]
        elif answered:
            raise NoAnswerError(notes.sentences[-1])
        return grouped(everything, now, where), notes.sentences

    return read


def _width() -> int | None:
    """Return how wide the terminal is, or None for a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _note(notes: list[str]) -> None:
    for sentence in notes:
        say(f"Note: {sentence}")
