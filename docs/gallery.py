"""Makes the reports of docs/gallery.md from the package's own checkpoint: ``python docs/gallery.py FOLDER``.

conversion → three ports, two of them spoilt → audits → good.html, epsilon.html, swapped.html, comparison.html

``make docs`` runs it, so that what is shown is what this version says.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import chdir
from pathlib import Path

from safetensors.numpy import load_file, save_file

from converters import audit, convert
from converters.files import CONFIG, PARITY_PAGE, WEIGHTS
from verify import Report
from verify.report.comparison import compared, render

CHECKPOINT = "BiT-digits"
SWAPPED = [f"bit.encoder.stages.1.layers.0.norm{number}.weight" for number in (2, 3)]


def forget_epsilon(port: Path) -> None:
    """The config of ports that know no epsilon: it is then the library's own, 1e-8."""
    config = json.loads((port / CONFIG).read_text(encoding="utf-8"))
    del config["weight_standardization_eps"], config["exact"]
    (port / CONFIG).write_text(json.dumps(config), encoding="utf-8")


def swap_tensors(port: Path) -> None:
    """Two tensors of one shape in each other's place."""
    tensors = load_file(port / WEIGHTS)
    one, other = SWAPPED
    tensors[one], tensors[other] = tensors[other], tensors[one]
    save_file(tensors, port / WEIGHTS, metadata={"format": "pt"})


PORTS: Mapping[str, Callable[[Path], None]] = {
    "good": lambda port: None,
    "epsilon": forget_epsilon,
    "swapped": swap_tensors,
}
"""Name of a port → what is wrong with it."""


def make(place: Path) -> dict[str, Report]:
    """Writes the pages into ``place``, which is made; returns the reports."""
    place = place.resolve()
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, chdir(temporary):
        return _made(place)


def _made(place: Path) -> dict[str, Report]:
    """As ``make``, in an empty working folder: what pages tell to type names no other."""
    made = convert(CHECKPOINT, output="models").folder
    reports = {}
    for name, spoil in PORTS.items():
        port = Path(name)
        port.mkdir()
        for file in (CONFIG, "preprocessor_config.json", WEIGHTS):
            shutil.copy(made / file, port)
        spoil(port)
        reports[name] = audit(port, against=CHECKPOINT, report="parity")
        shutil.copy(Path("parity", PARITY_PAGE), place / f"{name}.html")
    page = render(compared(reports["good"], reports["swapped"]), "bit-verify --compare good-report swapped-report")
    (place / "comparison.html").write_text(page, encoding="utf-8")
    return reports


if __name__ == "__main__":
    for name, report in make(Path(sys.argv[1])).items():
        print(f"{name}: {report.verdict}")
