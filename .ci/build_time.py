"""Dates what hatchling builds by the last commit: two builds of it, anywhere and at any time, are the same bytes.

hatchling normalises the modes and the order of files by itself, and takes the time from SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CommitTime(BuildHookInterface):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Sets SOURCE_DATE_EPOCH for what is built after this, unless somebody did."""
        time = commit_time(Path(self.root))
        if time is not None:
            os.environ.setdefault("SOURCE_DATE_EPOCH", str(time))


def commit_time(root: Path) -> int | None:
    """Seconds since 1970: of a checkout its last commit's, of an unpacked sdist the time that this gave its files."""
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "log", "-1", "--format=%ct"]
        found = subprocess.run(command, capture_output=True, text=True)
        return int(found.stdout) if found.returncode == 0 else None
    packed = root / "PKG-INFO"
    return int(packed.stat().st_mtime) if packed.is_file() else None
