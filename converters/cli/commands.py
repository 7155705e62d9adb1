"""The command lines ``bit-convert`` and ``bit-verify``: options in, exit status out; the work is done elsewhere.

Until a command knows what it has to do, only click and the catalogue are imported.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from converters import choices
from converters.cli.command import COMPLETION, DEBUG, QUIET, VERBOSE, VERSION, Command, options_of, using
from converters.cli.output import guarded_libraries, say_own
from converters.errors import UsageError
from converters.failures import terminable

if TYPE_CHECKING:
    from pathlib import Path


class PathType(click.Path):
    """A path as ``pathlib.Path``, which would take a tenth of the time of ``--help`` to import."""

    def coerce_path_result(self, value: str | os.PathLike[str]) -> Any:
        from pathlib import Path

        return Path(value)


FOLDER = PathType(file_okay=False)
EXISTING_FILE = PathType(exists=True, dir_okay=False)
EXISTING_FOLDER = PathType(exists=True, file_okay=False)


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


class Jobs(click.ParamType[int]):
    """A number of processes; ``auto`` is 0."""

    name = "jobs"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if value == "auto":
            return 0
        if not str(value).isdecimal() or int(value) < 1:
            self.fail(f"{value!r} is no number of processes. Give 1 or more, or auto.", param, ctx)
        return int(value)


def _variants_like(*words: Any) -> Any:
    from converters.cli.completion import variants_like

    return variants_like(*words)


SOURCE, OUTPUT, VERIFICATION, PUBLISHING, RUN = map(
    options_of, ("Source", "Output", "Verification", "Publishing", "Run")
)

# Options that both commands have.
POOL_PADDING = SOURCE(
    "--pool-padding",
    type=click.Choice(choices.POOL_PADDINGS),
    help="Padding value of the stem's max-pool.  [default: that of the checkpoint's format]",
)
IMAGES = VERIFICATION(
    "--images", type=EXISTING_FOLDER, metavar="DIR", help="Real photographs to verify with, beside the default images."
)
ORACLES = VERIFICATION(
    "--oracle",
    "oracles",
    type=click.Choice(choices.ORACLES),
    multiple=True,
    help="Another oracle, which must agree with NumPy's before any judges.  [default: graph, of a SavedModel]",
)
OFFLINE = SOURCE("--offline", is_flag=True, help="Use only checkpoints that were downloaded before.")

TOKEN = SOURCE(
    "--token",
    metavar="TOKEN",
    help="The Hub's token, for this command. Others on this machine may see it: HF_TOKEN is safer.",
)

_ENDED = {
    "2": "wrong usage",
    "3": "unreadable, unsafe or unrecognised checkpoint",
    "4": "network or hub failure",
    "70": "a defect of bit-convert",
    "130, 143": "interrupted, terminated",
}
CONVERTED = {"0": "done", "1": "parity failed, or could not be established", **_ENDED}
AUDITED = {
    "0": "passed",
    "1": "failed or inconclusive, or a report that does not hold",
    **_ENDED,
    "2": "wrong usage, or a report that --compare cannot read",
}
CONVERTING = {
    "bit-convert BiT-digits": "The checkpoint that comes with bit-convert, to models/BiT-digits.",
    "bit-convert BiT-M-R50x1 --dry-run": "What would be read and written.",
    "bit-convert my.npz --output my-model": "A file of yours.",
    "bit-convert hf://google/bit-50 --layout npz": "A repository of the Hub, back to Google's own layout.",
    "bit-convert cache": "What was downloaded; see bit-convert cache --help.",
    "bit-convert 'BiT-M-*' --push --namespace me": "Several variants, each published once it is verified.",
    "bit-convert --plan plan.toml --dry-run": "What a release plan would do, and what it would take.",
}
AUDITING = {
    "bit-verify models/BiT-digits --against BiT-digits": "A folder against the checkpoint that it was made from.",
    "bit-verify hf://google/bit-50 --against BiT-M-R50x1-ILSVRC2012": "Anybody's repository.",
    "bit-verify models/* --jobs auto": "Many folders, each against the variant that it names itself.",
    "bit-verify models/BiT-M-R50x1 --against BiT-M-R50x1 --dataset imagenet/val": "Also top-1 and top-5 of both.",
    "bit-verify --compare models/BiT-digits hf://me/BiT-digits": "Two reports side by side.",
    "bit-verify --check models/BiT-digits/parity.json": "Whether a report agrees with itself and the files beside it.",
}


def _cache() -> click.Command:
    from converters.cli.cache import cache

    return cache


@click.command("bit-convert", cls=Command, examples=CONVERTING, statuses=CONVERTED, others={"cache": _cache})
@click.argument("name_or_path", required=False, shell_complete=_variants_like)
@SOURCE(
    "--variant",
    metavar="NAME_OR_GLOB",
    shell_complete=_variants_like,
    help="A released checkpoint by its name (see --list), or several by a glob such as 'BiT-M-*'.",
)
@SOURCE(
    "--plan",
    type=EXISTING_FILE,
    metavar="FILE",
    help="Convert and publish what this TOML file names, instead of --variant; other options are defaults of it.",
)
@SOURCE("--shard", metavar="I/N", help="The I-th of N parts of the list, all of about the same size.")
@SOURCE(
    "--checkpoint",
    metavar="PATH_OR_URL",
    help="Read this path or address (https://, gs://, hf://, kaggle://) instead of the released one.",
)
@OUTPUT(
    "--output",
    type=FOLDER,
    metavar="DIR",
    help="Parent of one folder a variant (default: ./models); with --checkpoint, the folder itself.",
)
@OUTPUT(
    "--layout",
    type=click.Choice(choices.LAYOUTS),
    default="transformers",
    help="How the folder is laid out: for a library, under Google's PyTorch names, or as Google's npz.",
)
@OUTPUT("--dtype", type=click.Choice(choices.DTYPES), default="float32", help="What the values are stored in.")
@OUTPUT(
    "--max-shard-size",
    type=Size(),
    default=5 * 10**9,
    help="Weights that take more are split into several files with an index.  [default: 5GB]",
)
@OUTPUT(
    "--exact",
    type=click.Choice(choices.EXACT),
    default="bits",
    help="Keep the source's bits, or make stock libraries give the exact logits.",
)
@POOL_PADDING
@VERIFICATION(
    "--verify/--no-verify",
    default=True,
    help="Prove that the folder computes what the checkpoint computes.  [default: verify]",
)
@IMAGES
@ORACLES
@OUTPUT(
    "--sign-key",
    type=EXISTING_FILE,
    metavar="FILE",
    help="Sign the folder with this private key (P-256, P-384 or P-521, PEM): adds model.sig.",
)
@OUTPUT("--sign", is_flag=True, help="Sign the folder with your identity, by sigstore: adds model.sig.")
@OUTPUT("--force", is_flag=True, help="Replace what the output folder holds.")
@PUBLISHING("--push", is_flag=True, help="Publish what was verified.")
@PUBLISHING(
    "--repo-id",
    metavar="NAMESPACE/NAME",
    help="The repository to publish to.  [default: the variant's name in --namespace]",
)
@PUBLISHING("--namespace", help="The user or organisation to publish under.  [default: the token's user]")
@PUBLISHING("--private", is_flag=True, help="Make the repository private where it is new.")
@PUBLISHING("--create-pr", is_flag=True, help="Publish as a pull request.")
@PUBLISHING("--revision", help="The branch to publish to; made where it is missing.")
@PUBLISHING("--tag", help="A tag for the commit.")
@PUBLISHING("--commit-message", metavar="TEXT", help="Title of the commit; what follows the first line describes it.")
@PUBLISHING(
    "--collection",
    metavar="TITLE_OR_SLUG",
    help="Gather what was published in this collection of the Hub; made where it is missing.",
)
@PUBLISHING(
    "--hub", type=FOLDER, metavar="DIR", help="Publish into a folder in the Hub cache's layout, without the network."
)
@RUN(
    "--patience",
    type=click.FloatRange(min=0),
    default=choices.PATIENCE,
    metavar="SECONDS",
    help="How long a server that asks to wait is waited for.",
)
@OFFLINE
@TOKEN
@OUTPUT("--refresh", is_flag=True, help="Renew card and report of what another version of bit-convert made.")
@RUN("--jobs", type=Jobs(), default=1, metavar="N", help="Processes that work at once; or auto.")
@RUN(
    "--scheduler",
    metavar="ADDRESS",
    help="Work on a Dask cluster that is there (tcp://HOST:PORT, tls://HOST:PORT), instead of this machine.",
)
@RUN("--recheck", is_flag=True, help="Read every file, also what has not changed since it was read.")
@RUN("--discard", is_flag=True, help="Remove each download and folder once it is published.")
@RUN(
    "--events",
    type=PathType(dir_okay=False),
    metavar="FILE",
    help="Add a line of JSON to this file for whatever happens, when it happens.",
)
@RUN("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@SOURCE("--list", "list_only", is_flag=True, help="List the released checkpoints, those of --variant if given.")
@OUTPUT("--json", "as_json", is_flag=True, help="One JSON document on stdout instead of text.")
@QUIET
@VERBOSE
@DEBUG
@COMPLETION
@VERSION
def convert(name_or_path: str | None, list_only: bool, token: str | None, **options: Any) -> int:
    """Convert Google's Big Transfer (BiT) checkpoints to PyTorch, verify that they are the same models, publish them.

    NAME_OR_PATH is a variant of the catalogue (--variant), or a path or an address (--checkpoint); a variant's name
    wins over a path of that name, which is written ./NAME.
    """
    if list_only:
        from converters.catalogue.released import listing

        say_own(listing(options["variant"] or name_or_path, as_json=options["as_json"]))
        return 0
    if name_or_path is not None:
        from converters.cli.words import with_source

        options = with_source(name_or_path, options)
    if options["plan"] is not None:
        options["typed"] = _typed(options, "release")
    from converters.cli.runs import RunOptions, convert_all

    with using(token), guarded_libraries(), terminable():
        return convert_all(RunOptions.of(options))


def _typed(options: Mapping[str, Any], tables: str) -> dict[str, Any]:
    """The options that a plan's ``tables`` have, too, of those that were typed, and not a default."""
    from converters.release.plan_keys import KEYS, WORDS

    source = click.get_current_context().get_parameter_source
    typed = {name: value for name, value in options.items() if source(name) is not click.core.ParameterSource.DEFAULT}
    return {name: value for name, value in typed.items() if WORDS.get(name, name) in KEYS[tables]}


@click.command("bit-verify", cls=Command, examples=AUDITING, statuses=AUDITED)
@click.argument("targets", metavar="[TARGET]...", nargs=-1)
@SOURCE(
    "--plan",
    type=EXISTING_FILE,
    metavar="FILE",
    help="Audit what the [[audit]] tables of this TOML file name, instead of TARGET.",
)
@RUN("--jobs", type=Jobs(), default=1, metavar="N", help="Targets audited at once; or auto.")
@SOURCE(
    "--against",
    metavar="SOURCE",
    shell_complete=_variants_like,
    help="The checkpoint: a name of bit-convert --list, which wins over a path (write ./NAME), a path or a URL.",
)
@VERIFICATION(
    "--check",
    "check_report",
    type=EXISTING_FILE,
    metavar="PARITY_JSON",
    help="Run nothing: hold this report against its own figures, the files and, with --against, the checkpoint.",
)
@VERIFICATION(
    "--compare",
    nargs=2,
    metavar="A B",
    help="Run nothing: say two reports side by side, each a parity.json, a folder that has one, or a repository.",
)
@OUTPUT(
    "--report",
    "report_folder",
    type=FOLDER,
    default="parity",
    metavar="DIR",
    help="Where parity.json and parity.html go, or comparison.html.",
)
@POOL_PADDING
@SOURCE(
    "--variant",
    metavar="NAME",
    shell_complete=_variants_like,
    help="What the checkpoint is: labels and preprocessing are then compared.",
)
@IMAGES
@VERIFICATION(
    "--inputs",
    type=click.Choice(choices.INPUTS),
    default="default",
    help="Noise bright and dim; or also more seeds, impulses, odd sizes, extreme values, and images run in a batch.",
)
@VERIFICATION(
    "--runner",
    "runners",
    type=click.Choice(choices.RUNNERS),
    multiple=True,
    help="Another library to run the folder in, beside the declared one; it must agree too, and be installed.  "
    "[default: the one of the layout, if installed]",
)
@VERIFICATION(
    "--compute",
    type=click.Choice(choices.COMPUTE),
    default="float32",
    help="What the folder is run in; each is judged by its own limits.",
)
@VERIFICATION(
    "--dataset",
    type=PathType(exists=True),
    metavar="DIR_OR_CSV",
    help="Labelled images, a sub-folder for each class or a CSV of paths and labels: how many of them Google's "
    "arithmetic and the folder get right, and where they differ.",
)
@VERIFICATION(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Of the data set only N images, spread evenly over it."
)
@VERIFICATION("--device", type=click.Choice(choices.DEVICES), default="cpu", help="Where it is run.")
@ORACLES
@VERIFICATION(
    "--verify-key",
    type=EXISTING_FILE,
    metavar="FILE",
    help="The public key (PEM) by which the folder's model.sig must hold.",
)
@OFFLINE
@TOKEN
@OUTPUT("--json", "as_json", is_flag=True, help="The report as JSON on stdout instead of text.")
@OUTPUT("--markdown", "as_markdown", is_flag=True, help="Badge and figures as Markdown on stdout, to show others.")
@QUIET
@VERBOSE
@DEBUG
@COMPLETION
@VERSION
def verify(
    targets: tuple[str, ...],
    against: str | None,
    check_report: Path | None,
    compare: tuple[str, str] | None,
    report_folder: Path,
    plan: Path | None,
    jobs: int,
    token: str | None,
    **options: Any,
) -> int:
    """Audit TARGET, a converted folder or hf://NAMESPACE/NAME, whoever made it, against a checkpoint.

    Several targets are audited in one run: against the same SOURCE or, without --against, each against the variant that
    it names itself. The exit status is that of the worst.

    TARGET is always a path or a repository, never a name of the catalogue. One that is its own source is wrong usage.
    """
    from converters.cli.progress import Output
    from converters.cli.runs import check
    from converters.cli.runs import verify as run
    from converters.options import AuditOptions, taken

    audit, output = taken(AuditOptions, options), taken(Output, options)
    target = targets[0] if targets else None
    with using(token), guarded_libraries(), terminable():
        if compare is not None:
            if targets or against or plan is not None or check_report is not None:
                raise UsageError(
                    "--compare reads two reports and runs nothing. Leave out everything else but --report."
                )
            from converters.cli.comparing import compare as compared

            return compared(compare, report_folder, audit.offline, output)
        if check_report is not None:
            if len(targets) > 1 or plan is not None:
                raise UsageError("--check holds one report against one folder. Leave out the others, and --plan.")
            return check(check_report, target, against, audit, output)
        if plan is None and len(targets) < 2:
            return run(target, against, report_folder, audit, output)
        from converters.cli.audits import audit_all, typed_audits
        from converters.release.plan import read_audits

        if plan is None:
            found = typed_audits(targets, against, report_folder, audit)
        elif targets or against or audit.variant:
            raise UsageError("a plan names targets and what they are of. Leave out TARGET, --against and --variant.")
        else:
            found = read_audits(plan, report_folder, _typed(options, "audit"))
        return audit_all(found, report_folder, jobs, output)
