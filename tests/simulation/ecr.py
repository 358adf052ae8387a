"""ECR: repositories with tags, and an event for each push and deletion, which may be lost, late or sent twice.

Each image has the time of its first push, and of a pull, which is recorded at most once in 24 hours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError

from image_mirror.aws import CallLimits
from simulation.clock import HOUR
from simulation.network import Client
from simulation.world import World

Event = dict[str, Any]


class ImageNotFoundException(ClientError):  # noqa: N818 - AWS's name
    pass


class RepositoryNotFoundException(ClientError):  # noqa: N818 - AWS's name
    pass


class RepositoryAlreadyExistsException(ClientError):  # noqa: N818 - AWS's name
    pass


class LifecyclePolicyNotFoundException(ClientError):  # noqa: N818 - AWS's name
    pass


@dataclass(slots=True)
class Image:
    """The times of an image: its first push, its latest pull, and the pull that ECR has recorded."""

    pushed: float
    pulled: float | None = None
    recorded: float | None = None

    def details(self) -> dict[str, Any]:
        """Return the times as DescribeImages does."""
        shown = {"imagePushedAt": datetime.fromtimestamp(self.pushed, UTC)}
        if self.recorded is not None:
            shown["lastRecordedPullTime"] = datetime.fromtimestamp(self.recorded, UTC)
        return shown


class Registry:
    """What ECR holds: a digest for each tag, and its images by repository and digest.

    `send` is called with each event when the event arrives. `sent` is for how many seconds builds have sent layers of a
    tag, and `present_since` is when a tag has become present. It is a violation if the product deletes an image that
    was pushed or pulled in the last `kept_for` seconds, or any, if this is 0.
    """

    def __init__(self, world: World, send: Callable[[Event], None]) -> None:
        self._world = world
        self._send = send
        self.repositories: dict[str, dict[str, str]] = {}
        self.images: dict[tuple[str, str], Image] = {}
        self.sent: dict[tuple[str, str], float] = {}
        self.present_since: dict[tuple[str, str], float] = {}
        self.kept_for = 0.0

    def held(self, repository: str, tag: str) -> str | None:
        """Return the digest under a tag."""
        return self.repositories.get(repository, {}).get(tag)

    def absent_within(self, repository: str, tag: str, seconds: float) -> bool:
        """Return whether ECR had no image under the tag at any moment of the last `seconds`."""
        if self.held(repository, tag) is None:
            return True
        return self.present_since.get((repository, tag), 0.0) >= self._world.clock.now - seconds

    def push(self, repository: str, tag: str, digest: str) -> bool:
        """Put an image, and return whether there is a repository for it."""
        if repository not in self.repositories:
            return False
        if tag not in self.repositories[repository]:
            self.present_since[repository, tag] = self._world.clock.now
        self.repositories[repository][tag] = digest
        self.images.setdefault((repository, digest), Image(self._world.clock.now))
        self._send_event("PUSH", repository, tag, digest)
        return True

    def delete(self, repository: str, tag: str) -> bool:
        """Delete an image, as a person or a lifecycle rule does, and return whether it existed."""
        digest = self.repositories.get(repository, {}).pop(tag, None)
        if digest is not None:
            if digest not in self.repositories[repository].values():
                del self.images[repository, digest]
            self._send_event("DELETE", repository, tag, digest)
        return digest is not None

    def pull(self, repository: str, tag: str) -> bool:
        """Pull an image, as a node does, and return whether there is one."""
        digest, now = self.held(repository, tag), self._world.clock.now
        if digest is None:
            return False
        image = self.images[repository, digest]
        image.pulled = now
        if image.recorded is None or now - image.recorded >= 24 * HOUR:
            image.recorded = now
        return True

    def expires(self, repository: str, tag: str) -> bool:
        """Return whether ECR holds an image under the tag that nobody has used for `kept_for`."""
        image = self.images.get((repository, self.held(repository, tag) or ""))
        return image is not None and self._unused(image)

    def untagged(self, repository: str) -> list[str]:
        """Return the digests of a repository's images without a tag."""
        tagged = self.repositories[repository].values()
        return [digest for name, digest in self.images if name == repository and digest not in tagged]

    def expire(self, repository: str, image_id: dict[str, str]) -> bool:
        """Delete a tag or an untagged image, as the product asks, and return whether it existed."""
        digest = image_id.get("imageDigest") or self.held(repository, image_id["imageTag"])
        image = self.images.get((repository, digest or ""))
        if image is None:
            return False
        if not self._unused(image):
            self._world.violated(f"{repository} {image_id}: deleted, though it was used in the days before")
        if "imageTag" in image_id:
            return self.delete(repository, image_id["imageTag"])
        del self.images[repository, str(digest)]
        return True

    def _unused(self, image: Image) -> bool:
        latest = max(image.pushed, image.pulled or 0.0)
        return bool(self.kept_for) and self._world.clock.now - latest > self.kept_for - self._world.clocks_differ

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
        LifecyclePolicyNotFoundException=LifecyclePolicyNotFoundException,
    )

    def __init__(self, world: World, registry: Registry, limits: CallLimits) -> None:
        super().__init__(world, "ECR", limits, latency=0.02)
        self._registry = registry

    def create_repository(self, **request: Any) -> dict[str, Any]:
        return self.call("CreateRepository", lambda: self._create(request))

    def describe_images(self, **request: Any) -> dict[str, Any]:
        return self.call("DescribeImages", lambda: self._describe(request))

    def batch_delete_image(self, **request: Any) -> dict[str, Any]:
        return self.call("BatchDeleteImage", lambda: self._delete(**request))

    def get_lifecycle_policy(self, **_: Any) -> dict[str, Any]:
        def absent() -> dict[str, Any]:
            raise LifecyclePolicyNotFoundException(_answer(LifecyclePolicyNotFoundException), "GetLifecyclePolicy")

        return self.call("GetLifecyclePolicy", absent)

    def _create(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["repositoryName"]
        if name in self._registry.repositories:
            raise RepositoryAlreadyExistsException(_answer(RepositoryAlreadyExistsException), "CreateRepository")
        if request["imageTagMutability"] != "MUTABLE":
            raise ValueError("an immutable tag would refuse a refresh")
        self._registry.repositories[name] = {}
        return {"repository": {"repositoryName": name}}

    def _describe(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["repositoryName"]
        if "imageIds" not in request:
            if request["filter"] != {"tagStatus": "UNTAGGED"}:
                raise ValueError(f"{request['filter']} is not modelled")
            images = [(digest, self._registry.images[name, digest]) for digest in self._registry.untagged(name)]
            return {"imageDetails": [{"imageDigest": digest, **image.details()} for digest, image in images]}
        [image] = request["imageIds"]
        if name not in self._registry.repositories:
            raise RepositoryNotFoundException(_answer(RepositoryNotFoundException), "DescribeImages")
        digest = self._registry.held(name, image["imageTag"])
        if digest is None:
            raise ImageNotFoundException(_answer(ImageNotFoundException), "DescribeImages")
        tags = [tag for tag, other in self._registry.repositories[name].items() if other == digest]
        times = self._registry.images[name, digest].details()
        return {"imageDetails": [{"imageDigest": digest, "imageTags": tags, **times}]}

    def _delete(self, repositoryName: str, imageIds: list[dict[str, str]]) -> dict[str, Any]:  # noqa: N803
        if not 1 <= len(imageIds) <= 100:
            raise ValueError("BatchDeleteImage takes 1 to 100 images")
        absent = [each for each in imageIds if not self._registry.expire(repositoryName, each)]
        return {"imageIds": [], "failures": [{"imageId": each, "failureCode": "ImageNotFound"} for each in absent]}


def _answer(kind: type[ClientError]) -> Any:
    return {"Error": {"Code": kind.__name__, "Message": ""}}
