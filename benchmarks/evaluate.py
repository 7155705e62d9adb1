"""The share of an evaluation that its forward passes take: R50x1 on JPEG files, on CPU and GPU.

    python benchmarks/evaluate.py [--images 64] [--side 224] [--device cuda]

Converts a checkpoint of random values, evaluates it on images of random colours, 500 × 375 as ImageNet's are, and then
times the same forward passes alone, on pixels that are ready. Once with both networks; and once with the folder's
alone, as for a second folder of a checkpoint whose predictions are known. Models are loaded again each time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from audit import write_checkpoint
from common import Goals, apart, machine, print_table
from PIL import Image

import converters
from converters.auditing.evaluation.run import BATCH, BATCH_CUDA, Evaluation
from converters.auditing.evaluation.workers import ImageWorkers
from converters.auditing.target import Folder, audit_readers
from converters.mapping.architecture import Architecture
from converters.sources import open_checkpoint
from verify.evaluation import Classifier, classify, oracle_classifier, reader_classifier
from verify.oracles.numpy import NumpyOracle
from verify.precision import Computing

GOAL = 0.5
"""Forward passes alone / the whole evaluation, on a GPU."""
CLASSES = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--device", choices=("cpu", "cuda"))
    chosen = parser.parse_args()
    gpu = torch.cuda.is_available()
    print(f"R50x1 at {chosen.side}, {chosen.images} images; {machine()}\n")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        os.environ["BIT_CONVERT_CACHE"] = str(place / "cache")
        apart(write_checkpoint, place / "source.npz", Architecture.released("R50x1", CLASSES))
        converters.convert(checkpoint=place / "source.npz", output=place / "model", verify=False)
        write_images(place / "images", chosen.images)
        size = {"height": chosen.side, "width": chosen.side}
        change(place / "model" / "preprocessor_config.json", size=size, crop_size=size)
        devices = [chosen.device] if chosen.device else ["cpu", *(["cuda"] if gpu else [])]
        rows = [row for device in devices for row in measured(place, device)]
    print_table(("forward passes", "images/s alone", "images/s evaluated", "ratio"), rows)
    if "cuda" not in devices:
        print(f"SKIPPED: no GPU here, or none asked for; the goal, a ratio of {GOAL}, is for a GPU.", file=sys.stderr)
        return 0
    goals = Goals()
    for what, *_, ratio in rows:
        if "cuda" in what:
            goals.at_least(f"{what}: alone / evaluated", ratio, GOAL)
    return goals.status


def write_images(place: Path, count: int) -> None:
    """Smooth colours with some noise, which compress as photographs do."""
    random = np.random.default_rng(0)
    for number in range(count):
        folder = place / str(number % CLASSES)
        folder.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8)).resize((500, 375))
        noisy = np.asarray(small, np.float32) + random.normal(0, 12, (375, 500, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05}.jpg", quality=90)


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def measured(place: Path, device: str) -> list[tuple[str, float, float, float]]:
    """Both networks; and then the folder's alone, whose config.json has become another file."""
    rows = []
    for what in ("both", "folder alone"):
        change(place / "model" / "config.json", note=f"{what}, {device}")
        evaluated = seconds(lambda: evaluate(place, device))
        alone = forward_seconds(place, device, with_oracle=what == "both")
        count = sum(1 for _ in (place / "images").rglob("*.jpg"))
        rows.append((f"{what}, {device}", count / alone, count / evaluated, alone / evaluated))
    return rows


def evaluate(place: Path, device: str) -> None:
    with open_checkpoint(place / "source.npz") as source, opened(place, source, device) as target:
        found = Evaluation(target, place / "images", device=device).run(lambda *_: None)
    assert found.same is not None, found.reason


def forward_seconds(place: Path, device: str, with_oracle: bool) -> float:
    """On pixels that are ready, in the same batches."""
    with open_checkpoint(place / "source.npz") as source, opened(place, source, device) as target:
        evaluation, reader = Evaluation(target, place / "images", device=device), target.readers[0]
        own, recipe = evaluation._recipes(reader)
        with ImageWorkers(own, recipe) as workers:
            pixels = [each.source for each in workers.prepared(evaluation.listing.images, ahead=BATCH)]
        classifiers = [reader_classifier(reader)]
        if with_oracle:
            classifiers.append(oracle_classifier(NumpyOracle(source, float32_runs=0, device=device)))
        return seconds(lambda: run(classifiers, pixels, BATCH_CUDA if device == "cuda" else BATCH))


def opened(place: Path, source: object, device: str) -> Folder:
    return Folder(place / "model", source, lambda folder: audit_readers(folder, computing=Computing("float32", device)))


def run(classifiers: list[Classifier], pixels: list[np.ndarray], size: int) -> None:
    for start in range(0, len(pixels), size):
        for classifier in classifiers:
            classify(classifier, pixels[start : start + size])


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
