"""A real Kubernetes control plane without nodes: etcd, API server, controller manager, and kubectl."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from e2e.harness.processes import absent, free_port, program, running, server, wait_for

_TOKEN = "token"
_CONTROLLERS = "deployment,replicaset,statefulset,job"


class Cluster:
    """The control plane as users see it, through kubectl."""

    def __init__(self, kubectl: Path, kubeconfig: Path, audit_log: Path) -> None:
        """Take the kubectl program, the kubeconfig file, and the API server's audit log.

        kubectl's caches are beside the kubeconfig file.
        """
        self._audit_log = audit_log
        self._command = [str(kubectl), "--kubeconfig", str(kubeconfig)]
        # Without the user's ~/.kube (cache, kuberc) and KUBECTL_ variables. `kubectl diff` finds diff on the PATH.
        self._environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(kubeconfig.parent)}

    def try_kubectl(self, *arguments: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl and return its result."""
        command = [*self._command, *map(str, arguments)]
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, check=False, timeout=60, env=self._environment
        )

    def kubectl(self, *arguments: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl, which must succeed."""
        done = self.try_kubectl(*arguments, stdin=stdin)
        assert done.returncode == 0, f"kubectl {' '.join(map(str, arguments))}: {done.stderr}"
        return done

    def get(self, *arguments: str) -> Any:
        """Return an object or a list as JSON."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json").stdout)

    def audited(self, verb: str, name: str) -> list[Any]:
        """Return the events about the pod `name` that the audit log has for a verb, at the stage ResponseComplete."""
        events = map(json.loads, self._audit_log.read_text(encoding="utf-8").splitlines())
        return [each for each in events if (each["verb"], each["objectRef"].get("name")) == (verb, name)]

    def apply(self, value: object, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Apply an object that is plain data."""
        return self.kubectl("apply", *arguments, "-f", "-", stdin=json.dumps(value))


@contextmanager
def namespace(cluster: Cluster, name: str, **labels: str) -> Iterator[str]:
    """Create a namespace, and delete it with its pods at the end."""
    metadata = {"name": name, "labels": labels}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    try:
        yield name
    finally:
        cluster.kubectl("delete", "pod", "-n", name, "--all", "--force", "--grace-period=0")
        cluster.kubectl("delete", "namespace", name, "--wait=false")
        # No namespace controller runs, so the finalizer has to be removed here.
        final = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, "spec": {"finalizers": []}}
        path = f"/api/v1/namespaces/{name}/finalize"
        cluster.kubectl("replace", "--raw", path, "-f", "-", stdin=json.dumps(final))


def assets() -> Path:
    """Return the folder with the control plane's programs, from KUBEBUILDER_ASSETS."""
    folder = Path(os.environ.get("KUBEBUILDER_ASSETS", "/nowhere"))
    for name in ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl"):
        if not (folder / name).exists():
            absent(f"KUBEBUILDER_ASSETS is no folder with {name}")
    return folder


@contextmanager
def control_plane(folder: Path) -> Iterator[Cluster]:
    """Run a control plane with its files in `folder`; it is ready when the context begins and ends with it."""
    programs = assets()
    etcd, peer, secure = free_port(), free_port(), free_port()
    url = f"https://127.0.0.1:{secure}"
    key = folder / "service-accounts.key"
    openssl = program("openssl", "apt-get install openssl")
    subprocess.run([openssl, "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    tokens = folder / "tokens.csv"
    tokens.write_text(f'{_TOKEN},admin,1,"system:masters"\n')
    kubeconfig = folder / "kubeconfig.json"
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": url, "insecure-skip-tls-verify": True}}],
                "users": [{"name": "u", "user": {"token": _TOKEN}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    policy, audit_log = folder / "audit-policy.json", folder / "audit.log"
    rules = [{"level": "Metadata", "resources": [{"group": "", "resources": ["pods"]}]}, {"level": "None"}]
    kind = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"]}
    policy.write_text(json.dumps(kind | {"rules": rules}))
    cluster = Cluster(programs / "kubectl", kubeconfig, audit_log)
    with ExitStack() as stack:

        def start(name: str, port: int | None, *flags: str | Path) -> None:
            command, log = [programs / name, *flags], folder / f"{name}.log"
            stack.enter_context(running(command, log) if port is None else server(command, log, port, name, 60))

        client = f"http://127.0.0.1:{etcd}"
        start(
            "etcd",
            etcd,
            *("--data-dir", folder / "etcd", "--unsafe-no-fsync", "--listen-peer-urls", f"http://127.0.0.1:{peer}"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
        )
        start(
            "kube-apiserver",
            secure,
            *("--etcd-servers", client, "--cert-dir", folder / "certificates", "--token-auth-file", tokens),
            *("--secure-port", str(secure), "--bind-address", "127.0.0.1"),
            *("--service-account-issuer", "https://localhost", "--service-account-signing-key-file", key),
            *("--service-account-key-file", key, "--authorization-mode", "RBAC"),
            *("--disable-admission-plugins", "ServiceAccount", "--service-cluster-ip-range", "10.0.0.0/24"),
            *("--audit-policy-file", policy, "--audit-log-path", audit_log),
            *("--shutdown-delay-duration", "0s", "--shutdown-send-retry-after=false"),
        )
        wait_for(lambda: cluster.try_kubectl("get", "--raw", "/readyz").returncode == 0, "the API server is ready", 60)
        start(
            "kube-controller-manager",
            None,
            *("--kubeconfig", kubeconfig, "--controllers", _CONTROLLERS),
            *("--leader-elect=false", "--secure-port", "0"),
        )
        wait_for(lambda: cluster.try_kubectl("get", "namespace", "default").returncode == 0, "a default namespace")
        yield cluster
