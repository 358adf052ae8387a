"""What one image becomes, before records are asked: left alone, put back, rewritten or copied."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from image_mirror.messages import left_alone
from image_mirror.reference import (
    Destination,
    ImageReference,
    InvalidReferenceError,
    NoDestinationError,
    destination_of,
    parse_reference,
    path_below_prefix,
)
from image_mirror.rules import Rule, Rules

if TYPE_CHECKING:
    from collections.abc import Callable

_REMEMBERED = 4_096  # references decided about lately; at most 8 MB
_PLACEHOLDER = "auto"  # Istio's gateways: its own webhook fills the image in, so that no image of this name is meant


@dataclass(frozen=True, slots=True)
class Leave:
    """The image stays as the user wrote it; `warning` says why where people would wonder."""

    warning: str | None = None


@dataclass(frozen=True, slots=True)
class Restore:
    """The image comes from the source of what stands there already: it is put back, or the container would restart."""

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


@dataclass(frozen=True)
class Mirror:
    """Where copies go and which images are copied: the ECR host, the prefix of its repositories, and the rules."""

    registry: str
    prefix: str
    rules: Rules

    def decide(self, image: str) -> tuple[Decision, Rule | None]:
        """Say what an image as written in a new pod becomes, and the rule that decided, if one did."""
        if image == _PLACEHOLDER:
            return Leave(left_alone(image, "it is a placeholder; whoever injects the image names it")), None
        try:
            reference = parse_reference(image)
        except InvalidReferenceError as error:
            return Leave(left_alone(image, error.cause)), None
        decision, rule = self._decisions(reference)
        # What is left alone is named as it was written.
        return (Leave(left_alone(image, decision)) if isinstance(decision, str) else decision), rule

    @cached_property
    def _decisions(self) -> "Callable[[ImageReference], tuple[Decision | str, Rule | None]]":
        return lru_cache(_REMEMBERED)(self._decide)

    def _decide(self, reference: ImageReference) -> tuple[Decision | str, Rule | None]:
        """Decide about a reference; a text is the cause for which nothing can be done about it."""
        rule = None if reference.registry == self.registry else self.rules.match(reference)
        if rule is None or rule.action == "leave":
            return Leave(), rule
        if rule.action == "rewrite":
            rewritten = rule.rewrite(reference)
            return (f"no valid name comes of rule {rule}" if rewritten is None else Rewrite(str(rewritten))), rule
        try:
            return Copy(reference.pinned, destination_of(reference, self.registry, self.prefix)), rule
        except NoDestinationError as error:
            return error.cause, rule

    def is_copy_of(self, image: str, original: str) -> bool:
        """Say whether `image` is what `original` becomes here: its destination under any prefix, or its rewriting."""
        try:
            there, source = parse_reference(image), parse_reference(original)
        except InvalidReferenceError:
            return False
        path = path_below_prefix(source)
        below = self._path_below_prefix(there)
        if path == below or (
            below is None and there.registry == self.registry and there.repository.endswith(f"/{path}")
        ):
            return _same_version(there, source)
        rule = self.rules.match(source)
        return rule is not None and rule.rewrite(source) == there

    def may_be_copy_of(self, image: str, original: str) -> bool:
        """Say whether the annotation's word that `image` was made of `original` is to be believed.

        Rules may have changed since, so it is enough that the tag or digest agrees. That much is asked: a word left
        over from before the image was set by hand must not bring that image back. A copy's own name is believed first.
        """
        try:
            there, source = parse_reference(image), parse_reference(original)
        except InvalidReferenceError:
            return False
        if self.is_copy_of(image, original):
            return True
        below = self._path_below_prefix(there)
        # An older prefix may have been a longer one, whose rest looks like a host.
        own = below is None or below.endswith(f"/{path_below_prefix(source)}")
        return own and _same_version(there, source)

    def _path_below_prefix(self, there: ImageReference) -> str | None:
        """Return the source's host and path that a copy's name says, or None for what is no copy below this prefix.

        A host comes first, and then the whole rest counts: m.io/docker.io/x is not docker.io/x. Without a host it may
        be a copy from before a change of the prefix.
        """
        rest = there.repository.removeprefix(f"{self.prefix}/")
        host = rest.partition("/")[0]
        is_copy = there.registry == self.registry and rest != there.repository
        return rest if is_copy and (set(host) & {".", "_"} or host == "localhost") else None


def _same_version(there: ImageReference, source: ImageReference) -> bool:
    return there.digest == source.digest and (source.digest is not None or there.tag == source.tag)
