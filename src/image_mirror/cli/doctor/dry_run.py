"""Makes the review that the webhook is tried by: a dry run, of which nothing is recorded. Pure."""

import uuid

from image_mirror.decisions import Copy, Mirror
from image_mirror.review import Json

_NAME = "image-mirror-doctor"


def copied_image(mirror: Mirror) -> str | None:
    """Return an image that a rule has copied, or None where no rule copies any."""
    for rule in mirror.rules.entries:
        host = f"{_NAME}.{rule.prefix.host}" if rule.prefix.wildcard else rule.prefix.host
        image = "/".join((host, *rule.prefix.path, _NAME)) + ":1"
        if isinstance(mirror.decide(image)[0], Copy):
            return image
    return None


def dry_run_review(image: str) -> Json:
    """Return the AdmissionReview of a dry run that makes a pod of `image`: the webhook then records nothing."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": _NAME, "namespace": "default"},
        "spec": {"containers": [{"name": _NAME, "image": image}]},
    }
    kind = {"group": "", "version": "v1", "kind": "Pod"}
    resource = {"group": "", "version": "v1", "resource": "pods"}
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": str(uuid.uuid4()),
            "kind": kind,
            "resource": resource,
            "name": _NAME,
            "namespace": "default",
            "operation": "CREATE",
            "userInfo": {"username": _NAME},
            "object": pod,
            "oldObject": None,
            "dryRun": True,
            "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions", "dryRun": ["All"]},
        },
    }
