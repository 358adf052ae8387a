"""Records the calls of both functions, and finds those that the policies of the shipped stacks refuse."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from e2e.fakes.policies import Decision, evaluate
from e2e.harness.all_calls import KEY_ID
from e2e.harness.authorization import requests
from e2e.harness.principals import FEDERATED, china, globally
from e2e.harness.recording import Call, Recorder
from image_mirror import reconciler, webhook

CASE = "as shipped"
WEBHOOK, RECONCILER = (china(CASE).role_of(name) for name in ("ApiFunction", "ReconcilerFunction"))


@contextmanager
def recorded() -> Iterator[Recorder]:
    """Load both functions again, each with clients that record the calls of its role."""
    recorder = Recorder()
    with recorder.recording():
        for function, role in ((webhook, WEBHOOK), (reconciler, RECONCILER)):
            function.load.cache_clear()
            recorder.acting_as(role)
            function.load()
        try:
            yield recorder
        finally:
            for function in (webhook, reconciler):
                function.load.cache_clear()


def refused(calls: Iterable[Call], registry: str, case: str = CASE) -> list[str]:
    """Return the calls of all principals, both roles and what starts builds, that the policies of a case would refuse.

    `registry` is the host that was used instead of ECR's when the calls were made: the name of a copy begins with it,
    and the key's policy checks that name.
    """
    in_china = china(case)
    documents = {role: in_china.policies(role) for role in (WEBHOOK, RECONCILER)}
    documents[KEY_ID] = globally(case).policies("ImagePullUser")
    documents["StartRole"] = globally(case).policies("StartRole") if case == FEDERATED else []
    ecr = in_china.environment()["ECR_REGISTRY"]
    found = []
    for call in calls:
        parameters = json.loads(json.dumps(call.parameters).replace(f"{registry}/", f"{ecr}/"))
        for request in requests(replace(call, parameters=parameters)):
            decision = evaluate(documents[call.principal], request)
            if decision is not Decision.ALLOWED:
                found.append(f"{call.principal}: {request.action} on {request.resource}: {decision.value}")
    return found
