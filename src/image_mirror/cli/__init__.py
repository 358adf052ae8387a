"""The operator's command, `image-mirror`. A command's module is imported when it is called, and not for the help."""

import io
import sys
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

# In the order in which an operator meets them: where each lies, and its line in the list, whole where Typer would cut
# the help's.
_COMMANDS = {
    "templates": ("commands.templates", "Write what sam build and sam deploy need."),
    "connect": ("commands.connect", "Let the two accounts reach each other."),
    "webhook-config": ("commands.webhook_config", "Print the cluster's webhook configuration."),
    "doctor": ("commands.doctor", "Look at both accounts and say what is wrong."),
    "preview": ("commands.preview", "Show what the images in manifests become."),
    "warm": ("commands.warm", "Copy images before anyone deploys them."),
    "status": ("commands.status", "Show every copy and how it stands."),
    "retry": ("commands.retry", "Have failed and waiting copies made now."),
    "forget": ("commands.forget", "Remove records, so that copies are made anew."),
    "prune": ("commands.prune", "Show copies that nobody pulls, or remove them."),
    "demo": ("demo", "Run the main job on emulated AWS."),
}


class _Command(TyperCommand):
    """A command whose errors are sentences of this program."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments. Raises typer.BadParameter."""
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")  # the words of a library that Typer uses
            raise


class _Loaded(MutableMapping[str, Any]):
    """The commands by their names; each is imported when it is asked for."""

    def __init__(self) -> None:
        """Start with none imported."""
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        """Return a command as Typer makes it. Raises KeyError."""
        if name not in self._loaded:
            place, line = _COMMANDS[name]
            function = getattr(import_module(f"{__name__}.{place}"), name.replace("-", "_"))
            # Not above, for botocore's errors come with it.
            reported = import_module(f"{__name__}.errors").reported
            alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
            alone.command(name, cls=_Command, short_help=line)(reported(function))
            self._loaded[name] = typer.main.get_command(alone)
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        """Put a command in its place."""
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        """Forget a command that was imported."""
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        """Yield the names, which need no import."""
        return iter(_COMMANDS)

    def __len__(self) -> int:
        """Count the names."""
        return len(_COMMANDS)


class _Commands(TyperGroup):
    """All commands, listed without their modules."""

    def __init__(self, **options: Any) -> None:
        """Take what Typer gives, and put the commands that load in the place of none."""
        super().__init__(**options | {"commands": _Loaded()})

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - Typer gives it
        """Return the names in their order."""
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - Typer gives it
        """Write the list of the help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments; to be given none is to be asked for the help, which is no error."""
        return super().parse_args(ctx, args or ["--help"])

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run the command; what the output's encoding cannot hold is printed as an escape, such as \\u20ac."""
        for stream in (sys.stdout, sys.stderr):
            # Only where it would be an error: who has asked for "replace", by PYTHONIOENCODING, gets that.
            if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
                stream.reconfigure(errors="backslashreplace")
        return super().main(*arguments, **options)


# Without rich_markup_mode errors are single lines, which survive a pipe, not boxes that wrap.
app = typer.Typer(cls=_Commands, rich_markup_mode=None, pretty_exceptions_enable=False)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version  # here, for it costs each command 9 ms

        typer.echo(f"image-mirror {version('image-mirror')}")
        raise typer.Exit


@app.callback()
def main(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Mirror container images into ECR for Kubernetes clusters in AWS China."""
