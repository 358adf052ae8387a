"""`image-mirror preview`: how the webhook would change the images in manifests. Uses the webhook's code.

Only --stack needs the network: for the rules of a deployed stack.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

import typer

from image_mirror.cli.errors import ExitCode
from image_mirror.cli.manifests import Manifests, read_manifests, report
from image_mirror.cli.options import ChinaProfile, ChinaRegion, Recursive, StackName, is_given
from image_mirror.cli.output import Output, OutputOption, say, show
from image_mirror.cli.plan import (
    Row,
    image_listing,
    image_rows,
    image_table,
    label_warnings,
    listing,
    rows,
    summary,
    table,
)
from image_mirror.decisions import Mirror
from image_mirror.rules import DEFAULT_RULES, parse_rules
from image_mirror.settings import parse_prefix, parse_registry

_EXAMPLE_REGISTRY = "123456789012.dkr.ecr.cn-northwest-1.amazonaws.com.cn"
_PREFIX = "mirror"
_LEFT, _WARNING = "left", "warning"

Parsed = TypeVar("Parsed")


def preview(
    ctx: typer.Context,
    files: Annotated[
        list[str], typer.Argument(metavar="FILE", help="A manifest, a directory of them, or - for standard input.")
    ],
    recursive: Recursive = False,
    images: Annotated[
        bool, typer.Option("--images", help="Show each image once, with the count of its places.")
    ] = False,
    fail_on: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            help=f"Exit with 1 if an image is left unchanged ({_LEFT}), if there is a warning ({_WARNING}), "
            f"or on both ({_LEFT},{_WARNING}).",
        ),
    ] = None,
    stack: Annotated[
        bool, typer.Option("--stack", help="Apply the rules of the deployed stack; needs its account in China.")
    ] = False,
    rules: Annotated[
        str | None,
        typer.Option(envvar="MIRROR_RULES", help="The rules to apply.", show_default=DEFAULT_RULES),
    ] = None,
    registry: Annotated[
        str | None,
        typer.Option(metavar="HOST", help="The ECR registry of the copies.", show_default=_EXAMPLE_REGISTRY),
    ] = None,
    prefix: Annotated[
        str | None, typer.Option(help="How the names of the copies' repositories begin.", show_default=_PREFIX)
    ] = None,
    output: OutputOption = Output.TABLE,
    china_profile: ChinaProfile = None,
    china_region: ChinaRegion = None,
    stack_name: StackName = None,
) -> None:
    """Show how the webhook would change the images in manifests, and by which rule. Changes nothing.

    Reads pods, workloads, lists, and custom resources with a pod template or containers, from YAML or JSON, as kubectl
    does:

    \b
    helm template CHART | image-mirror preview -
    image-mirror preview -R --images deploy/

    Without --stack it calls nothing, and the default rules decide, or those of --rules. It cannot show images that are
    in no manifest, because a controller adds them later. If a text looks like an image, and only a controller knows
    what it is, the kind of the object is named. It knows that a namespace is opted out only if the namespace's manifest
    is among the files.

    A file or document that cannot be read hides no other. kustomization.yaml is passed over: kubectl kustomize DIR |
    image-mirror preview - shows what it makes.

    \b
    --output json (or yaml) prints a list of objects, one for each place of an image, with the keys
      file       as given; "-" is standard input
      document   number of the document in the file, from 1
      kind, name, namespace
                 of the object; namespace is null if the manifest does not give it
      field      containers/NAME, initContainers/NAME, ephemeralContainers/NAME or volumes/NAME;
                 in a custom resource also its own key, such as steps/NAME
      path       of the image in its document
      image      as written; "" if there is none
      becomes    the image that the webhook sets; the same text if it is left unchanged
      rule       the rule that decided, or null
      reason     why it is left unchanged although no rule decided, or null
      warning    what kubectl would print, or null
    With --images there is one for each image, with the keys
      image, count, becomes, rule, reason, warning

    Exits with 1 as --fail-on says; with 2 if an option or a manifest is wrong. Standard error then says which; what
    could be read is shown.
    """
    criteria = _criteria(fail_on)
    stack = stack or is_given(ctx, "stack_name")
    if stack and (rules, registry, prefix) != (None, None, None):
        raise typer.BadParameter("give either --stack, or --rules (or MIRROR_RULES), --registry and --prefix")
    mirror = _mirror(registry, prefix, rules)
    decided_by = (
        "the rules of --rules (or MIRROR_RULES)" if rules is not None else "the default rules, not those of a stack"
    )
    if stack:
        mirror, decided_by = _deployed(china_profile, china_region, stack_name)
    manifests = read_manifests(files, recursive=recursive)
    found = list(rows(manifests, mirror))
    if images:
        show(image_rows(found), output, name=lambda row: row.image, table=lambda: _lines(found, images=True))
    else:
        show(found, output, name=lambda row: row.image, table=lambda: _lines(found, images=False))
    if found and output.is_table:
        ours = "" if stack or rules is not None else "; --stack applies the rules of yours"
        note = f"Note: decided by {decided_by}{ours}. The label of a namespace is known only from a manifest."
        say(note, err=False)
    manifests.warnings += label_warnings(manifests)
    report(manifests)
    _end(manifests, found, mirror, criteria, is_table=output.is_table)


def _lines(found: Sequence[Row], *, images: bool) -> Sequence[str]:
    if sys.stdout.isatty():
        return list(image_listing(image_rows(found)) if images else listing(found))
    return list(image_table(image_rows(found)) if images else table(found))


def _end(manifests: Manifests, found: list[Row], mirror: Mirror, criteria: set[str], *, is_table: bool) -> None:
    """Say in the last line what happens to all images. Raises typer.Exit for a problem, or as --fail-on says."""
    if found and is_table:
        say(summary(found, mirror), err=False)
    elif manifests.is_empty and not manifests.problems and not manifests.passed_over:
        say("The input is empty: no manifest is in it.")
    elif not found and is_table:
        say("No image found.")
    if manifests.problems:
        raise typer.Exit(ExitCode.WRONG_INPUT)
    is_left = any(row.becomes == row.image for row in found)
    has_warning = bool(manifests.warnings) or any(row.warning for row in found)
    if (_LEFT in criteria and is_left) or (_WARNING in criteria and has_warning):
        raise typer.Exit(ExitCode.NOT_WELL)


def _criteria(text: str | None) -> set[str]:
    criteria = {word.strip() for word in text.split(",")} if text is not None else set()
    if wrong := sorted(criteria - {_LEFT, _WARNING}):
        raise typer.BadParameter(f"{wrong[0]!r} is neither {_LEFT} nor {_WARNING}", param_hint="--fail-on")
    return criteria


def _deployed(profile: str | None, region: str | None, name: str | None) -> tuple[Mirror, str]:
    """Return the mirror of the deployed stack, and what it is for people. Raises NoAnswerError, BotoCoreError."""
    from image_mirror.cli.accounts import Account  # noqa: PLC0415 - botocore, which the other ways do not need
    from image_mirror.cli.stacks import china_stack, mirror_of  # noqa: PLC0415

    account = Account("china", profile, region)
    found = china_stack(account, name)
    return mirror_of(found), f"the rules of the stack {found.name} in {account.region}"


def _mirror(registry: str | None, prefix: str | None, rules: str | None) -> Mirror:
    """Make the mirror that the options describe. Raises typer.BadParameter, which quotes what is wrong."""
    return Mirror(
        _option("--registry", parse_registry, _EXAMPLE_REGISTRY if registry is None else registry),
        _option("--prefix", parse_prefix, _PREFIX if prefix is None else prefix),
        _option("--rules (or MIRROR_RULES)", parse_rules, DEFAULT_RULES if rules is None else rules),
    )


def _option(name: str, parse: Callable[[str], Parsed], text: str) -> Parsed:
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: {error}", param_hint=name) from error
