"""The command lines ``bit-convert`` and ``bit-verify``: options in, exit status out; the work is done elsewhere.

Until a command knows what it has to do, only click and the catalogue are imported.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from converters import choices
from converters.cli.endings import Ending, terminable
from converters.cli.output import guarded_libraries, say_own, tolerant_streams
from converters.errors import UsageError

FOLDER = click.Path(file_okay=False, path_type=Path)
EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


class Command(click.Command):
    """A command that ends as the contract says: one or two lines on stderr, and the exit status of what went wrong.

    With ``--json``, stdout has one JSON document in any case.
    """

    def main(self, args: Any = None, prog_name: str | None = None, *rest: Any, **extra: Any) -> Any:
        words = list(sys.argv[1:] if args is None else map(str, args))
        empty: dict[str, Any] = {"results": []} if self.name == "bit-convert" else {}
        name = prog_name or self.name or ""
        ending = Ending(name, debug="--debug" in words, as_json="--json" in words, empty=empty)
        with tolerant_streams(), terminable():
            if sys.platform == "win32":
                status = ending.with_error(UsageError("needs Linux or macOS: Windows has no POSIX file locks."))
            else:
                _remember_addresses(words)
                status = ending.of(lambda: super(Command, self).main(args, prog_name, standalone_mode=False))
        sys.exit(status)


def _remember_addresses(words: Sequence[str]) -> None:
    """The secrets in them: whatever echoes one does not tell it."""
    addresses = [word for word in words if ":" in word]
    if addresses:
        from converters.redaction import remember

        for address in addresses:
            remember(address)


class Size(click.ParamType[int]):
    """A number of bytes, with or without a decimal unit: ``800MB``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        from converters.options import as_size

        try:
            return as_size(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


def _show_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say_own(f"{context.command.name} {version('bit-convert')}\n")
        context.exit()


# Options that both commands have.
POOL_PADDING = click.option(
    "--pool-padding",
    type=click.Choice(choices.POOL_PADDINGS),
    help="Padding value of the stem's max-pool.  [default: that of the checkpoint's format]",
)
IMAGES = click.option(
    "--images", type=EXISTING_FOLDER, metavar="DIR", help="Real photographs to verify with, beside the default images."
)
ORACLES = click.option(
    "--oracle",
    "oracles",
    type=click.Choice(choices.ORACLES),
    multiple=True,
    help="Another oracle, which must agree with NumPy's before any judges.  [default: graph, of a SavedModel]",
)
OFFLINE = click.option("--offline", is_flag=True, help="Use only checkpoints that were downloaded before.")
QUIET = click.option("--quiet", is_flag=True, help="No progress.")
DEBUG = click.option("--debug", is_flag=True, help="Tracebacks.")
VERSION = click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Show the version."
)


@click.command("bit-convert", cls=Command, context_settings={"max_content_width": 120})
@click.option(
    "--variant",
    metavar="NAME_OR_GLOB",
    help="A released checkpoint by its name (see --list), or several by a glob such as 'BiT-M-*'.",
)
@click.option(
    "--checkpoint",
    metavar="PATH_OR_URL",
    help="Read this path or address (https://, gs://, hf://, kaggle://) instead of the released one.",
)
@click.option(
    "--output",
    type=FOLDER,
    metavar="DIR",
    help="Parent of one folder a variant (default: ./models); with --checkpoint, the folder itself.",
)
@click.option(
    "--layout",
    type=click.Choice(choices.LAYOUTS),
    default="transformers",
    show_default=True,
    help="How the folder is laid out: for a library, under Google's PyTorch names, or as Google's npz.",
)
@click.option(
    "--dtype",
    type=click.Choice(choices.DTYPES),
    default="float32",
    show_default=True,
    help="What the values are stored in.",
)
@click.option(
    "--max-shard-size",
    type=Size(),
    default=5 * 10**9,
    show_default="5GB",
    help="Weights that take more are split into several files with an index.",
)
@click.option(
    "--exact",
    type=click.Choice(choices.EXACT),
    default="bits",
    show_default=True,
    help="Keep the source's bits, or make stock libraries give the exact logits.",
)
@POOL_PADDING
@click.option(
    "--verify/--no-verify",
    default=True,
    help="Prove that the folder computes what the checkpoint computes.  [default: verify]",
)
@IMAGES
@ORACLES
@click.option("--force", is_flag=True, help="Replace what the output folder holds.")
@click.option("--push", is_flag=True, help="Publish what was verified.")
@click.option(
    "--repo-id",
    metavar="NAMESPACE/NAME",
    help="The repository to publish to.  [default: the variant's name in --namespace]",
)
@click.option("--namespace", help="The user or organisation to publish under.  [default: the token's user]")
@click.option("--private", is_flag=True, help="Make the repository private where it is new.")
@click.option("--create-pr", is_flag=True, help="Publish as a pull request.")
@click.option("--revision", help="The branch to publish to; made where it is missing.")
@click.option("--tag", help="A tag for the commit.")
@click.option(
    "--hub", type=FOLDER, metavar="DIR", help="Publish into a folder in the Hub cache's layout, without the network."
)
@OFFLINE
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--list", "list_only", is_flag=True, help="List the released checkpoints, those of --variant if given.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout instead of text.")
@QUIET
@DEBUG
@VERSION
def convert(list_only: bool, **options: Any) -> int:
    """Convert Google's Big Transfer (BiT) checkpoints to PyTorch, verify that they are the same models, publish them.

    Exit status: 0 done, 1 parity failed, 2 wrong usage, 3 unreadable or unrecognised checkpoint, 4 network or hub
    failure, 70 a defect of bit-convert, 130 interrupted.
    """
    if list_only:
        from converters.catalogue.released import listing

        say_own(listing(options["variant"], as_json=options["as_json"]))
        return 0
    from converters.cli.runs import Run, convert_all

    with guarded_libraries():
        return convert_all(Run.of(options))


@click.command("bit-verify", cls=Command, context_settings={"max_content_width": 120})
@click.argument("target", required=False)
@click.option(
    "--against",
    metavar="SOURCE",
    help="The checkpoint: a name of bit-convert --list, which wins over a path (write ./NAME), a path or a URL.",
)
@click.option(
    "--check",
    "check_report",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="PARITY_JSON",
    help="Run nothing: hold this report against its own figures, the files and, with --against, the checkpoint.",
)
@click.option(
    "--report",
    "report_folder",
    type=FOLDER,
    default=Path("parity"),
    show_default=True,
    help="Where parity.json and parity.html go.",
)
@POOL_PADDING
@click.option("--variant", metavar="NAME", help="What the checkpoint is: labels and preprocessing are then compared.")
@IMAGES
@click.option(
    "--inputs",
    type=click.Choice(choices.INPUTS),
    default="default",
    show_default=True,
    help="Noise bright and dim; or also more seeds, impulses, odd sizes, extreme values, and images run in a batch.",
)
@click.option(
    "--runner",
    "runners",
    type=click.Choice(choices.RUNNERS),
    multiple=True,
    help="Another library to run the folder in, beside the declared one; it must agree too, and be installed.  "
    "[default: the one of the layout, if installed]",
)
@click.option(
    "--compute",
    type=click.Choice(choices.COMPUTE),
    default="float32",
    show_default=True,
    help="What the folder is run in; each is judged by its own limits.",
)
@click.option("--device", type=click.Choice(choices.DEVICES), default="cpu", show_default=True, help="Where it is run.")
@ORACLES
@OFFLINE
@click.option("--json", "as_json", is_flag=True, help="The report as JSON on stdout instead of text.")
@click.option(
    "--markdown",
    "as_markdown",
    is_flag=True,
    help="Badge and figures as Markdown on stdout, to show others.",
)
@QUIET
@DEBUG
@VERSION
def verify(
    target: str | None, against: str | None, check_report: Path | None, report_folder: Path, **options: Any
) -> int:
    """Audit TARGET, a converted folder or hf://NAMESPACE/NAME, whoever made it, against a checkpoint.

    TARGET is always a path or a repository, never a name of the catalogue. One that is its own source is wrong usage.

    Exit status: 0 passed, 1 failed or inconclusive, or a report that does not hold, 2 wrong usage, 3 unreadable
    checkpoint, 4 network failure, 70 a defect of bit-convert, 130 interrupted.
    """
    from converters.cli.runs import Output, check
    from converters.cli.runs import verify as run
    from converters.options import AuditOptions, taken

    audit, output = taken(AuditOptions, options), taken(Output, options)
    with guarded_libraries():
        if check_report is not None:
            return check(check_report, target, against, audit, output)
        return run(target, against, report_folder, audit, output)
