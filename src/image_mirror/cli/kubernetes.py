"""A Kubernetes cluster, reached with the operator's kubectl, which supports every way to log in to a cluster."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from image_mirror.cli import requests_log
from image_mirror.cli.errors import NoAnswerError
from image_mirror.messages import printable
from image_mirror.review import Json

_TIMEOUT = "30s"  # of one request; a long list comes in chunks of 500
_WITHIN = 300  # seconds for all of them, and for a plugin that logs in
_MANAGER = "image-mirror"  # of the fields that a patch changes, in the pod's metadata.managedFields
# kubectl's words for a refusal by RBAC. Admission refuses with "Forbidden" too, in other words.
_NO_PERMISSION = re.compile(r'cannot (\w+) resource "(\w+)"')
# The lines that begin what the API server says. The lines after them are details, or the difference of two objects.
_REFUSED = re.compile(r"Error from server|The \w+ \S+ is invalid:")


class Refusal(StrEnum):
    """Why the API server has not patched a pod."""

    CONFLICT = "conflict"
    NO_PERMISSION = "no permission"
    OTHER = "other"


class NotFoundError(NoAnswerError):
    """The cluster does not have the object."""


class RefusedError(Exception):
    """The API server has not patched a pod. The message says why, for people."""

    def __init__(self, refusal: Refusal, cause: str) -> None:
        super().__init__(cause)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster: a kubeconfig file and a context in it. For None kubectl uses its own choice, as KUBECONFIG says."""

    kubeconfig: Path | None = None
    context: str | None = None

    def __str__(self) -> str:
        """Name the cluster in errors."""
        where = str(self.kubeconfig) if self.kubeconfig else "kubectl's own configuration"
        return f"{where}, context {self.context}" if self.context else where

    def get(self, *what: str) -> Json:
        """Return what `kubectl get` answers as JSON; several objects come as a List.

        Raises NotFoundError, NoAnswerError.
        """
        answer, _ = self._run("get", ("--output=json",), what)
        return answer

    def named(self) -> tuple[str, str] | None:
        """Return the context's name and the server's address, for people; None if kubectl does not know them."""
        try:
            config, _ = self._run("config", ("--output=json",), ("view", "--minify"))
            return printable(config["current-context"]), printable(config["clusters"][0]["cluster"]["server"])
        except (NoAnswerError, KeyError, IndexError, TypeError):
            return None

    def version(self) -> Json:
        """Return what the API server says of its version. Raises NoAnswerError."""
        answer, _ = self._run("get", (), ("--raw=/version",))
        return answer

    def config(self) -> Json:
        """Return the kubeconfig without its secrets. Raises NoAnswerError."""
        answer, _ = self._run("config", ("--output=json",), ("view",))
        return answer

    def dry_run(self, new: Json) -> tuple[Json, list[str]]:
        """Return the object that the API server would create, and the warnings; nothing is created.

        Webhooks are asked as for a real request. Raises NoAnswerError.
        """
        form = ("--output=json", "--filename=-")
        answer, said = self._run("create", form, ("--dry-run=server",), json.dumps(new))
        warnings = [line.removeprefix("Warning: ") for line in said.splitlines() if line.startswith("Warning: ")]
        return answer, [printable(line) for line in warnings]

    def patch_pod(self, namespace: str, name: str, patch: Json) -> None:
        """Patch a pod by a strategic merge. Raises RefusedError; NotFoundError; NoAnswerError without an answer.

        The patch goes through standard input: Linux takes 128 KiB in one argument, and annotations can have more.
        """
        form = ("--output=json", "--type=strategic", "--patch-file=/dev/stdin", f"--field-manager={_MANAGER}")
        try:
            self._run("patch", form, ("pod", name, f"--namespace={namespace}"), json.dumps(patch))
        except NotFoundError:
            raise
        except NoAnswerError as error:
            refused = _refusal(error.cause, namespace)
            if refused is None:
                raise
            raise refused from error

    def _run(self, verb: str, form: Sequence[str], what: Sequence[str], stdin: str = "") -> tuple[Json, str]:
        """Return kubectl's answer, and what it says beside it. Raises NotFoundError, NoAnswerError."""
        kubectl = shutil.which("kubectl")
        if kubectl is None:
            raise NoAnswerError("kubectl is not on PATH", "install kubectl; this command reads the cluster with it")
        where = [f"--kubeconfig={self.kubeconfig}"] if self.kubeconfig else []
        where += [f"--context={self.context}"] if self.context else []
        command = [kubectl, verb, *form, f"--request-timeout={_TIMEOUT}", *where, *what]  # without a shell
        asked = f"`{shlex.join(['kubectl', verb, *what, *where])}`"
        try:
            with requests_log.logged(asked.strip("`")):
                done = subprocess.run(  # noqa: S603
                    command, input=stdin, capture_output=True, text=True, check=False, timeout=_WITHIN
                )
        except subprocess.TimeoutExpired as error:
            said = f"the cluster ({self}): kubectl has not ended within {_WITHIN} s"
            raise NoAnswerError(said, f"run {asked}; if it waits for a login, log in first") from error
        if done.returncode != 0:
            said = printable(_error_in(done.stderr) or f"kubectl ended with {done.returncode}")
            kind = NotFoundError if "(NotFound)" in said else NoAnswerError
            raise kind(f"the cluster ({self}): {said}", f"run {asked} to see the error")
        answer: Json = json.loads(done.stdout)
        return answer, done.stderr

    def pods(self) -> list[Json]:
        """Return the pods of all namespaces that run or will run. Raises NoAnswerError."""
        living = "--field-selector=status.phase!=Succeeded,status.phase!=Failed"
        pods: list[Json] = self.get("pods", "--all-namespaces", living)["items"]
        return pods


def _error_in(stderr: str) -> str:
    """Return the line that says what failed: the API server's first, or else kubectl's last; "" if there is none.

    A line that ends with a colon has its reason on the next one.
    """
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    first = next((number for number, line in enumerate(lines) if _REFUSED.match(line)), len(lines) - 1)
    said, *rest = lines[first:] or [""]
    return f"{said} {rest[0].removeprefix('* ')}" if rest and said.endswith(":") else said


def _refusal(said: str, namespace: str) -> RefusedError | None:
    """Return what kubectl's error says of a patch; None if the API server has not answered."""
    if missing := _NO_PERMISSION.search(said):
        cause = f"the permission `{missing[1]} {missing[2]}` is missing in the namespace {namespace}"
        return RefusedError(Refusal.NO_PERMISSION, cause)
    if "(Conflict)" in said:
        return RefusedError(Refusal.CONFLICT, "somebody else keeps changing the pod")
    _, marker, words = said.partition("Error from server")
    if marker or " is invalid: " in said:
        return RefusedError(Refusal.OTHER, words.strip(" :") or said)
    return None
