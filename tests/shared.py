"""What takes seconds to make and no test changes, made once for all processes that run tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

FOLDER = "BIT_CONVERT_TEST_FOLDER"
"""The variable of the environment that names the folder of a whole run: ``tests/conftest.py``."""


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """The folder of that name, which ``make`` fills where no other process has; it is not there before."""
    folder = Path(os.environ[FOLDER]) / name
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            unfinished = folder.with_name(f"{name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            make(unfinished)
            unfinished.rename(folder)
    return folder
