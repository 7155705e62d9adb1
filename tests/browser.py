"""A real Chromium, by its command line alone: what a page looks like to somebody on a phone, on paper, or listening.

    page → ``look()`` at a width, light or dark → ``Seen``;  ``printed()`` → the text of each sheet

The page itself is opened, in a frame of another page that measures it: nothing is added to it.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PHONE, DESK = 390, 1280
"""Widths in CSS pixels: that of a common phone, and of a screen on a desk."""
MEASURE = Path(__file__).with_name("measure.html")


@dataclass(frozen=True)
class Seen:
    """A page as it was laid out."""

    found: dict[str, Any]
    log: str
    """What Chromium said of it, errors in its console among it."""

    def __getattr__(self, name: str) -> Any:
        return self.found[name]

    @property
    def complaints(self) -> list[str]:
        return [line for line in self.log.splitlines() if "CONSOLE" in line]

    @property
    def sideways(self) -> list[str]:
        """What makes somebody scroll to the side, or cannot be seen at all."""
        wide = ["the page"] if self.scrolled > self.width else []
        return wide + self.beyond + self.scrollers + self.cut

    @property
    def faint(self) -> list[tuple[float, str]]:
        """Texts of less contrast than WCAG's 4.5 : 1, with theirs."""
        pairs = ((contrast(*colours.split("|")[:2]), colours) for colours in self.colours)
        return [(round(ratio, 2), colours) for ratio, colours in pairs if ratio < 4.5]

    def named(self, tag: str) -> list[tuple[str, str]]:
        """(role, name) of the first elements of this tag, as a screen reader is told."""
        return [(role, name) for found, role, name in self.roles if found == tag]


@cache
def chromium() -> str:
    """The program; the test that asks is skipped where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    return found


def look(
    page: Path, folder: Path, *, width: int = PHONE, dark: bool = False, aloud: bool = False, do: str = ""
) -> Seen:
    """Opens a page at this width, and measures it after ``do``, JavaScript on ``page`` and ``win``.

    What is folded is opened. ``aloud`` also asks for what a screen reader is told, which takes long on a large page.
    ``folder`` is for what Chromium leaves.
    """
    around = folder / f"around-{width}-{dark}.html"
    text = MEASURE.read_text(encoding="utf-8")
    for name, value in {
        "PAGE": page.absolute().as_uri(),
        "WIDTH": str(width),
        "DO": do,
        "LISTEN": str(aloud).lower(),
    }.items():
        text = text.replace(name, value, 1)
    around.write_text(text, encoding="utf-8")
    scheme = [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    out = _run(folder, *scheme, "--virtual-time-budget=5000", "--dump-dom", around.absolute().as_uri())
    found = re.search(r'<pre id="seen">(.*?)</pre>', out.stdout, re.DOTALL)
    assert found is not None
    assert found[1], out.stderr
    return Seen(json.loads(html.unescape(found[1])), out.stderr)


def printed(page: Path, folder: Path) -> list[str]:
    """The text of each sheet of paper."""
    from pypdf import PdfReader

    file = folder / "printed.pdf"
    _run(folder, "--no-pdf-header-footer", f"--print-to-pdf={file}", page.absolute().as_uri())
    return [sheet.extract_text() for sheet in PdfReader(file).pages]


def contrast(front: str, back: str) -> float:
    """WCAG's contrast of two colours as a browser computes them, ``rgb(…)`` or ``rgba(…)``."""
    behind = _channels(back)[:3]
    *colour, alpha = [*_channels(front), 1.0][:4]
    over = [alpha * c + (1 - alpha) * b for c, b in zip(colour, behind, strict=True)]
    light, dim = sorted((_luminance(over), _luminance(behind)), reverse=True)
    return (light + 0.05) / (dim + 0.05)


def _channels(colour: str) -> list[float]:
    return [float(number) for number in re.findall(r"[\d.]+", colour)]


def _luminance(colour: list[float]) -> float:
    linear = (c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour)
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    settings = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--disable-dev-shm-usage",
        "--disable-web-security",
        "--enable-blink-features=ComputedAccessibilityInfo",
        "--enable-logging=stderr",
        f"--user-data-dir={folder / 'profile'}",
    ]
    return subprocess.run([chromium(), *settings, *words], capture_output=True, text=True, timeout=120, check=True)
