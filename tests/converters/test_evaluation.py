"""``--dataset``: the accuracy of source and folder on labelled images, whatever the images and labels are like."""

from __future__ import annotations

import csv
import json
import os
import shutil
import struct
import subprocess
import sys
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import converters
from converters import UsageError
from converters.auditing.evaluation.classes import ClassNames, UnknownLabelError, indices
from converters.auditing.evaluation.datasets import listing
from converters.auditing.evaluation.images import opened
from converters.auditing.evaluation.run import Evaluation
from converters.auditing.evaluation.workers import ImageWorkers
from converters.auditing.target import Folder, audit_readers
from converters.catalogue.labels import id2label, labels
from converters.catalogue.variants import find_one
from converters.cli.commands import verify
from converters.cli.progress import amount
from converters.sources import open_checkpoint
from tests.checkpoints import make_checkpoint
from tests.command_line import refused, run
from tests.verify.support import TorchModel
from verify import Report
from verify.checking import contradictions
from verify.report.meaning import meaning

ROOT = Path(__file__).parents[2]
DIGITS = Path(str(files("converters.catalogue"))) / "digits"
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BIT_CONVERT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The held-out digits as an image folder, and the converted network."""
    place = tmp_path_factory.mktemp("digits")
    with np.load(DIGITS / "heldout.npz") as data:
        for number, (image, label) in enumerate(zip(data["images"], data["labels"], strict=True)):
            path = place / "val" / NAMES[label] / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    converters.convert("BiT-digits", output=place / "models", verify=False)
    return place


@pytest.fixture
def folder(place, tmp_path):
    """A copy of the converted network, to change."""
    shutil.copytree(place / "models" / "BiT-digits", tmp_path / "folder")
    return tmp_path / "folder"


def some(place: Path, tmp_path: Path, name=lambda label: label, count: int = 3) -> Path:
    """Some images of each class, all of which the network knows, in folders called ``name`` of the class's."""
    for label in NAMES:
        target = tmp_path / "some" / name(label)
        target.mkdir(parents=True)
        for path in sorted((place / "val" / label).iterdir())[5 : 5 + count]:
            shutil.copy(path, target)
    return tmp_path / "some"


def evaluated(folder, dataset, limit=None, against=DIGITS / "BiT-digits.npz", variant="BiT-digits", progress=None):
    known = find_one(variant) if variant else None
    with open_checkpoint(against) as source, Folder(folder, source, audit_readers, variant=known) as target:
        return Evaluation(target, dataset, limit).run(progress or (lambda *_: None))


def change(folder: Path, name: str, **values) -> None:
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(content | values))


def test_the_digits_get_the_accuracy_that_their_readme_claims(place):
    found = evaluated(place / "models" / "BiT-digits", place / "val")
    assert (found.dataset, found.images, found.classes, found.unreadable) == ("val", 360, 10, 0)
    assert (found.source.top1, found.target.top1, found.same) == (358, 358, 360)
    assert 358 < found.source.top5 == found.target.top5 <= 360
    assert found.source.preprocessing == "RGB, stretched to 32 × 32 (bilinear), scaled to -1 … 1"
    assert (found.exact, found.other_pixels, found.changed) == (True, 0, ())


def test_the_oracle_on_pytorchs_tensors_takes_every_image_for_the_same_class(place, folder, tmp_path):
    change(folder, "config.json", weight_standardization_eps=0.1)  # so that the two networks differ
    found = {}
    for device in ("cpu", "torch:cpu"):
        with open_checkpoint(DIGITS / "BiT-digits.npz") as source, Folder(folder, source, audit_readers) as target:
            found[device] = Evaluation(target, some(place, tmp_path / device), device=device).run(lambda *_: None)
    assert [each.oracle for each in found.values()] == ["NumPy float32", "PyTorch float32 on cpu"]
    numpy, other = found.values()
    assert (numpy.source, numpy.same) == (other.source, other.same)


def digits_and_their_checkpoint(place: Path, tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """The digits' network with half of the output channels of each kernel so small that an epsilon of 1e-8 counts."""
    random, tensors = np.random.default_rng(0), {}
    with np.load(DIGITS / "BiT-digits.npz") as data:
        for name in data.files:
            values = data[name]
            if "standardized" in name:
                spread = values.reshape(-1, values.shape[-1]).std(axis=0)
                values = (values * np.where(random.random(len(spread)) < 0.5, 2e-5 / spread, 1)).astype(np.float32)
            tensors[name] = values
    np.savez(tmp_path / "small.npz", **tensors)
    converters.convert("BiT-digits", checkpoint=tmp_path / "small.npz", output=tmp_path / "small", verify=False)
    return tmp_path / "small", tensors


def right(tensors: dict[str, np.ndarray], place: Path, epsilon: float) -> int:
    """Counted by PyTorch's own operations, on pixels made by Pillow alone."""
    pixels, wanted = [], []
    for number, name in enumerate(NAMES):
        for path in (place / "val" / name).iterdir():
            image = Image.open(path).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
            pixels.append((np.asarray(image, np.float32).transpose(2, 0, 1) - 127.5) / 127.5)
            wanted.append(number)
    with torch.inference_mode():
        logits = TorchModel(tensors, epsilon=epsilon)._forward(torch.from_numpy(np.stack(pixels)))["logits"]
    return int((logits.argmax(1).numpy() == wanted).sum())


@pytest.mark.slow
def test_another_epsilon_costs_the_accuracy_that_pytorch_counts(place, tmp_path):
    folder, tensors = digits_and_their_checkpoint(place, tmp_path)
    change(folder, "config.json", weight_standardization_eps=1e-8)
    report = converters.audit(folder, against=tmp_path / "small.npz", variant="BiT-digits", dataset=place / "val")
    found = report.evaluation
    assert abs(found.source.top1 - right(tensors, place, 1e-10)) <= 1
    assert abs(found.target.top1 - right(tensors, place, 1e-8)) <= 1
    assert found.source.top1 > 0.95 * 360
    assert found.target.top1 < 0.8 * 360
    assert found.images - found.same >= found.source.top1 - found.target.top1
    assert found.changed[0].source_margin > 0
    assert found.names[str(found.changed[0].label)] in NAMES
    assert report.verdict == "failed"
    assert meaning(report) == (
        f"Predictions change: {360 - found.same} of 360 real images get another class than from the checkpoint."
    )
    assert contradictions(Report.from_json(report.to_json())) == []


@pytest.mark.parametrize("name", [str.upper, lambda label: str(NAMES.index(label)), lambda label: f"{label} "])
def test_folders_are_called_by_name_or_index(place, tmp_path, name):
    images = listing(some(place, tmp_path, name), digits()).images
    assert [image.label for image in images if image.path.parent.name == name("seven")] == [7] * 3
    assert len(images) == 30


@pytest.mark.parametrize("header", [("file_name", "label"), ("label", "path"), None])
def test_a_csv_lists_paths_beside_it_and_labels(place, tmp_path, header):
    dataset = some(place, tmp_path)
    rows = [(path.relative_to(tmp_path).as_posix(), path.parent.name) for path in sorted(dataset.rglob("*.png"))]
    swapped = header is not None and header[0] == "label"
    with (tmp_path / "list.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([header] if header else [])
        writer.writerows([row[::-1] if swapped else row for row in rows])
    images = listing(tmp_path / "list.csv", digits()).images
    assert [(image.name, NAMES[image.label]) for image in images] == rows
    if header is None:
        found = evaluated(place / "models" / "BiT-digits", tmp_path / "list.csv")
        assert (found.dataset, found.images, found.source.top1, found.same) == ("list.csv", 30, 30, 30)


def test_what_only_python_takes_for_the_end_of_a_line_is_part_of_a_path(tmp_path):
    name = "a\u2028b\x0cc\x1ed.png"
    (tmp_path / name).write_bytes(b"")
    (tmp_path / "list.csv").write_text(f"{name},zero\r\n")
    assert [image.name for image in listing(tmp_path / "list.csv", digits()).images] == [name]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("some/zero/none.png,zero\n", r"line 1: no such file: some/zero/none.png"),
        ("list.csv,zero\nlist.csv\n", "line 2: needs a path and a label"),
        ("path,label\n", "lists no image"),
        ("", "lists no image"),
        ("list.csv,eleven\n", "'eleven' is no class .*\nName each class by its name"),
        ("list.csv,zero\n\0", "cannot be read as a CSV"),
        (b"\xff\xfe\x00list", "cannot be read as a CSV"),
    ],
)
def test_a_csv_that_is_none_is_refused(tmp_path, content, message):
    path = tmp_path / "list.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=message):
        listing(path, digits())


def test_a_folder_that_is_no_class_is_refused_by_name(place, tmp_path):
    dataset = some(place, tmp_path)
    (dataset / "one").rename(dataset / "eleven")
    with pytest.raises(UsageError, match=r"some: 'eleven' is no class.*\n.*its name \('zero'\) or its index"):
        listing(dataset, digits())
    (dataset / "eleven").rename(dataset / ".hidden")
    (dataset / "notes").mkdir()
    (dataset / "notes" / "readme.txt").write_text("no image")
    assert {image.label for image in listing(dataset, digits()).images} == {0, *range(2, 10)}


def test_a_folder_without_classes_is_refused(place, tmp_path):
    shutil.copy(next((place / "val" / "zero").iterdir()), tmp_path / "flat.png")
    with pytest.raises(UsageError, match="no sub-folder with an image"):
        listing(tmp_path, digits())


@pytest.mark.parametrize(
    ("label", "index"),
    [("n01440764", 0), ("tench", 0), ("Tinca_tinca", 0), ("tench, Tinca tinca", 0), ("999", 999), ("goldfish", 1)],
)
def test_imagenets_classes_are_known_by_id_lemma_and_index(label, index):
    assert imagenet().index(label) == index


def test_of_many_labels_that_are_no_class_a_few_are_looked_for(monkeypatch):
    asked = []
    index = ClassNames.index
    monkeypatch.setattr(ClassNames, "index", lambda self, text: (asked.append(text), index(self, text))[1])
    with pytest.raises(UsageError, match=r"^x: 'a0' is no class, 'a1' is no class, 'a2' is no class and more\.\nName"):
        indices((f"a{number}" for number in range(1000)), digits(), "x")
    assert len(asked) == 4


def test_a_lemma_of_two_classes_is_refused():
    with pytest.raises(UnknownLabelError, match=r"may be n02012849 \(.*\) or n03126707"):
        imagenet().index("crane")


def imagenet() -> ClassNames:
    return ClassNames(1000, labels("ilsvrc2012"), id2label("ilsvrc2012"))


def digits() -> ClassNames:
    return ClassNames(10, labels("digits"), id2label("digits"))


def test_without_a_variant_config_names_the_classes(place, folder, tmp_path):
    dataset = some(place, tmp_path)
    found = evaluated(folder, dataset, variant=None)
    assert (found.source.top1, found.same, found.images) == (30, 30, 30)
    names = {str(index): f"digit {index}" for index in range(10)}
    change(folder, "config.json", id2label=names, label2id={name: int(index) for index, name in names.items()})
    with pytest.raises(UsageError, match="'eight' is no class"):
        evaluated(folder, dataset, variant=None)


def test_each_is_given_what_its_own_preprocessing_makes(place, folder, tmp_path):
    change(folder, "preprocessor_config.json", size={"height": 12, "width": 12})
    found = evaluated(folder, place / "val", limit=90)
    assert (found.images, found.other_pixels, found.exact) == (90, 90, False)
    assert found.source.top1 >= 89
    assert found.target.top1 < found.source.top1
    assert "12 × 12" in found.target.preprocessing
    assert "32 × 32" in found.source.preprocessing


@pytest.mark.parametrize("size", [{"height": 10**6, "width": 10**6}, {"height": 2, "width": 2}])
def test_a_folder_whose_preprocessing_is_impossible_is_not_evaluated(place, folder, size):
    change(folder, "preprocessor_config.json", size=size)
    found = evaluated(folder, place / "val", limit=20)
    assert found.source.top1 == 20
    assert (found.target, found.same) == (None, None)
    assert "sides must be of 9 to 4096 pixels" in found.reason


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(side: int) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + chunk(b"IEND", b"")


def test_images_that_cannot_be_read_are_left_out_and_named(place, tmp_path):
    dataset = some(place, tmp_path)
    whole = next((dataset / "zero").iterdir()).read_bytes()
    broken = {
        "cut.png": whole[: len(whole) // 2],
        "text.png": b"no image at all",
        "bomb.png": bomb(12_000),
        "bomb2.png": bomb(60_000),
        "empty.jpg": b"",
        "program.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(out) (w) file\n",
    }
    for name, content in broken.items():
        (dataset / "zero" / name).write_bytes(content)
    os.mkfifo(dataset / "zero" / "pipe.png")
    (dataset / "zero" / "lost.png").symlink_to("nowhere")
    found = evaluated(place / "models" / "BiT-digits", dataset)
    assert (found.images, found.unreadable, found.source.top1) == (30, len(broken) + 2, 30)
    assert sorted(line.partition(":")[0] for line in found.unreadable_files) == sorted(
        f"zero/{name}" for name in (*broken, "pipe.png", "lost.png")
    )
    assert "zero/text.png: not an image" in found.unreadable_files
    for path in dataset.rglob("*.png"):
        if path.is_file():
            path.write_bytes(b"broken")
    with pytest.raises(UsageError, match="no image can be read; eight/"):
        evaluated(place / "models" / "BiT-digits", dataset)


def test_a_decoder_that_dies_takes_its_image_alone(place, tmp_path, monkeypatch):
    deadly = "import sys, os; sys.path[:] = sys.argv[4:]; from converters.auditing.evaluation import workers as w\n"
    deadly += "read = w.hashed\nw.hashed = lambda path: os._exit(1) if path.parent.name == 'zero' else read(path)\n"
    monkeypatch.setattr("converters.auditing.evaluation.workers.PROGRAM", deadly + "w.serve()")
    found = evaluated(place / "models" / "BiT-digits", some(place, tmp_path, count=1))
    assert (found.images, found.unreadable) == (9, 1)
    assert "its decoder ended" in found.unreadable_files[0]


def test_pixels_of_any_kind_are_bytes_of_three_colours(place, tmp_path):
    """The same digit in every mode is the same digit."""
    digit = Image.open(sorted((place / "val" / "seven").iterdir())[5])
    grey = np.asarray(digit.convert("L"))
    (tmp_path / "kinds" / "seven").mkdir(parents=True)
    images = {
        "cmyk.tif": digit.convert("CMYK"),
        "alpha.png": digit.convert("LA"),
        "palette.png": digit.convert("P"),
        "deep.png": Image.fromarray(grey.astype(np.uint16) * 257),
        "deep.tiff": Image.fromarray(grey.astype(np.uint16) * 257),
        "whole.ppm": digit.convert("RGB"),
    }
    for name, image in images.items():
        image.save(tmp_path / "kinds" / "seven" / name)
        np.testing.assert_array_equal(np.asarray(opened(tmp_path / "kinds" / "seven" / name).convert("L")), grey)
    Image.fromarray(grey.astype(np.float32)).save(tmp_path / "kinds" / "seven" / "fractions.tiff")
    Image.fromarray(grey.astype(np.int32) * 70_000).save(tmp_path / "kinds" / "seven" / "large.tiff")
    shutil.copy(
        tmp_path / "kinds" / "seven" / "whole.ppm",
        os.fsdecode(os.fsencode(tmp_path / "kinds" / "seven") + b"/\xff.ppm"),
    )
    (tmp_path / "kinds" / "seven" / "loop").symlink_to(tmp_path / "kinds")
    found = evaluated(place / "models" / "BiT-digits", tmp_path / "kinds")
    assert (found.images, found.source.top1, found.target.top1) == (7, 7, 7)
    assert sorted(found.unreadable_files) == [
        "seven/fractions.tiff: its pixels are fractions",
        "seven/large.tiff: its pixels are of 32 bits",
    ]


def test_threads_that_open_images_leave_warnings_as_they_were(tmp_path, monkeypatch):
    open_image, seconds = Image.open, iter((0.05, 0.1))
    Image.new("L", (4, 4)).save(tmp_path / "grey.png")

    def slow(*arguments, **options):
        time.sleep(next(seconds))
        return open_image(*arguments, **options)

    monkeypatch.setattr(Image, "open", slow)
    filters = [*warnings.filters]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(opened, [tmp_path / "grey.png"] * 2))
    assert warnings.filters == filters


@pytest.fixture
def decoded(monkeypatch):
    """The names of the images that are opened."""
    names, prepared = [], ImageWorkers.prepared

    def noted(self, images, ahead):
        images = list(images)
        names.extend(image.name for image in images)
        return prepared(self, images, ahead)

    monkeypatch.setattr(ImageWorkers, "prepared", noted)
    return names


def interrupt_after(count: int):
    def progress(what: str, done: int, total: int) -> None:
        if done >= count:
            raise KeyboardInterrupt

    return progress


def test_an_interrupted_evaluation_goes_on_where_it_was(place, decoded):
    folder = place / "models" / "BiT-digits"
    with pytest.raises(KeyboardInterrupt):
        evaluated(folder, place / "val", progress=interrupt_after(100))
    assert len(decoded) == 360
    decoded.clear()
    seen = []
    found = evaluated(folder, place / "val", progress=lambda *words: seen.append(words))
    assert seen[0] == ("evaluating", 112, 360), "whole batches of 16 are kept"
    assert len(decoded) == 360 - 112
    assert (found.source.top1, found.target.top1, found.same) == (358, 358, 360)
    decoded.clear()
    assert evaluated(folder, place / "val") == found
    assert decoded == []


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_where_it_was(place, decoded):
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from tests.converters.test_evaluation import evaluated\n"
        "def kill(what, done, total):\n"
        "    if what == 'evaluating' and done >= 48: os.kill(os.getpid(), 9)\n"
        "evaluated(*map(Path, sys.argv[1:]), progress=kill)\n"
    )
    folder = place / "models" / "BiT-digits"
    killed = subprocess.run([sys.executable, "-c", program, folder, place / "val"], cwd=ROOT, check=False)
    assert killed.returncode == -9
    assert evaluated(folder, place / "val").same == 360
    assert len(decoded) == 360 - 48


def test_half_a_line_is_no_result(place, decoded, tmp_path):
    folder = place / "models" / "BiT-digits"
    evaluated(folder, place / "val", limit=20)
    for path in (tmp_path / "cache" / "evaluations").iterdir():
        path.write_bytes(path.read_bytes()[:-20])
    for left in (1, 0):
        decoded.clear()
        assert evaluated(folder, place / "val", limit=20).source.top1 == 20
        assert len(decoded) == left


def test_what_changed_is_evaluated_again_and_nothing_else(place, folder, decoded, tmp_path):
    dataset = some(place, tmp_path)
    evaluated(folder, dataset)
    decoded.clear()
    image = dataset / "one" / sorted(os.listdir(dataset / "one"))[0]
    shutil.copy(next((dataset / "two").iterdir()), image)
    found = evaluated(folder, dataset)
    assert decoded == [f"one/{image.name}"]
    assert found.source.top1 == 29
    change(folder, "config.json", note="another file")
    decoded.clear()
    evaluated(folder, dataset)
    assert len(decoded) == 30, "predictions of a folder are of its files"


def test_a_limit_is_spread_over_the_data_set(place):
    chosen = listing(place / "val", digits()).limited(20).images
    assert len({image.path for image in chosen}) == 20
    assert {image.label for image in chosen} == set(range(10))


def test_a_checkpoint_without_a_head_has_no_accuracy(place, tmp_path):
    np.savez(tmp_path / "trunk.npz", **make_checkpoint((1,), 32, None, mids=(32,)))
    converters.convert(checkpoint=tmp_path / "trunk.npz", output=tmp_path / "trunk", verify=False)
    with pytest.raises(UsageError, match="has no head"):
        evaluated(tmp_path / "trunk", place / "val", against=tmp_path / "trunk.npz", variant=None)


@pytest.mark.slow
def test_the_command_shows_accuracy_agreement_and_the_first_changes(place, folder, tmp_path):
    change(folder, "preprocessor_config.json", size={"height": 12, "width": 12})
    words = (folder, "--against", "BiT-digits", "--dataset", place / "val", "--limit", 90, "--report", tmp_path / "out")
    result = run(*words, command=verify)
    assert result.exit_code == 1
    shown = " ".join(result.stdout.replace("│", " ").split())
    report = Report.from_json((tmp_path / "out" / "parity.json").read_text())
    found = report.evaluation
    assert f"source, top-1 and top-5 {found.source.top1} (" in shown
    assert f"folder, top-1 and top-5 {found.target.top1} (" in shown
    assert "preprocessing makes other pixels of 90 images" in shown
    assert f"the first {found.changed[0].file}: " in shown
    changed = found.images - found.same
    assert f"what it means Predictions change by preprocessing alone: {changed} of 450 real images" in shown
    page = (tmp_path / "out" / "parity.html").read_text()
    assert "Accuracy on val" in page
    assert all(image.file in page for image in found.changed)
    assert "/val/" not in (tmp_path / "out" / "parity.json").read_text()
    assert run("--check", tmp_path / "out" / "parity.json", command=verify).exit_code == 1
    markdown = run(*words, "--markdown", command=verify).stdout
    assert f"| folder, top-1 and top-5 | {found.target.top1} (" in markdown


def test_options_that_have_no_data_set_are_refused(place, tmp_path):
    folder = place / "models" / "BiT-digits"
    assert "--limit" in refused(2, folder, "--against", "BiT-digits", "--limit", 3, command=verify)
    assert "none" in refused(2, folder, "--against", "BiT-digits", "--dataset", tmp_path / "none", command=verify)
    with pytest.raises(UsageError, match="no such folder or CSV"):
        converters.audit(folder, against="BiT-digits", dataset=tmp_path / "none")
    with pytest.raises(UsageError, match="no number of images"):
        converters.audit(folder, against="BiT-digits", dataset=place / "val", limit=0)


def test_progress_tells_rate_and_time_left():
    assert amount("evaluating", 0, 360, 0.0) == "0 of 360 images"
    assert amount("evaluating", 120, 360, 10.0, 20) == "120 of 360 images, 10 images/s, 0:24 left"
    of_the_rest = amount("downloading", 3_000_000_000, 4_000_000_000, 10.0, 2_900_000_000)
    assert of_the_rest == "3.0 GB of 4.0 GB, 10.0 MB/s, 1:40 left"


@pytest.mark.slow
def test_a_stock_library_prepares_images_itself(place, tmp_path, monkeypatch):
    """Of a folder that declares no epsilon, the library that loads it is the reader."""
    pytest.importorskip("transformers")
    monkeypatch.setattr("converters.auditing.evaluation.workers.MOST", 1)  # which imports it, in seconds
    folder = tmp_path / "stock"
    shutil.copytree(place / "models" / "BiT-digits", folder)
    content = json.loads((folder / "config.json").read_text())
    for name in ("weight_standardization_eps", "exact", "pool_padding"):
        del content[name]
    (folder / "config.json").write_text(json.dumps(content))
    found = evaluated(folder, place / "val", limit=60)
    assert found.reader == "transformers"
    assert (found.reason, found.images) == ("", 60)
    assert found.target.top1 >= 58
