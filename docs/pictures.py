"""Makes the pictures of the README, terminal.svg and report.png: ``python docs/pictures.py FOLDER``.

the commands of the README, on a terminal of 100 columns → terminal.svg;  the report's page in Chromium → report.png

``make docs`` runs it. Without a Chromium on the machine the second stays as it is.
"""

from __future__ import annotations

import fcntl
import os
import pty
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.text import Text

from converters.files import PARITY_PAGE

COLUMNS, ROWS = 100, 40
COMMANDS = (
    ("bit-convert", "BiT-digits"),
    ("bit-verify", "models/BiT-digits", "--against", "BiT-digits"),
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WINDOW = "1000,925"
"""Pixels of the report that are shown: verdict, chart and readers."""


def shown(words: tuple[str, ...], folder: Path) -> str:
    """What a command leaves on a terminal, colours and all; its progress, which it takes away again, is left out."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    program = Path(sys.executable).with_name(words[0])
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    with subprocess.Popen(
        [program, *words[1:]], stdin=its, stdout=its, stderr=subprocess.DEVNULL, cwd=folder, env=environment
    ) as process:
        os.close(its)
        text = b""
        with suppress(OSError):  # the end, on Linux
            while piece := os.read(ours, 1 << 16):
                text += piece
    os.close(ours)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}")
    return text.decode().replace("\r\n", "\n")


def terminal(folder: Path) -> str:
    """An SVG of the commands, one after the other in ``folder``, and of what they print."""
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    for words in COMMANDS:
        console.print(Text(f"$ {' '.join(words)}", style="bold"))
        console.print(Text.from_ansi(shown(words, folder)))
    return console.export_svg(title="bit-convert")


def photograph(page: Path, picture: Path) -> bool:
    """The first screen of a page; False where there is no browser."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        return False
    with tempfile.TemporaryDirectory() as profile:
        words = ("--headless", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={profile}")
        subprocess.run(
            [browser, *words, f"--window-size={WINDOW}", f"--screenshot={picture}", page.as_uri()],
            check=True,
            capture_output=True,
        )
    return True


def main(place: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (place / "terminal.svg").write_text(terminal(folder), encoding="utf-8")
        if not photograph(folder / "parity" / PARITY_PAGE, place / "report.png"):
            print("no Chromium here: report.png stays as it is", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
