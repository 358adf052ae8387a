"""Decides about one image, without records: left unchanged, restored, rewritten or copied."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, assert_never

from image_mirror.messages import left_unchanged
from image_mirror.reference import (
    Destination,
    ImageReference,
    InvalidReferenceError,
    NoDestinationError,
    destination_of,
    parse_reference,
    path_of_copy,
    paths_of_copies,
)
from image_mirror.rules import Rule, Rules

if TYPE_CHECKING:
    from collections.abc import Callable

_REMEMBERED = 4_096  # the latest decisions; at most 8 MB
_HUB_PAGES = "hub.docker.com"
_PLACEHOLDER = "auto"  # in Istio's gateways: its own webhook replaces this text with an image


@dataclass(frozen=True, slots=True)
class Leave:
    """The image stays as the user wrote it; `warning` says why, if users would expect a copy."""

    warning: str | None = None


@dataclass(frozen=True, slots=True)
class Restore:
    """The pod already has the copy of this image: `image` is put back, because otherwise the container restarts."""

    image: str


@dataclass(frozen=True, slots=True)
class Rewrite:
    """The image is pulled from another place; nothing is recorded."""

    image: str


@dataclass(frozen=True, slots=True)
class Copy:
    """The image is copied from `source` to `destination`."""

    source: ImageReference
    destination: Destination


Decision = Leave | Restore | Rewrite | Copy


def copy_of(decision: Decision) -> Copy | None:
    """Return the copy that the pod needs, or None."""
    match decision:
        case Copy():
            return decision
        case Leave() | Restore() | Rewrite():
            return None
        case _:
            assert_never(decision)


def replaces_image(decision: Decision) -> bool:
    """Return whether the pod gets another image than its author wrote, so that the original is worth keeping."""
    match decision:
        case Rewrite() | Copy():
            return True
        case Leave() | Restore():
            return False
        case _:
            assert_never(decision)


@dataclass(frozen=True)
class Mirror:
    """Where copies go and which images are copied: the ECR host, the prefix of its repositories, and the rules."""

    registry: str
    prefix: str
    rules: Rules

    @property
    def copies_prefix(self) -> str:
        """The start of the names of all copies: host, prefix and "/"; the stack's output CopiesPrefix."""
        return f"{self.registry}/{self.prefix}/"

    def serves(self, repo: str) -> bool:
        """Return whether `repo`, a registry and a repository, is below the prefix."""
        return repo.startswith(self.copies_prefix)

    def decide(self, image: str) -> tuple[Decision, Rule | None]:
        """Decide about an image of a new pod. Return the decision, and the rule that decided, or None."""
        if image == _PLACEHOLDER:
            return Leave(
                left_unchanged(image, "it is a placeholder; the webhook that injects the image replaces it")
            ), None
        try:
            reference = parse_reference(image)
        except InvalidReferenceError as error:
            return Leave(left_unchanged(image, error.cause)), None
        decision, rule = self._decisions(reference)
        # The message must contain the image as the user wrote it.
        return (Leave(left_unchanged(image, decision)) if isinstance(decision, str) else decision), rule

    @cached_property
    def _decisions(self) -> "Callable[[ImageReference], tuple[Decision | str, Rule | None]]":
        return lru_cache(_REMEMBERED)(self._decide)

    def _decide(self, reference: ImageReference) -> tuple[Decision | str, Rule | None]:
        """Decide about a reference. A text is the reason why it can be neither copied nor rewritten."""
        rule = None if reference.registry == self.registry else self.rules.match(reference)
        if rule is None and reference.registry == _HUB_PAGES:
            return f"{_HUB_PAGES} is a web site and serves no images; write docker.io", None
        if rule is None or rule.action == "leave":
            return Leave(), rule
        if rule.action == "rewrite":
            rewritten = rule.rewrite(reference)
            return (
                f"the new name is not valid, by rule {rule}" if rewritten is None else Rewrite(str(rewritten))
            ), rule
        try:
            return Copy(reference.pinned, destination_of(reference, self.registry, self.prefix)), rule
        except NoDestinationError as error:
            return error.cause, rule

    def is_copy_of(self, image: str, original: str, *, annotated: bool = True) -> bool:
        """Return whether `image` was made from `original`: its destination below any prefix, or its rewritten name.

        If the pod is `annotated` with this original, a destination by tag may have a digest too: `image-mirror nudge`
        adds it, to such pods alone. In any other pod somebody has added it by hand.
        """
        try:
            copy, source = parse_reference(image), parse_reference(original)
        except InvalidReferenceError:
            return False
        paths = paths_of_copies(source)
        below = self._path_of_copy(copy)
        if below in paths or (below is None and copy.registry == self.registry and _ends(copy.repository, paths)):
            return _is_version_of(copy, source) if annotated else _same_version(copy, source)
        rule = self.rules.match(source)
        return rule is not None and rule.rewrite(source) == copy

    def may_be_copy_of(self, image: str, original: str) -> bool:
        """Return whether the annotation can be true that says that `image` was made from `original`.

        Rules may have changed since, so it is enough that the tag or digest is the same. Without that check an old
        annotation would bring back an image that somebody has replaced by hand. The name of a copy is checked first.
        """
        try:
            copy, source = parse_reference(image), parse_reference(original)
        except InvalidReferenceError:
            return False
        if self.is_copy_of(image, original):
            return True
        below = self._path_of_copy(copy)
        # An older prefix may have been longer, and its rest may look like a host.
        ends = _ends(copy.repository if below is None else below, paths_of_copies(source))
        if ends:
            return _is_version_of(copy, source)
        return below is None and _same_version(copy, source)

    def _path_of_copy(self, reference: ImageReference) -> str | None:
        """Return the source's host and path from a copy's name, or None if it is not a copy below this prefix.

        A name that has a host is read as a whole: m.io/docker.io/x is not docker.io/x.
        """
        return path_of_copy(reference.repository, self.prefix) if reference.registry == self.registry else None


def _ends(path: str, ends: tuple[str, ...]) -> bool:
    return path.endswith(tuple(f"/{end}" for end in ends))


def _is_version_of(copy: ImageReference, source: ImageReference) -> bool:
    """Return whether `copy`, which has the name of a copy of `source`, can be of its tag or digest."""
    if source.digest is not None:
        return copy.digest == source.digest
    return copy.tag == source.tag


def _same_version(copy: ImageReference, source: ImageReference) -> bool:
    return copy.digest == source.digest and (source.digest is not None or copy.tag == source.tag)
