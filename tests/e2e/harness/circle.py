"""All parts from a pod to its copied image, real programs where possible, connected as the stacks connect them.

Here no AWS service calls another part by itself: `turn` passes the events that have happened to the reconciler.
"""

import base64
import itertools
import json
import os
import queue
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
from moto import mock_aws

from e2e.fakes.codebuild_service import Build, CodeBuildService, Respond, codebuild_service
from e2e.fakes.codebuild_service import Project as ServedProject
from e2e.fakes.dynamodb_local import create_table, dynamodb_local, streams_client
from e2e.fakes.event_source_mapping import EventSourceMapping
from e2e.fakes.federation import Federation, for_sessions, issuers_over_http, security_token_service
from e2e.fakes.policies import Request as Asked
from e2e.fakes.registries import ACCOUNT, ECR_LOGIN, EcrApi, Registry, ecr_api, registry
from e2e.fakes.servers import Answer, Request, serving
from e2e.harness.all_calls import KEY_ID
from e2e.harness.authorization import requests
from e2e.harness.build import Project
from e2e.harness.federated import BUILD, GLOBALLY, START, credentials, federation_of
from e2e.harness.federated import RECONCILER as RECONCILER_ROLE
from e2e.harness.principals import FEDERATED, china, globally
from e2e.harness.recording import Call, Recorder
from e2e.harness.refusals import CASE, recorded, refused
from e2e.harness.stacks import CHINA, GLOBAL
from e2e.harness.stage import Json, answer
from image_mirror import reconciler
from image_mirror.cli.emulation import Context, http_event
from image_mirror.record import Record
from image_mirror.table import Records
from support.buildspec_runner import FAST, MAIN, Run
from support.reviews_data import captured

TABLE = "ImageListTable"
TWO_LANES = "two lanes"


@dataclass
class Circle:
    """The source registry, the target registry, the parts between them, and what has happened so far.

    `pushes` are pushes without an event yet, `runs` are the finished builds, `seen` has each status that a record had,
    and `case` says how the stacks are deployed.
    """

    source: Registry
    target: Registry
    dynamodb: Any
    ecr: Any
    mapping: EventSourceMapping
    builds: CodeBuildService
    runs: list[Run]
    pushes: "queue.Queue[Json]"
    recorder: Recorder
    case: str = CASE
    federation: Federation | None = None
    seen: list[str] = field(default_factory=list)

    @property
    def starter(self) -> str:
        """What starts builds: the key, or the role in the global account."""
        return "StartRole" if self.federation else KEY_ID

    @property
    def calls(self) -> list[Call]:
        """The calls so far; those with a session have the role's name in the global stack as their principal."""
        sessions = self.federation.sessions if self.federation else {}
        names = {key: "StartRole" for key, session in sessions.items() if session.role_arn == START}
        return [replace(each, principal=names.get(each.principal, each.principal)) for each in self.recorder.calls]

    def records(self) -> list[Record]:
        return [record for page in Records(self.dynamodb, TABLE).pages() for record in page]

    def admit(self, image: str) -> None:
        """Answer the review of a pod with `image`."""
        review = captured("create-pod-from-deployment.json")
        [container] = review["request"]["object"]["spec"]["containers"]
        container["image"] = image
        answered = answer(http_event(review))
        assert answered["statusCode"] == 200, answered

    def turn(self) -> None:
        """Read the stream, send ECR's event for each push, and remember each new status."""
        self._note()
        self.mapping.poll()
        self._note()
        while not self.pushes.empty():
            target = self.push()
            detail = {
                "action-type": "PUSH",
                "result": "SUCCESS",
                "repository-name": target["repository"],
                "image-tag": target["tag"],
                "image-digest": target["digest"],
            }
            event = {"source": "aws.ecr", "detail-type": "ECR Image Action", "account": ACCOUNT, "detail": detail}
            reconciler.handler(event, Context())
        self._note()

    def push(self) -> Json:
        """Copy the registry's next push into the emulated ECR, which the reconciler calls instead of the registry."""
        target: Json = self.pushes.get(timeout=60)["target"]
        self.ecr.put_image(
            repositoryName=target["repository"],
            imageTag=target["tag"],
            imageDigest=target["digest"],
            imageManifest=json.dumps({"schemaVersion": 2, "digest": target["digest"]}),
            imageManifestMediaType=target["mediaType"],
        )
        return target

    def look(self, record: Record) -> None:
        """Make the record due, and run the schedule."""
        due = replace(record, due_at=int(time.time() * 1000))
        assert Records(self.dynamodb, TABLE).replace(record, due) == due
        self.schedule()

    def schedule(self) -> None:
        """Run the schedule."""
        reconciler.handler({"source": "aws.events"}, Context())

    def called(self, principal: str) -> set[str]:
        """Return the actions that one role, or the key, has called."""
        return {call.action for call in self.calls if call.principal == principal}

    def refused(self) -> list[str]:
        """Return the calls so far that the shipped policies would refuse."""
        return refused(self.calls, self.target.host, self.case)

    def _note(self) -> None:
        for record in self.records():
            if record.status and (not self.seen or self.seen[-1] != record.status):
                self.seen.append(record.status)


@contextmanager
def whole_circle(folder: Path, case: str = CASE, *, operator: str = "", **fast: str) -> Iterator[Circle]:
    """Run all parts while the context is active, with files in `folder`; the caller's own AWS account is not used.

    The stacks are deployed as in one of CASES. `fast` replaces variables of the builds in the fast lane. `operator` is
    the ID of a key that may call CodeBuild, also where the accounts federate.
    """
    pushes: queue.Queue[Json] = queue.Queue()
    runs: list[Run] = []
    numbers = itertools.count()

    def notified(request: Request) -> Answer:
        for event in json.loads(request.body)["events"]:
            if event["action"] == "push" and event["target"].get("tag"):
                pushes.put(event)
        return Answer(200)

    def place(name: str) -> Path:
        (folder / name).mkdir()
        return folder / name

    with ExitStack() as stack:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        nothing = dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), os.devnull)
        stack.enter_context(mock.patch.dict(os.environ, kept | nothing, clear=True))
        port = stack.enter_context(serving(notified))
        source = stack.enter_context(registry(place("source")))
        target = stack.enter_context(registry(place("target"), ECR_LOGIN, f"http://127.0.0.1:{port}/"))
        federation = federation_of(china(case), globally(case)) if case == FEDERATED else None
        if federation is None:
            api = stack.enter_context(ecr_api(place("aws")))
        else:
            stack.enter_context(issuers_over_http(federation))
            api = stack.enter_context(_without_keys(federation))
        table_url = stack.enter_context(dynamodb_local(place("dynamodb")))

        def builds_of(resource: str, **environment: str) -> Build:
            def build(image: str, destination: str) -> Run:
                place = folder / f"build-{next(numbers)}"
                given = {} if federation is None else GLOBALLY
                locations = {host: f"{source.host}/{host}" for host in ("gcr.io", "registry.k8s.io")}
                project = Project(place, api, target, locations, project=resource, parameters=given)
                own = {} if federation is None else credentials(federation.sign_in(BUILD))
                run = project.run(image, destination, **environment | own)
                runs.append(run)
                return run

            return build

        settings = china(case).environment()
        in_global = globally(case)
        projects = [
            ServedProject(settings["G_PROJECT_NAME"], builds_of(MAIN), in_global.properties("CodeBuildProject"))
        ]
        if settings["G_FAST_PROJECT_NAME"]:
            properties = in_global.properties("FastCodeBuildProject")
            projects.append(
                ServedProject(settings["G_FAST_PROJECT_NAME"], builds_of(FAST, **fast), properties, quota=1)
            )

        def asked(request: Request) -> list[Asked]:
            body = request.body.decode().replace(f"{target.host}/", f"{settings['ECR_REGISTRY']}/")
            operation = request.headers["x-amz-target"].partition(".")[2]
            return requests(Call("StartRole", GLOBAL.region, "codebuild", operation, json.loads(body)))

        def checked(respond: Respond) -> Respond:
            if federation is None:
                return respond
            sessions = for_sessions(federation, respond, asked)

            def answered(request: Request) -> Answer:
                is_operators = operator and f"Credential={operator}/" in request.headers["authorization"]
                return respond(request) if is_operators else sessions(request)

            return answered

        builds = stack.enter_context(codebuild_service(*projects, checked=checked))
        environment = settings | {
            "AWS_DEFAULT_REGION": CHINA.region,
            "AWS_ENDPOINT_URL_DYNAMODB": table_url,
            "AWS_ENDPOINT_URL_CODEBUILD": builds.url,
            "ECR_REGISTRY": target.host,
        }
        stack.enter_context(mock.patch.dict(os.environ, environment))
        stack.enter_context(emulated_services(None if federation else KEY_ID))
        if federation:
            mine = credentials(federation.sign_in(RECONCILER_ROLE, 12 * 3600)) | {"AWS_ENDPOINT_URL_STS": api.url}
            stack.enter_context(mock.patch.dict(os.environ, mine))
            stack.enter_context(mock.patch("boto3.DEFAULT_SESSION", None))
        dynamodb = boto3.client("dynamodb")
        stream = create_table(dynamodb, TABLE)
        recorder = stack.enter_context(recorded())
        mapping = EventSourceMapping(
            streams_client(table_url), stream, lambda event: reconciler.handler(event, Context())
        )
        ecr = boto3.client("ecr")
        yield Circle(source, target, dynamodb, ecr, mapping, builds, runs, pushes, recorder, case, federation)


@contextmanager
def emulated_services(key_id: str | None) -> Iterator[None]:
    """Emulate ECR and Secrets Manager in this process, with a key in the secret or without that secret.

    Clients with an endpoint of their own call that.
    """
    with mock_aws():
        if key_id:
            key = {"G_AWS_REGION": GLOBAL.region, "G_ACCESS_KEY": key_id, "G_SECRET_KEY": "emulated"}
            boto3.client("secretsmanager").create_secret(Name=os.environ["GLOBAL_AKSK"], SecretString=json.dumps(key))
        yield


@contextmanager
def _without_keys(federation: Federation) -> Iterator[EcrApi]:
    """Serve STS and ECR's login to sessions; there is no key."""
    user, password = ECR_LOGIN
    token = {"authorizationToken": base64.b64encode(f"{user}:{password}".encode()).decode()}

    def log_in(_: Request) -> Answer:
        return Answer(200, json.dumps({"authorizationData": [token]}).encode())

    ask = [Asked("ecr:GetAuthorizationToken", "*")]
    with security_token_service(federation, for_sessions(federation, log_in, lambda _: ask)) as url:
        yield EcrApi(url, "", "", Path(os.devnull))
