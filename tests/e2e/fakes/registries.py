"""Real registries on free ports, one that refuses requests because it is busy, and ECR's API for the password."""

import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import bcrypt
import boto3
import urllib3
import yaml
from urllib3 import BaseHTTPResponse

from e2e.fakes.servers import Answer, Request, serving
from e2e.harness.processes import free_port, listening, program, running, wait_for
from e2e.harness.source_images import INDEX, MANIFEST_TYPES, Content, SourceImage
from e2e.harness.stacks import CHINA

ACCOUNT = CHINA.account
ECR_LOGIN = ("AWS", f"{ACCOUNT}-auth-token")
"""The user and the password of moto's GetAuthorizationToken for this account."""


@dataclass(frozen=True)
class Registry:
    """A running registry: its `host` with the port, the folder of its files, and the login that it requires."""

    host: str
    storage: Path
    log: Path
    login: tuple[str, str] | None = None

    def push(self, repository: str, reference: str, image: SourceImage) -> None:
        """Push an image with all its platforms under a tag or its digest."""
        for blob in image.blobs:
            started = self._request("POST", f"/v2/{repository}/blobs/uploads/", 202)
            location = started.headers["Location"].removeprefix(f"http://{self.host}")
            self._request("PUT", f"{location}&digest={blob.digest}", 201, content=blob)
        manifests = {**{each.digest: each for each in image.platforms}, reference: image.manifest}
        for name, manifest in manifests.items():  # those of the platforms first: an index may name no unknown one
            self._request("PUT", f"/v2/{repository}/manifests/{name}", 201, content=manifest)

    def manifest(self, repository: str, reference: str) -> Content:
        """Return the manifest under a tag or a digest."""
        answer = self._request("GET", f"/v2/{repository}/manifests/{reference}", 200)
        return Content(answer.headers["Content-Type"], answer.data)

    def blob(self, repository: str, digest: str) -> bytes:
        """Return a configuration or a layer."""
        return self._request("GET", f"/v2/{repository}/blobs/{digest}", 200).data

    def catalogue(self) -> dict[str, dict[str, str]]:
        """Return the digest of each tag of each repository."""
        found: dict[str, dict[str, str]] = {}
        for repository in self._request("GET", "/v2/_catalog?n=1000", 200).json()["repositories"]:
            answer = self._request("GET", f"/v2/{repository}/tags/list", 200, 404)  # 404: layers and no tag
            tags = answer.json().get("tags") or []
            found[repository] = {tag: self.manifest(repository, tag).digest for tag in tags}
        return found

    def requests_of_crane(self) -> int:
        """Return how many requests crane has made."""
        return self.log.read_text().count('http.request.useragent="crane/')

    def pulls(self, repository: str) -> int:
        """Return how many manifests crane has read, as Docker Hub counts pulls: with GET, not with HEAD."""
        path = f"/v2/{repository}/manifests/"
        lines = [line for line in self.log.read_text().splitlines() if "response completed" in line and path in line]
        return sum(" http.request.method=GET " in line and 'useragent="crane/' in line for line in lines)

    def delete(self, repository: str, digest: str) -> None:
        """Take away a manifest that an index still names, as a clean-up of untagged images does."""
        hexadecimal = digest.removeprefix("sha256:")
        revisions = self.storage / "docker/registry/v2/repositories" / repository / "_manifests/revisions/sha256"
        shutil.rmtree(revisions / hexadecimal)

    def corrupt(self, blob: Content) -> None:
        """Change one byte of the stored `blob`."""
        hexadecimal = blob.digest.removeprefix("sha256:")
        path = self.storage / "docker/registry/v2/blobs/sha256" / hexadecimal[:2] / hexadecimal / "data"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    def _request(self, method: str, path: str, *expected: int, content: Content | None = None) -> BaseHTTPResponse:
        headers = {"Accept": ", ".join(MANIFEST_TYPES)} | ({"Content-Type": content.media_type} if content else {})
        if self.login is not None:
            headers |= urllib3.make_headers(basic_auth=":".join(self.login))
        body = content.data if content else None
        answer = urllib3.request(method, f"http://{self.host}{path}", headers=headers, body=body)
        assert answer.status in expected, f"{method} {path}: {answer.status} {answer.data!r}"
        return answer


@contextmanager
def registry(folder: Path, login: tuple[str, str] | None = None, notified: str | None = None) -> Iterator[Registry]:
    """Run an empty registry with its files in `folder`; `login` is the user and password that it requires.

    It sends a notification of each push and pull to the URL `notified`.
    """
    port = free_port()
    storage = folder / "storage"
    configuration = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(storage)}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": secrets.token_hex()},
        "validation": {"manifests": {"urls": {"allow": ["^https://"]}}},  # foreign layers
    }
    if login is not None:
        user, password = login
        hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(rounds=4)).decode()
        (folder / "htpasswd").write_text(f"{user}:{hashed}\n")
        configuration["auth"] = {"htpasswd": {"realm": "registry", "path": str(folder / "htpasswd")}}
    if notified is not None:
        endpoint = {"name": "test", "url": notified, "timeout": "5s", "threshold": 3, "backoff": "1s"}
        configuration["notifications"] = {"endpoints": [endpoint]}
    (folder / "config.yml").write_text(yaml.safe_dump(configuration))
    server = program("docker-registry", "apt-get install docker-registry")
    log = folder / "registry.log"
    with running([server, "serve", folder / "config.yml"], log):
        wait_for(lambda: listening(port), "the registry listens")
        yield Registry(f"localhost:{port}", storage, log, login)


@dataclass
class BusyRegistry:
    """A registry that answers 429 to the first `refusals` requests for a manifest; `refused` counts them."""

    behind: Registry
    refusals: int
    host: str = ""
    refused: int = 0

    def answer(self, request: Request) -> Answer:
        """Refuse like Docker Hub above its pull limit, or pass on the answer of the registry behind."""
        if "/manifests/" in request.path and self.refused < self.refusals:
            self.refused += 1
            message = "You have reached your unauthenticated pull rate limit."
            body = json.dumps({"errors": [{"code": "TOOMANYREQUESTS", "message": message}]}).encode()
            return Answer(429, body, {"Content-Type": "application/json", "Retry-After": "0"})
        return forwarded(self.behind, request)


def forwarded(behind: Registry, request: Request, path: str | None = None) -> Answer:
    """Return what a registry answers to a request, or to the same request for another path."""
    passed = {name: value for name, value in request.headers.items() if name not in ("transfer-encoding", "connection")}
    found = urllib3.request(
        request.method,
        f"http://{behind.host}{path or request.path}",
        headers=passed,
        body=request.body,
        redirect=False,
        decode_content=False,
    )
    own = ("content-length", "date", "connection", "transfer-encoding")
    headers = {name: value for name, value in found.headers.items() if name.lower() not in own}
    if request.method == "HEAD":
        headers["Content-Length"] = found.headers.get("Content-Length", "0")
    return Answer(found.status, found.data, headers)


@contextmanager
def busy_registry(behind: Registry, refusals: int) -> Iterator[BusyRegistry]:
    """Run a registry that refuses the first `refusals` requests for manifests, and then answers as `behind` does."""
    busy = BusyRegistry(behind, refusals)
    with serving(busy.answer) as port:
        busy.host = f"localhost:{port}"
        yield busy


@contextmanager
def with_referrers(behind: Registry) -> Iterator[Registry]:
    """Serve a registry with the referrers API too, which docker-registry does not have (OCI distribution 1.1)."""
    names = behind.storage / "docker/registry/v2/repositories"

    def listed(repository: str, subject: str) -> list[dict[str, Any]]:
        found = []
        for revision in sorted((names / repository / "_manifests/revisions/sha256").glob("*/link")):
            digest = revision.read_text()
            hexadecimal = digest.removeprefix("sha256:")
            data = (
                behind.storage / "docker/registry/v2/blobs/sha256" / hexadecimal[:2] / hexadecimal / "data"
            ).read_bytes()
            manifest = json.loads(data)
            if manifest.get("subject", {}).get("digest") == subject:
                kind = manifest.get("artifactType") or manifest["config"]["mediaType"]
                found.append(
                    {"mediaType": manifest["mediaType"], "digest": digest, "size": len(data), "artifactType": kind}
                )
        return found

    def answer(request: Request) -> Answer:
        asked = re.fullmatch(r"/v2/(.+)/referrers/(sha256:[a-f0-9]{64})", request.path.partition("?")[0])
        found = forwarded(behind, request, "/v2/" if asked else None)
        if asked and found.status == 200:
            index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed(*asked.groups())}
            return Answer(200, json.dumps(index).encode(), {"Content-Type": INDEX})
        return found

    with serving(answer) as port:
        yield replace(behind, host=f"localhost:{port}")


@contextmanager
def refusing_target(status: int, code: str, message: str) -> Iterator[str]:
    """Run a registry that takes layers and refuses each manifest as ECR would; yield its host."""

    def answer(request: Request) -> Answer:
        if "/manifests/" in request.path and request.method == "PUT":
            body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
            return Answer(status, body, {"Content-Type": "application/json"})
        location = {"Location": request.path.partition("?")[0] + ("1" if request.method == "POST" else "")}
        statuses = {"GET": 200, "HEAD": 404, "POST": 202, "PATCH": 202, "PUT": 201}
        return Answer(statuses[request.method], headers=location)

    with serving(answer) as port:
        yield f"localhost:{port}"


@contextmanager
def odd_source(respond: Callable[[Request], Answer]) -> Iterator[str]:
    """Run a source with one image whose manifests are answered by `respond`; yield its host."""
    with serving(lambda request: Answer(200) if request.path == "/v2/" else respond(request)) as port:
        yield f"localhost:{port}"


@dataclass
class GuardedSource:
    """A source that requires a token: its `host`, and the Authorization headers with which tokens were requested."""

    host: str = ""
    logins: list[str | None] = field(default_factory=list)


@contextmanager
def guarded_source(token: Answer, manifest: Answer, realm: str = "/token") -> Iterator[GuardedSource]:
    """Run a source and its token server, at the path `realm` of another port, with these answers."""
    source = GuardedSource()
    addresses: list[str] = []

    def answer(request: Request) -> Answer:
        if request.path.partition("?")[0] == realm:
            source.logins.append(request.headers.get("authorization"))
            return token
        if request.headers.get("authorization", "").startswith("Bearer "):
            return manifest if "/manifests/" in request.path else Answer(200)
        challenge = f'Bearer realm="http://{addresses[1]}{realm}",service="{addresses[0]}"'
        return Answer(401, headers={"WWW-Authenticate": challenge})

    with serving(answer) as port, serving(answer) as port_of_tokens:
        addresses += [f"localhost:{port}", f"localhost:{port_of_tokens}"]
        source.host = addresses[0]
        yield source


@dataclass(frozen=True)
class EcrApi:
    """A running AWS endpoint at `url`, which returns ECR_LOGIN for requests signed with this key, only in China."""

    url: str
    access_key_id: str
    secret_access_key: str
    log: Path


@contextmanager
def ecr_api(folder: Path, region: str = "cn-northwest-1") -> Iterator[EcrApi]:
    """Run an AWS endpoint that knows one key, of a user in the partition of `region`, and checks each signature.

    It is a separate process, because moto checks the keys of all emulated services in a process, or of none.
    """
    port = free_port()
    url = f"http://localhost:{port}"
    log = folder / "moto.log"
    calls_before_keys_count = {"INITIAL_NO_AUTH_ACTION_COUNT": "3"}
    command = [sys.executable, "-m", "moto.server", "-p", str(port)]
    with running(command, log, os.environ | calls_before_keys_count):
        wait_for(lambda: listening(port), "the AWS endpoint listens")
        iam = boto3.client(
            "iam", region_name=region, endpoint_url=url, aws_access_key_id="any", aws_secret_access_key="any"
        )
        iam.create_user(UserName="push")
        statement = {"Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_user_policy(UserName="push", PolicyName="push", PolicyDocument=policy)
        key = iam.create_access_key(UserName="push")["AccessKey"]
        yield EcrApi(url, key["AccessKeyId"], key["SecretAccessKey"], log)
