"""A report in Markdown: for a model card, or for a discussion of somebody else's port.

Report → ``badge()``, ``summary()`` (parity.md.jinja) → ``document()`` → text
"""

from __future__ import annotations

import re
from functools import cache, partial
from importlib.resources import files
from typing import TYPE_CHECKING

from verify.compare import FACTOR
from verify.report.meaning import evaluation_lines, figure_text, meaning
from verify.report.parity import ReaderReport, Report

if TYPE_CHECKING:
    import jinja2

TEMPLATE = "parity.md.jinja"
LISTED = 5
"""Faults that are named; parity.json has them all."""
COLOURS = {"passed": "brightgreen", "failed": "red", "inconclusive": "lightgrey"}


def badge(report: Report) -> str:
    """The verdict as a badge that leads to parity.json. The picture says nothing that its text does not."""
    picture = f"https://img.shields.io/badge/parity-{report.verdict}-{COLOURS[report.verdict]}"
    return f"[![Parity: {report.verdict}]({picture})](parity.json)"


def summary(report: Report) -> str:
    """Verdict, figures, readers and digests; ends without a newline."""
    return _template().render(
        report=report,
        final="logits" if any(layer.name == "logits" for layer in report.layers) else "pooled features",
        nearest=report.ratio is not None and report.nearest,
        sizes=", ".join(dict.fromkeys(f"{image.height} × {image.width}" for image in report.images)),
        meaning=meaning(report),
        evaluation_lines=evaluation_lines,
        listed=LISTED,
        factor=FACTOR,
        name=reader_name,
        figure=partial(figure_text, form=".2g"),
        plain=_plain,
        code=code,
        cell=cell,
    )


def document(report: Report, command: str) -> str:
    """All that a reader who has nothing else needs; ``command`` is what repeats the audit."""
    return f"## {_plain(report.title)}\n\n{badge(report)}\n\n{summary(report)}\n\n```bash\n{command}\n```\n"


def reader_name(reader: ReaderReport) -> str:
    """bit_ref's imitation of stock libraries is named after them."""
    return "stock transformers and timm (their arithmetic)" if "arithmetic" in reader.name else reader.name


def _plain(text: str) -> str:
    """Text in which nothing is markup."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", text)


def code(text: str) -> str:
    """Text as code, between more backticks than are in it."""
    ticks = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in (text[:1], text[-1:]) else ""
    return f"{ticks}{space}{text}{space}{ticks}"


def cell(text: str) -> str:
    """The same in a table."""
    return code(text).replace("|", r"\|")


@cache
def _template() -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    return environment.from_string(files("verify.report").joinpath(TEMPLATE).read_text(encoding="utf-8"))
