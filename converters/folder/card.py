"""The model card: what the model is, how it was verified, which library reads it how exactly.

Plan, Report → card.md.jinja → README.md
"""

from __future__ import annotations

import math
import shlex
from functools import cache
from importlib.resources import files
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from converters.folder import card_facts as facts
from converters.folder.config import network_config
from converters.folder.plan import Plan
from converters.folder.snippet import FOLDER, HERE, stock_remedy, usage
from converters.mapping.names import parameters
from converters.redaction import printable
from converters.sources import GoogleView
from verify.precision import error_in_words
from verify.report import markdown
from verify.report.meaning import meaning
from verify.report.parity import Report

if TYPE_CHECKING:
    import jinja2

TEMPLATE = "card.md.jinja"


def render(plan: Plan, source: GoogleView, report: Report | None, version: str) -> str:
    """The text of README.md; without a report it says that nothing was verified."""
    return _template().render(
        plan=plan,
        report=report,
        source=source,
        file=printable(PurePath(source.path).name),
        code=markdown.code,
        cell=markdown.cell,
        version=version,
        metadata=_metadata(plan, report),
        input=plan.preprocessing.in_words,
        parameters=sum(math.prod(each.shape) for each in parameters(plan.architecture)),
        macs=_macs(plan),
        accuracy=list(facts.accuracy(plan, report)),
        use=facts.intended_use(plan),
        data=facts.training_data(plan),
        usage=usage(plan),
        here=HERE,
        architecture_class=network_config(plan)["architectures"][0],
        badge=markdown.badge(report) if report else "",
        meaning=meaning(report) if report else "",
        error=error_in_words(report.ratio, report.readers[0].name) if report else "",
        parity=markdown.summary(report) if report else "",
        against=_against(plan, source),
        stock=_stock(report, plan),
    )


def _metadata(plan: Plan, report: Report | None) -> str:
    from huggingface_hub import ModelCardData

    head, variant = plan.architecture.classes is not None, plan.variant
    data: Any = ModelCardData(
        license="apache-2.0",
        library_name={"transformers": "transformers", "timm": "timm"}.get(plan.layout, "bit-convert"),
        pipeline_tag="image-classification" if head else "image-feature-extraction",
        tags=["big-transfer", "bit", "resnetv2", "vision", "bit-convert"],
        datasets=list(variant.datasets) or None if variant else None,
        base_model=variant.base_model if variant else None,
        **facts.evaluations(plan, report),
    )
    return str(data.to_yaml()).strip()


def _macs(plan: Plan) -> str:
    height, width = plan.preprocessing.shape
    total = plan.architecture.multiply_accumulates(height, width)
    amount = f"{total / 1e9:.3g} G" if total >= 1e9 else f"{total / 1e6:.3g} M"
    return f"{amount} at {height} × {width} pixels"


def _against(plan: Plan, source: GoogleView) -> str:
    """Returns the options that repeat this audit: ``--against`` and, where they are needed, more."""
    file, variant = printable(PurePath(source.path).name), plan.variant
    released = PurePath(str(variant.file or variant.url)).name if variant else ""
    if variant is None:
        words = ["--against", file]
    elif variant.format == "saved_model" or file == released:
        words = ["--against", variant.name]
    else:
        words = ["--against", file, "--variant", variant.name]
    if plan.pool_padding != source.pool_padding:
        words += ["--pool-padding", plan.pool_padding]
    return shlex.join(words)


def _stock(report: Report | None, plan: Plan) -> str:
    """The distance of stock libraries on the source's own kernels, and the remedies where there are any."""
    stock = report.readers[1] if report and len(report.readers) > 1 else None
    if stock is None or stock.moved is None or report is None:
        return "how far that is off was not measured."
    what = "pooled features" if plan.architecture.classes is None else "logits"
    moves = f"on this checkpoint that moves the {what} by up to {stock.moved:.1g}"
    changed = report.real_images - stock.real_top1 if stock.real_top1 is not None else 0
    if changed:
        moves += f" and changes {changed} of {report.real_images} predictions on real images"
    text = f"{moves}, and everything else is exact."
    if remedy := stock_remedy(plan, FOLDER):
        text += f" `{remedy}` makes the loaded model exact."
        text += " Converted with `--exact logits`, stock libraries are exact as they are."
    return text


@cache
def _template() -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    return environment.from_string(files("converters.folder").joinpath(TEMPLATE).read_text(encoding="utf-8"))
