"""Image references: Docker's grammar, its defaults, and the destination of a copy in ECR.

The grammar (distribution/reference, which the kubelet uses too):

    reference  := name [ ":" tag ] [ "@" digest ]
    name       := [ registry "/" ] path-component { "/" path-component }
    registry   := host [ ":" port ]           host := domain name | IPv4 | "[" IPv6 "]"
    component  := [a-z0-9]+ { separator [a-z0-9]+ }       separator := "." | "_" | "__" | "-"+
    tag        := [A-Za-z0-9_][A-Za-z0-9_.-]{0,127}
    digest     := "sha256:" 64 hex | "sha384:" 96 hex | "sha512:" 128 hex

Defaults: a first segment is a registry only if it holds "." or ":" or an upper-case letter, or is "localhost"; else the
registry is docker.io, where a single segment means library/NAME. The other host names of Docker Hub's registry
(`index.docker.io`, `registry-1.docker.io`, `registry.hub.docker.com`) are docker.io. No tag and no digest means the tag
"latest".
"""

import re
from dataclasses import dataclass
from functools import lru_cache

DEFAULT_REGISTRY = "docker.io"
DOCKER_HUB_HOSTS = frozenset(("index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"))
"""The other host names to which docker.io's registry answers."""
_OFFICIAL = "library/"

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}|sha384:[a-f0-9]{96}|sha512:[a-f0-9]{128}")
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")
_LONGEST_REPOSITORY = 255  # distribution/reference, RepositoryNameTotalLengthMax
_LONGEST_IN_ECR = 256  # CreateRepository
_LONGEST_TEXT = 1024  # above the longest legal reference: limits the work for a hostile text

# What a template, a shell, Tekton or a guide writes in the place of a value. None of it may be in a reference.
_VARIABLE = re.compile(r"\$(?:\{[^$}]*\}?|\([^$)]*\)?|\w+)|\{\{[^{}]*\}{0,2}|<[^<>]+>")

DIGEST_TAG = "digest-sha256-"
"""The start of the tag of a copy made by digest; the digest's 64 hex digits follow."""
# OCI 1.1's referrers fallback tag, which clients read as an index of signatures.
_REFERRERS_TAG = re.compile(r"sha256-[a-f0-9]{64}")
_RESERVED = f"tags of the form sha256-<hex> and tags that begin with {DIGEST_TAG} are reserved"
_ECR_HOST = re.compile(r"[a-z0-9]+(?:(?:\.|-+)[a-z0-9]+)*(?::[0-9]+)?")
# Each name begins with RepositoryPrefix, so ECR's rule that a name starts with a letter is a rule for the prefix.
PREFIX = re.compile(rf"(?=[a-z]){_COMPONENT}(?:/{_COMPONENT})*")


class InvalidReferenceError(ValueError):
    """A text that is not an image reference; `cause` says why, for people."""

    def __init__(self, text: str, cause: str) -> None:
        super().__init__(f"{text!r} is not an image reference: {cause}")
        self.cause = cause


class NoDestinationError(ValueError):
    """A valid reference that has no legal name in ECR; `cause` says why, for people."""

    def __init__(self, reference: "ImageReference", cause: str) -> None:
        super().__init__(f"{reference} has no name in ECR: {cause}")
        self.cause = cause


@dataclass(frozen=True, slots=True)
class ImageReference:
    """A complete reference, with all defaults filled in. At least one of `tag` and `digest` is set.

    `registry` is a host with an optional port, `repository` the path below it, `digest` an "algorithm:hex" text.
    """

    registry: str
    repository: str
    tag: str | None
    digest: str | None

    def __str__(self) -> str:
        """Return the canonical text: registry/repository[:tag][@digest]."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"

    @property
    def pinned(self) -> "ImageReference":
        """The same image without the tag, which has no effect beside a digest."""
        return ImageReference(self.registry, self.repository, None, self.digest) if self.digest else self


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the copy of one source is: `registry`/`repository` in ECR, under `tag`.

    `digest` is set for a source named by digest: pods then use it, and `tag` only protects the copy from
    lifecycle rules for untagged images.
    """

    registry: str
    repository: str
    tag: str
    digest: str | None

    @property
    def repo(self) -> str:
        """Registry and repository together: the hash key of the copy's record."""
        return f"{self.registry}/{self.repository}"

    @property
    def by_tag(self) -> str:
        """The name under which the copy is pushed."""
        return f"{self.repo}:{self.tag}"

    def __str__(self) -> str:
        """Return the image as a pod names it."""
        return f"{self.repo}@{self.digest}" if self.digest else self.by_tag


@lru_cache(maxsize=16_384)  # more than the images of the largest pod; at most 31 MB
def parse_reference(text: str) -> ImageReference:
    """Parse `text` by the grammar above and fill in its defaults.

    Raises InvalidReferenceError; its cause names the wrong part.
    """
    if not text:
        raise InvalidReferenceError(text, "it is empty")
    if len(text) > _LONGEST_TEXT:
        raise InvalidReferenceError(text[:80] + "...", f"it is longer than {_LONGEST_TEXT} characters")
    if variable := variable_in(text):
        what = "it" if variable == text else variable
        raise InvalidReferenceError(text, f"{what} is a variable that nobody filled in")
    if _IDENTIFIER.fullmatch(text):
        raise InvalidReferenceError(text, "64 hexadecimal digits are an image ID; name a repository")
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise InvalidReferenceError(text, "'@' must be followed by a digest: sha256: and 64 lower-case hex digits")
    name, tag = _split_tag(rest)
    if tag is not None and not _TAG.fullmatch(tag):
        raise InvalidReferenceError(text, "a tag has up to 128 letters, digits, _ . - and starts with no . or -")
    registry, repository = _split_registry(name)
    if not REGISTRY.fullmatch(registry):
        raise InvalidReferenceError(text, "the registry is not a host name or an address, with an optional port")
    if repository != repository.lower():
        raise InvalidReferenceError(text, "the repository has upper case; write it in lower case")
    if not _REPOSITORY.fullmatch(repository):
        raise InvalidReferenceError(text, "a repository has lower-case letters and digits, joined by / . _ __ -")
    if len(repository) > _LONGEST_REPOSITORY:
        raise InvalidReferenceError(text, f"the repository is longer than {_LONGEST_REPOSITORY} characters")
    if tag is None and not at:
        tag = "latest"
    return ImageReference(registry, repository, tag, digest or None)


def variable_in(text: str) -> str | None:
    """Return what stands in `text` for a value that is filled in later: $NAME, ${NAME}, $(NAME), {{ ... }}, <name>."""
    found = _VARIABLE.search(text, 0, _LONGEST_TEXT)
    return found.group() if found else None


def destination_of(source: ImageReference, registry: str, prefix: str) -> Destination:
    """Name the copy of `source` in the ECR `registry` (its host) below `prefix`.

    Two sources never have the same name: the source's host is one segment, its port's ":" is written as "_", which no
    host name contains; the path follows unchanged; the tag is the source's own, or made from its digest.
    Raises NoDestinationError if ECR does not allow the name (CreateRepository's pattern: no upper case, no IPv6 "[").
    """
    if not _ECR_HOST.fullmatch(source.registry):
        raise NoDestinationError(source, "ECR allows no upper case and no IPv6 address in a name")
    repository = f"{prefix}/{path_below_prefix(source)}"
    # ECR allows 256 characters; container runtimes before 2024 count the registry too and stop at 255.
    if len(registry) + 1 + len(repository) > _LONGEST_REPOSITORY:
        raise NoDestinationError(
            source, f"the copy's name would exceed {_LONGEST_REPOSITORY} characters with its registry"
        )
    if source.digest is not None:
        return Destination(registry, repository, _tag_of_digest(source), source.digest)
    tag = source.tag or "latest"
    if _is_reserved(tag):
        raise NoDestinationError(source, _RESERVED)
    return Destination(registry, repository, tag, None)


def source_of(repo: str, tag: str, registry: str, prefix: str) -> str | None:
    """Return the text of the source whose copy has this name, the inverse of `destination_of`; None if none can have.

    The text is not parsed: earlier releases have recorded copies of names that are read in another way now.
    """
    repository = repo.removeprefix(f"{registry}/")
    host, _, path = (path_of_copy(repository, prefix) or "").partition("/")
    host = host.replace("_", ":")
    is_name = _ECR_HOST.fullmatch(host) and _REPOSITORY.fullmatch(path) and _TAG.fullmatch(tag)
    if not is_name or len(repository) > _LONGEST_IN_ECR:
        return None
    digest = tag.removeprefix(DIGEST_TAG)
    by_digest = digest != tag and _IDENTIFIER.fullmatch(digest)
    return f"{host}/{path}" + (f"@sha256:{digest}" if by_digest else f":{tag}")


def path_below_prefix(source: ImageReference) -> str:
    """Return the part of the destination's repository that follows the prefix: the source's host and path."""
    return f"{source.registry.replace(':', '_')}/{source.repository}"


def paths_of_copies(source: ImageReference) -> tuple[str, ...]:
    """Return `path_below_prefix`, and before it the paths that earlier releases gave to copies of the same source.

    They took each host name of Docker Hub but index.docker.io for a registry of its own, without library/.
    """
    if source.registry != DEFAULT_REGISTRY:
        return (path_below_prefix(source),)
    names = [source.repository]
    official = source.repository.removeprefix(_OFFICIAL)
    if "/" not in official:
        names.append(official)
    former = [f"{host}/{name}" for host in sorted(DOCKER_HUB_HOSTS) for name in names]
    return (*former, path_below_prefix(source))


def path_of_copy(repository: str, prefix: str) -> str | None:
    """Return what follows `prefix` in the name of a copy's repository, or None if it is not a copy's name.

    The source's host follows the prefix; it has a dot or a port ("_"), or is localhost. A name without a host can be a
    copy that was made below another prefix.
    """
    path = repository.removeprefix(f"{prefix}/")
    host = path.partition("/")[0]
    return path if path != repository and (not {".", "_"}.isdisjoint(host) or host == "localhost") else None


def no_longer_copied(source: str) -> str | None:
    """Return why no build copies `source` as an earlier release has recorded it, or None if builds copy it."""
    try:
        reference = parse_reference(source)
    except InvalidReferenceError:
        return None
    if source.partition("/")[0] in DOCKER_HUB_HOSTS:
        return f"it is copied as {reference.pinned} now; recreate the pods that wait for this copy"
    if reference.digest is None and _is_reserved(reference.tag or ""):
        return f"{_RESERVED}; give the source another tag"
    return None


def destination_named(reference: ImageReference, registry: str, prefix: str) -> Destination:
    """Return the destination of `reference`, which names a source or, in `registry`, the copy itself.

    A copy's name with a tag and a digest is the copy of a tag, to which `image-mirror nudge` has added the digest.
    Raises NoDestinationError.
    """
    if reference.registry != registry:
        return destination_of(reference, registry, prefix)
    by_tag = reference.tag is not None and not reference.tag.startswith(DIGEST_TAG)
    if reference.digest is None or by_tag:
        return Destination(registry, reference.repository, reference.tag or "latest", None)
    return Destination(registry, reference.repository, _tag_of_digest(reference), reference.digest)


def only_adds(image: str, before: str) -> bool:
    """Return whether `image` is `before`, or the same name with a tag or a digest added, as by `image-mirror nudge`."""
    if image == before:
        return True
    try:
        now, then = parse_reference(image), parse_reference(before)
    except InvalidReferenceError:
        return False
    same = (now.registry, now.repository) == (then.registry, then.repository)
    return same and then.tag in (None, now.tag) and then.digest in (None, now.digest)


def _is_reserved(tag: str) -> bool:
    """Return whether no source with this tag is copied. Rules for copies by digest select them by DIGEST_TAG alone."""
    return tag.startswith(DIGEST_TAG) or _REFERRERS_TAG.fullmatch(tag) is not None


def _tag_of_digest(reference: ImageReference) -> str:
    """Return the tag of a copy made by digest; it protects the copy from lifecycle rules for untagged images.

    Raises NoDestinationError.
    """
    algorithm, _, hexadecimal = (reference.digest or "").partition(":")
    if algorithm != "sha256":
        raise NoDestinationError(reference, "ECR knows images by sha256 digests only")
    return DIGEST_TAG + hexadecimal


def _split_tag(name: str) -> tuple[str, str | None]:
    """Split "name:tag"; a colon before the last "/" belongs to a port."""
    slash, colon = name.rfind("/"), name.rfind(":")
    return (name[:colon], name[colon + 1 :]) if colon > slash else (name, None)


def _split_registry(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if not slash or not (set(first) & {".", ":"} or first == "localhost" or first != first.lower()):
        registry, repository = DEFAULT_REGISTRY, name
    else:
        registry, repository = first, rest
    if registry in DOCKER_HUB_HOSTS:
        registry = DEFAULT_REGISTRY
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = _OFFICIAL + repository
    return registry, repository
