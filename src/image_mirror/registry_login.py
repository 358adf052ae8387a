"""The logins for the sources: the text of the secret of RegistryAuthSecretArn.

It is a config.json of docker or an auth.json of containers: {"auths": {KEY: ENTRY}}. KEY is a host or a host and a
path, with or without "https://" and "/v1/" or "/v2/". ENTRY has "auth", which is USER:PASSWORD in base64, or "username"
and "password", or "identitytoken".

The build in image-pulling.yaml contains this module, and `image-mirror doctor` checks the secret with it. So it has the
syntax of Python 3.9 and imports only the standard library.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any

DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com")


class LoginError(ValueError):
    """A secret that does not give the login that it should give. `fault` continues "the secret ..."."""

    def __init__(self, fault: str, remedy: str) -> None:
        super().__init__(fault, remedy)
        self.fault, self.remedy = fault, remedy


def login_of(text: str, host: str, path: str) -> tuple[str, dict[str, str]] | None:
    """Return the key and the login for the repository `path` on `host` in the secret's text, or None.

    The longest key that fits decides. The login is as `usable` returns it. Raises LoginError for a secret that the copy
    would ignore.
    """
    if not text.strip():
        return None
    found = None
    for key, entry in entries_of(text).items():
        its_host, its_path = place_of(key)
        fits = its_host == place_of(host)[0] and (
            path == its_path or f"{path}/".startswith(f"{its_path}/" * bool(its_path))
        )
        if fits and (found is None or len(its_path) > len(place_of(found[0])[1])):
            found = (key, entry)
    return found and (found[0], usable(*found))


def entries_of(text: str) -> dict[str, dict[str, Any]]:
    """Return the object under "auths". Raises LoginError."""
    form = 'write {"auths": {"HOST": {"auth": "..."}}}, as `docker login` does without a credential store'
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise LoginError("is not a JSON object", form)
    auths = document.get("auths")
    stores = any(name in document for name in ("credsStore", "credHelpers"))
    if isinstance(auths, dict) and auths and all(isinstance(entry, dict) for entry in auths.values()):
        if any(auths.values()) or not stores:
            return auths
        raise LoginError("only names a credential store (credsStore, credHelpers)", form)
    if document.get("kind") == "Secret" or ".dockerconfigjson" in document:
        raise LoginError("is a whole Secret of Kubernetes", "store the decoded text of its .dockerconfigjson")
    if "username" in document or "auth" in document:
        raise LoginError("is a login without its registry", form)
    if stores:
        raise LoginError("only names a credential store (credsStore, credHelpers)", form)
    if "auths" not in document and any(isinstance(value, dict) for value in document.values()):
        raise LoginError('is an old .dockercfg without "auths"', 'put its content under "auths"')
    raise LoginError('has no logins under "auths"', form)


def usable(key: str, entry: dict[str, Any]) -> dict[str, str]:
    """Return the "username" and the "password", or the "identitytoken", of a login. Raises LoginError."""
    token = entry.get("identitytoken")
    if isinstance(token, str) and token and not _is_no_text(token):
        return {"identitytoken": token}
    user, password = entry.get("username"), entry.get("password")
    if not (isinstance(user, str) and isinstance(password, str) and user and password):
        auth = entry.get("auth")
        if not isinstance(auth, str) or not auth:
            raise LoginError(f"has no login for {shown_key(key)}", 'give it "auth", or "username" and "password"')
        form = f'has a login for {shown_key(key)} whose "auth" is not'
        remedy = "encode USER:PASSWORD in base64"
        try:
            user, colon, password = base64.b64decode(auth.strip(), validate=True).decode().partition(":")
        except ValueError:  # of base64, or of UTF-8
            raise LoginError(f"{form} base64", remedy) from None
        password = password.rstrip("\0")
        if not colon or not user or not password:
            raise LoginError(f"{form} USER:PASSWORD", remedy)
    if _is_no_text(user + password):
        raise LoginError(f"has a login for {shown_key(key)} that is no text", "write it in UTF-8")
    return {"username": user, "password": password}


def _is_no_text(text: str) -> bool:
    """Return whether a text cannot be encoded: JSON can contain half of a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def place_of(key: str) -> tuple[str, str]:
    """Return the host and the path of a login's key."""
    host, _, path = re.sub(r"^https?://", "", key.strip()).partition("/")
    path = re.sub(r"^v[12](/|$)", "", path).strip("/")
    return ("docker.io" if host.lower() in DOCKER_HUB else host.lower()), path


def shown_key(key: str) -> str:
    """Return a login's key for people: printable ASCII of at most 100 characters, without a user and a password."""
    return re.sub(r"[^ -~]", "?", re.sub(r"^(https?://)?[^/]*@", r"\1", key.strip()))[:100]
