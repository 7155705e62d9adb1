"""The card: snippet, metadata and figures; and the Markdown of an audit. Figures are the report's, commands work."""

import ast
import contextlib
import io
import json
import re
import shlex
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from PIL import Image

from converters.catalogue.variants import find_one, variants
from converters.cli.commands import convert, verify
from converters.folder import card_facts
from converters.folder.plan import Plan
from converters.folder.snippet import FOLDER, loading, loading_here, published, stock_remedy, usage
from converters.mapping.architecture import Architecture
from converters.mapping.layouts import LAYOUTS
from converters.mapping.storage import Storage
from tests.checkpoints import make_checkpoint
from tests.command_line import audited, run
from verify.compare import FACTOR

BADGE = "[![Parity: {0}](https://img.shields.io/badge/parity-{0}-{1})](parity.json)"


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    parent = tmp_path_factory.mktemp("models")
    assert run("--variant", "BiT-digits", "--output", parent, "--quiet").exit_code == 0
    return parent / "BiT-digits"


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("source") / "my source.npz"
    np.savez(path, **make_checkpoint((1, 1), 32, 3, seed=5, kernel_std=1e-3, mids=(32, 64)))
    return path


def card(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def rows(text: str) -> dict[str, list[str]]:
    """First cell of each row of a table → the others."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {first: rest for first, *rest in cells}


def commands(text: str) -> list[list[str]]:
    """What the blocks of bash tell to type."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines() if line[:1] != "#"]


def two_digits(value: float) -> str:
    return f"{value:.2g}"


@pytest.mark.slow
def test_badge_says_the_verdict_in_words_and_leads_to_the_report(digits):
    title, *_, badge = card(digits).split("\n\n")[1:3]
    assert title.endswith("# BiT-digits")
    assert badge == BADGE.format("passed", "brightgreen")
    assert (digits / "parity.json").is_file()


def test_figures_are_the_reports(digits):
    text, report = card(digits), json.loads((digits / "parity.json").read_text())
    table = rows(text)
    assert table["largest error of the logits"] == [two_digits(report["max_abs_error"])]
    assert table["floor: the same error of the oracle computed in float32"] == [two_digits(report["floor"])]
    (ratio,) = table[f"ratio: largest error of any tensor divided by its floor, limit {FACTOR:g}"]
    figure, layer = re.fullmatch(r"(\S+), at `(\S+)`", ratio).groups()
    assert figure == two_digits(report["ratio"])
    assert [each["ratio"] for each in report["layers"] if each["name"] == layer] == [report["ratio"]]
    assert table["stored tensors"][0].startswith("45 of 45 hold, bit for bit")
    assert report["source"]["sha256"] in table["source"][0]
    own, stock = report["readers"]
    assert table["bit_ref, declared"] == [
        "passed",
        "1e-10",
        *map(two_digits, (own["max_abs_error"], own["ratio"])),
        "–",
    ]
    off = [*map(two_digits, (stock["max_abs_error"], stock["ratio"])), "–"]
    assert table["stock transformers and timm (their arithmetic)"] == ["passed", "1e-08", *off]
    assert f"stock transformers and timm (their arithmetic): {stock['reason']}." in text
    assert "NumPy float64" in text


@pytest.mark.slow
def test_a_stranger_can_type_the_commands(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(digits)
    typed = commands(card(digits))
    assert [words[0] for words in typed] == ["bit-verify"] * 3
    check, check_source, audit = (words[1:] for words in typed)
    assert "holds (figures and digest, 3 files and 45 tensors)" in run(*check, command=verify).stdout
    assert "45 tensors, the checkpoint)" in run(*check_source, command=verify).stdout
    result = run(*audit, "--report", tmp_path / "parity", command=verify)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("BiT-digits against BiT-digits.npz · passed")


def test_commands_name_a_file_as_it_is_called_and_the_padding_that_was_chosen(source, tmp_path):
    options = ("--checkpoint", source, "--pool-padding", "-inf", "--output", tmp_path / "model", "--quiet")
    assert run(*options, command=convert).exit_code == 0
    text = card(tmp_path / "model")
    against = ["--against", "my source.npz", "--pool-padding", "-inf"]
    assert [words[-4:] for words in commands(text)][1:] == [against, against]
    assert re.search(r"moves the logits by up to \S+, and everything else is", text)
    assert "--exact logits" not in text, "which stock libraries could not read either"


def test_what_was_not_verified_has_no_badge(source, tmp_path):
    run("--checkpoint", source, "--output", tmp_path / "model", "--no-verify")
    text = card(tmp_path / "model")
    assert "](" not in text
    assert "Nothing was verified" in text
    assert "bit-verify . --against 'my source.npz'" in text
    assert rows(text)["source"]


@pytest.mark.slow
def test_audit_of_another_port_in_markdown(digits, tmp_path, monkeypatch):
    port = tmp_path / "port"
    port.mkdir()
    for name in ("config.json", "model.safetensors"):
        (port / name).write_bytes((digits / name).read_bytes())
    config = json.loads((port / "config.json").read_text())
    del config["weight_standardization_eps"]
    (port / "config.json").write_text(json.dumps(config))
    arguments = [str(port), "--against", "BiT-digits", "--report", str(tmp_path / "parity"), "--markdown"]
    monkeypatch.setattr("sys.argv", ["bit-verify", *arguments])
    result = run(*arguments, command=verify)
    assert result.exit_code == 1
    text = result.stdout
    assert text.startswith(
        "## port against BiT-digits.npz\n\n"
        + BADGE.format("failed", "red")
        + "\n\nBeyond rounding, but no prediction changed on 360 real images.\n\n**Failed** against NumPy float64"
    )
    assert "- `root`: standardisation epsilon, 1e-08" in text
    assert "at \\[" in text, "an index is no link"
    assert commands(text) == [["bit-verify", *arguments]]
    assert rows(text)["transformers, declared"][0] == "failed"
    again = run("--check", tmp_path / "parity" / "parity.json", "--markdown", command=verify)
    assert again.exit_code == 1
    assert BADGE.format("failed", "red") in again.stdout
    report = audited(port, "BiT-digits", tmp_path / "again")
    assert two_digits(report["ratio"]) in rows(again.stdout)["transformers, declared"]


def test_json_and_markdown_go_to_the_same_place(digits):
    result = run(digits, "--against", "BiT-digits", "--json", "--markdown", command=verify)
    assert result.exit_code == 2
    assert "Leave one out" in result.stderr


def test_metadata_are_read_back_by_the_hubs_own_classes(digits):
    data = ModelCard(card(digits)).data
    assert (data.license, data.library_name, data.pipeline_tag) == (
        "apache-2.0",
        "transformers",
        "image-classification",
    )
    (result,) = data.eval_results
    assert isinstance(result, EvalResult)
    report = json.loads((digits / "parity.json").read_text())
    right, of = report["held_out"]["target_right"], report["held_out"]["images"]
    assert result.metric_value == pytest.approx(right / of, abs=1e-5)
    assert (result.metric_type, result.dataset_split) == ("accuracy", "test")
    assert rows(card(digits))["accuracy"] == [f"{right} of {of} held-out images (99.44%); the checkpoint {right}"]


def test_digits_that_were_not_verified_have_the_catalogues_accuracy_and_no_result_of_their_own(tmp_path):
    assert run("BiT-digits", "--output", tmp_path, "--no-verify", "--quiet", command=convert).exit_code == 0
    text = card(tmp_path / "BiT-digits")
    assert rows(text)["accuracy of the checkpoint"][0].startswith("99.44 % top-1; 358 of 360 held-out images")
    assert ModelCard(text).data.eval_results is None


KNOWN = [variant for variant in variants() if variant.top1 is not None and not variant.embedded]


def test_accuracy_of_the_catalogue_is_said_with_its_source_and_of_the_same_values_alone():
    assert len(KNOWN) >= 11
    for variant in KNOWN:
        plan = Plan("name", variant.network, variant, Storage())
        data = ModelCardData(**card_facts.evaluations(plan, None))
        (result,) = ModelCard(f"---\n{data.to_yaml()}\n---\n").data.eval_results
        assert result.metric_value == pytest.approx(variant.top1 / 100)
        assert result.dataset_type == variant.datasets[-1]
        assert result.source_name == variant.top1_source
        assert re.fullmatch(r"https://github.com/[\w.-]+/[\w.-]+/blob/[0-9a-f]{7,}/\S+", result.source_url)
        (row,) = card_facts.accuracy(plan, None)
        assert f"{variant.top1:g} % top-1" in row[1]
        assert variant.top1_source in row[1]
        assert card_facts.evaluations(Plan("name", variant.network, variant, Storage(dtype="float16")), None) == {}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("BiT-M-R50x1", "Trained on ImageNet-21k, by Google"),
        ("BiT-M-R50x1-ILSVRC2012", "Trained on ImageNet-21k, then on ImageNet-1k (ILSVRC-2012), by Google"),
        ("vtab/BiT-M-R50x1-run0-clevr-count", "then on 1,000 images of the VTAB task clevr-count, by Google"),
        ("BiT-digits", "10.24432/C50P49"),
    ],
)
def test_training_data_are_the_catalogues(name, words):
    variant = find_one(name)
    assert words in card_facts.training_data(Plan("name", variant.network, variant, Storage()))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("BiT-M-R50x1", "sigmoid"),
        ("BiT-M-R50x1-ILSVRC2012", "The largest of the 1000"),
        ("tfhub/bit/s-r50x1", "no head"),
    ],
)
def test_use_is_that_of_the_head(name, words):
    variant = find_one(name)
    assert words in card_facts.intended_use(Plan("name", variant.network, variant, Storage()))


@pytest.mark.parametrize("network", [Architecture.regular((1, 1, 1, 1), 32, 10), Architecture((1, 2), 32, (64, 32), 3)])
@pytest.mark.parametrize("size", [(32, 32), (47, 70)])
def test_multiply_accumulates_are_those_that_pytorch_counts(network, size):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from bit_ref import BitConfig, BitForImageClassification

    config = BitConfig(
        embedding_size=network.root_width,
        hidden_sizes=[4 * width for width in network.widths],
        depths=list(network.units),
        num_labels=network.classes,
    )
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        BitForImageClassification(config).eval()(torch.zeros(1, 3, *size))
    assert 2 * network.multiply_accumulates(*size) == counter.get_total_flops()


def python_of(text: str) -> str:
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return block


@pytest.fixture
def three(tmp_path) -> Path:
    """A handwritten three that the network never saw, as image.jpg."""
    with np.load(files("converters.catalogue").joinpath("digits/heldout.npz")) as held:
        picture = held["images"][held["labels"].tolist().index(3)]
    Image.fromarray(picture).save(tmp_path / "image.jpg", quality=100)
    return tmp_path


def printed(code: str) -> list[str]:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, "card", "exec"), {})
    return out.getvalue().splitlines()


@pytest.mark.parametrize("library", ["bit_ref", "transformers"])
def test_snippet_prints_a_label_and_gives_map_and_embedding(digits, three, monkeypatch, library):
    pytest.importorskip(library)
    monkeypatch.chdir(three)
    code = python_of(card(digits)).replace(FOLDER, str(digits))
    if library == "bit_ref":
        code = code.replace("transformers", library).replace("AutoImageProcessor", "BitImageProcessor")
        code = code.replace("AutoModelForImage", "BitForImage")
    assert printed(code) == ["three", "torch.Size([1, 1024, 1, 1])", "torch.Size([1, 1024])"]


def test_snippet_without_a_head_gives_map_and_embedding(three, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("tiny.npz", **make_checkpoint((1, 1), 32, None, mids=(32, 64)))
    assert run("--checkpoint", "tiny.npz", "--output", "tiny", "--quiet", "--no-verify", command=convert).exit_code == 0
    code = python_of(card(tmp_path / "tiny")).replace(FOLDER, "tiny").replace("transformers", "bit_ref")
    code = code.replace("AutoImageProcessor", "BitImageProcessor").replace("AutoModel", "BitModel")
    assert printed(code) == ["torch.Size([1, 256, 60, 60])", "torch.Size([1, 256])"]
    assert "if it\nis not Google's, whoever trained it has to say under which licence it is" in card(tmp_path / "tiny")


@pytest.mark.parametrize(
    ("layout", "line"),
    [
        ("transformers", 'from_pretrained("me/bit")'),
        ("timm", 'create_model("hf-hub:me/bit", pretrained=True)'),
        ("original", 'folder = snapshot_download("me/bit")'),
        ("npz", 'folder = snapshot_download("me/bit")'),
    ],
)
def test_snippet_of_a_repository_loads_it(layout, line):
    variant = find_one("BiT-M-R50x1-ILSVRC2012")
    local = usage(Plan("BiT", variant.network, variant, Storage(layout)))
    assert FOLDER in local
    text = published(local, "me/bit")
    assert line in text
    assert FOLDER not in text
    compile(text, layout, "exec")


@pytest.mark.slow
def test_published_card_names_its_repository_and_every_link_of_it_leads_somewhere(digits, tmp_path):
    words = ("BiT-digits", "--output", digits.parent, "--push", "--hub", tmp_path, "--repo-id", "me/digits", "--quiet")
    assert run(*words, command=convert).exit_code == 0
    (snapshot,) = tmp_path.glob("models--me--digits/snapshots/*")
    text = card(snapshot)
    assert 'from_pretrained("me/digits")' in text
    assert FOLDER not in text
    assert FOLDER in card(digits)
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-")
        for line in text.splitlines()
        if line[:1] == "#"
    }
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert link.startswith("https://") or (snapshot / link).is_file() or link.removeprefix("#") in headings, link
    assert run("--check", snapshot / "parity.json", "--against", "BiT-digits", command=verify).exit_code == 0
    assert run(*words, command=convert).exit_code == 0
    assert len([*tmp_path.glob("models--me--digits/snapshots/*")]) == 1


def test_the_checkpoint_s_name_is_code_whatever_is_in_it(source, tmp_path):
    shutil.copy(source, tmp_path / "a`b|c_d.npz")
    run("--checkpoint", tmp_path / "a`b|c_d.npz", "--output", tmp_path / "model", "--no-verify")
    text = card(tmp_path / "model")
    assert "checkpoint ``a`b|c_d.npz``, converted" in text
    assert "| source | ``a`b\\|c_d.npz``, npz, sha256" in text


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("lines_of", [loading, loading_here])
def test_lines_that_load_a_folder_are_python_whatever_it_is_called(layout, lines_of):
    plan = Plan("net", Architecture.regular((3, 4, 6, 3), 64, 10), None, Storage(layout))
    folder = 'models/"a" \\b\n'
    program = ast.parse("\n".join([*lines_of(plan, folder), stock_remedy(plan, folder)]))
    texts = {node.value for node in ast.walk(program) if isinstance(node, ast.Constant)}
    assert texts & {folder, f"local-dir:{folder}"}
