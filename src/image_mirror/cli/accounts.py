"""The two AWS accounts as an operator reaches them: by profiles of the AWS CLI, or by its environment variables."""

import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import typer
from botocore.config import Config
from botocore.session import Session

from image_mirror.cli import requests_log
from image_mirror.cli.errors import NoAnswerError

if TYPE_CHECKING:
    from image_mirror.aws import AccessKey


@dataclass(frozen=True)
class Account:
    """One side: `side` is china or global, as in the names of its options; `profile` and `region` may be left open.

    Raises typer.BadParameter for a region that is given and lies on the other side.

    The region is the option's; else the named profile's own, for one variable cannot serve two accounts; else that of
    AWS_REGION or AWS_DEFAULT_REGION, or of the default profile.
    """

    side: str
    profile: str | None = None
    given_region: str | None = None

    def __post_init__(self) -> None:
        """Refuse the option's value before anything is done; what a profile or the environment says is read later."""
        if self.given_region and not self._holds(self.given_region):
            cause = f"{self.given_region} is not {self._there}"
            raise typer.BadParameter(cause, param_hint=f"--{self.side}-region")

    def __str__(self) -> str:
        """Name the account in errors."""
        return f"{self.side} account (profile {self.profile})" if self.profile else f"{self.side} account"

    @cached_property
    def region(self) -> str:
        """The region's name. Raises NoAnswerError where none is set, or where it lies on the other side."""
        region, _ = self.found_region()
        if not region:
            region = f"--{self.side}-region"
            then = f"set it in the profile, or give {region}" if self.profile else f"{self._name_it}, or else {region}"
            raise NoAnswerError(f"{self}: no region is set", then)
        if not self._holds(region):
            options = f"--{self.side}-profile or --{self.side}-region"
            raise NoAnswerError(f"{self}: {region} is not {self._there}", f"give {options}")
        return str(region)

    def found_region(self) -> tuple[str | None, str]:
        """Return the region, None where none is set, and what set it, for people. Raises BotoCoreError."""
        if self.given_region:
            return self.given_region, f"--{self.side}-region"
        if self.profile and (own := self._session.get_scoped_config().get("region")):
            return str(own), f"the profile {self.profile}"
        for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
            if os.environ.get(name):
                return os.environ[name], name
        found = self._session.get_config_variable("region")
        profile = self.profile or self._session.get_config_variable("profile")  # a variable may name it
        return (str(found), f"the profile {profile or 'default'}") if found else (None, "nothing sets it")

    @property
    def asks_for_a_code(self) -> bool:
        """Return whether a call can ask the operator for an MFA code, because of the profile or one that it assumes."""
        profiles = self._session.full_config["profiles"]
        name, seen = self.profile or self._session.get_config_variable("profile") or "default", set[str]()
        while name in profiles and name not in seen:
            seen.add(name)
            if "mfa_serial" in profiles[name]:
                return True
            name = profiles[name].get("source_profile", "")
        return False

    def client(self, service: str, key: "AccessKey | None" = None) -> Any:
        """Make a client of `service`, whose errors name this account. Raises NoAnswerError, BotoCoreError.

        It signs with `key`, in that key's region, where one is given.
        """
        region = key.region if key else self.region
        if key is None and self._session.get_credentials() is None:
            raise NoAnswerError(f"{self}: no credentials are found", self._name_it)
        limits = Config(
            connect_timeout=5,
            read_timeout=30,
            retries={"mode": "standard", "total_max_attempts": 3},
            max_pool_connections=32,
        )
        client = self._session.create_client(
            service,
            region_name=region,
            aws_access_key_id=key.access_key_id if key else None,
            aws_secret_access_key=key.secret_access_key if key else None,
            config=limits,
        )
        client.meta.events.register("after-call", self._sign)
        requests_log.watch(client, self)
        # botocore makes these classes at their first use, and two threads at once would get different ones.
        _ = client.exceptions
        return client

    @property
    def _name_it(self) -> str:
        # The variables are those in options.py.
        return f"give --{self.side}-profile, or set IMAGE_MIRROR_{self.side.upper()}_PROFILE"

    @property
    def _there(self) -> str:
        return "in China (cn-north-1 or cn-northwest-1)" if self.side == "china" else "outside China"

    def _holds(self, region: str) -> bool:
        return region.startswith("cn-") is (self.side == "china")

    @cached_property
    def _session(self) -> Session:
        return Session(profile=self.profile)

    def _sign(self, parsed: dict[str, Any], **_: object) -> None:
        if "Error" in parsed:
            parsed["Account"] = str(self)
