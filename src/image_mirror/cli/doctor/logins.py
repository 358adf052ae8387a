"""The logins for sources: the secret that RegistryAuthSecretArn of the global stack names, read as the build reads it.

No result contains a part of the secret, except the hosts and paths that have a login.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress

from image_mirror.cli.doctor.keys import Absent, secret_text
from image_mirror.cli.doctor.runner import Check, CheckResult, Context, fail, fetch, fine, unless, warn
from image_mirror.cli.doctor.stacks import global_stack
from image_mirror.cli.keys.plan import secret_name
from image_mirror.cli.remedies import deploy_global, get_back
from image_mirror.cli.stacks import Stack
from image_mirror.reference import InvalidReferenceError, parse_reference
from image_mirror.registry_login import LoginError, entries_of, place_of, usable

LOGINS = "source logins"

_PARAMETER = "RegistryAuthSecretArn"
_MOST_CHARACTERS = 4_000  # as the parameter's description says
_FEWEST_MASKED = 8  # of a shorter text, any other text could be a part


@fetch(LOGINS)
def auth_text(context: Context) -> str | Absent | None:
    """Return the secret's text, None if the stack names no secret in its region."""
    stack = context.answer(global_stack)
    arn = stack.parameter(_PARAMETER)
    if not arn or _region_of(arn) != stack.account.region:
        return None
    text = secret_text(stack.account, arn)
    if isinstance(text, str):
        context.hide(*secrets_in(text))
    return text


def secrets_in(text: str) -> Sequence[str]:
    """Return the passwords and tokens in the secret's text, as written and decoded, but none that could be a word."""
    found: list[str] = []
    with suppress(LoginError):
        for key, entry in entries_of(text).items():
            found += [value for name, value in entry.items() if name != "username" and isinstance(value, str)]
            with suppress(LoginError):
                found += [value for name, value in usable(key, entry).items() if name != "username"]
    return [each for each in found if len(each) >= _FEWEST_MASKED]


def judge_logins(text: str | Absent | None, global_side: Stack) -> Sequence[CheckResult]:
    """Judge the secret that the stack names, by its text."""
    arn, region = global_side.parameter(_PARAMETER), global_side.account.region
    if not arn:
        return [fine(LOGINS, f"none: {_PARAMETER} is empty, so builds read the sources without a login")]
    name = secret_name(arn)
    secret = f"the secret of {_PARAMETER} ({name})"
    other = f"then {deploy_global(global_side, f'{_PARAMETER}=<its ARN>')}"
    if text is None:
        found = f"{secret} is in {_region_of(arn)}, not in the stack's region {region}"
        return [fail(LOGINS, found, f"store the logins in a secret in {region}, {other}")]
    if isinstance(text, Absent):
        remedies = {
            Absent.MARKED: get_back(global_side.account, name),
            Absent.GONE: f'create it again, as docs/install.md says under "Logins for sources"; {other}',
        }
        return [fail(LOGINS, f"{secret} {text.value}, so every build fails", remedies[text])]
    if not text.strip():
        remedy = 'store a registry auth file in it, as docs/install.md says under "Logins for sources"'
        return [fail(LOGINS, f"{secret} has no text, so builds read the sources without a login", remedy)]
    try:
        entries = entries_of(text)
    except LoginError as error:
        return [fail(LOGINS, f"{secret} {error.fault}", error.remedy)]

    def faults() -> Iterator[CheckResult]:
        if len(text) > _MOST_CHARACTERS:
            found = f"{secret} has {len(text):,} characters, and a build gets at most {_MOST_CHARACTERS:,}"
            yield fail(LOGINS, found, "keep only the logins that copies need")
        for number, (key, entry) in enumerate(entries.items(), 1):
            # A key that is not a host could be a secret in the wrong place, so it is not printed.
            if not _fits_an_image(key):
                found = f"{secret} has login number {number} under a name that no image begins with"
                yield warn(LOGINS, found, "name the host of a registry, such as ghcr.io, without a wildcard")
                continue
            try:
                usable(key, entry)
            except LoginError as error:
                yield fail(LOGINS, f"{secret} {error.fault}", error.remedy)

    places = dict.fromkeys("/".join(filter(None, place_of(key))) for key in entries)
    return unless(faults(), fine(LOGINS, f"{name} has a login for {', '.join(places)}"))


def _region_of(arn: str) -> str:
    return arn.split(":")[3]  # the parameter's pattern allows only whole ARNs


def _fits_an_image(key: str) -> bool:
    """Return whether an image can be in the place of a login's key."""
    host, path = place_of(key)
    try:
        return parse_reference(f"{host}/{path or 'any'}").registry == host
    except InvalidReferenceError:
        return False


CHECKS = (Check(LOGINS, judge_logins, (auth_text, global_stack)),)
