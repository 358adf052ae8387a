"""Which images are copied, which are rewritten, which are left unchanged: the rules of `MirrorRules`.

    rules  := entry { ("," | white space) entry }
    entry  := PREFIX            copy to ECR             gcr.io   *.gcr.io   quay.io/prometheus
            | PREFIX "=" TARGET rewrite, copy nothing   gcr.io=asia.gcr.io
            | "!" PREFIX        leave unchanged          !quay.io/my-team
    PREFIX := [ "*." ] host [ ":" port ] { "/" segment }

The longest match wins, on whole host and path segments; an exact host comes before a wildcard, which matches one or
more labels. An image that no rule names is left unchanged. So is an image below the TARGET of a rewrite, so that a
second rewrite changes nothing.
"""

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from image_mirror.reference import (
    DEFAULT_REGISTRY,
    DOCKER_HUB_HOSTS,
    REGISTRY,
    ImageReference,
    InvalidReferenceError,
    parse_reference,
)

DEFAULT_REASONS = {
    "docker.io": "Docker Hub is blocked in China",
    "gcr.io": "Google's hosts are blocked in China",
    "*.gcr.io": "blocked for the same reason as gcr.io",
    "k8s.gcr.io": "the rule *.gcr.io covers it; listed because people look for it. No new images are pushed there",
    "registry.k8s.io": "it redirects to Google's hosts, and to buckets outside China",
    "quay.io": "the registry itself often answers, but it redirects layers to hosts that are slow or reset connections",
    "ghcr.io": "the same reason as for quay.io",
    "*.pkg.dev": "Google's Artifact Registry, blocked like gcr.io",
    "nvcr.io": "NVIDIA's images are large, and their layers are on hosts that are slow or reset connections",
    "public.ecr.aws": "reachable on most days, but its servers are outside China, so it is slow and often times out",
    "docker.elastic.co": "not blocked itself; its layers are on Google's hosts",
    "registry.gitlab.com": "not blocked itself; its layers are on Google's hosts",
    "lscr.io": "another name for images on ghcr.io",
    "xpkg.upbound.io": "not blocked itself; its layers are on Google's hosts",
    "registry.istio.io": "the registry that Istio's charts name; it leads to hosts outside China",
    "*.docker.scarf.sh": "Scarf's names for images on Docker Hub, ghcr.io and other registries, to which they redirect",
    "registry.access.redhat.com": "Red Hat's images that need no login, served from outside China",
    "registry.datadoghq.com": "the registry that Datadog's charts name, served from outside China",
    "xpkg.crossplane.io": "Crossplane's name for its packages on ghcr.io",
    "cgr.dev": "Chainguard's images; the hosts of their layers are outside China",
    "cr.l5d.io": "Linkerd's name for its images on ghcr.io",
    "dhi.io": "Docker's hardened images, blocked like docker.io; it needs a login (RegistryAuthSecretArn)",
    "cr.fluentbit.io": "Fluent Bit's name for its images on other registries",
    "oci.external-secrets.io": "External Secrets' name for its images on ghcr.io",
    "docker.n8n.io": "n8n's name for its images on Docker Hub",
    "cr.kgateway.dev": "kgateway's name for its images on other registries",
    "ecr-public.aws.com": "another name of public.ecr.aws, which also answers by IPv6",
    "mcr.microsoft.com": "its layers are slow in China; Microsoft serves China from mcr.azure.cn now",
}
"""The default rules, each with the reason why a cluster in AWS China needs copies from this registry.

docs/default-rules.md has these texts as a table, and MirrorRules in sam-template.yaml has the rules.
"""
DEFAULT_RULES = " ".join(DEFAULT_REASONS)

Action = Literal["copy", "rewrite", "leave"]
_SEGMENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")


class RuleError(ValueError):
    """An entry that is not a rule; the message quotes it and says how to fix it."""

    def __init__(self, entry: str, cause: str) -> None:
        super().__init__(f"rule {entry!r}: {cause}")


@dataclass(frozen=True, slots=True)
class Prefix:
    """The host of a rule, exact or after "*.", and the path segments below it."""

    host: str
    wildcard: bool
    path: tuple[str, ...]

    def __str__(self) -> str:
        """Return it as an entry contains it."""
        return "/".join((("*." if self.wildcard else "") + self.host, *self.path))

    def covers(self, registry: str, path: tuple[str, ...]) -> bool:
        """Return whether a repository, `path` in segments, is at or below this prefix, which has no wildcard."""
        return registry == self.host and path[: len(self.path)] == self.path


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry: what happens to images below `prefix`. `target` is set only for a rewrite."""

    action: Action
    prefix: Prefix
    target: Prefix | None = None

    def __str__(self) -> str:
        """Return it as an entry."""
        if self.target is not None:
            return f"{self.prefix}={self.target}"
        return f"!{self.prefix}" if self.action == "leave" else str(self.prefix)

    def rewrite(self, reference: ImageReference) -> ImageReference | None:
        """Return `reference` with the prefix replaced by the target, or None if the result is not valid."""
        if self.target is None:
            return None
        rest = tuple(reference.repository.split("/"))[len(self.prefix.path) :]
        repository = "/".join((*self.target.path, *rest))
        try:
            moved = parse_reference(str(replace(reference, registry=self.target.host, repository=repository)))
        except InvalidReferenceError:
            return None
        # docker.io/NAME reads as docker.io/library/NAME, which may not be below the target.
        return moved if self.target.covers(moved.registry, tuple(moved.repository.split("/"))) else None


@dataclass(frozen=True)
class Rules:
    """All entries of the rules."""

    entries: tuple[Rule, ...]

    @cached_property
    def _by_host(self) -> dict[tuple[bool, str], list[Rule]]:
        table: dict[tuple[bool, str], list[Rule]] = {}
        for rule in sorted(self.entries, key=lambda rule: -len(rule.prefix.path)):
            table.setdefault((rule.prefix.wildcard, rule.prefix.host), []).append(rule)
        return table

    @cached_property
    def _most_labels(self) -> int:
        """How many labels the longest host behind a wildcard has."""
        return max((rule.prefix.host.count(".") + 1 for rule in self.entries if rule.prefix.wildcard), default=0)

    def match(self, reference: ImageReference) -> Rule | None:
        """Return the rule that decides about `reference`, or None. Hosts are compared without case, as DNS does."""
        host, path = reference.registry.lower(), tuple(reference.repository.split("/"))
        keys = [(False, host)]
        labels = host.split(".")
        # No rule has a longer host, and a hostile host can have five hundred labels.
        first = max(1, len(labels) - self._most_labels)
        keys += [(True, ".".join(labels[start:])) for start in range(first, len(labels))]
        for key in keys:
            for rule in self._by_host.get(key, ()):
                if path[: len(rule.prefix.path)] == rule.prefix.path:
                    return rule
        return None


def parse_rules(text: str) -> Rules:
    """Parse `text` by the grammar above. Raises RuleError for the first entry that is wrong."""
    rules: dict[Prefix, Rule] = {}
    for entry in re.split(r"[,\s]+", text.strip(", \t\r\n")):
        if entry:
            rule = _parse_entry(entry)
            if rules.setdefault(rule.prefix, rule) != rule:
                raise RuleError(
                    entry, f"{rule.prefix} already has another rule, {rules[rule.prefix]}; keep one of them"
                )
    for rule in tuple(rules.values()):
        if rule.target is not None:
            _protect_target(rule, rule.target, rules)
    return Rules(tuple(rules.values()))


def _protect_target(rewrite: Rule, target: Prefix, rules: dict[Prefix, Rule]) -> None:
    """Add the rule that leaves a rewrite's target unchanged. Raises RuleError if a rule would change its result."""
    for other in rules.values():
        beneath = not other.prefix.wildcard and target.covers(other.prefix.host, other.prefix.path)
        if other.action != "leave" and beneath:
            raise RuleError(
                str(rewrite), f"the rule {other} would change its result again; write the final target here"
            )
    rules.setdefault(target, Rule("leave", target))


def _parse_entry(entry: str) -> Rule:
    if entry.startswith("!"):
        return Rule("leave", _parse_prefix(entry, entry[1:]))
    prefix, equals, target = entry.partition("=")
    if not equals:
        return Rule("copy", _parse_prefix(entry, prefix))
    parsed = _parse_prefix(entry, target)
    if parsed.wildcard:
        raise RuleError(entry, "the target after '=' cannot have a wildcard")
    return Rule("rewrite", _parse_prefix(entry, prefix), parsed)


def _parse_prefix(entry: str, text: str) -> Prefix:
    first, *path = text.split("/")
    host = first.removeprefix("*.")
    wildcard = host != first
    if not REGISTRY.fullmatch(host) or (wildcard and host.startswith("[")):
        raise RuleError(entry, f"{first!r} is not a registry; write a host such as gcr.io, *.gcr.io or gcr.local:5000")
    if not wildcard and not set(host) & {".", ":"} and host != "localhost":
        raise RuleError(entry, f"{first!r} is not a registry; images of Docker Hub begin with {DEFAULT_REGISTRY}/")
    for segment in path:
        if not _SEGMENT.fullmatch(segment):
            raise RuleError(
                entry, f"{segment!r} is not a path segment; tags, digests and empty segments are not allowed"
            )
    host = DEFAULT_REGISTRY if host.lower() in DOCKER_HUB_HOSTS else host.lower()
    return Prefix(host, wildcard, tuple(path))
