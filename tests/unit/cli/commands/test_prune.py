"""`image-mirror prune` removes unused copies and nothing else, each record before its image."""

import itertools
import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from botocore.parsers import ResponseParserError
from hypothesis import given, settings
from hypothesis import strategies as st

from image_mirror import recorder
from image_mirror.cli.commands.prune import command
from image_mirror.cli.commands.prune.output import PruneRow
from image_mirror.cli.commands.prune.selection import InUse, Tag, in_use, signatures_left, unused
from image_mirror.cli.errors import NoAnswerError
from image_mirror.cli.kubernetes import Cluster
from image_mirror.decisions import Copy, Mirror
from image_mirror.pod_images import ORIGINALS
from image_mirror.record import DAY, Record, Status
from image_mirror.reference import path_of_copy
from image_mirror.rules import DEFAULT_RULES, parse_rules
from image_mirror.table import Records
from support.cloud import REGISTRY
from support.ecr_registry import Registry, ago
from support.operators import Operated, Reply
from support.recorded import DIGEST, now, record, run, write

pytestmark = pytest.mark.usefixtures("noon")
TABLE = "ImageListTable"
COPIES = f"{REGISTRY}/mirror"
MIRROR = Mirror(REGISTRY, "mirror", parse_rules(DEFAULT_RULES))
Json = dict[str, Any]


@pytest.fixture(autouse=True)
def kubeconfigs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files for --kubeconfig, in the working directory; only kubectl would read their content."""
    for name in "abfg":
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)


class Waited(list[int]):
    """How long the command has waited, and what happens meanwhile."""

    meanwhile: Callable[[], None] = staticmethod(lambda: None)


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> Waited:
    made = Waited()

    def pause(_: str, seconds: int) -> None:
        made.append(seconds)
        made.meanwhile()

    monkeypatch.setattr(command, "pause", pause)
    return made


@pytest.fixture
def records(operated: Operated) -> Records:
    return Records(operated.cloud.dynamodb, TABLE)


@pytest.fixture
def store(records: Records, registry: Registry) -> Registry:
    """Copies with their records: two that nobody pulls, one that is pulled, one that is new."""
    for image, options in {
        "gcr.io/old:1": {"pulled": 90, "size": 1_500_000_000},
        "gcr.io/never:1": {},
        "gcr.io/pulled:1": {"pulled": 3},
        "gcr.io/new:1": {"days": 3},
    }.items():
        have(records, registry, record(image, hours=2_000), **options)
    return registry


def have(records: Records, registry: Registry, made: Record, **options: Any) -> Record:
    """Make a copy and its record."""
    image = registry.push(made.repo.partition("/")[2], made.tag, **options)
    made = replace(made, digest=image.digest)
    records.create(made)
    return made


def sources(records: Records) -> set[str]:
    return {each.source for page in records.pages() for each in page}


def outcomes(*arguments: object, code: int = 0) -> dict[str, str]:
    """Run prune of copies unused for 30 days, and return the result of each copy by its name below the prefix."""
    result = run("prune", "--unused-days", 30, "--output", "json", *arguments)
    assert result.exit_code == code, result.output
    return {row["copy"].removeprefix(f"{COPIES}/"): row["outcome"] for row in json.loads(result.stdout)}


REMOVED = "removed"
ALL = {"gcr.io/old:1", "gcr.io/never:1", "gcr.io/pulled:1", "gcr.io/new:1"}


@pytest.mark.usefixtures("waited")
@pytest.mark.parametrize("arguments", [(), ("--dry-run",)])
def test_without_yes_what_would_be_removed_is_shown_and_nothing_is_removed(
    store: Registry, records: Records, waited: Waited, arguments: tuple[str, ...]
) -> None:
    before = store.tags()
    result = run("prune", "--unused-days", 30, *arguments)
    assert result.exit_code == 0
    head, *lines = [re.split("  +", line) for line in result.stdout.splitlines()]
    assert head == ["IMAGE", "RECORD", "SIZE", "LAST PULL", "PUSHED", "OUTCOME"]
    pushed, pulled = (f"{ago(days):%Y-%m-%d}" for days in (100, 90))
    assert lines == [
        ["gcr.io/never:1", "yes", "1.0 MB", "never", pushed, "would be removed"],
        ["gcr.io/old:1", "yes", "1.5 GB", pulled, pushed, "would be removed"],
    ]
    assert "2 copies of 1.5 GB would be removed; --yes removes them." in result.stderr
    assert "Warning: no cluster is asked" in result.stderr
    assert (store.tags(), sources(records), waited) == (before, ALL, [])


def test_with_yes_records_are_removed_first_then_prune_waits_for_the_webhooks_and_then_images_are_removed(
    store: Registry, records: Records, waited: Waited
) -> None:
    seen: list[tuple[set[str], int]] = []
    waited.meanwhile = lambda: seen.append((sources(records), len(store.tags())))
    assert outcomes("--yes", "--no-cluster") == {"gcr.io/never:1": REMOVED, "gcr.io/old:1": REMOVED}
    assert seen == [({"gcr.io/pulled:1", "gcr.io/new:1"}, 4)]
    assert waited[0] * 1000 >= recorder._KNOWN_FOR + 60_000, "the API server stores an answered pod within 60 s"
    assert store.tags() == {"mirror/gcr.io/pulled:1", "mirror/gcr.io/new:1"}
    assert sources(records) == {"gcr.io/pulled:1", "gcr.io/new:1"}


@pytest.mark.usefixtures("store")
def test_json_has_the_keys_that_the_help_names() -> None:
    result = run("prune", "--unused-days", 30, "--output", "json")
    never, old = json.loads(result.stdout)
    assert list(old) == list(PruneRow.__dataclass_fields__)
    assert (old["image"], old["copy"], old["bytes"]) == ("gcr.io/old:1", f"{COPIES}/gcr.io/old:1", 1_500_000_000)
    assert old["last_pull"].startswith(f"{ago(90):%Y-%m-%d}")
    assert (never["last_pull"], never["digest"].partition(":")[0]) == (None, "sha256")
    words = run("prune", "--help").stdout.split()
    assert [key for key in old if key not in words] == []


def test_if_there_is_nothing_to_remove_prune_does_not_wait(registry: Registry, waited: Waited) -> None:
    result = run("prune", "--unused-days", 30, "--yes", "--no-cluster")
    assert (result.exit_code, result.stdout, waited) == (0, "", [])
    assert "There is nothing to remove." in result.stderr
    assert registry.tags() == set()


@pytest.mark.parametrize("status", [Status.REQUESTED, Status.COPYING, Status.FAILED])
def test_what_is_on_its_way_or_has_failed_stays(status: Status, registry: Registry, records: Records) -> None:
    have(records, registry, record("gcr.io/x:1", status, hours=2_000))
    result = run("prune", "--unused-days", 30)
    assert result.stdout == ""
    assert "Kept although nobody has pulled them: 1 whose records are not COPIED." in result.stderr


def test_images_without_a_record_are_shown_and_removed_and_those_with_another_name_are_not(
    registry: Registry, records: Records, waited: Waited
) -> None:
    for name in ("mirror/gcr.io/orphan", "mirror/r.io_5000/x", "mirror/team/app", "mirrors/gcr.io/x", "app"):
        registry.push(name, "1")
    result = run("prune", "--unused-days", 30)
    assert [line.split()[:2] for line in result.stdout.splitlines()[1:]] == [
        [f"{COPIES}/gcr.io/orphan:1", "no"],
        [f"{COPIES}/r.io_5000/x:1", "no"],
    ]
    assert set(outcomes("--yes", "--no-cluster").values()) == {REMOVED}
    assert registry.tags() == {"mirror/team/app:1", "mirrors/gcr.io/x:1", "app:1"}
    assert len(waited) == 1
    assert sources(records) == set()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(
            ["--unused-days", "30", "--yes", "--no-cluster", "--dry-run"],
            "--dry-run: cannot be combined with --yes",
            id="shown-and-removed",
        ),
        pytest.param(
            ["--unused-days", "1"], "--unused-days: 1 is too few: ECR may record a pull a day late", id="too-few-days"
        ),
        pytest.param(["--unused-days", "soon"], "valid integer", id="no-number"),
        pytest.param([], "Missing option '--unused-days'", id="no-days"),
        pytest.param(
            ["--unused-days", "30", "--yes"],
            "--yes: name each cluster that pulls these copies",
            id="yes-without-cluster",
        ),
        pytest.param(
            ["--unused-days", "30", "--no-cluster", "--kubeconfig", "a"],
            "--no-cluster: cannot be combined with --kubeconfig or --context",
            id="no-cluster-and-a-cluster",
        ),
        pytest.param(
            ["--unused-days", "30", "--yes", "--no-cluster", "--context", "a"],
            "--no-cluster: cannot be combined with --kubeconfig or --context",
            id="no-cluster-and-a-context",
        ),
        pytest.param(
            ["--unused-days", "30", "--kubeconfig", "a", "--kubeconfig", "b", "--context", "x"],
            "--context: with several --kubeconfig, give one --context for each",
            id="contexts",
        ),
    ],
)
def test_wrong_input_is_named_and_nothing_is_removed(
    arguments: list[str], words: str, store: Registry, waited: Waited
) -> None:
    before = store.tags()
    result = run("prune", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert (store.tags(), waited) == (before, [])


def pods(*images: str, **metadata: Json) -> list[Json]:
    containers = [{"name": f"c{number}", "image": image} for number, image in enumerate(images)]
    return [{"metadata": {"name": "p", "namespace": "n", **metadata}, "spec": {"containers": containers}}]


def with_spec(spec: Json, status: Json | None = None) -> list[Json]:
    return [{"metadata": {"name": "p"}, "spec": {"containers": [], **spec}, "status": status or {}}]


@pytest.mark.parametrize(
    ("running", "held"),
    [
        pytest.param(pods(f"{COPIES}/gcr.io/old:1"), True, id="by-the-copys-name"),
        pytest.param(pods(f"{COPIES}/gcr.io/old@DIGEST"), True, id="by-the-copys-digest"),
        pytest.param(pods(f"{COPIES}/gcr.io/old:2@DIGEST"), True, id="by-tag-and-digest"),
        pytest.param(pods("gcr.io/old:1"), True, id="by-its-source"),
        pytest.param(pods("gcr.io/old@DIGEST"), True, id="by-its-sources-digest"),
        pytest.param(pods("x", annotations={ORIGINALS: '{"containers/c0": "gcr.io/old:1"}'}), True, id="by-annotation"),
        pytest.param(with_spec({"initContainers": [{"name": "i", "image": "gcr.io/old:1"}]}), True, id="init"),
        pytest.param(
            with_spec({"ephemeralContainers": [{"name": "e", "image": "gcr.io/old:1"}]}), True, id="ephemeral"
        ),
        pytest.param(
            with_spec({"volumes": [{"name": "v", "image": {"reference": "gcr.io/old:1"}}]}), True, id="volume"
        ),
        pytest.param(
            with_spec({}, {"containerStatuses": [{"imageID": f"{COPIES}/gcr.io/old@DIGEST"}]}),
            True,
            id="by-what-started",
        ),
        pytest.param(
            with_spec({}, {"initContainerStatuses": [{"imageID": f"docker-pullable://{COPIES}/gcr.io/old@DIGEST"}]}),
            True,
            id="by-what-docker-started",
        ),
        pytest.param(pods(f"{COPIES}/gcr.io/old:1@sha256:{'e' * 64}"), True, id="by-tag-beside-another-digest"),
        pytest.param(pods(f"{COPIES}/gcr.io/old:2@DIGEST"), True, id="by-digest-beside-another-tag"),
        pytest.param(pods(f"{COPIES}/gcr.io/old:2", "gcr.io/old", "gcr.io/older:1"), False, id="another-tag"),
        pytest.param(pods(f"{COPIES}/gcr.io/other@DIGEST"), False, id="the-digest-of-another-repository"),
        pytest.param(pods("__IMAGE__", "auto", "[::1]/x"), False, id="no-image-names"),
        pytest.param(with_spec({"containers": None}), False, id="nothing"),
    ],
)
def test_an_image_that_a_cluster_runs_stays_whatever_name_it_has_there(running: list[Json], held: bool) -> None:
    named = json.loads(json.dumps(running).replace("DIGEST", DIGEST))
    assert in_use(named, MIRROR).holds(f"{COPIES}/gcr.io/old", "1", DIGEST) is held


@given(
    st.sampled_from(["nginx", "gcr.io/x:1", "quay.io/a/b", "r.io:5000/x", "ghcr.io/x:Tag_1.2"]),
    st.sampled_from(["", "@" + DIGEST]),
)
def test_the_copy_that_the_webhook_would_send_a_pod_to_is_always_in_use(image: str, digest: str) -> None:
    rules = parse_rules(f"{DEFAULT_RULES} r.io:5000")
    mirror = Mirror(REGISTRY, "mirror", rules)
    decision, _ = mirror.decide(image + digest)
    assert isinstance(decision, Copy)
    for name in (image + digest, str(decision.destination)):
        running = in_use(pods(name), mirror)
        assert running.holds(decision.destination.repo, decision.destination.tag, decision.destination.digest or "")


@pytest.fixture
def clusters(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Json]]:
    """Return clusters by their names in errors, each with its pods."""
    made: dict[str, list[Json]] = {}

    def asked(cluster: Cluster) -> list[Json]:
        if str(cluster) not in made:
            raise NoAnswerError(f"the cluster ({cluster}): connection refused")
        return made[str(cluster)]

    monkeypatch.setattr(Cluster, "pods", asked)
    return made


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        pytest.param(["--kubeconfig", "a", "--kubeconfig", "b"], ["a", "b"], id="two-files"),
        pytest.param(
            ["--context", "a", "--context", "b"],
            ["kubectl's own configuration, context a", "kubectl's own configuration, context b"],
            id="two-contexts",
        ),
        pytest.param(
            ["--kubeconfig", "f", "--context", "a", "--context", "b"],
            ["f, context a", "f, context b"],
            id="two-contexts-of-a-file",
        ),
        pytest.param(
            ["--kubeconfig", "f", "--context", "a", "--kubeconfig", "g", "--context", "b"],
            ["f, context a", "g, context b"],
            id="a-context-of-each-file",
        ),
    ],
)
@pytest.mark.usefixtures("waited")
def test_every_named_cluster_is_asked_and_what_it_runs_stays(
    arguments: list[str], names: list[str], store: Registry, clusters: dict[str, list[Json]]
) -> None:
    clusters.update({names[0]: pods("gcr.io/old:1"), names[1]: pods("x", f"{COPIES}/gcr.io/never:1")})
    result = run("prune", "--unused-days", 30, "--yes", *arguments)
    assert (result.exit_code, result.stdout) == (0, "")
    assert [line for line in result.stderr.splitlines() if "pods run" in line] == [
        f"1 pods run in the cluster ({name})." for name in names
    ]
    assert "Kept although nobody has pulled them: 2 that a cluster runs." in result.stderr
    assert len(store.tags()) == 4


def test_a_cluster_that_gives_no_answer_ends_the_command_before_anything_is_removed(
    store: Registry, records: Records, clusters: dict[str, list[Json]], waited: Waited
) -> None:
    clusters["a"] = []
    result = run("prune", "--unused-days", 30, "--yes", "--kubeconfig", "a", "--kubeconfig", "b")
    assert result.exit_code == 3
    assert "Error: the cluster (b): connection refused" in result.stderr
    assert (len(store.tags()), sources(records), waited) == (4, ALL, [])


def test_a_cluster_that_gives_no_answer_after_the_wait_puts_the_records_back(
    store: Registry, records: Records, clusters: dict[str, list[Json]], waited: Waited
) -> None:
    clusters["a"] = []
    waited.meanwhile = clusters.clear
    assert set(outcomes("--yes", "--kubeconfig", "a", code=3).values()) == {"kept: the command has ended early"}
    assert (len(store.tags()), sources(records)) == (4, ALL)


@pytest.mark.parametrize(
    ("meanwhile", "outcome"),
    [
        pytest.param("asked", "kept: it was asked for meanwhile", id="a-pod-asks"),
        pytest.param("pulled", "kept: it was pushed or pulled meanwhile", id="it-is-pulled"),
        pytest.param("pushed", "kept: it was pushed or pulled meanwhile", id="it-is-pushed"),
        pytest.param("runs", "kept: a cluster runs it now", id="a-cluster-runs-it"),
        pytest.param("gone", "gone already", id="it-is-gone"),
        pytest.param("repository", "gone already", id="its-repository-is-gone"),
    ],
)
def test_a_copy_that_becomes_needed_meanwhile_stays_and_is_recorded(
    meanwhile: str,
    outcome: str,
    store: Registry,
    records: Records,
    clusters: dict[str, list[Json]],
    waited: Waited,
) -> None:
    clusters["a"] = []
    asked = record("gcr.io/old:1", Status.REQUESTED)

    def happen() -> None:
        repository = store.repositories["mirror/gcr.io/old"]
        [image] = repository.values()
        if meanwhile == "asked":
            records.create(asked)
        elif meanwhile == "pulled":
            image.pulled = ago(0)
        elif meanwhile == "pushed":
            image.tags.clear()
            store.push("mirror/gcr.io/old", "1", days=0, content="new")
        elif meanwhile == "runs":
            clusters["a"] = pods("gcr.io/old:1")
        elif meanwhile == "gone":
            repository.clear()
        else:
            del store.repositories["mirror/gcr.io/old"]

    waited.meanwhile = happen
    assert outcomes("--yes", "--kubeconfig", "a") == {"gcr.io/never:1": REMOVED, "gcr.io/old:1": outcome}
    assert ("mirror/gcr.io/old:1" in store.tags()) is outcome.startswith("kept")
    after = records.get(asked.repo, asked.tag)
    if meanwhile == "asked":
        assert after == asked
    elif outcome.startswith("kept"):
        assert after is not None
        assert (after.status, after.digest is None) == (Status.COPIED, False)
        assert after.due_at == now(), "the reconciler checks at once whether the image exists"
    else:
        assert after is None


def test_a_record_that_changes_before_it_is_removed_keeps_its_copy(
    store: Registry, records: Records, monkeypatch: pytest.MonkeyPatch, waited: Waited
) -> None:
    [old] = [each for page in records.pages() for each in page if each.source == "gcr.io/old:1"]
    renewed = replace(old, status=Status.REQUESTED, updated_at=now())
    remove = Records.remove

    def racing(self: Records, read: Record) -> bool:
        if read.source == "gcr.io/old:1":
            records.replace(old, renewed)
        return remove(self, read)

    monkeypatch.setattr(Records, "remove", racing)
    found = outcomes("--yes", "--no-cluster")
    assert found["gcr.io/old:1"] == "kept: its record has changed meanwhile"
    assert found["gcr.io/never:1"] == REMOVED
    assert records.get(old.repo, old.tag) == renewed
    assert "mirror/gcr.io/old:1" in store.tags()
    assert len(waited) == 1


def test_a_removal_that_a_repeated_request_finds_done_counts_as_done(
    store: Registry, records: Records, monkeypatch: pytest.MonkeyPatch, waited: Waited
) -> None:
    remove = Records.remove

    def repeated(self: Records, read: Record) -> bool:
        remove(self, read)
        return remove(self, read)

    monkeypatch.setattr(Records, "remove", repeated)
    waited.meanwhile = lambda: setattr(next(iter(store.repositories["mirror/gcr.io/old"].values())), "pulled", ago(0))
    assert outcomes("--yes", "--no-cluster")["gcr.io/old:1"] == "kept: it was pushed or pulled meanwhile"
    assert "gcr.io/old:1" in sources(records)


def test_ctrl_c_while_waiting_puts_the_records_back(store: Registry, records: Records, waited: Waited) -> None:
    before = {each for page in records.pages() for each in page}

    def interrupt() -> None:
        assert len(sources(records)) == 2
        raise KeyboardInterrupt

    waited.meanwhile = interrupt
    result = run("prune", "--unused-days", 30, "--yes", "--no-cluster")
    assert result.exit_code == 130
    assert result.stdout.count("kept: the command has ended early") == 2
    assert "Removed 0 copies" in result.stderr
    assert "Traceback" not in result.output
    after = {each for page in records.pages() for each in page}
    assert {replace(each, due_at=0) for each in after} == {replace(each, due_at=0) for each in before}
    assert len(store.tags()) == 4


def test_records_that_cannot_be_put_back_are_reported(
    store: Registry, waited: Waited, refuse: Callable[..., None]
) -> None:
    def interrupt() -> None:
        refuse("dynamodb", "PutItem")
        raise KeyboardInterrupt

    waited.meanwhile = interrupt
    result = run("prune", "--unused-days", 30, "--yes", "--no-cluster")
    assert result.exit_code == 130
    assert result.stdout.count("kept, without its record, which was not put back (AccessDeniedException)") == 2
    assert len(store.tags()) == 4


def test_records_are_reported_that_a_page_of_a_proxy_keeps_from_being_put_back(
    store: Registry, waited: Waited, answer: Callable[[str, str, Reply], None]
) -> None:
    def page(_: dict[str, Any]) -> dict[str, Any]:
        raise ResponseParserError("<html>")

    def interrupt() -> None:
        answer("dynamodb", "PutItem", page)
        raise KeyboardInterrupt

    waited.meanwhile = interrupt
    result = run("prune", "--unused-days", 30, "--yes", "--no-cluster")
    assert result.exit_code == 130
    assert result.stdout.count("kept, without its record, which was not put back (ResponseParserError)") == 2
    assert len(store.tags()) == 4


def test_ctrl_c_while_images_go_puts_back_the_records_of_those_that_stay(
    store: Registry, records: Records, waited: Waited, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = Records.get

    def interrupted(self: Records, repo: str, tag: str) -> Record | None:
        if repo.endswith("gcr.io/old"):
            while "mirror/gcr.io/never:1" in store.tags():
                time.sleep(0.01)
            raise KeyboardInterrupt
        return get(self, repo, tag)

    monkeypatch.setattr(Records, "get", interrupted)
    result = run("prune", "--unused-days", 30, "--yes", "--no-cluster")
    assert result.exit_code == 130
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert lines["gcr.io/never:1"].endswith("removed")
    assert lines["gcr.io/old:1"].endswith("kept: the command has ended early")
    assert sources(records) == ALL - {"gcr.io/never:1"}
    assert len(waited) == 1


@pytest.mark.parametrize(
    ("service", "operation"),
    [
        ("dynamodb", "Scan"),
        ("ecr", "DescribeRepositories"),
        ("ecr", "DescribeImages"),
        ("dynamodb", "DeleteItem"),
        ("dynamodb", "GetItem"),
        ("ecr", "BatchDeleteImage"),
    ],
)
@pytest.mark.usefixtures("waited")
def test_a_denial_of_any_call_ends_with_3_and_changes_nothing(
    service: str, operation: str, store: Registry, records: Records, refuse: Callable[..., None]
) -> None:
    refuse(service, operation)
    result = run("prune", "--unused-days", 30, "--yes", "--no-cluster")
    assert result.exit_code == 3
    assert f"Error: china account (profile china): {operation}: AccessDeniedException" in result.stderr
    assert "ask for this permission" in result.stderr
    assert "not put back" not in result.output
    assert (len(store.tags()), sources(records)) == (4, ALL)


def test_no_network_ends_with_3(store: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:1")
    result = run("prune", "--unused-days", 30, "--yes", "--no-cluster")
    assert result.exit_code == 3
    assert "check the network" in result.stderr
    assert len(store.tags()) == 4


@pytest.mark.usefixtures("waited")
def test_if_the_network_fails_while_records_are_removed_all_of_them_are_put_back(
    store: Registry, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = Records.remove

    def lost(self: Records, read: Record) -> bool:
        remove(self, read)
        raise EndpointConnectionError(endpoint_url="https://dynamodb")  # the answer is lost, not the request

    monkeypatch.setattr(Records, "remove", lost)
    result = run("prune", "--unused-days", 30, "--yes", "--no-cluster")
    assert result.exit_code == 3
    assert (len(store.tags()), sources(records)) == (4, ALL)


def test_what_ecr_does_not_remove_is_reported_and_has_its_record_again(
    store: Registry, records: Records, waited: Waited
) -> None:
    for number in range(150):
        have(records, store, record(f"gcr.io/many:{number}", hours=2_000))
    store.failing = {"7": "KmsError", "8": "ImageNotFound"}
    found = outcomes("--yes", "--no-cluster", code=1)
    assert found["gcr.io/many:7"] == "kept: ECR did not remove it: KmsError: so it is"
    assert sum(outcome == REMOVED for outcome in found.values()) == len(found) - 1 == 151
    assert {source for source in sources(records) if "many" in source} == {"gcr.io/many:7"}
    assert len(waited) == 1


def many(records: Records, registry: Registry) -> set[str]:
    """Make more copies in one repository than one request removes."""
    for number in range(150):
        have(records, registry, record(f"gcr.io/many:{number}", hours=2_000))
    return {f"gcr.io/many:{number}" for number in range(150)}


@pytest.mark.parametrize(
    ("takes_effect", "gone"),
    [
        pytest.param(False, 100, id="the-second-request-is-refused"),
        pytest.param(True, 150, id="the-second-answer-is-lost"),
    ],
)
@pytest.mark.usefixtures("waited")
def test_an_error_between_two_requests_puts_back_the_records_of_what_stays_and_no_other(
    takes_effect: bool,
    gone: int,
    registry: Registry,
    records: Records,
    answer: Callable[[str, str, Reply], None],
) -> None:
    all_of_them = many(records, registry)
    requests = iter(range(9))

    def second_fails(asked: Json) -> Json:
        first = next(requests) == 0
        done = registry.batch_delete_image(asked) if first or takes_effect else {}
        return done if first else {"Error": {"Code": "ThrottlingException", "Message": "slow down"}}

    answer("ecr", "BatchDeleteImage", second_fails)
    found = outcomes("--yes", "--no-cluster", code=3)
    removed = {name for name, outcome in found.items() if outcome == REMOVED}
    kept = {name for name, outcome in found.items() if outcome == "kept: the command has ended early"}
    assert (len(removed), kept) == (gone, all_of_them - removed)
    assert {name.removeprefix("mirror/") for name in registry.tags()} == kept
    assert sources(records) == kept


@pytest.mark.usefixtures("waited")
def test_if_ecr_does_not_answer_at_all_the_result_says_so_and_the_reconciler_has_to_check(
    registry: Registry, records: Records, answer: Callable[[str, str, Reply], None], refuse: Callable[..., None]
) -> None:
    all_of_them = many(records, registry)
    requests = iter(range(9))

    def second_is_lost(asked: Json) -> Json:
        done = registry.batch_delete_image(asked)
        if next(requests) == 0:
            return done
        refuse("ecr", "DescribeImages")
        return {"Error": {"Code": "ServerException", "Message": "lost"}}

    answer("ecr", "BatchDeleteImage", second_is_lost)
    found = outcomes("--yes", "--no-cluster", code=3)
    doubtful = {name for name, outcome in found.items() if outcome.startswith("perhaps removed: ECR gave no answer")}
    assert len(doubtful) == 50
    assert {name for name, outcome in found.items() if outcome == REMOVED} == all_of_them - doubtful
    assert sources(records) == doubtful
    assert all(each.due_at == now() for page in records.pages() for each in page)


@pytest.mark.usefixtures("waited")
def test_of_an_image_with_several_tags_only_the_unused_tag_is_removed(store: Registry, records: Records) -> None:
    image = store.push("mirror/gcr.io/two", "1", "2")
    for tag in "12":
        records.create(replace(record(f"gcr.io/two:{tag}", hours=2_000), digest=image.digest))
    records.create(replace(record("gcr.io/two:3", Status.COPYING), digest=image.digest))
    image.tags.append("3")
    found = outcomes("--yes", "--no-cluster")
    assert (found["gcr.io/two:1"], found["gcr.io/two:2"]) == (REMOVED, REMOVED)
    assert image.tags == ["3"]
    assert image.digest in store.repositories["mirror/gcr.io/two"]


@pytest.mark.usefixtures("waited")
def test_the_images_of_an_index_go_with_it_but_those_of_one_that_stays_do_not(
    store: Registry, records: Records
) -> None:
    repository = "mirror/gcr.io/multi"
    shared, own, other = (store.push(repository, content=content) for content in ("shared", "own", "other"))
    pulled, new = store.push(repository, content="pulled", pulled=1), store.push(repository, content="new", days=1)
    before = store.push(repository, content="refreshed", children=(own,))  # a refresh has moved its tag
    for tag, pull, children in (("1", None, (shared, own)), ("2", 1, (shared, other))):
        index = store.push(repository, tag, pulled=pull, children=children)
        records.create(replace(record(f"gcr.io/multi:{tag}", hours=2_000), digest=index.digest))
    result = run("prune", "--unused-days", 30, "--yes", "--no-cluster")
    assert result.exit_code == 0
    assert "mirror/gcr.io/multi:1" not in store.tags()
    assert store.untagged(repository) == {shared.digest, other.digest, pulled.digest, new.digest}
    assert before.digest not in store.repositories[repository]
    assert "and 2 untagged images" in result.stderr


@pytest.mark.usefixtures("waited")
def test_signatures_stay_with_their_image_and_go_with_its_last_tag(store: Registry, records: Records) -> None:
    repository = "mirror/gcr.io/signed"
    stays, goes = store.push(repository, "1", pulled=1), store.push(repository, "2")
    for tag, image in (("1", stays), ("2", goes)):
        records.create(replace(record(f"gcr.io/signed:{tag}", hours=2_000), digest=image.digest))
    signature = {image.digest: image.digest.replace(":", "-") for image in (stays, goes)}
    for tag in signature.values():
        for kind in (".sig", ".att", ".sbom"):
            store.push(repository, tag + kind)
    referrer = store.push(repository, content="referrer", subject=stays.digest)
    found = {name: outcome for name, outcome in outcomes("--yes", "--no-cluster").items() if "signed" in name}
    assert found == {"gcr.io/signed:2": REMOVED}
    of_stays = signature[stays.digest]
    assert {tag.rpartition(":")[2] for tag in store.tags() if "signed" in tag} == {
        *("1", f"{of_stays}.sig", f"{of_stays}.att", f"{of_stays}.sbom")
    }
    assert store.untagged(repository) == {referrer.digest}


def test_signatures_of_an_image_that_is_there_in_any_form_or_that_runs_stay() -> None:
    store, tag, digest = Registry(), "sha256-" + "a" * 64 + ".sig", "sha256:" + "a" * 64
    signature = store.push("x", tag).details()
    child = replace(store.push("x"), digest=digest).details()  # an index that stays refers to it
    assert signatures_left("r/x", [child, signature], InUse()) == []
    assert signatures_left("r/x", [signature], InUse()) == [tag]
    assert signatures_left("r/x", [signature], InUse(digests=frozenset({("r/x", digest)}))) == []


@pytest.mark.usefixtures("waited")
def test_a_copy_by_digest_that_an_index_refers_to_stays_with_its_record(store: Registry, records: Records) -> None:
    child = store.push("mirror/gcr.io/multi", "digest-sha256-" + "a" * 64)
    records.create(replace(record(f"gcr.io/multi@{DIGEST}", hours=2_000), digest=child.digest))
    store.push("mirror/gcr.io/multi", "1", pulled=1, children=(child,))
    found = outcomes("--yes", "--no-cluster")
    [outcome] = [outcome for name, outcome in found.items() if "multi" in name]
    assert outcome == "kept: an index in its repository refers to it"
    assert f"gcr.io/multi@{DIGEST}" in sources(records)


def test_a_refresh_that_pushed_nothing_counts_as_use(registry: Registry, records: Records) -> None:
    have(records, registry, record("gcr.io/x:1", hours=29 * 24))
    assert outcomes() == {}


@pytest.mark.usefixtures("waited")
def test_an_untagged_image_that_a_cluster_runs_by_digest_stays(
    store: Registry, records: Records, clusters: dict[str, list[Json]]
) -> None:
    child = store.push("mirror/gcr.io/old", content="child")
    clusters["a"] = pods(f"{COPIES}/gcr.io/old@{child.digest}")
    assert outcomes("--yes", "--kubeconfig", "a")["gcr.io/old:1"] == REMOVED
    assert store.untagged("mirror/gcr.io/old") == {child.digest}
    assert "gcr.io/old:1" not in sources(records)


@pytest.mark.parametrize(
    ("repository", "copy"),
    [
        pytest.param("mirror/gcr.io/x", True, id="host"),
        pytest.param("mirror/docker.io/library/nginx", True, id="docker-hub"),
        pytest.param("mirror/localhost/x", True, id="localhost"),
        pytest.param("mirror/r_5000/x", True, id="port"),
        pytest.param("mirror/team/app", False, id="no-host"),
        pytest.param("mirror", False, id="the-prefix"),
        pytest.param("mirror2/gcr.io/x", False, id="another-prefix"),
        pytest.param("a/mirror/gcr.io/x", False, id="below-another"),
    ],
)
def test_only_what_has_a_copys_name_is_looked_at(repository: str, copy: bool) -> None:
    assert (path_of_copy(repository, MIRROR.prefix) is not None) is copy


TIMES = st.integers(0, 10)


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(TIMES, st.none() | TIMES, st.booleans(), st.none() | st.tuples(st.sampled_from(Status), TIMES)),
        max_size=8,
    ),
    TIMES,
)
def test_nothing_is_removed_that_was_used_since_or_runs_or_is_not_copied(
    held: list[tuple[int, int | None, bool, tuple[Status, int] | None]], cutoff: int
) -> None:
    made = [
        (Tag("r/x", str(number), f"d{number}", 1, pushed, pulled), runs, asked)
        for number, (pushed, pulled, runs, asked) in enumerate(held)
    ]
    existing = {
        tag.key: Record(repo=tag.repo, tag=tag.name, status=asked[0], requested_at=asked[1])
        for tag, _, asked in made
        if asked is not None
    }
    running = InUse(frozenset(tag.key for tag, runs, _ in made if runs))
    found = unused([tag for tag, _, _ in made], existing, running, cutoff)
    removable = {one.tag for one in found.removable}
    for tag, runs, asked in made:
        used = any(then is not None and then >= cutoff for then in (tag.pushed_at, tag.pulled_at, asked and asked[1]))
        assert (tag in removable) is (not used and not runs and (asked is None or asked[0] is Status.COPIED))
    assert all(a.tag.used_at <= b.tag.used_at for a, b in itertools.pairwise(found.removable))


@pytest.mark.usefixtures("waited")
def test_motos_ecr_takes_the_same_calls(operated: Operated, records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    operated.cloud.ecr.create_repository(repositoryName="mirror/gcr.io/x")
    digest = operated.cloud.push("mirror/gcr.io/x", "1")
    records.create(record("gcr.io/x:1", digest=digest))
    assert outcomes() == {}
    later = now() + 40 * DAY
    monkeypatch.setattr(time, "time", lambda: later / 1000)
    assert outcomes("--yes", "--no-cluster") == {"gcr.io/x:1": REMOVED}
    assert operated.cloud.ecr.describe_images(repositoryName="mirror/gcr.io/x")["imageDetails"] == []
    assert sources(records) == set()


def test_a_context_alone_names_a_cluster() -> None:
    assert [str(each) for each in command._clusters([], ["a"])] == ["kubectl's own configuration, context a"]
    assert command._clusters([Path("f")], []) == [Cluster(Path("f"))]


def test_the_record_of_an_older_deployment_is_left(registry: Registry, records: Records, operated: Operated) -> None:
    older = Record(repo=f"{COPIES}/gcr.io/x", tag="1")
    write(operated.cloud.dynamodb, [older])
    registry.push("mirror/gcr.io/x", "1")
    assert outcomes() == {}
    assert len([each for page in records.pages() for each in page]) == 1


# ---- empty repositories ----


def empty(registry: Registry, name: str, days: float = 100) -> str:
    registry.repositories[name] = {}
    registry.created[name] = ago(days)
    return f"{REGISTRY}/{name}"


def test_empty_repositories_are_shown_and_with_yes_removed_without_waiting(registry: Registry, waited: Waited) -> None:
    for name in ("mirror/gcr.io/mistyped", "mirror/gcr.io/other/name", "mirror/team", "mirrors/gcr.io/x"):
        empty(registry, name)
    registry.push("mirror/gcr.io/new", "1", days=1)
    result = run("prune", "--unused-days", 30)
    assert [re.split("  +", line) for line in result.stdout.splitlines()[1:]] == [
        [f"{COPIES}/gcr.io/mistyped", "no", "empty", "-", "-", "would be removed"],
        [f"{COPIES}/gcr.io/other/name", "no", "empty", "-", "-", "would be removed"],
    ]
    assert "0 copies of 0 bytes and 2 empty repositories would be removed; --yes removes them." in result.stderr
    assert len(registry.repositories) == 5
    assert outcomes("--yes", "--no-cluster") == {"gcr.io/mistyped": REMOVED, "gcr.io/other/name": REMOVED}
    assert registry.repositories.keys() == {"mirror/team", "mirrors/gcr.io/x", "mirror/gcr.io/new"}
    assert waited == []


def test_copies_and_empty_repositories_are_removed_in_one_run(store: Registry, waited: Waited) -> None:
    empty(store, "mirror/gcr.io/mistyped")
    result = run("prune", "--unused-days", 30, "--yes", "--no-cluster")
    assert "Removed 2 copies of 1.5 GB and 1 empty repository." in result.stderr
    assert "mirror/gcr.io/mistyped" not in store.repositories
    assert "mirror/gcr.io/old" in store.repositories, "the next run removes it"
    assert len(waited) == 1


def test_a_new_repository_stays_because_its_first_image_may_be_on_its_way(registry: Registry) -> None:
    empty(registry, "mirror/gcr.io/new", days=29)
    assert "There is nothing to remove." in run("prune", "--unused-days", 30).stderr


@pytest.mark.parametrize(
    ("status", "stays"),
    [
        pytest.param(Status.REQUESTED, True, id="requested"),
        pytest.param(Status.COPYING, True, id="copying"),
        pytest.param(Status.COPIED, True, id="copied"),
        pytest.param(Status.FAILED, False, id="failed"),
    ],
)
def test_an_empty_repository_stays_as_long_as_a_copy_is_requested_for_it(
    status: Status, stays: bool, registry: Registry, records: Records
) -> None:
    records.create(record("gcr.io/x:1", status, hours=2_000))
    empty(registry, "mirror/gcr.io/x")
    outcomes("--yes", "--no-cluster")
    assert ("mirror/gcr.io/x" in registry.repositories) is stays


def test_an_empty_repository_for_which_a_pod_has_asked_meanwhile_stays(
    store: Registry, records: Records, waited: Waited
) -> None:
    empty(store, "mirror/gcr.io/x")

    def meanwhile() -> None:
        records.create(record("gcr.io/x:1", Status.REQUESTED))

    waited.meanwhile = meanwhile
    assert outcomes("--yes", "--no-cluster")["gcr.io/x"] == "kept: it was asked for meanwhile"
    assert "mirror/gcr.io/x" in store.repositories


def test_a_repository_that_is_no_longer_empty_or_no_longer_there_is_no_error(store: Registry, waited: Waited) -> None:
    empty(store, "mirror/gcr.io/x")
    empty(store, "mirror/gcr.io/y")

    def meanwhile() -> None:
        store.push("mirror/gcr.io/x", "1")
        del store.repositories["mirror/gcr.io/y"]

    waited.meanwhile = meanwhile
    found = outcomes("--yes", "--no-cluster")
    assert (found["gcr.io/x"], found["gcr.io/y"]) == ("kept: an image was pushed meanwhile", "gone already")
    assert "mirror/gcr.io/x" in store.repositories


def test_a_repository_with_only_archived_or_untagged_images_is_not_empty(registry: Registry) -> None:
    registry.push("mirror/gcr.io/archived", "1", days=1).status = "ARCHIVED"
    registry.push("mirror/gcr.io/untagged", days=1)
    assert "There is nothing to remove." in run("prune", "--unused-days", 30).stderr


def test_archived_images_are_shown_and_removed(registry: Registry, waited: Waited) -> None:
    registry.push("mirror/gcr.io/x", "1").status = "ARCHIVED"
    assert outcomes("--yes", "--no-cluster") == {"gcr.io/x:1": REMOVED}
    assert (registry.tags(), len(waited)) == (set(), 1)
