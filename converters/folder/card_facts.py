"""The facts of a model card that are not of this conversion: accuracy, use, training data.

Plan, Report → ``accuracy()``, ``evaluations()``, ``intended_use()``, ``training_data()`` → lines of the card, metadata

Accuracy is what the catalogue has of the checkpoint, with its source, and what was measured of the folder itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from converters.catalogue.variants import Variant
from converters.folder.plan import Plan
from verify.report.parity import Report

DIGITS = """\
1,437 of the 1,797 images of handwritten digits that scikit-learn ships; the 360 others were held out. They are the
test part of *Optical Recognition of Handwritten Digits* by E. Alpaydin and C. Kaynak (1998), UCI Machine Learning
Repository, https://doi.org/10.24432/C50P49, licensed under CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/).
Changed: the scaling of the pixels, and the split. The same thirteen writers are in both parts, so that the accuracy
says nothing about the handwriting of others."""
"""From converters/catalogue/digits/README.md."""
DATA_SETS = {
    "imagenet-1k": "ImageNet-1k (ILSVRC-2012)",
    "imagenet-21k": "ImageNet-21k",
    "uoft-cs/cifar10": "CIFAR-10",
    "ethz/food101": "Food-101",
}
"""Ids of the Hub that the catalogue has → the names of these data sets."""
HELD_OUT = {
    "dataset_type": "digits",
    "dataset_name": "handwritten digits of scikit-learn, held out",
    "dataset_split": "test",
}
_CITED = re.compile(r"([\w.-]+/[\w.-]+)@(\w+) ([\w./-]+)")
"""A file of a repository, as the catalogue cites it."""


def accuracy(plan: Plan, report: Report | None) -> Iterator[tuple[str, str]]:
    """Yields rows: what was measured on held-out images, or else what the catalogue has of the checkpoint."""
    variant, found = plan.variant, report.held_out if report is not None else None
    if found is not None:
        right, of = found.target_right, found.images
        yield "accuracy", f"{right} of {of} held-out images ({right / of:.2%}); the checkpoint {found.source_right}"
    elif variant is not None and variant.top1 is not None:
        on = f" on {_evaluated_on(variant)}" if variant.datasets else ""
        yield "accuracy of the checkpoint", f"{variant.top1:g} % top-1{on}; {variant.top1_source}"


def evaluations(plan: Plan, report: Report | None) -> dict[str, Any]:
    """Returns ``model_name`` and ``eval_results`` of the metadata; nothing where no accuracy is known.

    What the catalogue has is said of a folder of the same values: not of one in half precision.
    """
    from huggingface_hub import EvalResult

    variant, found = plan.variant, report.held_out if report is not None else None
    said: dict[str, Any]
    if found is not None:
        said = {**HELD_OUT, "metric_value": found.target_right / found.images}
    elif variant is None or variant.top1 is None or not variant.datasets or plan.storage.dtype != "float32":
        return {}
    else:
        cited = _CITED.search(variant.top1_source or "")
        address = cited.expand(r"https://github.com/\1/blob/\2/\3") if cited else None
        source = {"source_name": variant.top1_source, "source_url": address} if address else {}
        of = {"dataset_type": variant.datasets[-1], "dataset_name": _evaluated_on(variant)}
        said = {**of, **source, "metric_value": variant.top1 / 100}
    said["metric_value"] = round(said["metric_value"], 5)
    metric = {"metric_type": "accuracy", "metric_name": "top-1 accuracy"}
    result = EvalResult(task_type="image-classification", **{**metric, **said})
    return {"model_name": plan.name, "eval_results": [result]}


def intended_use(plan: Plan) -> str:
    """Returns what the logits, or the features, are for."""
    classes = plan.architecture.classes
    if classes is None:
        return (
            f"The {plan.architecture.features} pooled features of an image are for other tasks: nearest neighbours, a"
            "\nlinear classifier, a network of which this is the trunk. There is no head, and so no class."
        )
    if plan.variant and plan.variant.problem_type == "multi_label_classification":
        return (
            f"The {classes} logits are for a class each, trained with a sigmoid: several can be right of one image. The"
            "\nfeatures before the head are for other tasks."
        )
    return (
        f"The largest of the {classes} logits is the class of an image, if it is of one of them. The features before"
        "\nthe head are for other tasks."
    )


def training_data(plan: Plan) -> str:
    """Returns what the checkpoint was trained on, as far as the catalogue says."""
    variant = plan.variant
    if variant is None:
        return "The checkpoint does not say what it was trained on."
    if variant.embedded:
        return DIGITS
    names = [DATA_SETS.get(each, each) for each in variant.datasets]
    first, *then = names or ["data that the catalogue does not know"]
    text = f"Trained on {first}" + "".join(f", then on {name}" for name in then)
    if "vtab/" in variant.name:
        task = re.sub(r".*-run\d+-", "", variant.name)
        text += f", then on 1,000 images of the VTAB task {task}"
    return f"{text}, by Google. The data are not part of this repository."


def _evaluated_on(variant: Variant) -> str:
    return DATA_SETS.get(variant.datasets[-1], variant.datasets[-1])
