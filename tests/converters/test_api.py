"""The functions of ``converters``, as a script calls them: beside the commands, from threads, and called wrongly."""

import doctest
import html
import inspect
import io
import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import bit_ref
import converters
import verify
from converters import BitConvertError, CheckpointError, ParityError, UsageError
from converters import options as known
from converters.api import Checkpoint
from converters.auditing.audits import write_texts
from converters.auditing.target import RUNNERS
from converters.catalogue.variants import EMBEDDED_FILE
from converters.cli import commands
from converters.mapping.dtypes import DTYPES
from converters.mapping.layouts import KERNEL_FACTOR, LAYOUTS
from tests.command_line import audited, converted, refused, run
from verify.images import IMAGES
from verify.oracles.agreement import MAKERS
from verify.precision import UNITS

ROOT = Path(__file__).parents[2]
FUNCTIONS = [converters.audit, converters.convert, converters.open_checkpoint, converters.publish, converters.variants]
MEASURED = re.compile(r"[0-9.]+(e-?[0-9]+)?")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> converters.Conversion:
    """The digits, converted in Python."""
    return converters.convert("BiT-digits", output=tmp_path_factory.mktemp("models"))


@pytest.mark.slow
def test_a_folder_is_that_of_the_command(made, tmp_path):
    entry = converted(EMBEDDED_FILE, tmp_path / "BiT-digits", "--variant", "BiT-digits")
    assert entry["report"]["files"] == json.loads(made.report.to_json())["files"]
    for path in made.folder.iterdir():
        if path.name not in ("README.md", "parity.json"):  # which hold measured figures
            assert path.read_bytes() == (tmp_path / "BiT-digits" / path.name).read_bytes()
    assert {path.name for path in made.folder.iterdir()} == {path.name for path in Path(entry["folder"]).iterdir()}


@pytest.mark.slow
def test_a_verdict_is_that_of_the_command(made, tmp_path):
    (tmp_path / "here").mkdir()
    before = set(made.folder.parent.rglob("*"))
    report = converters.audit(made.folder, against="BiT-digits")
    assert report
    assert set(made.folder.parent.rglob("*")) == before
    assert report == verify.Report.from_json(report.to_json())
    commands_own = audited(made.folder, "BiT-digits", tmp_path / "report")
    own = json.loads(report.to_json())
    assert own.keys() == commands_own.keys()
    for key in ("verdict", "reason", "tensors", "files", "weights", "exact", "layout", "expectations", "inspected"):
        assert MEASURED.sub("", json.dumps(own[key])) == MEASURED.sub("", json.dumps(commands_own[key]))
    converters.audit(str(made.folder), against=EMBEDDED_FILE, report=tmp_path / "mine")
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"parity.json", "parity.html"}


@pytest.mark.slow
def test_the_page_of_an_audit_has_the_command_that_repeats_it(made, tmp_path, monkeypatch):
    monkeypatch.setattr("converters.api.audit_target", lambda *_: made.report)
    options = {"variant": "BiT-digits", "inputs": "thorough", "runners": ["bit_ref", "timm"], "offline": True}
    converters.audit("my folder", against="BiT-digits", report=tmp_path, **options)
    line = re.search(r"<code>(bit-verify .*?)</code>", (tmp_path / "parity.html").read_text())[1]
    words = "--offline --variant BiT-digits --inputs thorough --runner bit_ref --runner timm"
    assert shlex.split(html.unescape(line)) == ["bit-verify", "my folder", "--against", "BiT-digits", *words.split()]


@pytest.mark.slow
def test_a_model_that_fails_is_a_report_that_is_false(tmp_path, made):
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "folder"
    folder.mkdir()
    for path in made.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.1.bias"] = tensors["classifier.1.bias"][::-1].copy()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    report = converters.audit(folder, against="BiT-digits")
    assert not report
    assert report.verdict == "failed"


def test_publishes_only_what_passed(made, tmp_path):
    publication = converters.publish(made, repo_id="me/digits", hub=tmp_path / "hub")
    assert publication.changed
    assert not converters.publish(made, repo_id="me/digits", hub=tmp_path / "hub").changed
    unverified = converters.convert("BiT-digits", output=tmp_path / "models", verify=False)
    assert unverified.report is None
    with pytest.raises(ParityError, match="not verified"):
        converters.publish(unverified, repo_id="me/other", hub=tmp_path / "hub")
    (unverified.folder / "model.safetensors").write_bytes(b"")
    assert not (tmp_path / "hub" / "models--me--other").exists()


def test_what_is_returned_is_told_in_a_few_lines(made):
    """An interpreter and a notebook print it; the whole report is ``to_json()``."""
    assert "report=Report(verdict='passed', reason='45 stored tensors bit-exact" in repr(made).replace('"', "'")
    assert f"folder={made.folder!r}" in repr(made)
    assert len(repr(made)) < 1000 + len(str(made.folder))
    with converters.open_checkpoint("BiT-digits") as checkpoint:
        assert repr(checkpoint) == f"<Checkpoint {EMBEDDED_FILE}: npz, {checkpoint.architecture}>"


def test_a_checkpoint_is_read_in_googles_layout(made):
    with np.load(EMBEDDED_FILE) as truth, converters.open_checkpoint(made.folder) as checkpoint:
        assert sorted(checkpoint.shapes) == sorted(truth.files)
        for name, shape in checkpoint.shapes.items():
            values = checkpoint.read(name)
            assert (values.dtype, values.shape) == (np.float32, shape)
            np.testing.assert_array_equal(values, truth[name].reshape(shape))
        with pytest.raises(UsageError, match="no tensor is called 'kernel'"):
            checkpoint.read("kernel")
        with pytest.raises(UsageError, match="no tensor is called \\['kernel'\\]"):
            checkpoint.read(["kernel"])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="closed"):
        checkpoint.read(next(iter(checkpoint.shapes)))


def test_variants_are_those_of_the_list():
    assert len(converters.variants()) == 681  # 680 of Google's, and ours
    assert {variant.name for variant in converters.variants("BiT-M-R50x[13]")} == {"BiT-M-R50x1", "BiT-M-R50x3"}
    with pytest.raises(UsageError, match="nearest: BiT-digits"):
        converters.variants("BiT-digit")


@pytest.mark.slow
def test_threads_convert_and_audit_at_once(tmp_path):
    stdout, tracked = sys.stdout, io.StringIO()

    def both(number: int) -> tuple[bool, bool]:
        made = converters.convert("BiT-digits", output=tmp_path / str(number))
        return bool(made.report), bool(converters.audit(made.folder, against="BiT-digits"))

    try:
        sys.stdout = tracked
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(both, range(4))) == [(True, True)] * 4
        assert sys.stdout is tracked
    finally:
        sys.stdout = stdout
    assert tracked.getvalue() == ""
    weights = {(tmp_path / str(n) / "BiT-digits/model.safetensors").read_bytes() for n in range(4)}
    assert len(weights) == 1


def test_threads_make_the_same_folder_and_one_is_left(tmp_path):
    def make(_: int) -> Path:
        return converters.convert("BiT-digits", output=tmp_path, force=True, verify=False).folder

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(make, range(4))) == {tmp_path / "BiT-digits"}
    assert [path.name for path in tmp_path.iterdir()] == ["BiT-digits"]


def test_progress_is_given_to_whoever_asks(tmp_path, capfd):
    steps = []
    converters.convert("BiT-digits", output=tmp_path, verify=False, progress=lambda *step: steps.append(step))
    assert len(steps) > 10
    assert all(isinstance(what, str) and done >= 0 and total >= 0 for what, done, total in steps)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_threads_may_write_reports_to_one_folder(made, tmp_path):
    def write(_: int) -> None:
        write_texts({"parity.json": made.report.to_json(), "parity.html": "page"}, tmp_path)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(100)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parity.html", "parity.json"]
    assert (tmp_path / "parity.json").read_text() == made.report.to_json()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [KeyError, FileNotFoundError, UsageError, StopIteration, KeyboardInterrupt])
def test_what_progress_raises_is_no_fault_of_the_model(kind, made, tmp_path):
    calls = [
        ("writing", lambda at, tell: converters.convert("BiT-digits", output=at, progress=tell)),
        ("verifying bit_ref", lambda at, tell: converters.convert("BiT-digits", output=at, progress=tell)),
        ("verifying bit_ref", lambda at, tell: converters.audit(made.folder, against="BiT-digits", progress=tell)),
        ("publishing", lambda at, tell: converters.publish(made, repo_id="me/x", hub=at, progress=tell)),
    ]
    for number, (step, call) in enumerate(calls):
        seen, error = [], kind("enough")

        def tell(what: str, done: int, total: int, step=step, seen=seen, error=error) -> None:
            seen.append(what)
            if what.startswith(step):
                raise error

        at = tmp_path / str(number)
        with pytest.raises(kind) as caught:
            call(at, tell)
        assert caught.value is error, seen
        assert (error.__context__, error.__cause__) == (None, None)
        assert [path for path in at.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("call", [converters.convert, converters.audit, converters.open_checkpoint])
@pytest.mark.parametrize("progress", [True, 0, "steps", ()])
def test_progress_that_cannot_be_called_is_refused(call, progress, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"against": "BiT-digits"} if call is converters.audit else {}
    with pytest.raises(UsageError, match="is no function"):
        call("BiT-digits", progress=progress, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("call", "kind", "said"),
    [
        (lambda at: converters.convert(), UsageError, "nothing to convert"),
        (lambda at: converters.convert("BiT-nothing"), UsageError, "no released checkpoint"),
        (lambda at: converters.convert("BiT-M-*"), UsageError, "one is meant"),
        (lambda at: converters.convert(5), UsageError, "no name"),
        (lambda at: converters.convert(checkpoint=at / "none.npz"), CheckpointError, "no such file"),
        (lambda at: converters.convert(checkpoint="a\0b"), UsageError, "no path"),
        (lambda at: converters.convert(checkpoint=7), UsageError, "no path"),
        (lambda at: converters.convert(checkpoint=""), UsageError, "no path"),
        (lambda at: converters.convert(checkpoint=at / ("x" * 5000)), BitConvertError, "too long"),
        (lambda at: converters.convert("BiT-digits", output=EMBEDDED_FILE / "x"), UsageError, "cannot be written"),
        (lambda at: converters.convert("BiT-digits", layout="flax"), UsageError, "transformers, timm, original, npz"),
        (lambda at: converters.convert("BiT-digits", dtype=np.float32), UsageError, "float32, float16, bfloat16"),
        (lambda at: converters.convert("BiT-digits", exact="both"), UsageError, "bits, logits"),
        (lambda at: converters.convert("BiT-digits", pool_padding="0"), UsageError, "zeros, -inf"),
        (lambda at: converters.convert("BiT-digits", oracles="jax"), UsageError, "graph, keras, tensorflow"),
        (lambda at: converters.convert("BiT-digits", max_shard_size="much"), UsageError, "no size"),
        (lambda at: converters.convert("BiT-digits", max_shard_size=True), UsageError, "no size"),
        (lambda at: converters.convert("BiT-digits", oracles=None), UsageError, "neither a name nor a list"),
        (lambda at: converters.convert("BiT-digits", oracles=[5]), UsageError, "graph, keras, tensorflow"),
        (lambda at: converters.convert("BiT-digits", force="no"), UsageError, "--force 'no' is neither True nor False"),
        (lambda at: converters.convert("BiT-digits", verify=None), UsageError, "neither True nor False"),
        (lambda at: converters.convert("BiT-digits", patience=True), UsageError, "no number of seconds"),
        (lambda at: converters.convert("BiT-digits", patience="x"), UsageError, "no number of seconds"),
        (lambda at: converters.convert(""), UsageError, "'' is no name"),
        (lambda at: converters.convert("BiT-digits", images=at / "none"), UsageError, "no such folder"),
        (lambda at: converters.convert("BiT-digits", layout="npz", exact="logits"), UsageError, "1e-8"),
        (lambda at: converters.audit(at / "none", against="BiT-digits"), UsageError, "no such folder"),
        (lambda at: converters.audit(at, against=at / "none.npz"), CheckpointError, "no such file"),
        (lambda at: converters.audit(at, against="none.npz"), UsageError, "no such file"),
        (lambda at: converters.audit(at, against="BiT-digits"), CheckpointError, "holds no|no weights|neither|model"),
        (lambda at: converters.audit(at, against="BiT-digits", runners=["jax"]), UsageError, "bit_ref, stock"),
        (lambda at: converters.audit(at, against="BiT-digits", compute="int8"), UsageError, "float32, tf32"),
        (lambda at: converters.audit(at, against="BiT-digits", device="tpu"), UsageError, "cpu, cuda"),
        (lambda at: converters.audit(at, against="BiT-digits", compute="tf32"), UsageError, "only a GPU"),
        (lambda at: converters.audit(at, against="BiT-digits", inputs="all"), UsageError, "default, thorough"),
        (lambda at: converters.audit(at, against="BiT-digits", runners=5), UsageError, "neither a name nor a list"),
        (lambda at: converters.audit(at, against="BiT-digits", offline=1), UsageError, "neither True nor False"),
        (lambda at: converters.audit(at, against="BiT-digits", dataset=at, limit=True), UsageError, "whole number"),
        (lambda at: converters.audit(at, against="BiT-digits", dataset=at, limit=0), UsageError, "number of images"),
        (lambda at: converters.audit(at, against="BiT-digits", variant="BiT-x"), UsageError, "no released"),
        (lambda at: converters.open_checkpoint(at / "none.npz"), CheckpointError, "no such file"),
        (lambda at: converters.open_checkpoint("none.npz"), UsageError, "no such file"),
        (lambda at: converters.open_checkpoint(at), CheckpointError, "not a BiT checkpoint"),
        (lambda at: converters.open_checkpoint("BiT-digits", offline="no"), UsageError, "neither True nor False"),
        (lambda at: converters.publish(at), UsageError, "what convert\\(\\) returned"),
        (lambda at: converters.variants(3), UsageError, "no name"),
    ],
)
def test_every_error_is_ours(call, kind, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=said) as caught:
        call(tmp_path)
    assert 1 <= len(str(caught.value).splitlines()) <= 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["BiT-digits\n", "a\nb\nc", "\n"])
def test_a_name_with_line_breaks_takes_no_more_lines(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    calls = (
        lambda: converters.variants(f"{name}x"),
        lambda: converters.open_checkpoint(f"{name}x"),
        lambda: converters.convert(checkpoint=tmp_path / f"{name}x"),
        lambda: converters.audit(f"{name}x", against="BiT-digits"),
    )
    for call in calls:
        with pytest.raises(BitConvertError) as caught:
            call()
        assert 1 <= len(str(caught.value).splitlines()) <= 2


def test_publishing_options_that_contradict_each_other(made, tmp_path):
    for options in ({"repo_id": "a/b", "namespace": "a"}, {"hub": tmp_path / "hub", "private": True}):
        with pytest.raises(UsageError):
            converters.publish(made, **options)


@pytest.mark.parametrize("name", ["repo_id", "namespace", "revision", "tag", "commit_message"])
@pytest.mark.parametrize("value", ["", " ", 0, True, ["a"], np.array([1, 2])], ids=repr)
def test_what_a_publication_is_called_is_text(name, value, made, tmp_path):
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} .*(is empty|is no text)"):
        converters.publish(made, hub=tmp_path / "hub", **{name: value})
    assert not (tmp_path / "hub").exists()


def test_a_flag_is_no_text(made):
    for flag in ("private", "create_pr", "refresh"):
        with pytest.raises(UsageError, match="is neither True nor False"):
            converters.publish(made, **{flag: "no"})


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_an_unknown_keyword_is_a_type_error(function):
    with pytest.raises(TypeError, match="wrong"):
        function("BiT-digits", wrong=1)


def test_every_option_of_a_command_is_a_keyword():
    apart = {
        *("list_only", "dry_run", "as_json", "as_markdown", "quiet", "debug", "version", "push"),
        *("check_report", "compare", "verbose", "install_completion", "name_or_path"),
        *("plan", "shard", "collection", "jobs", "scheduler", "events", "recheck", "discard", "token"),
    }
    of_convert = {*inspect.signature(converters.convert).parameters, *inspect.signature(converters.publish).parameters}
    renamed = {"targets": "folder", "report_folder": "report"}
    for command, keywords in (
        (commands.convert, of_convert),
        (commands.verify, {*inspect.signature(converters.audit).parameters}),
    ):
        options = {renamed.get(option.name, option.name) for option in command.params} - apart
        assert options <= keywords


def test_choices_are_the_tables_keys():
    assert set(known.LAYOUTS) == {*LAYOUTS}
    assert set(known.DTYPES) == {*DTYPES}
    assert set(known.EXACT) == {*KERNEL_FACTOR}
    assert set(known.RUNNERS) == {*RUNNERS}
    assert set(known.INPUTS) == {*IMAGES}
    assert set(known.ORACLES) == {*MAKERS}
    assert set(known.COMPUTE) == {*UNITS}


def test_one_version_everywhere():
    from importlib.metadata import version

    assert converters.__version__ == verify.__version__ == bit_ref.__version__ == version("bit-convert")


def test_no_module_hides_a_function():
    import pkgutil

    for package in (converters, verify, bit_ref):
        assert not {module.name for module in pkgutil.iter_modules(package.__path__)} & {*package.__all__}
        for name in package.__all__:
            assert not inspect.ismodule(getattr(package, name))


def test_import_loads_nothing_heavy():
    program = (
        "import sys; import converters, verify, bit_ref; assert set(converters.__all__) <= set(dir(converters));"
        "heavy = {'numpy', 'torch', 'click', 'huggingface_hub', 'h5py', 'rich', 'httpx', 'csv'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules);"
        "from converters import audit, convert, open_checkpoint, publish, variants; variants();"
        "assert not {'torch', 'transformers', 'tensorflow', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def examples() -> list[doctest.DocTest]:
    """Those of the docstrings, in an order in which each has what it needs."""
    parser = doctest.DocTestParser()
    names = ("convert", "audit", "publish", "open_checkpoint", "variants")
    space = {name: getattr(converters, name) for name in names}
    return [parser.get_doctest(getattr(converters, name).__doc__, space, name, None, 0) for name in names]


@pytest.mark.slow
def test_examples_of_the_docstrings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {}
    for test in examples():
        assert test.examples, test.name
        test.globs.update(space)
        results = doctest.DocTestRunner().run(test, clear_globs=False)
        space = test.globs
        assert results.failed == 0, test.name


@pytest.mark.slow
@pytest.mark.parametrize("text", ["README.md", "converters/__init__.py"])
def test_example_of_the_page_runs(text, tmp_path, monkeypatch):
    page = (ROOT / text).read_text(encoding="utf-8")
    start = page.index("    from converters import audit, convert, publish")
    lines = page[start:].splitlines()
    code = [line[4:] for line in lines[: next(i for i, line in enumerate(lines) if line and line[0] != " ")]]
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {}
    exec("\n".join(code), space)
    assert space["report"]
    assert (tmp_path / "hub").is_dir()


def test_a_missing_file_is_called_missing_by_the_commands_too(tmp_path):
    assert "no such file" in refused(3, "--checkpoint", tmp_path / "none.npz")
    assert "no such folder" in refused(2, tmp_path / "none", "--against", "BiT-digits", command=commands.verify)
    assert "no such file" in refused(2, tmp_path, "--against", tmp_path / "none.npz", command=commands.verify)


def test_a_file_that_a_folder_lacks_is_called_missing(made, tmp_path):
    folder = tmp_path / "BiT-digits"
    shutil.copytree(made.folder, folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json: no such file\."):
        converters.audit(folder, against="BiT-digits")
    with pytest.raises(UsageError, match=r"holds something else: config\.json is missing\."):
        converters.convert("BiT-digits", output=tmp_path)


def test_threads_may_share_a_checkpoint():
    with converters.open_checkpoint("BiT-digits") as checkpoint, np.load(EMBEDDED_FILE) as truth:
        assert isinstance(checkpoint, Checkpoint)
        wanted = {name: truth[name] for name in truth.files}
        with ThreadPoolExecutor(4) as pool:
            names = [*checkpoint.shapes] * 4
            for name, values in zip(names, pool.map(checkpoint.read, names), strict=True):
                np.testing.assert_array_equal(values, wanted[name].reshape(values.shape))


def figures_blanked(line: str) -> str:
    """Without what differs between machines: digits of errors, the width of the table."""
    return re.sub(r"\d[\d.]*(e-\d+)?", "#", " ".join(line.split()))


@pytest.mark.slow
def test_commands_of_the_readme_print_what_it_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("verify.readers._found", lambda library: library == "torch")  # as after `pip install .`
    page = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    starts = [number for number, line in enumerate(page) if line.startswith("    $ ")]
    assert len(starts) == 3
    for start in starts:
        name, *arguments = shlex.split(page[start].removeprefix("    $ "))
        shown = list(itertools.takewhile(lambda line: line.startswith("    "), page[start + 1 :]))
        result = run(*arguments, command={"bit-convert": commands.convert, "bit-verify": commands.verify}[name])
        assert result.exit_code == 0
        printed = {figures_blanked(line) for line in result.stdout.splitlines()}
        assert not [line for line in shown if figures_blanked(line) not in printed]
    picture = (ROOT / "docs" / "terminal.svg").read_text(encoding="utf-8").replace("&#160;", " ")
    rows = [line.split("│")[1].strip() for line in page if line.startswith("    │")]
    assert not [row for row in filter(None, rows) if f">{row}" not in picture]
    code = "\n".join(page)
    start = code.index("    from bit_ref import")
    exec(textwrap.dedent(code[start : code.index("\n\n", start)]), {})
