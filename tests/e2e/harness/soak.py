"""A client that sends a mix of reviews as an API server does, and remembers the answers."""

import base64
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPSConnection
from random import Random
from ssl import create_default_context
from urllib.parse import urlsplit

import jsonpatch

from e2e.fakes.adapter import Gateway
from e2e.harness.stage import Json, output_path
from image_mirror.cli.emulation import REGISTRY
from image_mirror.pod_images import ORIGINALS
from support.reviews_data import images_of, made_pod, review_of

TIMEOUT = 5  # seconds: the shipped timeoutSeconds
COPIES = f"{REGISTRY}/mirror/"
_POOL = tuple(f"quay.io/soak/known{number}:1" for number in range(40))
_GARBAGE = (
    "",
    "{",
    "[]",
    "null",
    "\0",
    "tr\u00fcmmer",
    '{"kind":"AdmissionReview"}',
    "[" * 10_000,
    '"' + "x" * 100_000,
)


@dataclass
class Client:
    """One client of `gate`, and the answers that it got; its `number` makes its requests different from others'.

    `statuses` counts all answers. `rewritten` has the images in ECR that pods were sent to, each with its source, and
    `foreseen` those of dry runs. `given_up` counts pods that got only 503 within the API server's timeout.
    """

    gate: Gateway
    number: int
    statuses: Counter[int] = field(default_factory=Counter)
    rewritten: dict[str, str] = field(default_factory=dict)
    foreseen: set[str] = field(default_factory=set)
    given_up: int = 0
    _made: int = 0

    def __post_init__(self) -> None:
        """Prepare the connection; the number decides which requests are sent."""
        self._dice = Random(self.number)
        context = create_default_context(cadata=self.gate.certificate.decode())
        self._connection = HTTPSConnection(urlsplit(self.gate.url).netloc, context=context, timeout=60)

    def run(self, goes_on: Callable[[], bool]) -> "Client":
        """Send one request after the other while `goes_on` is true."""
        kinds = (self._new, self._known, self._foresee, self._update, self._relabel, self._send_garbage)
        while goes_on():
            self._dice.choices(kinds, weights=(5, 5, 3, 3, 1, 2))[0]()
        self._connection.close()
        return self

    def _image(self) -> str:
        self._made += 1
        return f"gcr.io/soak/client{self.number}:{self._made}"

    def _new(self) -> None:
        images = {f"c{number}": self._image() for number in range(self._dice.randint(1, 4))}
        self._admit(review_of(made_pod(images, init={"i": self._dice.choice(_POOL)})))

    def _known(self) -> None:
        self._admit(review_of(made_pod({"c": self._dice.choice(_POOL)})))

    def _foresee(self) -> None:
        images = self._admit(review_of(made_pod({"c": self._image()}), dryRun=True), keep=False)
        self.foreseen |= set(images.values())

    def _update(self) -> None:
        old = {"a": self._dice.choice(_POOL), "b": self._dice.choice(_POOL)}
        self._admit(review_of(made_pod({**old, "b": self._image()}), made_pod(old)))

    def _relabel(self) -> None:
        image, name = self._dice.choice(_POOL), {"name": "relabelled"}
        pod = made_pod({"a": COPIES + image}, annotations={ORIGINALS: json.dumps({"containers/a": image})}, labels=name)
        old = pod | {"metadata": pod["metadata"] | {"labels": {}}}
        assert self._admit(review_of(pod, old)) == {}

    def _send_garbage(self) -> None:
        status, _, body = self._post(self._dice.choice(_GARBAGE))
        assert (status, list(json.loads(body))) == (400, ["message"])

    def _admit(self, review: Json, *, keep: bool = True) -> dict[str, str]:
        """Send a review with retries, as the API server does; return and remember the pod's images in ECR by source."""
        body, deadline = json.dumps(review), time.monotonic() + TIMEOUT
        while True:
            status, retry_after, answered = self._post(body)
            if status != 503:
                break
            assert retry_after is not None, answered
            if time.monotonic() + int(retry_after) > deadline:
                self.given_up += 1
                return {}
            time.sleep(int(retry_after))
        assert status == 200, answered
        response, pod = json.loads(answered)["response"], review["request"]["object"]
        assert response["uid"] == review["request"]["uid"]
        patched = jsonpatch.apply_patch(pod, json.loads(base64.b64decode(response.get("patch", "W10="))))
        before, after = images_of(pod), images_of(patched)
        changed = {before[key]: image for key, image in after.items() if image != before[key]}
        assert all(image.startswith(COPIES) for image in changed.values()), changed
        if keep:
            self.rewritten |= {image: source for source, image in changed.items()}
        return changed

    def _post(self, body: str) -> tuple[int, str | None, bytes]:
        self._connection.request("POST", f"{output_path()}?timeout={TIMEOUT}s", body.encode())
        answer = self._connection.getresponse()
        self.statuses[answer.status] += 1
        return answer.status, answer.getheader("Retry-After"), answer.read()
