"""Reads image-pulling.yaml like CloudFormation, and runs its buildspec like CodeBuild, with or without stubs."""

import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from support.templates import ROOT, carry_out, load_template, parameters_of

TEMPLATE = ROOT / "image-pulling.yaml"
ACCESS_KEY_ID = "AKIAIOSFODNN7EXAMPLE"
SECRET_ACCESS_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
PASSWORD = "eyJwYXlsb2FkIjoiZWNyLXBhc3N3b3JkIn0="
# A token as STS signs it for a role, and a role for it in China.
TOKEN = "eyJhbGciOiJFUzM4NCJ9.eyJhdWQiOiJpbWFnZS1taXJyb3IifQ.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"
PUSH_ROLE = "arn:aws-cn:iam::123456789012:role/mirror-PushRole-1A2B3C4D"
MAIN, FAST = PROJECTS = ("CodeBuildProject", "FastCodeBuildProject")
IMAGE = "gcr.io/google-samples/hello-app:1.0"
REGISTRY = "123456789012.dkr.ecr.cn-northwest-1.amazonaws.com.cn"
TARGET = f"{REGISTRY}/mirror/{IMAGE}"

# How CodeBuild's agent runs one command of a buildspec, version 0.2: each command is a separate script, and the next
# one gets its exported variables unless it exits early.
_COMMAND = """\
cd "$(cat {state}/dir.txt)"
set -a
. {state}/env.sh
{command}
CODEBUILD_LAST_EXIT=$?
export -p >{state}/env.sh
pwd >{state}/dir.txt
set +a
for name in {exported}; do [[ ! -v $name ]] || printf '%s=%s\\0' "$name" "${{!name}}"; done >{state}/exported
exit $CODEBUILD_LAST_EXIT
"""
# Records its arguments, environment, standard input and the login files that it can read; then gives its reply.
_STUB = """\
#!{bash}
PATH={real}
shopt -s nullglob
calls=({state}/calls/*)
call=$(printf '{state}/calls/%03d' ${{#calls[@]}})
mkdir "$call"
printf '%s\\0' "${{0##*/}}" "$@" >"$call/arguments"
cat /proc/$$/environ >"$call/environment"
cat >"$call/input"
[[ ! -f ${{DOCKER_CONFIG-}}/config.json ]] || cp "$DOCKER_CONFIG/config.json" "$call/config.json"
token=${{AWS_WEB_IDENTITY_TOKEN_FILE-}}
[[ ! -f $token ]] || printf '["%s", "%s"]' "$(stat -c %a "$token")" "$(cat "$token")" >"$call/token.json"
output=
for argument in "$@"; do
  [[ $output != next ]] || {{ cp {state}/package/crane.tar.gz "$argument"; output=; }}
  [[ $argument != --output ]] || output=next
done
reply={state}/replies/${{0##*/}}-${{1-}}
[[ ${{2-}} != {target}/* || ! -f $reply-target.stdout ]] || reply=$reply-target
[[ ! -f $reply.stdout ]] || cat "$reply.stdout"
[[ ! -f $reply.stderr ]] || cat "$reply.stderr" >&2
[[ ! -f $reply.once ]] || {{ rm "$reply.once"; exit 1; }}
[[ ! -f $reply.status ]] || exit "$(cat "$reply.status")"
"""
_REAL = ("base64", "bash", "cat", "cp", "env", "gzip", "mkdir", "mktemp", "rm", "sha256sum", "tar")
SOURCE_DIGEST = "sha256:" + "5" * 64
# What a build waits for in the template; tests replace it.
_QUICK = {"COPY_PAUSES": "0 0", "COPY_WATCH_SECONDS": "0.02", "CRANE_PAUSE_SECONDS": "0"}
_REPLIES = {
    "aws ecr": (PASSWORD, "", 0),
    "aws sts": (f"{TOKEN}\n", "", 0),
    "crane digest": (f"{SOURCE_DIGEST}\n", "", 0),
    "crane digest target": ("", f"Error: GET https://{REGISTRY}/v2/x/manifests/1: MANIFEST_UNKNOWN: no\n", 1),
    "curl --silent": ("404 0", "", 0),  # the source has no signatures
}


@cache
def template() -> Any:
    """Return image-pulling.yaml with its functions in their long form."""
    return load_template(TEMPLATE.name)


@cache
def buildspec(**parameters: str) -> Any:
    """Return the buildspec of the projects with these parameters.

    Its commands must run one after the other and stop at the first failure. By CodeBuild's reference this is so if
    there is no `finally` (it always runs), no phase post_build (it runs after a failed build too), and no `on-failure`
    (it would let a build continue, and Lambda compute does not know it).
    """
    found = [template()["Resources"][name]["Properties"]["Source"]["BuildSpec"] for name in PROJECTS]
    texts = [resolve(each, **parameters) for each in found]
    assert len(set(texts)) == 1, "a project for each lane, and one build"
    spec = yaml.safe_load(texts[0])
    assert list(spec["phases"]) == ["install", "build"]
    for name, phase in spec["phases"].items():
        assert phase.keys() == {"commands"}, name
    return spec


def resolve(node: Any, **parameters: str) -> Any:
    """Return `node` with its functions evaluated with `parameters`; a value that a resource returns is `<NAME>`."""
    values = {"AWS::Region": "us-west-2", "AWS::AccountId": "210987654321", **parameters_of(template(), **parameters)}

    def returned(name: str, attribute: str) -> str:
        return f"<{name}>" if attribute == "Ref" else f"<{name}.{attribute}>"

    return carry_out(node, template(), values, returned)


@dataclass(frozen=True)
class Reply:
    """The answer of a stub program: its output, error output and exit status; with `once` it fails the first time."""

    stdout: str = ""
    stderr: str = ""
    status: int = 0
    once: bool = False


@dataclass(frozen=True)
class Call:
    """One run of a stub program: its name and arguments, its environment, its input, and the files it was given."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    input: str
    files: Mapping[str, str]

    @property
    def program(self) -> str:
        """The program with its subcommand, such as "crane copy"."""
        return " ".join(self.arguments[:2])


@dataclass(frozen=True)
class Run:
    """A finished build: the command that failed with its exit code, the exported variables, all output, all calls."""

    failed_command: str | None
    exit_code: int
    exported: Mapping[str, str]
    output: str
    calls: tuple[Call, ...]

    def called(self, program: str) -> list[Call]:
        """Return the calls of `program`, such as "aws ecr"."""
        return [call for call in self.calls if call.program == program]


@dataclass
class CodeBuild:
    """The template's `project` with `parameters`; it works in `directory`, which must be empty.

    `secret` is the content of ImagePullSecret, `registry_auth` the text of the secret of RegistryAuthSecretArn.
    `replies` has the answers of stub programs, by program and subcommand; `archive` is
    downloaded instead of crane's. With `path`, a PATH, the programs there run
    instead of stubs. `prefix` is a program with its arguments that runs the shell of each command, `start` the folder
    in which the first one begins.
    """

    directory: Path
    parameters: Mapping[str, str] = field(default_factory=dict)
    secret: Mapping[str, str] = field(
        default_factory=lambda: {
            "Region": "cn-northwest-1",
            "AccessKey": ACCESS_KEY_ID,
            "AccessSecretKey": SECRET_ACCESS_KEY,
        }
    )
    registry_auth: str | None = None
    replies: Mapping[str, Reply] = field(default_factory=dict)
    path: str | None = None
    archive: bytes | None = None
    project: str = MAIN
    prefix: tuple[str, ...] = ()
    start: str = ""

    def run(self, image: str = IMAGE, target: str = TARGET, **environment: str | None) -> Run:
        """Run a build of `image` to `target`; `environment` replaces variables, or removes them (None)."""
        state = self.directory
        for name in ("bin", "package", "calls", "replies"):
            shutil.rmtree(state / name, ignore_errors=True)
            (state / name).mkdir()
        if self.path is None:
            self._make_stubs()
        variables = self._variables() | {"DOCKER_IMAGE": image, "NEW_DOCKER_IMAGE": target} | _QUICK
        if self.path is None:
            variables["CRANE_SHA256"] = sha256_of(state / "package" / "crane.tar.gz")
        variables |= environment
        lines = (f"export {name}={shlex.quote(value)}\n" for name, value in variables.items() if value is not None)
        (state / "env.sh").write_text("".join(lines))
        (state / "dir.txt").write_text(self.start or str(state))
        (state / "exported").write_text("")
        return self._run_phases()

    def _make_stubs(self) -> None:
        state = self.directory
        for name in _REAL:
            path = shutil.which(name)
            assert path is not None, name
            (state / "bin" / name).symlink_to(path)
        if "python3 -I" not in self.replies:
            (state / "bin" / "python3").symlink_to(sys.executable)
        stub = _STUB.format(state=state, bash=shutil.which("bash"), real=os.environ["PATH"], target=REGISTRY)
        for path in ("bin/aws", "bin/curl", "bin/python3", "bin/sleep", "package/crane"):
            if not (state / path).exists():
                (state / path).write_text(stub)
                (state / path).chmod(0o755)
        for name, reply in {**{name: Reply(*reply) for name, reply in _REPLIES.items()}, **self.replies}.items():
            self._prepare(name, reply)
        archive = state / "package" / "crane.tar.gz"
        make_archive(state / "package" / "crane", archive)
        if self.archive is not None:
            archive.write_bytes(self.archive)

    def _prepare(self, name: str, reply: Reply) -> None:
        path = self.directory / "replies" / name.replace(" ", "-")
        path.with_suffix(".stdout").write_text(reply.stdout)
        path.with_suffix(".stderr").write_bytes(reply.stderr.encode())
        path.with_suffix(".status").write_text(str(reply.status)) if reply.status else None
        path.with_suffix(".once").touch() if reply.once else None

    def _variables(self) -> dict[str, str | None]:
        parameters = dict(self.parameters)
        if self.registry_auth is not None:
            parameters["RegistryAuthSecretArn"] = "arn:aws:secretsmanager:us-west-2:210987654321:secret:auth-AbCdEf"
        project = resolve(template()["Resources"][self.project]["Properties"], **parameters)
        variables: dict[str, str | None] = {
            "PATH": self.path or str(self.directory / "bin"),
            "AWS_REGION": "us-west-2",
            "AWS_DEFAULT_REGION": "us-west-2",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/of-the-build-role",
        }
        for variable in project["Environment"]["EnvironmentVariables"]:
            is_secret = variable.get("Type", "PLAINTEXT") == "SECRETS_MANAGER"
            variables[variable["Name"]] = self.registry_auth if is_secret else variable["Value"]
        for name, entry in buildspec(**self.parameters)["env"].get("secrets-manager", {}).items():
            secret, key = entry.split(":")
            assert secret == "ImagePullSecret"
            variables[name] = self.secret[key]
        return variables

    def _run_phases(self) -> Run:
        output, failed, status = "", None, 0
        commands = (command for phase in buildspec()["phases"].values() for command in phase["commands"])
        for command in commands:
            script = self.directory / "script.sh"
            names = " ".join(buildspec()["env"]["exported-variables"])
            script.write_text(_COMMAND.format(state=self.directory, command=command, exported=names))
            status, text = run_script(script, prefix=self.prefix)
            output += text
            if status:
                failed = command
                break
        pairs = (self.directory / "exported").read_text().split("\0")[:-1]
        exported = dict(pair.split("=", 1) for pair in pairs)
        return Run(failed, status, exported, output, tuple(_read_calls(self.directory / "calls")))


def make_archive(program: Path, archive: Path) -> None:
    """Pack a program as the release of crane is packed."""
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(program, "crane")


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def run_script(script: Path, seconds: float = 60, prefix: tuple[str, ...] = ()) -> tuple[int, str]:
    """Run a script in bash without an environment, and return its exit code and its output.

    With `prefix`, this program is run, and bash with the script are its last arguments. After `seconds` this kills bash
    and every process that bash started, and raises TimeoutExpired.
    """
    with subprocess.Popen(
        [*prefix, "/bin/bash", script],
        env={},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, output.decode("utf-8", "backslashreplace")


def _read_calls(directory: Path) -> list[Call]:
    calls = []
    for path in sorted(directory.iterdir()):
        pairs = (path / "environment").read_text().split("\0")
        calls.append(
            Call(
                arguments=tuple((path / "arguments").read_text().split("\0")[:-1]),
                environment=dict(pair.split("=", 1) for pair in pairs if "=" in pair),
                input=(path / "input").read_text(),
                files={file.name: file.read_text() for file in path.glob("*.json")},
            )
        )
    return calls
