"""The figures of one lane and two for docs/waiting-time.md: the week's fleet, and 500 new images at once."""

from collections.abc import Iterator, Sequence
from multiprocessing import Pool
from multiprocessing.pool import Pool as Workers
from pathlib import Path
from statistics import median

from benchmarks.table import put_into
from simulation.clock import HOUR, MINUTE
from simulation.lanes import Rush, Setup, Times, Waits, run_rush
from simulation.week import Week, run_week

BEGIN = "<!-- python -m simulation --lanes writes from here -->"
END = "<!-- the figures of lanes end here -->"
_PAGE = Path(__file__).parents[2] / "docs" / "waiting-time.md"
QUOTAS = (1, 20, 100)
FAST_QUOTAS = (1, 10, 30, 40, 300)
# crane's share of skopeo's time in the table of benchmarks: on one machine, and over a slow link.
PACES = (0.73, 0.51)
# The first days of the week, with all of its rollouts, each of one pod instead of ten.
_ADMISSIONS, _IMAGES, _DAYS = 100_000, 5_000, 3
_RUSH_SEEDS = 5
_MAIN = [Setup(quota=quota, fast_quota=fast) for quota in QUOTAS for fast in (0, 1, 10, 30, 300)]
_SLOWER = [Setup(quota=20, fast_quota=fast, starting=8) for fast in (1, 10)]
_SCALED = [Setup(quota=20, fast_quota=fast, pace=pace) for pace in PACES for fast in (0, 10)]
_RUSHES = [
    *(Setup(quota=quota, fast_quota=fast) for quota in QUOTAS for fast in (0, *FAST_QUOTAS)),
    *(Setup(quota=1, fast_quota=fast, starting=8) for fast in (1, 10, 40)),
    *(Setup(quota=1, fast_quota=fast, pace=PACES[0]) for fast in (0, 1, 10, 40)),
]


def write_lanes() -> None:
    """Run all setups, print their figures, and write them into the page."""
    lines = []
    with Pool() as pool:
        for line in _lines(pool):
            print(line, flush=True)
            lines.append(line)
    page = _PAGE.read_text(encoding="utf-8")
    _PAGE.write_text(put_into(page, ["", *lines, ""], BEGIN, END), encoding="utf-8")


def _lines(pool: Workers) -> Iterator[str]:
    weeks = pool.imap(_week, [*_MAIN, *_SLOWER, *_SCALED], chunksize=1)
    rushes = pool.map(_rush, [(setup, seed) for setup in _RUSHES for seed in range(_RUSH_SEEDS)], chunksize=1)
    yield "The first pod of each image that was first used on the second and third day of the week:"
    yield ""
    yield from _head("COPIED: p50", "p99", "Running: p50", "p99", "with nudge: p50", "p99", "CodeBuild, USD")
    for week in weeks:
        yield _row(week.setup, *_both(week.later), f"{week.usd['CodeBuild']:.2f}")
    yield ""
    yield "500 new images at once:"
    yield ""
    yield from _head(
        "COPIED: p50", "p99", "all", "Running: p50", "p99", "with nudge: p50", "p99", "new stack: all", "USD"
    )
    for place, setup in enumerate(_RUSHES):
        runs = rushes[place * _RUSH_SEEDS : (place + 1) * _RUSH_SEEDS]
        yield _rush_row(setup, runs)


def _week(setup: Setup) -> Week:
    return run_week(setup, admissions=_ADMISSIONS, images=_IMAGES, per_rollout=1, days=_DAYS)


def _rush(task: tuple[Setup, int]) -> Rush:
    setup, seed = task
    return run_rush(setup, seed=seed)


def _rush_row(setup: Setup, runs: Sequence[Rush]) -> str:
    known = Waits(*(_middle([run.known[place] for run in runs]) for place in range(3)))
    copied, p99, *others = _both(known)
    new = median(run.new.copied.longest for run in runs)
    usd = median(run.usd for run in runs)
    return _row(setup, copied, p99, span(known.copied.longest), *others, span(new), f"{usd:.2f}")


def _middle(times: Sequence[Times]) -> Times:
    """Return the median of each figure of several runs."""
    return Times(*(median(values) for values in zip(*times, strict=True)))


def _both(waits: Waits) -> list[str]:
    return [span(seconds) for times in waits for seconds in times[:2]]


def _head(*columns: str) -> Iterator[str]:
    cells = ("EC2 quota", "lanes", "copy time", *columns)
    yield f"| {' | '.join(cells)} |"
    yield f"| {' | '.join('---' for _ in cells)} |"


def _row(setup: Setup, *cells: str) -> str:
    lanes = f"two: Lambda quota {setup.fast_quota}, start {setup.starting:g} s" if setup.fast_quota else "one"
    return f"| {' | '.join((str(setup.quota), lanes, f'{setup.pace:g}x', *cells))} |"


def span(seconds: float) -> str:
    """Return a length of time with two or three digits."""
    for unit, size in (("h", HOUR), ("min", MINUTE)):
        if seconds >= 2 * size:
            return f"{seconds / size:.{int(seconds < 10 * size)}f} {unit}"
    return f"{seconds:.0f} s"
