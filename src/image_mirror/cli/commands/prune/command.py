"""The command: its options, what it asks of whom, and in which order."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from image_mirror.cli.accounts import Account
from image_mirror.cli.commands.prune.output import show
from image_mirror.cli.commands.prune.removal import Pruning, images
from image_mirror.cli.commands.prune.selection import DAY, InUse, Tag, Unused, in_use, tags, unused
from image_mirror.cli.errors import ExitCode
from image_mirror.cli.image_selection import all_records
from image_mirror.cli.kubernetes import Cluster
from image_mirror.cli.options import ChinaProfile, ChinaRegion, StackName
from image_mirror.cli.output import Output, OutputOption
from image_mirror.cli.stacks import china_stack, mirror_of
from image_mirror.cli.terminal import each, pause
from image_mirror.decisions import Mirror
from image_mirror.messages import printable
from image_mirror.reference import path_of_copy
from image_mirror.table import Records

if TYPE_CHECKING:
    from image_mirror.review import Json

# Seconds. The webhook remembers a record for 60; what it answers last belongs to a request that the API server may take
# 60 more to store (--request-timeout), and only then do the clusters tell of the pod; ten for their clocks.
_WEBHOOK_FORGETS = 130
_FEWEST_DAYS = 2  # ECR may be a day late in recording a pull


def prune(
    unused_days: Annotated[
        int, typer.Option(metavar="N", help="What nobody has pulled, pushed or asked for in so many days, 2 at least.")
    ],
    kubeconfigs: Annotated[
        list[Path] | None,
        typer.Option(
            "--kubeconfig",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            readable=True,
            help="A cluster that pulls copies; once for each.",
            show_default=False,
        ),
    ] = None,
    contexts: Annotated[
        list[str] | None,
        typer.Option(
            "--context",
            metavar="NAME",
            help="The context, where not the current one; once for each cluster.",
            show_default=False,
        ),
    ] = None,
    no_cluster: Annotated[
        bool,
        typer.Option(
            "--no-cluster", help="No cluster is to be asked; a pod made in the minute before may lose its copy."
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove them; without it they are only shown.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show them, as without --yes.")] = False,
    output: OutputOption = Output.TABLE,
    china_profile: ChinaProfile = None,
    china_region: ChinaRegion = None,
    stack_name: StackName = None,
) -> None:
    """Show the copies in ECR that nobody has pulled for so many days; with --yes, remove them.

    \b
    image-mirror prune --unused-days 90 --kubeconfig ~/.kube/production
    image-mirror prune --unused-days 90 --context production --context staging --yes

    An image that is removed from ECR cannot be had back from there; so it is removed only with --yes. `retry` and
    `forget`, after which the next pod is served as before, act at once. --dry-run makes each only show what it
    would do.

    What a cluster runs, or is about to run, is never removed, however long ago it was pulled: nodes keep images. So
    name every cluster that pulls from this ECR: by one --kubeconfig each, or one --context each. With --yes, at least
    one is named, or else --no-cluster. Only pods count: a CronJob that next runs in a month has its images copied anew
    by then, unless it names the copies themselves.

    Also shown are images under the mirror's names that have no record: `image-mirror forget` left them, or an older
    deployment. What is being copied stays, and what lies under other names. Where two stacks in one region share a
    prefix, do not use it: the copies of the one have no record in the table of the other.

    Removing takes more than two minutes. The records go first; then the webhook's memory of them has to pass, and the
    requests that it has answered by it, while Ctrl-C puts the records back. Then what was asked for, pulled or started
    meanwhile is left, and the rest goes: the tag, the image where no other tag is its, and the untagged images in the
    same repositories that nobody has used for so long and to which no index refers. Sizes are ECR's: of an image for
    several platforms the largest one's.

    \b
    --output json prints a list of objects, one for each copy, with the keys
      image      the source, or null where there is no record
      copy       its name in ECR
      digest     of what ECR holds
      bytes      its size
      last_pull  in ISO 8601 and UTC; null where ECR has recorded none
      pushed     likewise
      outcome    "would be removed", "removed" or "gone already";
                 "kept: " and the reason;
                 "kept, without its record, " and why it was not put back;
                 "perhaps removed: " where ECR gave no answer

    Exits with 1 where ECR did not remove one, or where a record was not put back; its outcome says why.
    """
    clusters = _clusters(kubeconfigs or [], contexts or [])
    if unused_days < _FEWEST_DAYS:
        cause = f"{unused_days} is too few: ECR may be a day late in recording a pull; give {_FEWEST_DAYS} or more"
        raise typer.BadParameter(cause, param_hint="--unused-days")
    if no_cluster and clusters:
        cause = "leave it out where a cluster is named by --kubeconfig or --context"
        raise typer.BadParameter(cause, param_hint="--no-cluster")
    if yes and dry_run:
        raise typer.BadParameter("only shows what --yes removes; leave out one of the two", param_hint="--dry-run")
    if yes and not clusters and not no_cluster:
        cause = "name each cluster that pulls these copies, by --kubeconfig or --context; or say --no-cluster"
        raise typer.BadParameter(cause, param_hint="--yes")
    stack = china_stack(Account("china", china_profile, china_region), stack_name)
    mirror = mirror_of(stack)
    if not clusters:
        typer.echo("Warning: no cluster is asked; what runs from a node's store of images counts as unused.", err=True)
    running = _ask(clusters, mirror)
    records = Records(stack.account.client("dynamodb"), stack.output("ImageListTableName"))
    ecr = stack.account.client("ecr")
    cutoff = int(time.time() * 1000) - unused_days * DAY
    # The table first: what is recorded while ECR is read would else look like an image that has no record.
    standing = {(record.repo, record.tag): record for record in all_records(records)}
    found = unused(_held(ecr, mirror), standing, running, cutoff)
    pruning = Pruning(ecr, records, cutoff) if yes and found.going else None
    try:
        if pruning:
            _remove(pruning, found.going, clusters, mirror)
    finally:
        show(found, pruning, output)
    if pruning and not all(outcome.well for outcome in pruning.outcomes.values()):
        raise typer.Exit(ExitCode.NOT_WELL)


def _clusters(kubeconfigs: Sequence[Path], contexts: Sequence[str]) -> list[Cluster]:
    if not contexts:
        return [Cluster(kubeconfig) for kubeconfig in kubeconfigs]
    files = kubeconfigs if len(kubeconfigs) > 1 else [*kubeconfigs, None][:1] * len(contexts)
    if len(files) != len(contexts):
        cause = "with several --kubeconfig, give one for each, in their order, or none"
        raise typer.BadParameter(cause, param_hint="--context")
    return [Cluster(*pair) for pair in zip(files, contexts, strict=True)]


def _ask(clusters: Sequence[Cluster], mirror: Mirror) -> InUse:
    """Return what runs in all clusters. Raises NoAnswerError where one gives no answer."""
    pods: list[Json] = []
    for cluster in clusters:
        some = cluster.pods()
        typer.echo(printable(f"{len(some):,} pods run in the cluster ({cluster})."), err=True)
        pods += some
    return in_use(pods, mirror)


def _held(ecr: Any, mirror: Mirror) -> list[Tag]:
    """List the tags of all repositories that hold copies."""
    pages = ecr.get_paginator("describe_repositories").paginate(PaginationConfig={"PageSize": 1000})
    names = [repository["repositoryName"] for page in pages for repository in page["repositories"]]
    held: list[Tag] = []

    def read(name: str) -> None:
        repo = f"{mirror.registry}/{name}"
        held.extend(tags(repo, images(ecr, repo)))

    each("reading repositories", read, [name for name in names if path_of_copy(name, mirror.prefix)])
    return held


def _remove(pruning: Pruning, going: Sequence[Unused], clusters: Sequence[Cluster], mirror: Mirror) -> None:
    try:
        pruning.take_records(going)
        typer.echo(f"Waiting for {_WEBHOOK_FORGETS} s, until no pod is sent to them any more.", err=True)
        pause("waiting", _WEBHOOK_FORGETS)
        pruning.remove_images(going, _ask(clusters, mirror))
    finally:
        pruning.put_back(int(time.time() * 1000))
