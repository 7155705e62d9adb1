"""The audits of a plan: its ``[[audit]]`` tables, or targets that were typed.

file → ``[defaults]`` and ``[[audit]]`` tables → ``Settings`` of each table → targets → AuditJob …
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from converters.options import AuditOptions, taken
from converters.release.job import AuditJob
from converters.release.plan_keys import AUDITS
from converters.release.plan_settings import Settings, settings_of


def read_audits(path: Path, report_folder: Path, typed: Mapping[str, Any] | None = None) -> list[AuditJob]:
    """The audits of a plan, in its order, each with a folder of its own below ``report_folder``.

    A target with fields, such as ``hf://me/{name}``, stands for one of each variant of its table. Raises UsageError,
    with file, line and key, for whatever is wrong with the plan.
    """
    tables = settings_of(path, AUDITS, typed, "an [[audit]] table with a target")
    return with_places((job for settings in tables for job in _audits(settings)), report_folder)


def with_places(jobs: Iterable[AuditJob], report_folder: Path) -> list[AuditJob]:
    """The jobs with a folder each for its report, called like the target; one of a name that is taken is numbered."""
    names: dict[str, int] = {}
    placed = []
    for job in jobs:
        name = _place_of(job.target)
        names[name] = names.get(name, 0) + 1
        placed.append(replace(job, report=report_folder / (name if names[name] == 1 else f"{name}-{names[name]}")))
    return placed


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
