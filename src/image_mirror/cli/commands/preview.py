"""`image-mirror preview`: how the webhook would change the images in manifests. Uses the webhook's code, no network."""

import sys
from collections.abc import Callable
from typing import Annotated, TypeVar

import typer

from image_mirror.cli.manifests import read_valid_manifests
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
    rules: Annotated[str, typer.Option(envvar="MIRROR_RULES", help="The rules to apply.")] = DEFAULT_RULES,
    registry: Annotated[str, typer.Option(metavar="HOST", help="The ECR registry of the copies.")] = _EXAMPLE_REGISTRY,
    prefix: Annotated[str, typer.Option(help="How the names of the copies' repositories begin.")] = "mirror",
    output: OutputOption = Output.TABLE,
) -> None:
    """Show how the webhook would change the images in manifests, and by which rule. Calls nothing and changes nothing.

    Reads pods, workloads, lists, and custom resources with a pod template, from YAML or JSON:

    \b
    helm template CHART | image-mirror preview -

    It cannot show images that are in no manifest, because a controller adds them later. It knows that a namespace is
    opted out only if the namespace's manifest is among the files.

    \b
    --output json prints a list of objects, one for each image, with the keys
      file       as given; "-" is standard input
      document   number of the document in the file, from 1
      kind, name, namespace
                 of the object; namespace is null if the manifest does not give it
      field      containers/NAME, initContainers/NAME, ephemeralContainers/NAME or volumes/NAME
      path       of the image in its document
      image      as written; "" if there is none
      becomes    the image that the webhook sets; the same text if it is left unchanged
      rule       the rule that decided, or null
      reason     why it is left unchanged although no rule decided, or null
      warning    what kubectl would print, or null

    Exits with 2 if an option or a manifest is wrong. Standard error then says which, and no table is printed.
    """
    mirror = _mirror(registry, prefix, rules)
    manifests = read_valid_manifests(files)
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
