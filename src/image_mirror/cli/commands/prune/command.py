"""The command itself: its options, and the order of its steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from image_mirror.cli.accounts import Account
from image_mirror.cli.commands.prune.output import show_pruning
from image_mirror.cli.commands.prune.removal import REQUESTED, Pruning
from image_mirror.cli.commands.prune.selection import InUse, Tag, Unused, in_use, not_requested, tags, unused
from image_mirror.cli.errors import ExitCode
from image_mirror.cli.held_copies import images_of
from image_mirror.cli.image_selection import all_records
from image_mirror.cli.kubernetes import Cluster
from image_mirror.cli.options import ChinaProfile, ChinaRegion, Kubeconfigs, StackName
from image_mirror.cli.output import Output, OutputOption, current_time, milliseconds, say
from image_mirror.cli.stacks import china_stack, mirror_of, records_of
from image_mirror.cli.terminal import each, pause
from image_mirror.decisions import Mirror
from image_mirror.record import DAY
from image_mirror.reference import path_of_copy
from image_mirror.table import Records

if TYPE_CHECKING:
    from image_mirror.review import Json

# Seconds. The webhook remembers a record for 60. The API server can take 60 more (--request-timeout) to store the pod
# of the last answer, and only then does the cluster list that pod. The other ten are for differences of clocks.
_WEBHOOK_FORGETS = 130
_FEWEST_DAYS = 2  # ECR may be a day late in recording a pull


def prune(
    unused_days: Annotated[
        int,
        typer.Option(metavar="N", help="Copies that nobody has pulled, pushed or requested for N days; at least 2."),
    ],
    kubeconfigs: Kubeconfigs = None,
    contexts: Annotated[
        list[str] | None,
        typer.Option(
            "--context",
            metavar="NAME",
            help="The context of a cluster; default: the current one. Can be repeated.",
            show_default=False,
        ),
    ] = None,
    no_cluster: Annotated[
        bool,
        typer.Option("--no-cluster", help="Ask no cluster. A pod created in the minute before may lose its copy."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove the copies. Without it they are only shown.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the copies, as without --yes.")] = False,
    output: OutputOption = Output.TABLE,
    china_profile: ChinaProfile = None,
    china_region: ChinaRegion = None,
    stack_name: StackName = None,
) -> None:
    """Show the copies in ECR that nobody has pulled for a number of days; with --yes, remove them.

    \b
    image-mirror prune --unused-days 90 --kubeconfig ~/.kube/production
    image-mirror prune --unused-days 90 --context production --context staging --yes

    An image that was removed from ECR cannot be restored there. So this command removes images only with --yes. `retry`
    and `forget` act at once, because the next pod gets its copy as before. With --dry-run, each of the three commands
    only shows what it would do.

    Images that a cluster runs, or is about to run, are never removed. They may have been pulled long ago, because nodes
    keep images. So name every cluster that pulls from this ECR, with one --kubeconfig or one --context for each. --yes
    needs at least one cluster, or --no-cluster. Only pods count. When a CronJob runs next month, its images are copied
    again, unless the CronJob names the copies themselves.

    It also shows, and with --yes removes, images under the mirror's prefix that have no record, from `image-mirror
    forget` or from an older deployment, and repositories there that are empty and older than N days, for example of
    names that do not exist. It does not remove images that are being copied, or images under other names.
    Do not use it if two stacks in one region have the same prefix: the copies of one stack have no record in the other
    stack's table.

    Removing takes more than two minutes. First it removes the records. Then it waits until the webhook has forgotten
    them, and until its last answers have reached the clusters. If you press Ctrl-C, the records are put back. Copies
    that were requested, pulled or started in the meantime are kept. The others are removed: the tag, the image if it
    has no other tag, and the untagged images in the same repositories that nobody has used for the same time and that
    no index refers to. Sizes are from ECR: for an image with several platforms, the size of the largest one.

    \b
    --output json (or yaml) prints a list of objects, one for each copy or empty repository, with the keys
      image      the source, or null if there is no record
      copy       its name in ECR, without a tag for an empty repository
      digest     of the image in ECR; null for an empty repository
      bytes      its size
      last_pull  in ISO 8601 and UTC; null if ECR has recorded no pull
      pushed     in the same format; null for an empty repository
      outcome    "would be removed", "removed" or "gone already";
                 "kept: " and the reason;
                 "kept, without its record, " and why it was not put back;
                 "perhaps removed: " if ECR gave no answer

    Exits with 1 if ECR did not remove a copy, or if a record was not put back; the outcome says why.
    """
    clusters = _clusters(kubeconfigs or [], contexts or [])
    if unused_days < _FEWEST_DAYS:
        cause = f"{unused_days} is too few: ECR may record a pull a day late; give {_FEWEST_DAYS} or more"
        raise typer.BadParameter(cause, param_hint="--unused-days")
    if no_cluster and clusters:
        cause = "cannot be combined with --kubeconfig or --context"
        raise typer.BadParameter(cause, param_hint="--no-cluster")
    if yes and dry_run:
        raise typer.BadParameter("cannot be combined with --yes", param_hint="--dry-run")
    if yes and not clusters and not no_cluster:
        cause = "name each cluster that pulls these copies, with --kubeconfig or --context; or give --no-cluster"
        raise typer.BadParameter(cause, param_hint="--yes")
    stack = china_stack(Account("china", china_profile, china_region), stack_name)
    mirror = mirror_of(stack)
    if not clusters:
        say("Warning: no cluster is asked; an image that a node has stored and runs counts as unused.")
    running = _ask(clusters, mirror)
    records = records_of(stack)
    ecr = stack.account.client("ecr")
    cutoff = current_time() - unused_days * DAY
    # The table is read first. Otherwise an image that is recorded while ECR is read would seem to have no record.
    existing = {(record.repo, record.tag): record for record in all_records(records)}
    in_ecr, empty = _in_ecr(ecr, mirror, cutoff)
    found = unused(in_ecr, existing, running, cutoff)
    found.empty = not_requested(empty, existing.values())
    pruning = Pruning(ecr, records, cutoff) if yes and (found.removable or found.empty) else None
    try:
        if pruning and found.removable:
            _remove(pruning, found.removable, clusters, mirror)
        if pruning and found.empty:
            _remove_empty(pruning, found.empty, records)
    finally:
        show_pruning(found, pruning, output)
    if pruning and not all(outcome.ok for outcome in pruning.outcomes.values()):
        raise typer.Exit(ExitCode.NOT_WELL)


def _clusters(kubeconfigs: Sequence[Path], contexts: Sequence[str]) -> list[Cluster]:
    if not contexts:
        return [Cluster(kubeconfig) for kubeconfig in kubeconfigs]
    files = kubeconfigs if len(kubeconfigs) > 1 else [*kubeconfigs, None][:1] * len(contexts)
    if len(files) != len(contexts):
        cause = "with several --kubeconfig, give one --context for each, in the same order, or none"
        raise typer.BadParameter(cause, param_hint="--context")
    return [Cluster(*pair) for pair in zip(files, contexts, strict=True)]


def _ask(clusters: Sequence[Cluster], mirror: Mirror) -> InUse:
    """Return what runs in all clusters. Raises NoAnswerError if one gives no answer."""
    pods: list[Json] = []
    for cluster in clusters:
        some = cluster.pods()
        say(f"{len(some):,} pods run in the cluster ({cluster}).")
        pods += some
    return in_use(pods, mirror)


def _in_ecr(ecr: Any, mirror: Mirror, cutoff: int) -> tuple[list[Tag], list[str]]:
    """List the tags of all repositories with copies, and the repositories without an image, created before `cutoff`."""
    pages = ecr.get_paginator("describe_repositories").paginate(PaginationConfig={"PageSize": 1000})
    repositories = [repository for page in pages for repository in page["repositories"]]
    found: list[Tag] = []
    empty: list[str] = []

    def read(repository: Mapping[str, Any]) -> None:
        repo = f"{mirror.registry}/{repository['repositoryName']}"
        in_it = images_of(ecr, repo) or []
        found.extend(tags(repo, in_it))
        # A new one may wait for its first image.
        if not in_it and milliseconds(repository["createdAt"]) < cutoff:
            empty.append(repo)

    each(
        "reading repositories",
        read,
        [one for one in repositories if path_of_copy(one["repositoryName"], mirror.prefix)],
    )
    return found, empty


def _remove_empty(pruning: Pruning, empty: Sequence[str], records: Records) -> None:
    """Remove empty repositories.

    The table is read again, because a pod may have requested an image of one meanwhile. If a pod does so just now, the
    next start of its build makes the repository again.
    """
    removable = not_requested(empty, all_records(records))
    pruning.outcomes |= {(repo, ""): REQUESTED for repo in empty if repo not in removable}
    pruning.remove_repositories(removable)


def _remove(pruning: Pruning, removable: Sequence[Unused], clusters: Sequence[Cluster], mirror: Mirror) -> None:
    try:
        pruning.remove_records(removable)
        say(f"Waiting for {_WEBHOOK_FORGETS} s, until no new pod gets these copies.")
        pause("waiting", _WEBHOOK_FORGETS)
        pruning.remove_images(removable, _ask(clusters, mirror))
    finally:
        pruning.put_back(current_time())
