"""`image-mirror preview`: what the webhook would make of manifests, decided by its own code, without any network."""

import sys
from collections.abc import Callable
from typing import Annotated, TypeVar

import typer

from image_mirror.cli.errors import ExitCode
from image_mirror.cli.manifests import read_manifests
from image_mirror.cli.output import Output, OutputOption, as_json
from image_mirror.cli.plan import listing, rows, table
from image_mirror.decisions import Mirror
from image_mirror.rules import DEFAULT_RULES, parse_rules
from image_mirror.settings import parse_prefix, parse_registry

_EXAMPLE_REGISTRY = "123456789012.dkr.ecr.cn-northwest-1.amazonaws.com.cn"

Parsed = TypeVar("Parsed")


def preview(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE", help="A manifest, a directory of them, or - for standard input.")
    ],
    rules: Annotated[str, typer.Option(envvar="MIRROR_RULES", help="The rules to decide by.")] = DEFAULT_RULES,
    registry: Annotated[str, typer.Option(metavar="HOST", help="The ECR registry of the copies.")] = _EXAMPLE_REGISTRY,
    prefix: Annotated[str, typer.Option(help="What the names of the copies' repositories begin with.")] = "mirror",
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what the images in manifests become, and which rule decides. Nothing is called, nothing is changed.

    Reads pods, workloads, lists, and custom resources that hold a pod template, in YAML or JSON of many documents:

    \b
    helm template CHART | image-mirror preview -

    Images that a controller alone knows of are in no manifest, and so not here. A namespace counts as opted out where
    its own manifest is among the files.

    \b
    --output json prints a list of objects, one for each image, with the keys
      file       as given; "-" is standard input
      document   number of the document in the file, from 1
      kind, name, namespace
                 of the object; namespace is null where the manifest leaves it open
      field      containers/NAME, initContainers/NAME, ephemeralContainers/NAME or volumes/NAME
      path       to the image in its document
      image      as written, "" where it is left out
      becomes    what the webhook makes of it; the same text where it is left alone
      rule       the rule that decided, or null
      reason     why it is left alone without a rule, or null
      warning    what kubectl would print, or null

    Exits with 2 where an option or a manifest is wrong; standard error then says which, and nothing is shown.
    """
    mirror = _mirror(registry, prefix, rules)
    manifests = read_manifests(files)
    if manifests.problems:
        for problem in manifests.problems:
            typer.echo(f"Error: {problem}", err=True)
        raise typer.Exit(ExitCode.WRONG_INPUT)
    found = list(rows(manifests, mirror))
    if output is Output.JSON:
        typer.echo(as_json(found))
    elif found:
        for line in listing(found) if sys.stdout.isatty() else table(found):
            typer.echo(line)
    else:
        typer.echo("No image found.", err=True)


def _mirror(registry: str, prefix: str, rules: str) -> Mirror:
    """Make the mirror that the options describe. Raises typer.BadParameter, which quotes what is wrong."""
    return Mirror(
        _option("--registry", parse_registry, registry),
        _option("--prefix", parse_prefix, prefix),
        _option("--rules (or MIRROR_RULES)", parse_rules, rules),
    )


def _option(name: str, parse: Callable[[str], Parsed], text: str) -> Parsed:
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: {error}", param_hint=name) from error
