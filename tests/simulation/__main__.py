"""The simulation by hand: seeds under faults, burst, week, adversaries, lanes, cost; `python -m simulation --help`."""

import argparse
import sys
import time
from collections import Counter
from functools import partial
from multiprocessing import Pool

from simulation.batches import seconds_to_copied
from simulation.burst import run_burst
from simulation.cost import write_usage
from simulation.lanes import Setup
from simulation.lanes_report import write_lanes
from simulation.prices import DATE
from simulation.report import write_adversaries
from simulation.seed import run_seed
from simulation.week import Week, run_week


def main() -> int:
    """Run what the command line asks for; the result is 1 if an invariant does not hold."""
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    parser.add_argument(
        "--seeds", type=int, metavar="N", default=200, help="run N seeds (200): under faults, or of each adversary"
    )
    what.add_argument("--seed", type=int, metavar="K", help="run seed K and print its history")
    what.add_argument("--burst", action="store_true", help="10,000 pods of 500 images, no faults")
    what.add_argument("--week", action="store_true", help="a week of a busy fleet: calls, cost, time to COPIED")
    what.add_argument("--adversaries", action="store_true", help="run all adversaries, and write docs/adversaries.md")
    what.add_argument("--lanes", action="store_true", help="run one lane and two, and write docs/waiting-time.md")
    what.add_argument(
        "--cost", action="store_true", help="run three fleets; cost.json gets what they use, for `make docs`"
    )
    what.add_argument("--batches", action="store_true", help="500 new images by builds that copy several each")
    parser.add_argument("--two-lanes", action="store_true", help="seeds under faults with two lanes")
    parser.add_argument("--first", type=int, default=0, metavar="K", help="the first of --seeds (0)")
    parser.add_argument("--admissions", type=int, default=1_000_000, help="pods in --week (1,000,000)")
    parser.add_argument("--images", type=int, default=5_000, help="distinct images in --week (5,000)")
    parser.add_argument("--quota", type=int, default=20, help="CodeBuild's concurrent builds in --week (20)")
    parser.add_argument("--fast-quota", type=int, default=0, help="those of the fast lane in --week (0: no such lane)")
    options = parser.parse_args()
    if options.seed is not None:
        return _replay(options.seed, two_lanes=options.two_lanes)
    if options.burst:
        print(run_burst())
    elif options.week:
        began, setup = time.monotonic(), Setup(quota=options.quota, fast_quota=options.fast_quota)
        _print(run_week(setup, admissions=options.admissions, images=options.images))
        print(f"  simulated in {time.monotonic() - began:.0f} s")
    elif options.adversaries:
        write_adversaries(options.seeds)
    elif options.lanes:
        write_lanes()
    elif options.cost:
        write_usage()
    elif options.batches:
        _compare_batches()
    else:
        return _run(range(options.first, options.first + options.seeds), two_lanes=options.two_lanes)
    return 0


def _run(seeds: range, *, two_lanes: bool) -> int:
    total: Counter[str] = Counter()
    failed = []
    with Pool() as pool:
        for result in pool.imap(partial(run_seed, two_lanes=two_lanes), seeds, chunksize=4):
            total += result.counts
            if result.violations:
                failed.append(result.seed)
    for name, count in sorted(total.items()):
        print(f"{count:>10,} {name}")
    if failed:
        _replay(failed[0], two_lanes=two_lanes)
        print(f"failed: {', '.join(map(str, failed))}; replay one by --seed")
    else:
        print(f"{len(seeds)} seeds: every invariant held")
    return 1 if failed else 0


def _replay(seed: int, *, two_lanes: bool) -> int:
    result = run_seed(seed, two_lanes=two_lanes, keeps_history=True)
    print(*result.history, sep="\n")
    print(f"seed {seed}:", *(result.violations or ("every invariant held",)), sep="\n  ")
    return 1 if result.violations else 0


def _print(week: Week) -> None:
    print(f"{week.admissions:,} admissions, {week.images:,} images, {week.setup}")
    for times, which in ((week.times, "all images"), (week.later.copied, "those first used after a day")):
        print(f"  first admission to COPIED, {which}: p50 {_span(times.median)}, p99 {_span(times.p99)}")
    print(f"  not yet COPIED: {week.waiting:,}")
    print(f"  builds: {week.builds:,}, {week.refreshes:,} of them refreshes of a tag or repeated copies")
    print(f"  builds in the fast lane: {week.fast_builds:,}")
    print(f"  DynamoDB's units: {week.write_units:,} written, {week.read_units:,} read")
    for name, count in week.calls.items():
        print(f"  {name:<32}{count:>12,}")
    for name, usd in week.usd.items():
        print(f"  {name:<32}{usd:>12.2f} USD")
    print(f"  {'together':<32}{sum(week.usd.values()):>12.2f} USD a week, by prices seen on {DATE}")


def _span(seconds: float) -> str:
    """Return a length of time in a readable unit."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _compare_batches() -> None:
    print("500 images requested at once, time to COPIED by what one build copies\n")
    print(f"{'quota':>5} {'images':>6} {'at once':>7}    {'p50':>8} {'all':>8}   all, if copies at once share one line")
    for quota in (1, 20):
        for batch, at_once in ((1, 1), (10, 1), (20, 1), (50, 1), (10, 4), (20, 4), (50, 4)):
            alone, shared = (
                seconds_to_copied(images=500, quota=quota, batch=batch, at_once=at_once, one_line=one_line)
                for one_line in (False, True)
            )
            times = f"{_span(alone[250]):>8} {_span(alone[-1]):>8}   {_span(shared[-1]):>8}"
            print(f"{quota:>5} {batch:>6} {at_once:>7}    {times}")


if __name__ == "__main__":
    sys.exit(main())
