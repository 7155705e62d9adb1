"""Both commands have this in common: options in groups, a help page that shows what to type, completion, an end.

words → ``Command.main`` → the command's function → exit status
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import click

from converters.choices import JSON_SCHEMA
from converters.cli.endings import Ending
from converters.cli.output import say_own, tolerant_streams
from converters.errors import UsageError
from converters.memory import collect_seldom, leave

F = TypeVar("F", bound=Callable[..., Any])

GROUPS = ("Source", "Output", "Verification", "Publishing", "Run")
BESIDE = 48
"""Columns that are kept for what examples and variables mean; a longer one has a line of its own."""
GUIDE = "https://bit-convert.github.io/bit-convert/"
ENVIRONMENT = {
    "BIT_CONVERT_CACHE": "Where downloads are kept.  [default: ~/.cache/bit-convert]",
    "BIT_CONVERT_OFFLINE, HF_HUB_OFFLINE": "1: nothing is asked of a network, as with --offline.",
    "BIT_CONVERT_MIRROR": "An address that replaces https://storage.googleapis.com/bit_models/.",
    "BIT_CONVERT_TFHUB_MIRROR": "An address that replaces https://tfhub.dev/.",
    "HF_TOKEN, HF_ENDPOINT, HF_HOME": "The Hub's token, address, and folder of downloads.",
    "SIGSTORE_IDENTITY_TOKEN": "An identity to sign with (--sign).",
    "HTTPS_PROXY, SSL_CERT_FILE": "A proxy, and whom to trust.",
    "TMPDIR": "Where archives are unpacked.",
}


TOKEN_VARIABLE = "HF_TOKEN"
"""Read by huggingface_hub, also in the processes that a run starts."""


class Option(click.Option):
    """An option of one of GROUPS, which shows its default where its help does not say it in other words."""

    def __init__(self, names: Any = None, *, group: str = "Run", help: str = "", **attributes: Any) -> None:
        super().__init__(names, help=help, show_default="[default: " not in help, **attributes)
        self.group = group


def options_of(group: str) -> Callable[..., Callable[[F], F]]:
    """``click.option`` for a group."""
    return partial(click.option, cls=Option, group=group)


class Command(click.Command):
    """A command that ends as the contract says: one or two lines on stderr, and the exit status of what went wrong.

    With ``--json``, stdout has one JSON document in any case. ``examples`` are what to type, and what it does;
    ``statuses`` say what the exit status means; ``others`` are commands of their own behind a first word.
    """

    def __init__(
        self,
        name: str,
        *,
        examples: dict[str, str],
        statuses: dict[str, str],
        others: Mapping[str, Callable[[], click.Command]] | None = None,
        **attributes: Any,
    ) -> None:
        settings = {"max_content_width": 120, "help_option_names": ["-h", "--help"]}
        super().__init__(name, context_settings=settings, **attributes)
        self.examples, self.statuses, self.others = examples, statuses, others or {}

    def main(self, args: Any = None, prog_name: str | None = None, *rest: Any, **extra: Any) -> Any:
        if args is None:
            collect_seldom()
        words = list(sys.argv[1:] if args is None else map(str, args))
        if words and words[0] in self.others:
            return self.others[words[0]]().main(words[1:], f"{prog_name or self.name} {words[0]}", *rest, **extra)
        empty: dict[str, Any] = {"schema": JSON_SCHEMA, "results": []} if self.name == "bit-convert" else {}
        name = prog_name or self.name or ""
        ending = Ending(name, debug="--debug" in words, as_json="--json" in words, empty=empty)
        with tolerant_streams():
            if sys.platform == "win32":
                status = ending.with_error(UsageError("needs Linux or macOS: Windows has no POSIX file locks."))
            else:
                _remember_addresses(words)
                status = ending.of(lambda: super(Command, self).main(args, prog_name, standalone_mode=False))
        if args is None:
            leave(status)
        sys.exit(status)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Raises UsageError for an empty word: it is a variable that is not set, and no path but the working folder."""
        words = [] if ctx.resilient_parsing else args
        for before, word in zip(["", *words], words, strict=False):
            option, equals, value = word.partition("=")
            if not word or (option.startswith("--") and equals and not value):
                named = option or (before if before.startswith("-") else "a word")
                raise UsageError(f"{named} is empty. Leave it out, or give it a value.")
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options by group, then what to type."""
        records: dict[str, list[tuple[str, str]]] = {group: [] for group in GROUPS}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                records[getattr(parameter, "group", "Run")].append(record)
        for group, rows in records.items():
            if rows:
                with formatter.section(group):
                    formatter.write_dl(rows, col_max=40)
        for title, entries in (
            ("Examples", self.examples),
            ("Environment", ENVIRONMENT),
            ("Exit status", self.statuses),
        ):
            with formatter.section(title):
                formatter.write_dl(list(entries.items()), col_max=max(24, min(64, formatter.width - BESIDE)))
        formatter.write(f"\nGuide: {GUIDE}\n")


@contextmanager
def using(token: str | None) -> Iterator[None]:
    """Inside, the Hub is asked with ``token``, which nothing that is printed or written shows; None changes nothing.

    Raises UsageError for what can be no token.
    """
    if token is None:
        yield
        return
    from converters.redaction import remember_secret

    remember_secret(token)
    if not token.isascii() or not token.isprintable() or not token.strip() or " " in token:
        raise UsageError(f"--token has characters that no token has. Give the token itself, or set {TOKEN_VARIABLE}.")
    before = os.environ.get(TOKEN_VARIABLE)
    os.environ[TOKEN_VARIABLE] = token
    try:
        yield
    finally:
        if before is None:
            del os.environ[TOKEN_VARIABLE]
        else:
            os.environ[TOKEN_VARIABLE] = before


def _remember_addresses(words: Sequence[str]) -> None:
    """The secrets in them: whatever echoes one does not tell it."""
    addresses = [word for word in words if ":" in word]
    if addresses:
        from converters.redaction import remember

        for address in addresses:
            remember(address)


def _show_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say_own(f"{context.command.name} {version('bit-convert')}\n")
        context.exit()


def _install_completion(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from converters.cli.completion import install

        say_own(install(context.command))
        context.exit()


RUN = options_of("Run")
QUIET = RUN("-q", "--quiet", is_flag=True, help="No progress.")
VERBOSE = RUN("-v", "--verbose", is_flag=True, help="Each step as a line, with its seconds.")
DEBUG = RUN("--debug", is_flag=True, help="Tracebacks.")
COMPLETION = RUN(
    "--install-completion",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_install_completion,
    help="Have this shell (bash, zsh, fish) complete options and variants.",
)
VERSION = RUN(
    "-V",
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show the version.",
)
