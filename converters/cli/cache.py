"""``bit-convert cache``: what was downloaded, whether it is whole, and what may go."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import click

from converters.amounts import counted, size
from converters.cli.command import DEBUG, QUIET, VERBOSE, Command, options_of
from converters.cli.output import guarded_libraries, say, say_json
from converters.errors import CheckpointError
from converters.failures import terminable

OUTPUT, RUN = options_of("Output"), options_of("Run")
ACTIONS = ("list", "verify", "prune")
EXAMPLES = {
    "bit-convert cache": "What the cache holds.",
    "bit-convert cache verify": "Read every download, and hold it against the digest that it came with.",
    "bit-convert cache prune": "Remove what is damaged, older versions, and records of folders that are gone.",
    "bit-convert cache prune --older-than 30": "Remove downloads that have not changed for 30 days, too.",
}
STATUSES = {"0": "done", "3": "a download is damaged", "2": "wrong usage", "130, 143": "interrupted, terminated"}


@click.command("bit-convert cache", cls=Command, examples=EXAMPLES, statuses=STATUSES)
@click.argument("action", type=click.Choice(ACTIONS), default="list")
@RUN("--older-than", type=click.FloatRange(min=0), metavar="DAYS", help="With prune: what has not changed for so long.")
@RUN("--all", "everything", is_flag=True, help="With prune: all downloads, digests and records.")
@OUTPUT("--json", "as_json", is_flag=True, help="One JSON document on stdout instead of text.")
@QUIET
@VERBOSE
@DEBUG
def cache(action: str, older_than: float | None, everything: bool, **options: Any) -> int:
    """List, verify or prune the cache of downloads ($BIT_CONVERT_CACHE). A path of that name is written ./cache."""
    from converters.cli.progress import Output, shown
    from converters.download import upkeep
    from converters.files import cache_folder
    from converters.options import taken

    output = taken(Output, options)
    if action != "prune" and (older_than is not None or everything):
        raise click.UsageError("--older-than and --all are for prune.")
    with guarded_libraries(), terminable():
        if action == "prune":
            rows = upkeep.prune(older_than, everything)
        elif action == "verify":
            with shown("cache", output) as progress:
                rows = upkeep.verified(progress)
        else:
            rows = upkeep.kept()
    damaged = [row for row in rows if row.state is upkeep.DownloadState.DAMAGED and action == "verify"]
    status = CheckpointError.exit_status if damaged else 0
    if output.as_json:
        entries = [asdict(row) | {"folder": str(row.folder), "changed": round(row.changed, 3)} for row in rows]
        say_json({"cache": str(cache_folder()), "action": action, "exit_status": status, "downloads": entries})
        return status
    for row in rows:
        date = time.strftime("%Y-%m-%d", time.localtime(row.changed))
        say(f"{size(row.bytes):>9}  {row.state:<8} {date}  {row.name}")
    done = "removed from" if action == "prune" else "in"
    say(f"{counted(len(rows), 'download')}, {size(sum(row.bytes for row in rows))}, {done} {cache_folder()}")
    if damaged:
        say("Damaged ones are downloaded again when they are next asked for; prune removes them.", err=True)
    return status
