"""Adversaries: hostile or careless authors of pods, and what they cost; meanwhile another namespace needs an image.

A run begins with the attack. From then on a pod of another namespace asks for a new image now and then, and its time
until COPIED is compared with the time without an attack. How long hostile builds take is what the build's program
(buildspec/copy.py) does with such a source.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial

from image_mirror.record import Policy, Status
from image_mirror.table import to_record
from simulation.alarms import rung
from simulation.clock import HOUR, MINUTE
from simulation.cluster import Pod
from simulation.expressions import Item
from simulation.faults import NO_FAULTS
from simulation.fleet import Fleet, running
from simulation.prices import caused
from simulation.sources import Ending
from simulation.table import Key
from support.damaged import damaged_items

GOOD = Ending("COPIED", 45)
# crane's error is "no such host" at once.
NO_HOST = Ending("NOT_FOUND", 2)
# A host that accepts the connection and says nothing: crane gives up a TLS handshake after 10 s, tries it three times
# with pauses of 1 and 3 s, and all that for the HEAD and for the GET after it. A connection that is not accepted ends
# after half of this.
SILENT = Ending("UNREACHABLE", 68)
# A host that says nothing after the handshake, or in the middle of a layer: COPY_STALL_SECONDS, DIGEST_SECONDS.
HANGS = Ending("STALLED", 602)
# A source that sends one layer, and then a little of the next one every ten minutes: the build ends two minutes before
# its limit, and because a layer has arrived, the next one continues.
DRIPS = Ending("UNREACHABLE", 58 * 60 - 45)

_HOSTILE = "hostile"
_FAIR = "fair"
_QUIET = 10 * MINUTE  # before the attack begins; nobody attacks a stack in the minute in which it is deployed
# GiveUpHours, the longest wait before the build that ends the request, and that build.
_GIVEN_UP = Policy().give_up / 1000 + 7 * HOUR
MOST_RECORDS = 50  # MaxNewImages
_AT_ONCE = 2.0  # seconds in which the first pods of all hostile images are created, as a rollout does
_RING_WITHIN = 3 * HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large an attack is: its images, those of the one big pod, CodeBuild's quota and its hours.

    Each image is asked for again and again, after `pause` seconds, by pods of `per_pod` images, in as many
    `namespaces`. `fair` images of another namespace are asked for meanwhile. `setting` is BuildQuota, 0 for the quota.
    """

    images: int
    big_pod: int
    quota: int
    hours: float
    fair: int
    pause: float = 10 * MINUTE
    per_pod: int = 10
    namespaces: int = 1
    setting: int = 0


SMALL = Size(images=20, big_pod=500, quota=4, hours=6, fair=8)
FULL = Size(images=500, big_pod=10_000, quota=20, hours=4, fair=12, pause=15 * MINUTE)
FOUR_DAYS = Size(images=4, big_pod=500, quota=4, hours=96, fair=0, pause=30 * MINUTE)
MONTH = Size(images=500, big_pod=10_000, quota=20, hours=30 * 24, fair=0, pause=30 * MINUTE, per_pod=50)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One adversary. `begin` starts it; `alarm` is the alarm that must ring within three hours, if one must.

    `hours_builds` and `days_builds` are the most builds that one hostile image may cause in the six hours of SMALL and
    in FOUR_DAYS. `repair` mends what is broken, for all copies; until then no copy can be made. `later` is how many
    seconds more than usual an image of another namespace may need.
    """

    name: str
    begin: Callable[[Fleet, Size], None]
    hours_builds: int
    days_builds: int
    alarm: str | None = None
    repair: Callable[[Fleet], None] | None = None
    later: float = 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """What an attack has done. `waits` are the seconds to COPIED of each image of the other namespace, or to the end.

    `rings` are the alarms that rang within three hours of its beginning, with the minute. `usd` is without what a fleet
    costs that does nothing.
    """

    attack: str
    seed: int
    violations: tuple[str, ...]
    waits: tuple[float, ...]
    records: int
    builds: int
    most_builds: int
    usd: float
    rings: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)


def run_attack(attack: Attack, size: Size, seed: int, *, repaired: bool = True) -> Result:
    """Run an attack to its end. Without `repaired` what is broken stays so."""
    with running(seed, NO_FAULTS, quota=size.quota, BUILD_QUOTA=str(size.setting or size.quota)) as fleet:
        clock = fleet.world.clock
        clock.run(_QUIET)
        attack.begin(fleet, size)
        works_from = clock.now
        if attack.repair is not None and repaired:
            works_from += size.hours * HOUR / 2
            clock.after(works_from - clock.now, partial(attack.repair, fleet))
        others = [_Other(fleet, number) for number in range(size.fair)]
        for other in others:
            # The first one is asked for while the attack begins; the last hour is left for the last one to arrive.
            part = 5 * MINUTE if other.number == 0 else (size.hours - 1) * HOUR / size.fair
            clock.after(fleet.world.dice.uniform(other.number, other.number + 1) * part, other.ask)
        clock.run(size.hours * HOUR)
        return _result(fleet, attack, size, seed, tuple(other.waited(works_from) for other in others))


def problems(attack: Attack, size: Size, result: Result) -> list[str]:
    """Return which goals a result misses: bounds for each image, a fair time for the others, and an alarm."""
    found = list(result.violations)
    # A key that is accepted again is found by a record that tries it every half hour.
    most = 2 * seconds_alone(size.quota) + (31 * MINUTE if attack.repair else 0) + attack.later
    found += [f"{wait:.0f} s for an image of another namespace" for wait in result.waits if wait > most]
    builds = attack.hours_builds if size.hours <= SMALL.hours else attack.days_builds
    if result.most_builds > builds:
        found.append(f"{result.most_builds} builds of one image")
    if result.records > max(size.images, MOST_RECORDS):
        found.append(f"{result.records} records")
    # The four images of FOUR_DAYS have so few pods that five of them without an answer are no sign of anything.
    if attack.alarm is not None and attack.alarm not in result.rings and size.fair:
        found.append(f"{attack.alarm} does not ring, but {result.rings}")
    # Builds that were out when the key was refused, 53 that try it in the first day, and one for each image at last.
    tries = 2 * size.quota + 53 * size.hours / 24 + 10 + size.images
    if attack.repair is not None and result.builds > tries:
        found.append(f"{result.builds} builds while a key is refused")
    return found


@cache
def seconds_alone(quota: int) -> float:
    """Return how long an image needs from its first pod to COPIED while nothing else happens: the median."""
    waits = run_attack(PEACE, replace(SMALL, quota=quota), 0).waits
    return sorted(waits)[len(waits) // 2]


@cache
def _idle_usd_an_hour() -> float:
    """Return what the schedule's runs cost while nothing happens."""
    return run_attack(PEACE, replace(SMALL, hours=24, fair=0), 0).usd / 24


def _result(fleet: Fleet, attack: Attack, size: Size, seed: int, waits: tuple[float, ...]) -> Result:
    rings = rung(fleet.world.metrics, int((_QUIET + _RING_WITHIN) // MINUTE))
    hostile = {key: builds for key, builds in fleet.codebuild.by_target.items() if _FAIR not in key[0]}
    statuses: dict[str, int] = {}
    for key, item in fleet.table.items.items():
        record = to_record(item)
        name = str(record.status)
        statuses[name] = statuses.get(name, 0) + 1
        if record.raw is not None:
            fleet.world.violated(f"{key}: still damaged: {item}")
        since = record.failing_since
        if since is not None and record.status is not Status.FAILED and _ago(fleet, since) > _GIVEN_UP:
            fleet.world.violated(
                f"{key}: {record.status} after {_ago(fleet, since) / HOUR:.0f} hours of builds without a copy"
            )
        if record.status is not Status.FAILED and fleet.table.indexed(key) != record.due_at:
            fleet.world.violated(f"{key}: due at {record.due_at}, but {fleet.table.indexed(key)} in the index")
    return Result(
        attack.name,
        seed,
        tuple(fleet.world.violations),
        waits,
        records=len(fleet.table.items) - sum(_FAIR in repo for repo, _ in fleet.table.items),
        builds=sum(map(len, hostile.values())),
        most_builds=max(map(len, hostile.values()), default=0),
        usd=caused(fleet.usage()) - (_idle_usd_an_hour() * size.hours if attack is not PEACE else 0),
        rings={name: minute - int(_QUIET // MINUTE) for name, minute in rings.items()},
        statuses=statuses,
    )


def _ago(fleet: Fleet, milliseconds: int) -> float:
    return fleet.world.clock.now - milliseconds / 1000


class _Other:
    """An image of another namespace. Its author creates a pod each minute until one of them waits for the copy."""

    def __init__(self, fleet: Fleet, number: int) -> None:
        self.number = number
        self._fleet = fleet
        self._image = f"quay.io/{_FAIR}/app{number}:1"
        self._key = fleet.cluster.key(self._image)
        self._asked_at: float | None = None
        self._copied_at: float | None = None
        fleet.sources.endings[self._image] = GOOD
        fleet.table.listeners.append(self._changed)

    def ask(self) -> None:
        clock = self._fleet.world.clock
        self._asked_at = self._asked_at or clock.now
        if self._key not in self._fleet.table.items:
            self._fleet.cluster.create(Pod((self._image,), namespace=_FAIR))
            clock.after(MINUTE, self.ask)

    def waited(self, works_from: float) -> float:
        """Return the seconds from the first pod, or from the repair if that was later, to COPIED or until now."""
        assert self._asked_at is not None, "the run is too short"
        return (self._copied_at or self._fleet.world.clock.now) - max(self._asked_at, works_from)

    def _changed(self, key: Key, before: Item | None, after: Item | None) -> None:
        del before
        if key == self._key and after and after["status"] == {"S": Status.COPIED} and self._copied_at is None:
            self._copied_at = self._fleet.world.clock.now


def _images(count: int) -> list[str]:
    return [f"{_HOSTILE}{number}.gcr.io/team/app:1" for number in range(count)]


def _keep_asking(fleet: Fleet, size: Size, images: Sequence[str]) -> None:
    """Have a controller create the pods of these images again and again."""
    clock, dice = fleet.world.clock, fleet.world.dice

    def ask(pod: Pod) -> None:
        fleet.cluster.create(pod)
        clock.after(size.pause * dice.uniform(0.9, 1.1), partial(ask, pod))

    for number, start in enumerate(range(0, len(images), size.per_pod)):
        namespace = f"{_HOSTILE}{number % size.namespaces}"
        pod = Pod(tuple(images[start : start + size.per_pod]), namespace=namespace)
        clock.after(dice.uniform(0, _AT_ONCE), partial(ask, pod))


def _nothing(fleet: Fleet, size: Size) -> None:
    """Attack nothing."""


def _ending(ending: Ending, fleet: Fleet, size: Size) -> None:
    """Ask for images whose builds all end like this."""
    images = _images(size.images)
    fleet.sources.endings |= dict.fromkeys(images, ending)
    _keep_asking(fleet, size, images)


def _big_pod(fleet: Fleet, size: Size) -> None:
    """Ask for very many images by one pod, which is created again now and then."""
    images = tuple(_images(size.big_pod))
    fleet.sources.endings |= dict.fromkeys(images, GOOD)
    _keep_asking(fleet, replace(size, per_pod=len(images), pause=size.hours * HOUR / 12), images)


def _poison(fleet: Fleet, size: Size) -> None:
    """Write a record of each kind of damage six times, for images that pods ask for."""
    clock, dice = fleet.world.clock, fleet.world.dice
    repos = {}
    for number, name in enumerate(damaged_items("", "", 0, another="")):
        image = f"{_HOSTILE}{number}.gcr.io/team/app:1"
        repos[name] = image, fleet.cluster.destination(image).repo
    fleet.sources.endings |= {image: GOOD for image, _ in repos.values()}

    def write(name: str) -> None:
        image, repo = repos[name]
        now = int(clock.now * 1000)
        item = damaged_items(repo, image, now, another=f"{_HOSTILE}.gcr.io/another:1")[name]
        fleet.put_by_hand(item | {"requested_by": {"S": f"{_HOSTILE}0/Pod/a"}})
        clock.after(size.hours * HOUR / 6, partial(write, name))

    for name in repos:
        clock.after(dice.uniform(0, 10 * MINUTE), partial(write, name))
    _keep_asking(fleet, size, [image for image, _ in repos.values()])


def _throttled_table(fleet: Fleet, size: Size) -> None:
    """Throttle a fifth of all calls, while pods ask for images."""
    fleet.world.faults = replace(NO_FAULTS, table_throttled=0.2)
    _ending(GOOD, fleet, size)


def _revoke_our_key(fleet: Fleet, size: Size) -> None:
    """Have the global account refuse the key in the secret, while pods ask for images."""
    fleet.account.valid = "another key"
    _ending(GOOD, fleet, size)


def _restore_our_key(fleet: Fleet) -> None:
    fleet.account.valid = fleet.account.announced


def _revoke_push_key(fleet: Fleet, size: Size) -> None:
    """Have ECR refuse the key that the builds log in with, while pods ask for images."""
    fleet.codebuild.login_refused = True
    _ending(GOOD, fleet, size)


def _restore_push_key(fleet: Fleet) -> None:
    fleet.codebuild.login_refused = False


def _thief(fleet: Fleet, size: Size) -> None:
    """Push another image in the place of each copy again and again, with a stolen key."""
    world, clock, dice = fleet.world, fleet.world.clock, fleet.world.dice
    images = _images(size.images)
    _ending(GOOD, fleet, size)

    def push(image: str) -> None:
        destination = fleet.cluster.destination(image)
        fleet.registry.push(destination.repository, destination.tag, f"sha256:{dice.getrandbits(256):064x}")
        clock.after(dice.uniform(0, 2 * HOUR), partial(push, image))

    for image in images:
        clock.after(dice.uniform(0, HOUR), partial(push, image))
    world.note("thief", len(images))


# Why as many builds: five attempts in 81 minutes, then one after each pause of 1, 2, 4, 8, 16 and 24 hours. A host that
# answers nothing has eleven builds in the first five hours, then one after 2, 4 and each 6 hours until 72, and then as
# above; a source that drips has the same, but each build takes an hour. A copy that hangs has two, then one after 24
# and 48 hours. Poison is written six times, and may cost a build each time. Throttling can hide that a build has
# started for longer than CodeBuild remembers its token.
PEACE = Attack(name="nothing", begin=_nothing, hours_builds=0, days_builds=0)
NAMES = Attack(
    name="names that do not exist",
    begin=partial(_ending, NO_HOST),
    hours_builds=7,
    days_builds=12,
    alarm="copy-failed",
)
SILENCE = Attack(
    name="hosts that answer nothing",
    begin=partial(_ending, SILENT),
    hours_builds=11,
    days_builds=29,
    alarm="oldest-first-copy",
)
STALLS = Attack(
    name="copies that hang", begin=partial(_ending, HANGS), hours_builds=2, days_builds=4, alarm="copy-failed"
)
DRIP = Attack(
    name="sources that drip",
    begin=partial(_ending, DRIPS),
    hours_builds=6,
    days_builds=24,
    alarm="oldest-first-copy",
)
BIG_POD = Attack(name="one pod of very many images", begin=_big_pod, hours_builds=1, days_builds=1)
POISON = Attack(name="damaged records of every kind", begin=_poison, hours_builds=7, days_builds=7)
THROTTLE = Attack(
    name="a table that throttles a fifth of all calls",
    begin=_throttled_table,
    hours_builds=2,
    days_builds=2,
    alarm="webhook-fails",
    later=MINUTE,  # where the calls of a step are throttled four times in a row, the schedule's next run makes them
)
OUR_KEY = Attack(
    name="GlobalAKSK is refused",
    begin=_revoke_our_key,
    hours_builds=1,
    days_builds=1,
    alarm="key-refused",
    repair=_restore_our_key,
)
PUSH_KEY = Attack(
    name="the key for ECR is refused",
    begin=_revoke_push_key,
    hours_builds=12,
    days_builds=240,
    alarm="key-refused",
    repair=_restore_push_key,
)
THIEF = Attack(name="a thief who pushes", begin=_thief, hours_builds=1, days_builds=1, alarm="unexpected-pushes")
ATTACKS = (NAMES, SILENCE, STALLS, DRIP, BIG_POD, POISON, THROTTLE, OUR_KEY, PUSH_KEY, THIEF)
