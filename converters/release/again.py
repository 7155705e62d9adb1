"""Commands to type next: one that does a job again, and one that audits what came of it.

Job → ``bit-convert BiT-M-R50x1 --push …``, a line of a shell
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any
from urllib.parse import unquote, urlsplit

from converters.options import AuditOptions
from converters.redaction import printable_values
from converters.release.job import Job, JobResult

SPELT = {"oracles": "--oracle", "runners": "--runner", "verify": "--no-verify"}
"""Options whose field is called otherwise."""
COMMANDS = ("bit-convert", "bit-verify")

Words = tuple[str, ...]


def again(job: Job, *more: str) -> str:
    """The command that does this job alone, from a shell in the same folder; ``more`` are flags."""
    request = job.request
    given = {"--checkpoint": request.checkpoint, "--output": request.output}
    words: list[Words] = [("bit-convert", request.variant.name) if request.variant else ("bit-convert",)]
    words += [(option, str(value)) for option, value in given.items() if value is not None]
    words += _options(request.options)
    if job.publish is not None:
        words += [("--push",), *_options(job.publish)]
    words += [(f"--{flag}",) for flag in ("discard", "recheck") if getattr(job, flag)]
    return _line([*words, *((flag,) for flag in more)])


def audit(job: Job, result: JobResult) -> str:
    """The command that audits what was published, or else the folder; empty where there is neither."""
    publication = result.publication
    if publication is not None and job.publish is not None and job.publish.hub is None:
        target = f"hf://{publication.repo_id}@{publication.revision}"
    elif publication is not None and result.discarded:
        target = unquote(urlsplit(publication.url).path)  # of a folder hub
    elif result.conversion is not None:
        target = str(result.conversion.folder)
    else:
        return ""
    variant, checkpoint = job.request.variant, job.request.checkpoint
    source = str(checkpoint) if checkpoint is not None else variant.name if variant else ""
    return _line([("bit-verify", target, "--against", source)])


def audited_by(target: str, against: str, options: AuditOptions) -> str:
    """The command that makes this audit, from a shell in the same folder."""
    return _line([("bit-verify", target, "--against", against), *_options(options)])


def is_ours(line: str) -> bool:
    """Whether a shell takes the line as one call of a command of ours."""
    try:
        words = shlex.split(line)
    except ValueError:
        return False
    return words[:1] != [] and words[0] in COMMANDS and shlex.join(words) == line


def _options(options: Any) -> Iterator[Words]:
    """Yields the options that have another value than the default, as the command line spells them."""
    for field in fields(options):
        value = getattr(options, field.name)
        if value != field.default:
            option = SPELT.get(field.name, "--" + field.name.replace("_", "-"))
            for each in value if isinstance(value, tuple) else (value,):
                yield (option,) if isinstance(each, bool) else (option, str(each))


def _line(words: Iterable[Words]) -> str:
    """One shell line, in which an option that two parts of a job have stands once."""
    return shlex.join(printable_values([word for group in dict.fromkeys(words) for word in group]))
