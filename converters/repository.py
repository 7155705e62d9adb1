"""The files that make a converted folder a model, beside its report and card.

source, Plan → ``write()`` → weights, config.json, preprocessor_config.json in an empty folder
"""

from __future__ import annotations

from pathlib import Path

from converters.configs import json_files
from converters.files import write_json
from converters.plan import Plan
from converters.writing import write_weights
from verify.protocols import Progress, Source


def write(folder: Path, source: Source, plan: Plan, step: Progress) -> None:
    """Writes all files; ``step`` is called for each tensor. Raises UsageError where the layout cannot hold them."""
    contents = json_files(plan)
    write_weights(folder, source, plan, step)
    for name, content in contents.items():
        write_json(folder / name, content)
