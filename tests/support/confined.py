"""Runs a program as an ordinary user who can write into one folder only, as a build on CodeBuild's Lambda compute."""

import subprocess
from pathlib import Path

# In a mount namespace of its own everything becomes read-only but the folder. The second user namespace drops root.
_SCRIPT = (
    'mount --bind "$1" "$1" && mount -o remount,bind,ro / && shift '
    '&& exec unshare --user --map-user=1000 --map-group=1000 "$@"'
)


def confined(folder: Path) -> tuple[str, ...] | None:
    """Return the program and arguments that go before a command, or None if this machine allows no user namespaces."""
    namespaces = ("unshare", "--user", "--map-root-user", "--mount", "--propagation", "private")
    prefix = (*namespaces, "/bin/sh", "-c", _SCRIPT, "sh", str(folder))
    try:
        done = subprocess.run([*prefix, "/bin/true"], capture_output=True, check=False)
    except FileNotFoundError:
        return None
    return prefix if done.returncode == 0 else None
