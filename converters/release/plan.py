"""A plan: what to release, in which layouts and under which names, and what to audit, as a TOML file.

    file → ``[defaults]`` and ``[[release]]`` tables → ``Settings`` of each table → variants → Job …
    file → ``[defaults]`` and ``[[audit]]`` tables → ``Settings`` of each table → targets → AuditJob …

A key is an option's word with underscores, and means what the option means. What a ``[[release]]`` says wins over the
command line, and that over ``[defaults]``. Each error names the file, the line and the key.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from typing import Any

from converters.catalogue.variants import Variant
from converters.conversion import DEFAULT_OUTPUT, Request
from converters.errors import UsageError
from converters.options import AuditOptions, ConvertOptions, PublishOptions, taken
from converters.release.job import AuditJob, Job
from converters.release.plan_keys import AUDITS, RELEASES
from converters.release.plan_settings import Settings, settings_of

MAX_JOBS = 100_000


def read_plan(path: Path, typed: Mapping[str, Any] | None = None, command: str = "") -> list[Job]:
    """The jobs of a plan, in its order.

    ``typed`` are options that were given beside it, by field, ``push`` among them; ``command`` repeats the run. Raises
    UsageError, with file, line and key, for whatever is wrong with the plan.
    """
    jobs: list[Job] = []
    once = _Once()
    for settings in settings_of(path, RELEASES, typed, "a [[release]] table with a variant"):
        for variant in _variants(settings):
            with settings.speaking():
                jobs.append(_job(settings, variant, command))
            once.add(settings, jobs[-1])
            if len(jobs) > MAX_JOBS:
                message = f"release: more than {MAX_JOBS:,} models. Make several plans of it."
                raise settings.document.error(settings.place, message)
    return jobs


def _variants(settings: Settings) -> tuple[Variant | None, ...]:
    """The variants of a table; of a checkpoint the one that it is said to be, or None."""
    if settings["checkpoint"] is None:
        return settings.variants()
    return (settings.variant("names several, but the checkpoint is one. Name one."),)


def _job(settings: Settings, variant: Variant | None, command: str) -> Job:
    filled = settings.filled(variant)
    how, publish = taken(ConvertOptions, filled), taken(PublishOptions, filled)
    request = Request(variant, settings["checkpoint"], _output(settings, variant, filled), how, command)
    if not settings["push"]:
        return Job(request)
    if not how.verify:
        raise settings.error("verify", "only what was verified is published. Leave out verify = false, or push.")
    if variant is None and publish.repo_id is None:
        raise settings.error("repo_id", "is missing. Name the repository to publish the checkpoint to.")
    return Job(request, publish)


def _output(settings: Settings, variant: Variant | None, filled: Mapping[str, Any]) -> Path | None:
    """As ``Request.output``: the folder itself of a given checkpoint, which its table or its variant names."""
    output: Path | None = filled.get("output")
    if settings["checkpoint"] is None or "output" in settings.own:
        return output
    if variant is None:
        raise settings.error("output", "is missing. Name the folder to make of the checkpoint.")
    return (output or DEFAULT_OUTPUT) / variant.repository_name


@dataclass
class _Once:
    """The folders and repositories of a plan, none of which two of its models may have; each with its first model."""

    folders: dict[Path, str] = field(default_factory=dict)
    around: dict[Path, str] = field(default_factory=dict)
    """The folders that the folders are in."""
    repositories: dict[tuple[str, ...], str] = field(default_factory=dict)

    def add(self, settings: Settings, job: Job) -> None:
        """Raises UsageError, with both lines, for a folder or a revision of a repository that is another's."""
        model = f"{job.name} (line {settings.line})"
        folder = Path(os.path.abspath(job.request.place()))
        other = next((self.folders[path] for path in (folder, *folder.parents) if path in self.folders), None)
        if other := other or self.around.get(folder):
            raise _twice(settings, "output", job, other, f"write {folder}")
        self.folders[folder] = model
        self.around.update(dict.fromkeys(folder.parents, model))
        if job.publish is not None:
            target = _target(job.publish, job.request.variant)
            if other := self.repositories.get(target):
                raise _twice(settings, "repo_id", job, other, f"publish to {target[1]}, {target[2]}")
            self.repositories[target] = model


def _twice(settings: Settings, key: str, job: Job, other: str, what: str) -> UsageError:
    message = f"{key}: {job.name} and {other} would both {what}."
    remedy = f"Give one of them another {key}, such as one with {{layout}}."
    return settings.document.error((*settings.place, key), f"{message} {remedy}")


def _target(publish: PublishOptions, variant: Variant | None) -> tuple[str, ...]:
    """The hub, the repository and the revision; names on the Hub differ in more than case."""
    repository = publish.repository(variant.repository_name if variant else "")
    revision = "a pull request" if publish.create_pr else publish.revision or "main"
    return os.path.abspath(publish.hub) if publish.hub else "", repository.lower(), revision


def read_audits(path: Path, report_folder: Path, typed: Mapping[str, Any] | None = None) -> list[AuditJob]:
    """The audits of a plan, in its order, each with a folder of its own below ``report_folder``.

    A target with fields, such as ``hf://me/{name}``, stands for one of each variant of its table. Raises UsageError,
    with file, line and key, for whatever is wrong with the plan.
    """
    tables = settings_of(path, AUDITS, typed, "an [[audit]] table with a target")
    return with_places((job for settings in tables for job in _audits(settings)), report_folder)


def with_places(jobs: Iterable[AuditJob], report_folder: Path) -> list[AuditJob]:
    """The jobs with a folder each for its report, called like the target; one of a name that is taken is numbered."""
    placed: dict[str, AuditJob] = {}
    for job in jobs:
        name = _place_of(job.target)
        free = next(each for each in chain([name], (f"{name}-{at}" for at in count(2))) if each not in placed)
        placed[free] = replace(job, report=report_folder / free)
    return [*placed.values()]


def _place_of(target: str) -> str:
    if "://" in target:
        return target.partition("://")[2].replace("/", "-").replace("@", "-") or "target"
    return Path(target).resolve().name or "target"


def _audits(settings: Settings) -> Iterator[AuditJob]:
    if settings["target"] is None:
        raise settings.error("target", "is missing. Give a folder, or hf://NAMESPACE/NAME.")
    is_template = any("{" in target for target in settings["target"])
    one = "names several for one target. Name one, or write {name} in the target."
    for variant in settings.variants() if is_template else (settings.variant(one),):
        values = settings.filled(variant) | {"variant": variant.name if variant else None}
        with settings.speaking():
            options = taken(AuditOptions, values)
        against = settings["against"] or (variant.name if variant else None)
        for target in values["target"]:
            yield AuditJob(target, against, options, Path())
