"""Logins to ECR that end: a registry whose passwords are given to sessions, and are refused when their time is over.

ECR says that a password is valid for twelve hours. AWS does not say whether it ends before that with the session that
asked for it, so a test chooses.
"""

import base64
import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from e2e.fakes.federation import Federation, caller_of
from e2e.fakes.registries import Registry, forwarded
from e2e.fakes.servers import Answer, Request, serving

LONGEST = 12 * 3600
"""Seconds for which a password is valid (GetAuthorizationToken's reference)."""
EXPIRED = "Your authorization token has expired. Reauthenticate and try again."


@dataclass
class Logins:
    """The passwords with their ends, by the clock of `federation`, and how many requests had one that was over.

    `after` is called with each request to the registry that was not refused, before its answer is sent.
    """

    federation: Federation
    behind: Registry
    end_with_session: bool = False
    passwords: dict[str, float] = field(default_factory=dict)
    refused: list[Request] = field(default_factory=list)
    after: Callable[[Request], None] = lambda _: None

    def give(self, request: Request) -> Answer:
        """Answer GetAuthorizationToken of a session."""
        session, _ = caller_of(self.federation, request)
        ends = self.federation.clock() + LONGEST
        if self.end_with_session:
            ends = min(ends, session.expires_at)
        password = secrets.token_urlsafe(30)
        self.passwords[password] = ends
        token = base64.b64encode(f"AWS:{password}".encode()).decode()
        return Answer(
            200, json.dumps({"authorizationData": [{"authorizationToken": token, "expiresAt": ends}]}).encode()
        )

    def answer(self, request: Request) -> Answer:
        """Answer a request to the registry. The login of the registry behind is the test's own, and does not end."""
        assert self.behind.login
        password = _password(request)
        if password in self.passwords and self.federation.clock() >= self.passwords[password]:
            self.refused.append(request)
            body = json.dumps({"errors": [{"code": "DENIED", "message": EXPIRED}]}).encode()
            return Answer(403, body, {"Content-Type": "application/json"})
        if password in self.passwords:
            own = base64.b64encode(":".join(self.behind.login).encode()).decode()
            request = replace(request, headers={**request.headers, "authorization": f"Basic {own}"})
        answer = forwarded(self.behind, request)
        self.after(request)
        return answer

    @contextmanager
    def registry(self) -> Iterator[Registry]:
        """Serve the registry with these logins while the context is active."""
        with serving(self.answer) as port:
            yield replace(self.behind, host=f"localhost:{port}")


def _password(request: Request) -> str:
    kind, _, text = request.headers.get("authorization", "").partition(" ")
    return base64.b64decode(text).decode().partition(":")[2] if kind.lower() == "basic" else ""
