"""Makes all AWS clients, with botocore: boto3 would make each cold start slower and is not needed."""

import ssl
import threading
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from botocore import httpsession
from botocore.config import Config
from botocore.session import Session, get_session


@dataclass(frozen=True, slots=True)
class AccessKey:
    """An access key of another account, or of a session there; its secret parts are never printed."""

    region: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """The limits of one call: seconds to connect and to read, the number of tries, and of connections."""

    connect: float
    read: float
    attempts: int
    connections: int = 10


class _Trust(ssl.SSLContext):
    """The TLS context that a client's connections share. It reads each file of root certificates once.

    urllib3 has the whole file read for each connection (its issue 3623), which costs 20 ms of CPU with OpenSSL 3: an
    instance whose first pod has ten images would need 0.2 s for that, and twice as long with half a CPU.
    """

    _reading = threading.Lock()

    def load_verify_locations(self, cafile: Any = None, capath: Any = None, cadata: Any = None) -> None:
        """Read the files that have not been read."""
        with self._reading:
            known: set[Any] = self.__dict__.setdefault("known", set())
            if (cafile, capath, cadata) not in known:
                super().load_verify_locations(cafile, capath, cadata)
                known.add((cafile, capath, cadata))


def connect(
    service: str,
    limits: CallLimits,
    key: AccessKey | None = None,
    *,
    region: str | None = None,
    config: Config | None = None,
) -> Any:
    """Make the client of `service`: the function's own role and region, or those of `key`.

    `region` replaces the function's own; `config` adds to what `limits` says.
    """
    limited = Config(
        connect_timeout=limits.connect,
        read_timeout=limits.read,
        retries={"mode": "standard", "total_max_attempts": limits.attempts},
        max_pool_connections=limits.connections,
    )
    config = limited if config is None else config.merge(limited)
    if key is None:
        return _session().create_client(service, region_name=region, config=config)
    return _session().create_client(
        service,
        region_name=key.region,
        aws_access_key_id=key.access_key_id,
        aws_secret_access_key=key.secret_access_key,
        aws_session_token=key.session_token,
        config=config,
    )


@cache
def _session() -> Session:
    # botocore takes no context from its users. If it makes contexts by another name, each connection reads them again.
    # Here and not at import: only the functions' clients need it, not every module that imports a name from this one.
    httpsession.SSLContext = _Trust  # type: ignore[attr-defined]
    session = get_session()
    # GetWebIdentityToken has no global endpoint, and a session of a regional one is valid in each region.
    session.set_config_variable("sts_regional_endpoints", "regional")
    return session
