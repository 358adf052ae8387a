"""The copy of one image: the program that the builds in image-pulling.yaml run. Python 3.9 and its library only.

`make templates` puts it into the template, with the modules of image_mirror that it imports. It reads the environment
of the build and writes its result, a reason for people, the digest and what it says of signatures as four lines into
the file OUTCOME. Its exit code is that of the result.
"""

from __future__ import annotations

import base64
import copy
import fnmatch
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlencode

from image_mirror.registry_login import DOCKER_HUB, LoginError, login_of, shown_key

# The exit codes. A reconciler of an earlier release knows only 29, 40, 41, 43, 44 and 50; it takes any other one for an
# attempt. So results that cost no attempt share a code that it knows.
EXIT_CODES = {
    "COPIED": 0,
    "PROBED": 0,
    "UNEXPLAINED": 1,
    "RATE_LIMITED": 29,
    "BAD_INPUT": 40,
    "TARGET_LOGIN": 41,
    "AUTH_FILE": 41,
    "DENIED": 43,
    "NOT_FOUND": 44,
    "REFUSED": 45,
    "TOO_LARGE": 46,
    "UNREACHABLE": 50,
    "TARGET_BUSY": 50,
    "TARGET_DENIED": 50,
    "STALLED": 51,
    "OUT_OF_TIME": 52,
}
REPEATED = ("UNREACHABLE", "TARGET_BUSY")
# The results of a program that was ended at a deadline before a layer arrived.
NO_TIME = ("STALLED", "OUT_OF_TIME")
# Layers at the same time: a connection across the border is slow, several are not.
JOBS = "12"
DIGEST_SECONDS = 600.0
AUDIENCE = "image-mirror"  # as in image_mirror/federation.py
# What ECR says of its password after twelve hours, or sooner. An answer to a HEAD has no words.
EXPIRED = re.compile(r"authorization token has expired|HEAD responses have no body")
RENEWAL_SECONDS = 600.0  # between two logins to ECR because the first one has expired

HOST = r"[a-z0-9]+(?:(?:\.|-+)[a-z0-9]+)*(?::[0-9]+)?"
COMPONENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
IMAGE = re.compile(
    rf"({HOST})/({COMPONENT}(?:/{COMPONENT})*)(:[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}|@sha256:[a-f0-9]{{64}})"
)
DIGEST = re.compile(r"sha256:[a-f0-9]{64}")
RESERVED_TAG = re.compile(r"sha256-[a-f0-9]{64}|digest-sha256-.*")


class Ended(Exception):
    """The build has a result."""

    def __init__(self, result: str, reason: str, digest: str = "", signatures: str = "") -> None:
        super().__init__(result, reason)
        self.result, self.reason, self.digest, self.signatures = result, reason, digest, signatures


class Source:
    """The image to copy: `host`, `path`, and `version`, which is ":TAG" or "@sha256:DIGEST"."""

    def __init__(self, host: str, path: str, version: str) -> None:
        self.host, self.path, self.version = host, path, version
        self.name = f"{host}/{path}"

    @property
    def digest(self) -> str | None:
        """The digest, if the image is named by one."""
        return self.version[1:] if self.version.startswith("@") else None


def checked_names(image: str, target: str, target_registry: str, prefix: str) -> Source:
    """Return the Source, if `image` and `target` are names that belong together. Raises Ended with BAD_INPUT.

    The grammar and the destination are those of parse_reference and destination_of in reference.py, so that a stolen
    key cannot put one image in another's place. No reason quotes a value: a variable of type SECRETS_MANAGER contains a
    secret. `target_registry` can have "?" for the digits of the account.
    """
    found = IMAGE.fullmatch(image) if len(image) <= 1024 else None
    if not found:
        raise Ended("BAD_INPUT", "DOCKER_IMAGE is not written HOST/PATH:TAG or HOST/PATH@sha256:DIGEST")
    source = Source(*found.groups())
    if not ({".", ":"} & set(source.host) or source.host == "localhost"):
        raise Ended("BAD_INPUT", "DOCKER_IMAGE does not begin with the host of a registry, such as docker.io")
    if source.host in DOCKER_HUB[1:]:
        raise Ended("BAD_INPUT", "DOCKER_IMAGE has another host name of Docker Hub; its images begin with docker.io/")
    if source.host == "docker.io" and "/" not in source.path:
        raise Ended("BAD_INPUT", "DOCKER_IMAGE: an official image of docker.io is docker.io/library/NAME")
    tag = "digest-sha256-" + source.version[8:] if source.digest else source.version[1:]
    if not source.digest and RESERVED_TAG.fullmatch(tag):
        raise Ended("BAD_INPUT", "DOCKER_IMAGE: tags sha256-<hex> and tags that begin with digest-sha256- are reserved")
    registry = target.partition("/")[0]
    if not re.fullmatch(HOST, registry) or not fnmatch.fnmatchcase(registry, target_registry):
        raise Ended("BAD_INPUT", "NEW_DOCKER_IMAGE is not in the registry of the parameters Region and ChinaAccountId")
    repository = f"{registry}/{prefix}/{source.host.replace(':', '_')}/{source.path}"
    if len(repository) > 255:
        raise Ended("BAD_INPUT", "the name is too long: with its registry, a repository has at most 255 characters")
    if target != f"{repository}:{tag}":
        raise Ended(
            "BAD_INPUT", "NEW_DOCKER_IMAGE is not the copy of DOCKER_IMAGE; is RepositoryPrefix the same in China?"
        )
    if registry == source.host:
        raise Ended("BAD_INPUT", "DOCKER_IMAGE is in the registry of the copies")
    return source


def login_for(source: Source, text: str) -> tuple[str, dict[str, str]] | None:
    """Return the key and the login for `source` in the secret's text, or None. Raises Ended with AUTH_FILE."""
    try:
        return login_of(text, source.host, source.path)
    except LoginError as error:
        raise Ended("AUTH_FILE", f"the secret of RegistryAuthSecretArn {error.fault}; {error.remedy}") from None


def crane_config(source_host: str, login: Mapping[str, str] | None, target_host: str, password: str) -> str:
    """Return the text of crane's config.json: the two logins and nothing else."""

    def entry(user: str, word: str) -> dict[str, str]:
        return {"auth": base64.b64encode(f"{user}:{word}".encode()).decode()}

    auths = {target_host: entry("AWS", password)}
    if login:
        # crane looks for Docker Hub's login under this key.
        key = "https://index.docker.io/v1/" if source_host == "docker.io" else source_host
        auths[key] = dict(login) if "identitytoken" in login else entry(login["username"], login["password"])
    return json.dumps({"auths": auths})


def secrets_of(login: Mapping[str, str] | None) -> list[str]:
    """Return the texts of a login that no log may show."""
    if not login:
        return []
    pair = f"{login.get('username')}:{login.get('password')}"
    words = [login.get("password"), login.get("identitytoken"), pair]
    return [form for word in words if word for form in (word, base64.b64encode(word.encode()).decode())]


# What a failed crane says. Its error is one line "Error: ...: METHOD URL: CODE: message", where the method and the host
# say which side spoke. The name of an image can look like an error, so what is before the URL is not read.
URL = re.compile(
    r"\b(?:GET|HEAD|PUT|POST|PATCH|DELETE) \"?(https?)://([^/\s\"?]+)(/[^\s\"?]*)?([^\s\"]*)\"?:? ?", re.IGNORECASE
)
READING = re.compile(r"unexpected EOF|read tcp|error verifying|stream error|http2:", re.IGNORECASE)
NETWORK = re.compile(
    r"dial |lookup |connection (?:re|closed)|broken pipe|timeout|timed out|deadline exceeded|EOF\b|GOAWAY|tls: |x509"
    r"|stream error|http2|no route|unreachable|server misbehaving|temporary failure|request canceled"
    r"|malformed HTTP|use of closed|server closed|SSRF protection|response headers exceeded|malformed www-authenticate"
    r"|no token in bearer response",
    re.IGNORECASE,
)
# Errors without a URL.
WITHOUT_URL = (
    (
        r"could not parse reference|repository can only contain|registries must be valid|tag can only contain",
        "BAD_INPUT",
    ),
    (r"no space left|cannot allocate memory|read-only file system|permission denied", "UNEXPLAINED"),
    (r"unexpected end of JSON|invalid character|cannot unmarshal|looking for beginning of value", "UNREACHABLE"),
    (r"error verifying Digest", "BAD_INPUT"),
    (r"body exceeds [0-9]+ byte limit", "UNREACHABLE"),
    (r"error verifying|manifest digest: .* does not match|unexpected EOF|size of .* does not match", "UNREACHABLE"),
    (
        r"unsupported hash|non-hex character in hash|unsupported MediaType|unknown m(?:edia|ime) type"
        r"|unrecognized manifest",
        "BAD_INPUT",
    ),
)


def answer_of(said: str) -> tuple[int, str]:
    """Return the HTTP status of an answer, or 0, and its error code, or "". crane prints only one of them."""
    status = re.match(r"unexpected status code ([0-9]{3})", said)
    code = re.match(r"(?:multiple errors returned: )?([A-Z][A-Z0-9_]+):(?: |$)", said)
    if code and (code[1] in ("UNKNOWN", "UNAVAILABLE") or code[1].startswith("INTERNAL")):
        return 500, ""  # what registries write with a 5xx
    return (int(status[1]) if status else 0), (code[1] if code else "")


def understood(errors: str, source: Source, target_host: str, login_key: str | None = None) -> tuple[str, str]:
    """Return the result and the reason of a failed crane from its error output.

    `login_key` is the key of the login that was sent to the source, or None.
    """
    start = max(errors.rfind("\nError: ") + 1, 0)
    last = errors[start:] if errors[start:].startswith("Error: ") else ""
    text = " ".join(last[len("Error: ") :].split())
    if not text:
        return "UNEXPLAINED", "the program ended without an error message"
    place = URL.search(text)
    if place is None:
        for pattern, result in WITHOUT_URL:
            if re.search(pattern, text, re.IGNORECASE):
                lie = "an entry of the index has data that is not its manifest: " * ("verifying Digest" in text)
                return result, lie + text
        return ("UNREACHABLE" if NETWORK.search(text) else "UNEXPLAINED"), text
    host, path, said = place[2].lower(), place[3] or "/", text[place.end() :]
    if host == target_host:
        return of_target(said, path), text
    if host == source.host or (source.host == "docker.io" and host in DOCKER_HUB):
        if re.match(r".*(?:no such host|certificate is (?:not )?valid for)", said):
            return "NOT_FOUND", text
        speaks = True
    else:
        # registry.k8s.io redirects manifests, and a token server has its own host. Any other one is a CDN, which
        # refuses a layer if its signed URL has expired.
        asks_token = re.search(r"[?&](?:scope|service)=", place[4])
        speaks = bool(asks_token or re.match(r"/v2/?:?$|/v2/.+/manifests/", path))
    return of_source(said, path, login_key, text, speaks=speaks)


def of_target(said: str, path: str) -> str:
    """Return the result of an error of ECR in China."""
    status, code = answer_of(said)
    if not status and not code and READING.search(said):
        return "UNREACHABLE"
    # Names of repositories have no upper case and no spaces, so these words are ECR's own.
    if re.search(r"LimitExceeded|LIMIT_?EXCEEDED|maximum allowed|tag is immutable", said):
        return "REFUSED"
    if code == "TOOMANYREQUESTS" or code.endswith("_UNKNOWN") or status in (404, 408, 429) or status >= 500:
        return "TARGET_BUSY"
    if re.search(r"ServerException|Rate exceeded", said):
        return "TARGET_BUSY"
    if (
        code in ("UNAUTHORIZED", "DENIED")
        or status in (401, 403)
        or re.search("authorization token|no basic auth", said)
    ):
        return "TARGET_DENIED"
    if status in (400, 405, 413, 415, 422) or code == "UNSUPPORTED" or re.search("_INVALID$|^SIZE_", code):
        # A layer can have been damaged on its way.
        return "REFUSED" if "/manifests/" in path else "TARGET_BUSY"
    return "UNREACHABLE" if NETWORK.search(said) else "UNEXPLAINED"


def of_source(said: str, path: str, login_key: str | None, text: str, *, speaks: bool) -> tuple[str, str]:
    """Return the result and the reason of an error of the source: its registry, its token server or its CDN.

    `speaks` says whether a refusal is the source's verdict about the image. A CDN's is not.
    """
    status, code = answer_of(said)
    if status == 429 or code == "TOOMANYREQUESTS":
        return "RATE_LIMITED", text
    # NOT_FOUND and FORBIDDEN are Harbor's.
    missing = status in (404, 410) or code in (
        *("MANIFEST_UNKNOWN", "NAME_UNKNOWN", "BLOB_UNKNOWN", "NAME_INVALID", "NOT_FOUND"),
    )
    unauthorized = status == 401 or code == "UNAUTHORIZED"
    denied = unauthorized or status in (402, 403, 451) or code in ("DENIED", "FORBIDDEN")
    if (missing or denied) and not speaks:
        return "UNREACHABLE", text
    # A token server can be below /v2/ too, as Quay's /v2/auth, and write a code instead of the status, as Harbor's.
    is_api = re.match(r"/v2/?:?$|/v2/.+/(?:manifests|blobs|tags|referrers)/", path)
    if unauthorized and login_key and not is_api:
        return (
            "AUTH_FILE",
            f"the login for {shown_key(login_key)} in the secret of RegistryAuthSecretArn is refused: {text}",
        )
    if denied:
        return "DENIED", f"with the login for {shown_key(login_key)}: {text}" if login_key else text
    if missing:
        return "NOT_FOUND", text
    if status >= 500 or status in (400, 405, 406, 408) or (not status and NETWORK.search(said)):
        return "UNREACHABLE", text
    return "UNEXPLAINED", text


class Build:
    """One run of the program: its settings from the environment, its folder, and the secrets that it masks."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        """Take the environment, and an empty folder."""
        self.environment = environment
        self.folder = folder
        self.masked: list[str] = []
        self.began = time.monotonic()
        self.arrived = 0
        self.read = 0
        # Tests set these three; the template does not, and the user's policy forbids it. Seconds before the second and
        # the third try; without a byte; between two looks at a program.
        self.pauses = [float(each) for each in environment.get("COPY_PAUSES", "10 30").split()]
        self.stall = float(environment.get("COPY_STALL_SECONDS", "600"))
        self.interval = float(environment.get("COPY_WATCH_SECONDS", "1"))
        self.most_bytes = float(environment["MAX_IMAGE_GIGABYTES"]) * 1e9
        self.is_fast = environment.get("FAST_LANE") == "true"
        started = environment.get("CODEBUILD_START_TIME", "")
        elapsed = time.time() - int(started) / 1000 if started.isdigit() else 0.0
        minutes = float(environment["BUILD_TIMEOUT_MINUTES"])
        # Two minutes are left for the result, or a tenth of a short build.
        left = min(120.0, minutes * 6)
        if self.is_fast:
            # CodeBuild's start may be the submission, so it is not known how long the build has run.
            left, elapsed = 120.0, min(elapsed, MOST_ELAPSED)
        self.deadline = self.began + max(minutes * 60 - left - max(elapsed, 0.0), 0.0)

    def hide(self, *secrets: str) -> None:
        """Mask these texts in all output."""
        self.masked += [each for each in secrets if each]

    def shown(self, text: str) -> str:
        """Return a text for the log, without secrets and in printable ASCII."""
        text = self.without_secrets(text)
        text = "".join(char if " " <= char <= "~" or char == "\n" else " " for char in text)
        text = re.sub(r"https?://[^\"\s]+", lambda url: re.sub("//[^/@]*@", "//", url[0].partition("?")[0]), text)
        return re.sub(
            r"\b(basic|bearer|password|\w*token)(\"?[ =:]+\"?)[A-Za-z0-9+/=._~-]{16,}",
            r"\1\2***",
            text,
            flags=re.IGNORECASE,
        )

    def without_secrets(self, text: str) -> str:
        """Return a text with the secrets masked."""
        for secret in sorted(self.masked, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    def limited(self, seconds: float, most_bytes: float) -> Build:
        """Return this build with less time, with another limit for what one program reads, and no layer arrived."""
        other = copy.copy(self)
        other.arrived = 0
        other.deadline = min(self.deadline, time.monotonic() + seconds)
        other.most_bytes = most_bytes
        return other

    def run(self, *command: str, sends_layers: bool = False, quiet: bool = False) -> tuple[int, str, str]:
        """Run a program with PATH, an empty HOME, the logins and LC_ALL only. Return its status, output and errors.

        If the time is over, layers that a program has sent count. Raises Ended.
        """
        clean = {
            "PATH": self.environment.get("PATH", ""),
            "HOME": str(self.folder / "home"),
            "DOCKER_CONFIG": str(self.folder / "docker"),
            "LC_ALL": "C",
        }
        errors_file, output_file = self.folder / "errors", self.folder / "output"
        with errors_file.open("wb") as errors, output_file.open("wb") as output:
            process = subprocess.Popen(
                command, env=clean, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True
            )
            ended = self.wait(process, errors_file if sends_layers else None)
        with errors_file.open("rb") as errors:
            errors.seek(max(errors_file.stat().st_size - MOST_ERRORS, 0))
            text = self.without_secrets(errors.read().decode("utf-8", "replace"))
        if not quiet:
            print(self.shown(text), end="", flush=True)
        if ended:
            raise ended
        return process.returncode, output_file.read_bytes().decode("utf-8", "replace"), text

    def wait(self, process: subprocess.Popen[bytes], log: Path | None) -> Ended | None:
        """Wait for a process. Return None, or why it was killed: nothing read, too much read, or no time left.

        `read` is then what it has read, and `arrived` is how many layers all processes have sent, by their `log`.
        """
        progress, quiet_since, arrived_before = 0, time.monotonic(), self.arrived
        while True:
            over = ends_within(process.pid, self.interval)
            now, self.read = time.monotonic(), max(bytes_read(process.pid), 0)
            if log:
                self.arrived = arrived_before + log.read_text(errors="replace").count("pushed blob: ")
            if over:
                process.wait()
                return None
            if self.read >= progress + LEAST_PROGRESS:
                progress, quiet_since = self.read, now
            ended = None
            if self.read > self.most_bytes:
                most = self.environment["MAX_IMAGE_GIGABYTES"]
                parameter = "FastLaneGigabytes" if self.is_fast else "MaxImageGigabytes"
                ended = Ended("TOO_LARGE", f"more than {most} GB were read; {parameter} allows more")
            elif now - quiet_since > self.stall:
                ended = Ended("STALLED", f"nothing was read for {self.stall:g} s")
            elif now > self.deadline:
                ended = self.out_of_time()
            if ended:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return ended

    def out_of_time(self) -> Ended:
        """Return the result of a build whose time is over. In the fast lane, that says nothing about the image."""
        reason = "the time of the build is over" + ("" if self.is_fast else " (BuildTimeoutMinutes)")
        if self.arrived:
            result = "OUT_OF_TIME" if self.is_fast else "UNREACHABLE"
            return Ended(result, f"{reason}; {self.arrived} layers arrived, and the next build continues")
        return Ended("OUT_OF_TIME" if self.is_fast else "STALLED", f"{reason}, and no layer arrived")


# Seconds of a fast build that can have passed before this program begins; what is more was time in CodeBuild's queue.
MOST_ELAPSED = 60.0
# A program that waits reads a few bytes each minute: Go's runtime looks at the limits of its cgroup, HTTP/2 has pings.
LEAST_PROGRESS = 10_000
LONGEST_PAUSE = 0.05  # seconds in which the end of a program is not seen
MOST_ERRORS = 131_072  # bytes of a program's errors that are read, its last ones; crane quotes 65,536 of an answer


def ends_within(pid: int, seconds: float) -> bool:
    """Return whether a child process ends in this time. It stays a zombie, so that what it has read can be seen."""
    until = time.monotonic() + seconds
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        left = until - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(left, LONGEST_PAUSE))
    return True


def bytes_read(pid: int) -> int:
    """Return how many bytes a process has read, from files and the network (proc(5): rchar)."""
    try:
        found = re.search(r"rchar: (\d+)", Path(f"/proc/{pid}/io").read_text())
    except OSError:
        return -1
    return int(found[1]) if found else -1


def shortened(reason: str) -> str:
    """Return a reason of at most 300 characters. The cause is at the end, and can contain two digests."""
    reason = " ".join(reason.split())
    return reason if len(reason) <= 300 else f"{reason[:105]} ... {reason[-190:]}"


def copy_image(build: Build) -> None:
    """Copy the image. Raises Ended, always."""
    environment = build.environment
    build.hide(
        environment.get("CHINA_ACCESS_KEY_ID", "").strip(), environment.get("CHINA_SECRET_ACCESS_KEY", "").strip()
    )
    if environment.get("COPY_PROBE") == "login":
        probe(build)
    source = checked_names(
        environment.get("DOCKER_IMAGE", ""),
        environment.get("NEW_DOCKER_IMAGE", ""),
        environment["TARGET_REGISTRY"],
        environment["REPOSITORY_PREFIX"],
    )
    target = environment["NEW_DOCKER_IMAGE"]
    hosts = environment.get("SOURCE_REGISTRIES", "*").split()
    if not any(fnmatch.fnmatchcase(source.host, pattern) for pattern in hosts):
        raise Ended("BAD_INPUT", "the host of DOCKER_IMAGE is not in the parameter SourceRegistries")
    crane = checked_tools(environment)
    registry_auth = environment.get("REGISTRY_AUTH", "")
    login = login_for(source, registry_auth)
    build.hide(*secrets_of(login and login[1]))
    target_host = target.partition("/")[0]
    (build.folder / "home").mkdir()
    (build.folder / "docker").mkdir()

    def log_in() -> float:
        config = crane_config(source.host, login and login[1], target_host, ecr_password(build))
        (build.folder / "docker" / "config.json").write_text(config, encoding="utf-8")
        return time.monotonic()

    log_in()
    renewable_at = 0.0

    def failed(errors: str) -> tuple[str, str]:
        return understood(errors, source, target_host, login and login[0])

    digest = source.digest or digest_of_source(build, crane, source, failed)
    # A HEAD. If ECR does not answer, the copy says why.
    status, held, _ = build.run(crane, "digest", target, quiet=True)
    if status == 0 and held.strip() == digest:
        raise Ended("COPIED", "ECR already has this image", digest)
    print(f"copying {source.name}@{digest} to {target}", flush=True)
    pauses = [*build.pauses, None]
    while True:
        status, _, errors = build.run(
            crane, "copy", "--jobs", JOBS, f"{source.name}@{digest}", target, sends_layers=True
        )
        if status == 0:
            signatures = ""
            if environment["WITH_SIGNATURES"] == "true":
                signatures = copied_signatures(build, crane, source, digest, target, login and login[1])
            raise Ended("COPIED", "the copy is in ECR", digest, signatures)
        result, reason = failed(errors)
        if result == "TARGET_DENIED" and EXPIRED.search(reason) and time.monotonic() >= renewable_at:
            renewable_at = log_in() + RENEWAL_SECONDS
            continue
        pause = pauses.pop(0)
        answers = source.digest is None or build.arrived  # otherwise nothing shows that the source is there
        if not answers or result not in REPEATED or pause is None or time.monotonic() + pause > build.deadline:
            if result == "NOT_FOUND":
                reason = with_platform(build, crane, source, digest, reason)
            raise Ended(result, reason)
        time.sleep(pause)


def checked_tools(environment: Mapping[str, str]) -> str:
    """Return the path of crane. Raises Ended if there is none, or neither a role nor a key for ECR in China."""
    for name, entry in (("CHINA_ACCESS_KEY_ID", "AccessKey"), ("CHINA_SECRET_ACCESS_KEY", "AccessSecretKey")):
        if not environment.get("CHINA_PUSH_ROLE_ARN") and not environment.get(name, "").strip():
            raise Ended(
                "TARGET_LOGIN", f"{entry} in the secret ImagePullSecret is empty; `image-mirror connect` fills it in"
            )
    crane = environment.get("CRANE", "")
    if not crane:
        problem = environment.get("CRANE_PROBLEM") or "UNEXPLAINED the command that installs crane did not run"
        raise Ended(*problem.split(" ", 1))
    return crane


def probe(build: Build) -> None:
    """Try what a copy needs of its project: the key, crane, the login to ECR, and the watch. Raises Ended, always."""
    crane = checked_tools(build.environment)
    ecr_password(build)
    status, _, errors = build.run(crane, "version")
    if status:
        raise Ended("UNEXPLAINED", f"crane does not run: {errors}")
    if bytes_read(os.getpid()) <= 0:
        raise Ended("UNEXPLAINED", "how much a program has read cannot be seen (/proc/PID/io)")
    raise Ended("PROBED", "crane runs, and the login to ECR in China succeeds; nothing was copied")


def digest_of_source(build: Build, crane: str, source: Source, failed: Callable[[str], tuple[str, str]]) -> str:
    """Return the digest of the tag: a HEAD, which registries do not count as a pull."""
    # crane follows redirects without end.
    limited = build.limited(DIGEST_SECONDS, build.most_bytes)
    try:
        status, output, errors = limited.run(crane, "digest", source.name + source.version)
    except Ended as ended:
        if ended.result in NO_TIME and limited.deadline < time.monotonic() < build.deadline:
            raise Ended("STALLED", f"the source has not said the digest in {DIGEST_SECONDS:g} s") from None
        raise
    if status:
        raise Ended(*failed(errors))
    digest = output.strip()
    if not DIGEST.fullmatch(digest):
        raise Ended("BAD_INPUT", "the source's digest is not a sha256 digest")
    return digest


def with_platform(build: Build, crane: str, source: Source, digest: str, reason: str) -> str:
    """Return the reason with the platform whose manifest the source does not have."""
    missing = re.search(r"/manifests/(sha256:[a-f0-9]{64})", reason)
    if not missing or missing[1] == digest:
        return reason
    status, output, _ = build.run(crane, "manifest", f"{source.name}@{digest}")
    try:
        children = json.loads(output)["manifests"] if status == 0 else []
        [platform] = [child.get("platform") or {} for child in children if child["digest"] == missing[1]]
        name = "/".join(str(platform[key]) for key in ("os", "architecture", "variant") if key in platform)
    except (ValueError, KeyError, TypeError, RecursionError):
        return reason
    return f"the source does not have the manifest of {name or 'one platform'}: {reason}"


def ecr_password(build: Build) -> str:
    """Return the password for ECR in China, which no log shows from now on. Raises Ended."""
    environment = build.environment
    region, role = environment["TARGET_REGION"], environment.get("CHINA_PUSH_ROLE_ARN", "")
    if not role:
        key = {
            "AWS_ACCESS_KEY_ID": environment["CHINA_ACCESS_KEY_ID"].strip(),
            "AWS_SECRET_ACCESS_KEY": environment["CHINA_SECRET_ACCESS_KEY"].strip(),
        }
        password = aws(build, "ecr", "get-login-password", "--region", region, **key)
    else:
        place = build.folder / "token"
        with open(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
            file.write(token_of_role(build))
        # The session is one of the target's region too; AWS_REGION is what the AWS CLI reads first.
        session = {
            **dict.fromkeys(("AWS_REGION", "AWS_DEFAULT_REGION"), region),
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(place),
            "AWS_ROLE_ARN": role,
            "AWS_ROLE_SESSION_NAME": AUDIENCE,
        }
        try:
            password = aws(build, "ecr", "get-login-password", "--region", region, **session)
        finally:
            place.unlink()
    build.hide(password, base64.b64encode(f"AWS:{password}".encode()).decode())
    return password


def token_of_role(build: Build) -> str:
    """Return a token that says which role the build has, for the exchange in China. Raises Ended."""
    own = {name: value for name, value in build.environment.items() if name.startswith("AWS_")}
    ask = ("sts", "get-web-identity-token", "--audience", AUDIENCE, "--signing-algorithm", "ES384")
    shown = ("--query", "WebIdentityToken", "--output", "text")
    try:
        token = aws(build, *ask, *shown, "--duration-seconds", "300", **own)
    except Ended as ended:
        # The session of the build's role ends sooner.
        if "SessionDurationEscalation" not in ended.reason:
            raise
        token = aws(build, *ask, *shown, "--duration-seconds", "60", **own)
    build.hide(token)
    return token


def aws(build: Build, *arguments: str, **credentials: str) -> str:
    """Return what the AWS CLI prints with these credentials, which no other program gets. Raises Ended."""
    # CodeBuild sets AWS_REGION, which the AWS CLI prefers to --region's environment variable, and credentials of the
    # build's own role.
    names = ("PATH", "LC_ALL", "AWS_ENDPOINT_URL", "AWS_CA_BUNDLE")
    clean = {name: build.environment[name] for name in names if name in build.environment}
    clean |= {"AWS_STS_REGIONAL_ENDPOINTS": "regional", **credentials}
    command = ("aws", *arguments)
    name = " ".join(command[:3])
    try:
        # The AWS CLI keeps a role's session in HOME.
        with tempfile.TemporaryDirectory(dir=build.folder) as home:
            own = {**clean, "HOME": home}
            done = subprocess.run(
                command, env=own, stdin=subprocess.DEVNULL, capture_output=True, timeout=300, check=False
            )
    except FileNotFoundError:
        raise Ended("UNEXPLAINED", "the image of the build has no AWS CLI") from None
    except subprocess.TimeoutExpired:
        raise Ended("UNREACHABLE", f"{name}: no answer in five minutes") from None
    errors = " ".join(done.stderr.decode("utf-8", "replace").split())
    printed = done.stdout.decode("utf-8", "replace").strip()
    if done.returncode == 0 and printed:
        return printed
    print(build.shown(errors), flush=True)
    if re.search("invalid choice", errors, re.IGNORECASE):
        raise Ended("TARGET_LOGIN", f"the AWS CLI of the build's image is too old: it does not know {name}")
    if re.search(
        r"\(Throttling|\(RequestLimitExceeded|\(5[0-9]{2}\)|\(ServerException|\(ServiceUnavailable|\(InternalFailure",
        errors,
    ):
        raise Ended("TARGET_BUSY", errors)
    # The last three: the exchange of a token whose issuer does not answer STS, or that has expired on its way.
    if re.search(
        r"Could not connect|timed? ?out|Connection was closed|EndpointConnection|SSL validation"
        r"|IDPCommunicationError|verification key|\(ExpiredToken",
        errors,
        re.IGNORECASE,
    ):
        raise Ended("UNREACHABLE", errors)
    if errors and not re.search(r"An error occurred \(|credentials", errors, re.IGNORECASE):
        raise Ended("UNREACHABLE", errors)  # AWS has not answered, so it has not refused the credentials
    raise Ended("TARGET_LOGIN", errors or f"{name} printed nothing")


# Signatures, attestations and SBOMs: the artifacts of an image. They never fail its copy, so they have limits of their
# own.
MOST_ARTIFACTS = 50
MOST_ARTIFACT_BYTES = 100e6
SIGNATURE_SECONDS = 60.0
SHORTEST_SECRET = 8
MANIFEST_TYPES = ", ".join(
    f"application/vnd.{each}+json"
    for each in (
        "oci.image.index.v1",
        "oci.image.manifest.v1",
        "docker.distribution.manifest.v2",
        "docker.distribution.manifest.list.v2",
    )
)


def copied_signatures(
    build: Build, crane: str, source: Source, digest: str, target: str, login: Mapping[str, str] | None
) -> str:
    """Copy the artifacts of an image whose copy is in ECR. Return how many there are, or what was not copied and why.

    Each is copied by its digest, because ECR finds it by its subject. The tag sha256-<hex>, a list of artifacts, is not
    copied: in ECR it would keep them from being deleted with their image.
    """
    limited = build.limited(SIGNATURE_SECONDS, MOST_ARTIFACT_BYTES)
    repository = target.rpartition(":")[0]
    copied, problem = 0, ""
    found: list[tuple[str, str]] = []
    try:
        found, problem = artifacts_of(SourceApi(limited, source, login), digest)
        for artifact, place in found[:MOST_ARTIFACTS]:
            if time.monotonic() > limited.deadline:  # a quick copy ends before the watch looks at it
                raise Ended("STALLED", "")
            command = (crane, "copy", "--jobs", JOBS, f"{source.name}@{artifact}", repository + place)
            status, _, errors = limited.run(*command)
            limited.most_bytes -= limited.read
            copied += not status
            if status:
                problem = problem or understood(errors, source, target.partition("/")[0])[1]
        if len(found) > MOST_ARTIFACTS:
            problem = problem or f"at most {MOST_ARTIFACTS} are copied"
    except Ended as ended:
        limits = dict.fromkeys(NO_TIME, f"not copied in {SIGNATURE_SECONDS:g} s")
        limits["TOO_LARGE"] = "they have more than 100 MB"
        problem = limits.get(ended.result, ended.reason)
    except Exception as error:
        problem = f"a bug of the build: {type(error).__name__}"
    if not problem:
        return str(copied)
    return shortened(build.shown(f"{copied} of {len(found)}: {problem}" if found else problem))


def artifacts_of(api: SourceApi, digest: str) -> tuple[list[tuple[str, str]], str]:
    """Return the digest of each artifact of `digest` with its place in the copy's repository, and what went wrong.

    They are listed by the referrers API of the source (OCI distribution 1.1), or by its fallback, the tag
    sha256-<hex>. cosign 2 made tags of its own. HEADs do not count as pulls.
    """
    tag = digest.replace(":", "-")
    problems = []

    def ask(place: str, absent: tuple[int, ...], *, head: bool = False) -> tuple[str, bytes] | None:
        status, pushed, body = api.ask(place, head=head)
        if status != 200 and status not in absent:
            problems.append(f"the source answered {status} for {place}")
        return (pushed, body) if status == 200 else None

    # A registry without the API answers 404, and some answer that they do not know the path or the method.
    answer = ask(f"referrers/{digest}", (400, 404, 405))
    listed = listed_in(answer[1]) if answer else None
    if listed is None and ask(f"manifests/{tag}", (404,), head=True):
        answer = ask(f"manifests/{tag}", ())
        listed = listed_in(answer[1]) if answer else None
        if answer and listed is None:
            problems.append(f"the tag {tag} is no list of artifacts")
    found = []
    for kind in (".sig", ".att", ".sbom"):
        answer = ask(f"manifests/{tag}{kind}", (404,), head=True)
        if answer and DIGEST.fullmatch(answer[0]):
            found.append((answer[0], f":{tag}{kind}"))
        elif answer:
            problems.append(f"the source does not say which digest the tag {tag}{kind} has")
    return found + [(each, f"@{each}") for each in listed or ()], problems[0] if problems else ""


def listed_in(body: bytes) -> list[str] | None:
    """Return the digests in an index, each once, or None if it is no index."""
    try:
        digests = [entry["digest"] for entry in json.loads(body)["manifests"]]
        return [each for each in dict.fromkeys(digests) if DIGEST.fullmatch(each)]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


class SourceApi:
    """The API of the source's registry, by curl: no command of crane reads referrers."""

    def __init__(self, build: Build, source: Source, login: Mapping[str, str] | None) -> None:
        """Take the login for the source. One that is an identity token is not used here."""
        self.build, self.path = build, source.path
        host = "registry-1.docker.io" if source.host == "docker.io" else source.host
        self.base = f"https://{host}/v2/{source.path}/"
        self.basic = ""
        if login and "username" in login:
            pair = f"{login['username']}:{login['password']}"
            self.basic = "Basic " + base64.b64encode(pair.encode()).decode()
        self.authorization: str | None = None

    def ask(self, place: str, *, head: bool = False) -> tuple[int, str, bytes]:
        """Return the status, the Docker-Content-Digest and the body of a place in the repository. Raises Ended."""
        status, headers, body = self.request(self.base + place, self.authorization or "", head=head)
        # After a redirect another host would say who gets the login.
        if status == 401 and self.authorization is None and "redirected" not in headers:
            self.authorization = self.authorization_for(headers.get("www-authenticate", ""))
            status, headers, body = self.request(self.base + place, self.authorization, head=head)
        return status, headers.get("docker-content-digest", ""), body

    def authorization_for(self, challenge: str) -> str:
        """Return the Authorization header for a challenge, "" for none: Basic, or Bearer with a token."""
        bearer = re.search(r"\bbearer\s+(.*)", challenge, re.IGNORECASE | re.DOTALL)
        if not bearer:
            return self.basic
        pairs = re.findall(r'(realm|service)\s*=\s*"([^"]*)"', bearer[1], re.IGNORECASE)
        values = {name.lower(): value for name, value in reversed(pairs)}  # of the first challenge
        realm = values.get("realm", "")
        if not re.fullmatch(r"https://[!-~]+", realm):
            return ""
        query = {"scope": f"repository:{self.path}:pull"}
        if "service" in values:
            query["service"] = values["service"]
        status, _, body = self.request(f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}", self.basic)
        try:
            answer = json.loads(body) if status == 200 else {}
            token = answer.get("token") or answer.get("access_token") or ""
        except (ValueError, AttributeError, RecursionError):
            return ""
        if not isinstance(token, str) or not re.fullmatch(r"[A-Za-z0-9+/=._~:-]+", token):
            return ""
        if len(token) >= SHORTEST_SECRET:  # a shorter one would be masked in words
            self.build.hide(token)
        return f"Bearer {token}"

    def request(self, url: str, authorization: str, *, head: bool = False) -> tuple[int, dict[str, str], bytes]:
        """Return the status, the headers by their lower-case names, and the body. Raises Ended if there is no answer.

        curl sends the authorization to no other host after a redirect.
        """
        config, answer, body = (self.build.folder / name for name in ("curl.txt", "headers.txt", "body"))
        config.write_text(f'header = "Authorization: {authorization}"\n' if authorization else "", encoding="utf-8")
        for file in (answer, body):
            file.write_bytes(b"")
        left = max(self.build.deadline - time.monotonic(), 1)
        files = ("--config", str(config), "--dump-header", str(answer), "--output", str(body))
        limits = (
            "--max-time",
            f"{left:.0f}",
            "--max-filesize",
            "4000000",
            "--proto",
            "=https",
            "--proto-redir",
            "=https",
        )
        command = ("curl", "--silent", "--show-error", "--location", "--globoff", *files, *limits)
        more = ("--head",) if head else ()
        status, output, errors = self.build.run(
            *command,
            *more,
            "--header",
            f"Accept: {MANIFEST_TYPES}",
            "--write-out",
            "%{http_code} %{num_redirects}",
            "--url",
            url,
        )
        answered = re.fullmatch(r"([0-9]{3}) ([0-9]+)", output)
        if status or not answered:
            raise Ended("UNREACHABLE", errors or "curl ended without an answer")
        # After redirects the file has the headers of each answer.
        last = re.split(r"\r?\n\r?\n", answer.read_text("latin-1").strip())[-1]
        headers: dict[str, str] = {}
        for name, _, value in (line.partition(":") for line in last.splitlines()[1:]):
            before = f"{headers[name.lower()]}, " if name.lower() in headers else ""
            headers[name.lower()] = before + value.strip()
        if answered[2] != "0":
            headers["redirected"] = answered[2]
        return int(answered[1]), headers, body.read_bytes()


def main(outcome: str) -> int:
    """Copy the image, write the result to the file `outcome`, and return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        build = Build(os.environ, Path(folder))
        try:
            copy_image(build)
        except Ended as error:
            ended = error
        except OSError as error:
            ended = Ended("UNEXPLAINED", f"the build cannot use {error.filename or 'a file'}: {error.strerror}")
        except Exception as error:
            ended = Ended("UNEXPLAINED", f"a bug of the build: {type(error).__name__}")
        lines = (ended.result, shortened(build.shown(ended.reason)), ended.digest, ended.signatures)
    Path(outcome).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    signatures = f"; signatures: {ended.signatures}" if ended.signatures else ""
    print(f"{lines[0]}: {lines[1]}{signatures}", flush=True)
    return EXIT_CODES[ended.result]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
