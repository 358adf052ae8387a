"""The operator's command, `image-mirror`. A command's module is imported when it is called, and not for the help."""

import inspect
import io
import os
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager, nullcontext, suppress
from functools import wraps
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

# In the order in which an operator uses them: the module of each, and its line in the list. Typer would cut the first
# sentence of a long help.
_COMMANDS = {
    "templates": ("commands.templates", "Write the files that a deployment needs."),
    "connect": ("commands.connect", "Create or rotate the access keys between the two accounts."),
    "webhook-config": ("commands.webhook_config", "Print the cluster's webhook configuration."),
    "doctor": ("commands.doctor", "Check both accounts, and say how to fix what is wrong."),
    "selftest": ("commands.selftest", "Copy a small image through both accounts, and time it."),
    "preview": ("commands.preview", "Show what the images in manifests become."),
    "warm": ("commands.warm", "Copy images before anyone deploys them."),
    "pods": ("commands.pods", "Show which pods cannot pull, why, and what to do."),
    "nudge": ("commands.nudge", "Let pods pull at once what is in ECR now."),
    "status": ("commands.status", "Show all copies and their states."),
    "retry": ("commands.retry", "Request failed, waiting and lost copies again, now."),
    "forget": ("commands.forget", "Remove records, so that images are copied again."),
    "prune": ("commands.prune", "Show or remove copies that nobody pulls."),
    "demo": ("commands.demo", "Run the main job on emulated AWS."),
    "version": ("commands.version", "Print the version."),
}


_HELP = {"help_option_names": ["-h", "--help"]}


class _Command(TyperCommand):
    """A command whose options have their defaults from the configuration file."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments. Raises typer.BadParameter, without the prefix of a library."""
        try:
            from image_mirror.cli import config_file  # noqa: PLC0415 - the help of all commands needs none of these

            # A wrong file must not hide the help, nor stop a command that uses nothing of it.
            if not {"-h", "--help"} & {*args} and {each.name for each in self.params} & {*config_file.KEYS.values()}:
                with suppress(typer.BadParameter) if ctx.resilient_parsing else nullcontext():  # for a completion
                    ctx.default_map = config_file.defaults()
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            parameter = error.param.name if error.param else None
            if parameter in (ctx.default_map or {}) and ctx.get_parameter_source(parameter).name == "DEFAULT_MAP":
                error.message += f" (as {config_file.name()} says)"
            error.message = error.message.removeprefix("Value error, ")  # a library that Typer uses adds it
            raise

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help. On a terminal, a wide line of an example or a list is folded below its last column."""
        with _whole_words():
            super().format_help(ctx, formatter)
        if sys.stdout.isatty():
            width = shutil.get_terminal_size().columns
            lines = "".join(formatter.buffer).split("\n")
            formatter.buffer = ["\n".join(part for line in lines for part in _parts(line, width))]


@contextmanager
def _whole_words() -> Iterator[None]:
    """Let nothing be wrapped after a hyphen: a name such as --china-profile must stay in one piece.

    Typer's formatter has no option for that.
    """
    before = textwrap.TextWrapper.wordsep_re
    textwrap.TextWrapper.wordsep_re = textwrap.TextWrapper.wordsep_simple_re
    try:
        yield
    finally:
        textwrap.TextWrapper.wordsep_re = before


def _parts(line: str, width: int) -> list[str]:
    columns = re.match(r" *(\S+ {2,})?", line)
    indent = " " * (columns.end() if columns else 0)
    return textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [""]


_Debug = Annotated[bool, typer.Option("--debug", help="Print each request, without secrets, on standard error.")]


def _with_debug(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command with one more option, --debug, which all have."""

    from image_mirror.cli import requests_log  # noqa: PLC0415

    @wraps(command)
    def called(*, debug: bool, **options: Any) -> Any:
        if debug:
            requests_log.switch(True)
        return command(**options)

    signature = inspect.signature(command)
    option = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_Debug)
    called.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])  # type: ignore[attr-defined]
    called.__annotations__ = {**command.__annotations__, "debug": _Debug}
    return called


class _Loaded(MutableMapping[str, Any]):
    """The commands by their names. A command is imported when it is looked up."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            module, line = _COMMANDS[name]
            function = getattr(import_module(f"{__name__}.{module}"), name.replace("-", "_"))
            # Not imported at the top of this file, because it imports botocore's errors.
            reported = import_module(f"{__name__}.errors").reported
            single = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
            single.command(name, cls=_Command, short_help=line, context_settings=_HELP)(_with_debug(reported(function)))
            self._loaded[name] = typer.main.get_command(single)
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_COMMANDS)

    def __len__(self) -> int:
        return len(_COMMANDS)


@contextmanager
def _folding() -> Iterator[None]:
    """Let the text of an error about options or arguments be folded, if it goes to a terminal."""
    try:
        yield
    except Exception as error:
        message = getattr(error, "format_message", None)  # which the errors of all releases of Typer have
        if message is not None and sys.stderr.isatty():
            prefix = "Error: "  # that Typer prints before the text
            text = "\n".join(import_module(f"{__name__}.output").folded(prefix + message()))
            error.format_message = lambda: text.removeprefix(prefix)  # type: ignore[attr-defined]
        raise


class _Commands(TyperGroup):
    """All commands. The list of them imports no command."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options | {"commands": _Loaded()})

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - Typer gives it
        """Return the names in their order."""
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - Typer gives it
        """Write the list of the help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments. Without any, the help is printed, and that is not an error."""
        return super().parse_args(ctx, args or ([] if ctx.resilient_parsing else ["--help"]))  # resilient: completion

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Read the arguments before the command."""
        with _folding():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with _folding():
            return super().invoke(ctx)

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run the command. A character that the output's encoding does not have is printed as an escape (\\u20ac)."""
        for stream in (sys.stdout, sys.stderr):
            # PYTHONIOENCODING can ask for another way, such as "replace".
            if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
                stream.reconfigure(errors="backslashreplace")
        if os.environ.get("_IMAGE_MIRROR_COMPLETE") == "complete_bash":
            from image_mirror.cli import completion  # noqa: PLC0415

            with completion.whole_images(os.environ):
                return super().main(*arguments, **options)
        return super().main(*arguments, **options)


# Without rich_markup_mode, errors are single lines. Otherwise Typer draws boxes and wraps the text, also in a pipe.
app = typer.Typer(cls=_Commands, rich_markup_mode=None, pretty_exceptions_enable=False, context_settings=_HELP)


def plugin() -> None:
    """Run `kubectl image-mirror`: kubectl looks for a program named kubectl-image_mirror."""
    app(prog_name="kubectl image-mirror")


def plugin_completion() -> None:
    """Complete `kubectl image-mirror`: kubectl runs kubectl_complete-image_mirror with the words that are typed.

    Prints a candidate a line, and then Cobra's directive 4: no names of files.
    """
    words = ["image-mirror", *sys.argv[1:]]
    os.environ |= {
        "_IMAGE_MIRROR_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(map(shlex.quote, words)),
        "COMP_CWORD": str(len(words) - 1),
    }
    with suppress(SystemExit):
        app(prog_name="image-mirror")
    typer.echo(":4")


def _version(is_set: bool) -> None:
    if is_set:
        import_module(f"{__name__}.commands.version").version()
        raise typer.Exit


@app.callback()
def main(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: _Debug = False,
) -> None:
    """Mirror container images into ECR for Kubernetes clusters in AWS China."""
    import_module(f"{__name__}.requests_log").switch(debug)
