"""ECR: repositories with tags, and an event for each push and deletion, which may be lost, late or sent twice."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError

from image_mirror.aws import CallLimits
from simulation.network import Client
from simulation.world import World

Event = dict[str, Any]


class ImageNotFoundException(ClientError):  # noqa: N818 - AWS's name
    pass


class RepositoryNotFoundException(ClientError):  # noqa: N818 - AWS's name
    pass


class RepositoryAlreadyExistsException(ClientError):  # noqa: N818 - AWS's name
    pass


class Registry:
    """What ECR holds. `send` is called with each event when the event arrives."""

    def __init__(self, world: World, send: Callable[[Event], None]) -> None:
        self._world = world
        self._send = send
        self.repositories: dict[str, dict[str, str]] = {}
        self._absent_until: dict[tuple[str, str], float] = {}

    def held(self, repository: str, tag: str) -> str | None:
        """Return the digest under a tag."""
        return self.repositories.get(repository, {}).get(tag)

    def absent_within(self, repository: str, tag: str, seconds: float) -> bool:
        """Return whether ECR had no image under the tag at any moment of the last `seconds`."""
        if self.held(repository, tag) is None:
            return True
        return self._absent_until.get((repository, tag), 0.0) >= self._world.clock.now - seconds

    def push(self, repository: str, tag: str, digest: str) -> bool:
        """Put an image, and return whether there is a repository for it."""
        if repository not in self.repositories:
            return False
        if tag not in self.repositories[repository]:
            self._absent_until[repository, tag] = self._world.clock.now
        self.repositories[repository][tag] = digest
        self._send_event("PUSH", repository, tag, digest)
        return True

    def delete(self, repository: str, tag: str) -> bool:
        """Delete an image, as a person or a lifecycle rule does, and return whether it existed."""
        digest = self.repositories.get(repository, {}).pop(tag, None)
        if digest is not None:
            self._send_event("DELETE", repository, tag, digest)
        return digest is not None

    def _send_event(self, action: str, repository: str, tag: str, digest: str) -> None:
        self._world.note(f"ECR {action}", repository, tag, digest[:19])
        detail = {
            "action-type": action,
            "result": "SUCCESS",
            "repository-name": repository,
            "image-tag": tag,
            "image-digest": digest,
        }
        event = {"source": "aws.ecr", "detail-type": "ECR Image Action", "detail": detail}
        self._world.deliver(f"{action} {repository}:{tag}", lambda: self._send(event), delay=1.0)


class ECR(Client):
    """The client, as far as the product uses it."""

    exceptions = SimpleNamespace(
        ImageNotFoundException=ImageNotFoundException,
        RepositoryNotFoundException=RepositoryNotFoundException,
        RepositoryAlreadyExistsException=RepositoryAlreadyExistsException,
    )

    def __init__(self, world: World, registry: Registry, limits: CallLimits) -> None:
        super().__init__(world, "ECR", limits, latency=0.02)
        self._registry = registry

    def create_repository(self, **request: Any) -> dict[str, Any]:
        return self.call("CreateRepository", lambda: self._create(request))

    def describe_images(self, **request: Any) -> dict[str, Any]:
        return self.call("DescribeImages", lambda: self._describe(request))

    def _create(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["repositoryName"]
        if name in self._registry.repositories:
            raise RepositoryAlreadyExistsException(_answer(RepositoryAlreadyExistsException), "CreateRepository")
        if request["imageTagMutability"] != "MUTABLE":
            raise ValueError("an immutable tag would refuse a refresh")
        self._registry.repositories[name] = {}
        return {"repository": {"repositoryName": name}}

    def _describe(self, request: dict[str, Any]) -> dict[str, Any]:
        name, [image] = request["repositoryName"], request["imageIds"]
        if name not in self._registry.repositories:
            raise RepositoryNotFoundException(_answer(RepositoryNotFoundException), "DescribeImages")
        digest = self._registry.held(name, image["imageTag"])
        if digest is None:
            raise ImageNotFoundException(_answer(ImageNotFoundException), "DescribeImages")
        return {"imageDetails": [{"imageDigest": digest, "imageTags": [image["imageTag"]]}]}


def _answer(kind: type[ClientError]) -> Any:
    return {"Error": {"Code": kind.__name__, "Message": ""}}
