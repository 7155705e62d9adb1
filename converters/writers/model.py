"""The files that make a converted folder a model, beside its report and card.

source, Plan → ``write()`` → weights, config.json, preprocessor_config.json in an empty folder
"""

from __future__ import annotations

from pathlib import Path

from converters.files import write_json
from converters.folder.config import json_files
from converters.folder.plan import Plan
from converters.sources import GoogleView
from converters.writers.weights import write_weights
from verify.protocols import Progress


def write(folder: Path, source: GoogleView, plan: Plan, step: Progress) -> dict[str, str]:
    """Writes all files; ``step`` is called for each tensor. Raises UsageError where the layout cannot hold them.

    Returns file → sha256 of safetensors files, computed from what is written while it is.
    """
    contents = json_files(plan)
    digests = write_weights(folder, source, plan, step)
    for name, content in contents.items():
        write_json(folder / name, content)
    return digests
