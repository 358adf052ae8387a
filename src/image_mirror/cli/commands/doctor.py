"""`image-mirror doctor`: what is wrong with a deployment, and how to fix it."""

import sys
from typing import Annotated

import typer

from image_mirror.cli.doctor import examine, report
from image_mirror.cli.doctor.accounts import SharedAccount
from image_mirror.cli.doctor.runner import Context, State
from image_mirror.cli.errors import ExitCode
from image_mirror.cli.kubernetes import Cluster
from image_mirror.cli.options import (
    GLOBAL_STACK,
    ChinaProfile,
    ChinaRegion,
    GlobalProfile,
    GlobalRegion,
    GlobalStackName,
    Kubeconfig,
    KubeContext,
    StackName,
)
from image_mirror.cli.output import Output, OutputOption, say, show
from image_mirror.cli.values import lines, values_of


def doctor(
    ctx: typer.Context,
    problems: Annotated[bool, typer.Option("--problems", help="Show only warnings and what has failed.")] = False,
    china_profile: ChinaProfile = None,
    global_profile: GlobalProfile = None,
    china_region: ChinaRegion = None,
    global_region: GlobalRegion = None,
    stack_name: StackName = None,
    global_stack_name: GlobalStackName = GLOBAL_STACK,
    kubeconfig: Kubeconfig = None,
    context: KubeContext = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Check both accounts and print what is wrong and how to fix it. Changes nothing.

    It checks both stacks, both keys (each with a real call) or the federation in their place, the logins for sources,
    the CodeBuild projects of both lanes and their quotas, the table, what makes the reconciler run, both functions, and
    the webhook, which answers a dry-run review through its public URL. With --kubeconfig or --context it also compares
    the cluster's webhook configuration with the shipped one:

    \b
    image-mirror doctor --china-profile china --global-profile global --context my-cluster

    If you lack a permission, that check is skipped and its result names the permission; all others run. It reads the
    secrets of the two keys and of RegistryAuthSecretArn. It prints no key and no login, only the hosts that have a
    login, and only the host of the webhook's URL.

    The first lines say which profiles, regions, stacks and cluster it uses, and where each comes from. What has failed
    is printed last. --problems leaves out what is in order or was skipped, and counts it.

    \b
    --output json (or yaml) prints a list of objects, one for each result, with the keys
      topic   what was checked
      state   ok, warning, failed, or skipped: it could not be checked
      found   what was found, or why it was skipped
      remedy  what to do, or null

    Exits with 1 if something failed, with 2 if an option is wrong, with 3 if neither account answers. Warnings and
    skipped checks do not change the exit code.
    """
    china = SharedAccount("china", china_profile, china_region)
    other = SharedAccount("global", global_profile, global_region)
    cluster = Cluster(kubeconfig, context) if kubeconfig or context else None
    on_terminal = sys.stdout.isatty()
    if output.is_table:
        for line in lines(values_of(ctx, china, other, cluster)):
            say(line, err=not on_terminal)
    results = examine(Context(china, other, stack_name, global_stack_name, cluster))
    rows = report.failures_last(report.short_rows(results)) if output.is_table else report.rows(results)
    if problems:
        rows = [row for row in rows if row.state in report.PROBLEMS]
    show(
        rows,
        output,
        name=lambda row: row.topic,
        table=lambda: report.listing(rows) if on_terminal else report.table(rows),
    )
    if output.is_table:
        say(report.summary(results, problems=problems), err=not on_terminal)
    if not (china.reached or other.reached):
        say("Error: neither account answers; the results about the two stacks say why")
        raise typer.Exit(ExitCode.NO_ANSWER)
    if any(each.state is State.FAILED for each in results):
        raise typer.Exit(ExitCode.NOT_WELL)
