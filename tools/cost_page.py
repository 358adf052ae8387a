"""Writes the tables of docs/cost.md from what simulated fleets have used and from the prices: `make docs`.

`python -m simulation --cost` simulates the fleets again, which takes minutes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import ceil

from benchmarks.table import put_into
from simulation.clock import MINUTE
from simulation.codebuild import ASKING, EC2, LAMBDA, SENDING, Compute
from simulation.cost import Used, recorded
from simulation.prices import DAYS_A_MONTH, cost, idle, usd
from support.templates import ROOT

PAGE = ROOT / "docs" / "cost.md"
GIGABYTES = 0.2
"""Of an image in the simulation, with all its platforms."""

DATA, BUILDS, STORAGE = "data across the border", "builds (CodeBuild)", "ECR's storage"
ADMISSIONS = "API Gateway, Lambda, DynamoDB, logs"
FIXED = "fixed: dashboard, alarms, metrics, two secrets"

SERVER_CORE, NANO_SERVER = 2.7, 0.1
"""The base of a Windows platform in GB to download: lippertmarkus.com, March 2022."""

IMAGES: Mapping[str, float] = {
    "a Linux image of 0.2 GB": GIGABYTES,
    "a Linux image of 0.5 GB": 0.5,
    "0.2 GB and a platform of Windows Nano Server": GIGABYTES + NANO_SERVER,
    "0.2 GB and a platform of Windows Server Core": GIGABYTES + SERVER_CORE,
    "0.2 GB and two platforms of Windows Server Core": GIGABYTES + 2 * SERVER_CORE,
    "an image of 10 GB": 10.0,
}


def tables() -> dict[str, list[str]]:
    """Return the lines of each table, by its name in the page's comments."""
    fleets = recorded()
    return {
        "fleets": list(_fleets(fleets)),
        "copies": list(_copies()),
        "regions": list(_regions(fleets)),
        "fixed": list(_fixed()),
    }


def with_tables(page: str) -> str:
    """Return the page with the current tables. Raises NoPlaceError if one has no place in it."""
    for name, lines in tables().items():
        page = put_into(
            page, ["", *lines, ""], f"<!-- make docs writes the table of {name} -->", f"<!-- end of {name} -->"
        )
    return page


def parts(used: Used, gigabytes: float = GIGABYTES) -> dict[str, float]:
    """Return what a fleet costs in USD by what it is for, the most expensive first; its images have this size."""
    by_service = cost(replace(used.usage, image_gigabytes=gigabytes), used.days)
    found = {
        DATA: by_service["data transfer"],
        BUILDS: by_service["CodeBuild"],
        STORAGE: by_service["ECR storage"],
        FIXED: idle(used.days),
    }
    found[ADMISSIONS] = sum(by_service.values()) - sum(found.values())
    return dict(sorted(found.items(), key=lambda part: -part[1]))


def _fleets(fleets: Mapping[str, Used]) -> Iterator[str]:
    costs = [parts(used) for used in fleets.values()]
    yield from _head("part, in USD", *fleets)
    yield _row("pods created", *(f"{used.admissions:,}" for used in fleets.values()))
    yield _row("images, and builds", *(f"{used.usage.images:,}, {used.builds:,}" for used in fleets.values()))
    for part in (DATA, BUILDS, STORAGE, ADMISSIONS, FIXED):
        yield _row(part, *(f"{each[part]:.2f}" for each in costs))
    totals = [sum(each.values()) for each in costs]
    yield _row("**together**", *(f"**{total:.2f}**" for total in totals))
    most = [next(iter(each.items())) for each in costs]
    shares = [f"{part.split(':')[0]}, {usd / total:.0%}" for (part, usd), total in zip(most, totals, strict=True)]
    yield _row("most of it", *shares)


def _copies() -> Iterator[str]:
    yield from _head(
        "image, costs in USD",
        "data from Oregon",
        "data from Tokyo",
        "a build",
        "a build in the fast lane",
        "storage, a month",
    )
    for name, gigabytes in IMAGES.items():
        fast = usd("CodeBuild second", ceil(_seconds(LAMBDA, gigabytes)))
        yield _row(
            name,
            f"{usd('GB out to the internet', gigabytes):.3f}",
            f"{usd('GB out of Tokyo', gigabytes):.3f}",
            f"{usd('CodeBuild minute', ceil(_seconds(EC2, gigabytes) / MINUTE)):.3f}",
            f"{fast:.3f}" if gigabytes <= LAMBDA.most_gigabytes else "too large for it",
            f"{usd('ECR GB-month', gigabytes):.3f}",
        )


def _regions(fleets: Mapping[str, Used]) -> Iterator[str]:
    yield from _head("USD for data across the border", *fleets)
    for size, images in (
        (GIGABYTES, "images of 0.2 GB"),
        (GIGABYTES + SERVER_CORE, "each with Windows Server Core too"),
    ):
        for price, region in (("GB out to the internet", "Oregon"), ("GB out of Tokyo", "Tokyo")):
            costs = (f"{usd(price, used.usage.pushes * size):.2f}" for used in fleets.values())
            yield _row(f"{images}, from {region}", *costs)


def _fixed() -> Iterator[str]:
    secrets = usd("secret a month", 2)
    yield from _head("every month, at most", "USD")
    yield _row("the two secrets", f"{secrets:.2f}")
    yield _row("dashboard, alarms and all metrics", f"{idle(DAYS_A_MONTH) - secrets:.2f}")


def _seconds(compute: Compute, gigabytes: float) -> float:
    """Return how long a build takes on average that copies an image of this size."""
    return compute.starting + compute.installing + ASKING + SENDING * gigabytes / GIGABYTES


def _head(*cells: str) -> Iterator[str]:
    yield _row(*cells)
    yield _row(*("---" for _ in cells))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
