"""How findings are printed: an aligned line each for a pipe, a block each on a terminal, and a line that counts."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import typer

from image_mirror.cli.doctor.findings import Finding, State
from image_mirror.cli.output import aligned
from image_mirror.messages import printable

_COLOURS = {
    State.OK: typer.colors.GREEN,
    State.WARNING: typer.colors.YELLOW,
    State.FAILED: typer.colors.RED,
    State.SKIPPED: typer.colors.BRIGHT_BLACK,
}


def without(findings: Iterable[Finding], secrets: Iterable[str]) -> list[Finding]:
    """Return the findings, each once, with `secrets` masked wherever AWS or the cluster may have quoted one."""
    hidden = [secret for secret in secrets if secret]

    def mask(text: str) -> str:
        for secret in hidden:
            text = text.replace(secret, "***")
        return text

    masked = (replace(each, found=mask(each.found), remedy=each.remedy and mask(each.remedy)) for each in findings)
    return list(dict.fromkeys(masked))


def table(findings: Iterable[Finding]) -> Iterator[str]:
    """Yield a heading and one line for each finding, its remedy after an arrow, however long."""
    lines = [["STATE", "TOPIC", "FOUND -> REMEDY"]]
    lines += [[each.state, each.topic, " -> ".join(filter(None, (each.found, each.remedy)))] for each in findings]
    yield from aligned(lines)


def listing(findings: Iterable[Finding]) -> Iterator[str]:
    """Yield each finding in colour, its remedy below it: for a terminal, which wraps long lines."""
    for each in findings:
        state = typer.style(f"{each.state:8}", fg=_COLOURS[each.state], bold=each.state is State.FAILED or None)
        yield f"{state} {typer.style(printable(each.topic), bold=True)}: {printable(each.found)}"
        if each.remedy:
            yield f"         -> {printable(each.remedy)}"


def summary(findings: Sequence[Finding]) -> str:
    """Count the findings by their state."""
    counted = Counter(each.state for each in findings)
    return ", ".join(f"{counted[state]} {state}" for state in State)
