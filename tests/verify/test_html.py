"""parity.html: well-formed, complete without the network, verdict first, nothing of the source taken as markup."""

import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from tests.browser import DESK, PHONE, look, printed
from tests.checkpoints import make_checkpoint
from tests.verify.support import MemorySource, TorchModel, audited, target_of
from verify import AuditSettings, Expectation, audit, default_images
from verify.report.html import layer_plot, logit_plot, render
from verify.report.parity import (
    AccuracyReport,
    ChangedImage,
    EvaluationReport,
    LayerReport,
    LogitReport,
    OracleReport,
)

VOID = {"meta", "br"}


class Page(HTMLParser):
    """Every tag is closed by its own; text and attributes are kept."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.shown_rows = 0
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.shown_rows += tag in ("tr", "p") and "details" not in self.open
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def count(self, tag: str, kind: str = "") -> int:
        return sum(t == tag and (not kind or kind in (a.get("class") or "").split()) for t, a in self.tags)


@pytest.fixture(scope="module")
def tensors():
    return make_checkpoint((1, 1), 32, 4, mids=(32, 64), kernel_std=1e-3)


def page_of(report) -> tuple[str, Page]:
    text = render(report, {"numpy": "2.0"}, "bit-verify folder --against tiny.npz")
    return text, Page(text)


def test_passing_report(tensors):
    report = audited(tensors, size=48)
    text, page = page_of(report)
    body = text[text.index("<body>") :]
    assert body.index("✓ Passed") < body.index("<svg")
    assert re.findall(r"https?://|src=|@import|url\(|<link|<script", text) == []
    assert page.count("circle", "error") == len(report.layers) + len(report.logits) == 6 + 4
    assert page.count("path", "over") == 0
    for expected in ("numpy 2.0", "bit-verify folder --against tiny.npz", "ab" * 32, "25 bit-exact", "root"):
        assert expected in page.text
    assert all(weight.name in page.text and weight.sha256[:16] in page.text for weight in report.weights)
    assert "What is wrong" not in text
    assert "viewport" in text
    assert "@media print" in text


def test_the_title_is_that_of_the_report(tensors):
    report = dataclasses.replace(audited(tensors, size=48), target={"name": "<b>google/bit-50", "revision": "c0ffee"})
    text, page = page_of(report)
    assert "<title>passed · &lt;b&gt;google/bit-50@c0ffee against tiny.npz</title>" in text
    assert "✓ Passed <b>google/bit-50@c0ffee against tiny.npz" in page.text


def test_failing_report_names_the_fault_and_marks_what_is_over(tensors):
    _, page = page_of(audited(tensors, TorchModel(tensors, epsilon=1e-8), size=48))
    assert "✗ Failed" in page.text
    assert "standardisation epsilon" in page.text
    assert "1e-10" in page.text
    assert page.count("path", "over") > 0


def test_inconclusive_and_figureless_reports(tensors):
    source = MemorySource(tensors)
    _, page = page_of(audit(target_of(source), source, AuditSettings(images=[])))
    assert "? Inconclusive" in page.text
    broken = TorchModel({**tensors, "resnet/group_norm/gamma": np.full(256, np.nan, np.float32)})
    _, page = page_of(audited(tensors, broken, size=48))
    assert "✗ Failed" in page.text


def test_page_of_a_large_network_is_as_short_as_that_of_a_small_one(tensors):
    """What is long is folded away, and opened in print."""
    source = MemorySource(tensors)
    report = audit(target_of(source, {name: values + 1 for name, values in tensors.items()}), source)
    assert len(report.misfits) == len(tensors) == 25
    many = dataclasses.replace(
        report,
        weights=report.weights * 20,
        misfits=report.misfits * 20,
        expectations=tuple(Expectation(f"config.json {i}", "1", str(i)) for i in range(40)),
    )
    (_, small), (text, large) = page_of(report), page_of(many)
    assert large.shown_rows == small.shown_rows < 50
    assert large.count("tr") - small.count("tr") == 19 * 25 + 41
    assert "✗ 492 more" in large.text
    assert "details::details-content" in text[text.index("@media print") :]


def test_names_are_no_markup(tensors):
    source = MemorySource(tensors, path="/x/<script>alert(1)</script>.npz")
    text, _ = page_of(audit(target_of(source), source, AuditSettings(images=default_images(33))))
    assert "<script" not in text


def test_plots_are_to_scale():
    layer = LayerReport("a", 1.0, 1.0, error=1e-4, limit=1e-2, ratio=0.04, image=0)
    over = LayerReport("b", 1.0, 1.0, error=1.0, limit=1e-2, ratio=400.0, image=0)
    zero = LayerReport("c", 0.0, 0.0, error=0.0, limit=0.0, ratio=0.0, image=0)
    points, ticks = layer_plot([layer, over, zero])
    places = [points[0].error, points[0].floor, points[0].limit, points[1].error]
    assert places == sorted(places)
    assert points[1].limit == points[0].limit
    assert (places[3] - places[0]) == pytest.approx(2 * (places[2] - places[0]), abs=0.3)
    assert [point.label for point in points] == ["a", "b", "c"]
    assert points[2].y - points[1].y == points[1].y - points[0].y > 0
    assert [tick.label for tick in ticks] == ["1e-04", "1e-03", "1e-02", "1e-01", "1e+00"]
    assert [point.within for point in points] == [True, False, True]
    dots, axis = logit_plot([LogitReport(0, -1.0, -1.0), LogitReport(7, 3.0, 1.0), LogitReport(8, None, 2.0)])
    (low, bottom, _), (high, half, _) = dots
    assert high - low == 2 * (bottom - half) > 0
    assert [tick.at for tick in axis] == [0, high - low]
    assert [tick.label for tick in axis] == ["-1", "3"]
    assert layer_plot([]) == logit_plot([]) == ([], [])


# In Chromium


@pytest.fixture(scope="module")
def files(tensors, tmp_path_factory):
    """A page that passed, and one that failed in everything that can fail, with names of any length."""
    folder = tmp_path_factory.mktemp("pages")
    passed = audited(tensors, size=48)
    failed = dataclasses.replace(
        audited(tensors, TorchModel(tensors, epsilon=1e-8), size=48),
        files={"model-00001-of-00002.safetensors": "ab" * 32, "config.json": "cd" * 32},
        expectations=tuple(Expectation(f"config.json a.{'b' * 40}.{i}", "1" * 30, "2" * 30) for i in range(60)),
        misfits=tuple(f"resnet/block1/unit{i:02}/a/standardized_conv2d/kernel: 3 values differ" for i in range(12)),
        evaluation=EvaluationReport(
            dataset="imagenet",
            sha256="ef" * 32,
            images=100,
            classes=10,
            unreadable=0,
            unreadable_files=(),
            oracle="NumPy float64",
            reader="bit_ref",
            source=AccuracyReport("resized to 480 × 480", 90, 99),
            target=AccuracyReport("resized to 480 × 480", 88, 98),
            reason="",
            other_pixels=0,
            same=97,
            ties=1,
            exact=True,
            changed=tuple(ChangedImage(f"n01440764/{'x' * 40}_{i}.JPEG", i, i, 1e-3, i + 1, 2.5) for i in range(3)),
            names={str(i): "a long name, and another of it" for i in range(5)},
        ),
        other_oracles=(
            OracleReport("graph", "the SavedModel's own graph", "agrees", 40, ""),
            OracleReport("tensorflow", "TensorFlow", "not run", 0, "pip install 'bit-convert[tensorflow]'"),
        ),
    )
    pages = {"passed": folder / "passed.html", "failed": folder / "failed.html"}
    for report, page in zip((passed, failed), pages.values(), strict=True):
        page.write_text(page_of(report)[0], encoding="utf-8")
    return pages


@pytest.mark.slow
@pytest.mark.parametrize("name", ["passed", "failed"])
@pytest.mark.parametrize(("width", "dark"), [(PHONE, False), (PHONE, True), (DESK, True)])
def test_it_is_read_without_scrolling_sideways_and_in_clear_colours(files, name, width, dark, tmp_path):
    seen = look(files[name], tmp_path, width=width, dark=dark)
    assert seen.sideways == []
    assert seen.faint == []
    assert seen.complaints == []
    assert seen.smallest >= 12


@pytest.mark.slow
def test_a_screen_reader_is_told_of_tables_and_pictures_and_the_keyboard_opens_what_is_folded(files, tmp_path):
    seen = look(files["failed"], tmp_path, aloud=True)
    assert {role for role, _ in seen.named("table")} == {"table"}
    assert all(name for _, name in seen.named("table"))
    assert {role for role, _ in seen.named("th")} == {"columnheader", "rowheader"}
    assert {role for role, _ in seen.named("td")} == {"cell"}
    assert all(role == "image" and name for role, name in seen.named("svg"))
    assert seen.named("h1") == [("heading", "✗ Failed")]
    assert {(tag, index) for tag, index, _ in seen.stops} == {("summary", 0)}


@pytest.mark.slow
def test_on_paper_no_section_is_torn_and_what_is_folded_is_there(files, tmp_path):
    sheets = [
        re.sub(r"\s+", "", sheet.replace("ﬁ", "fi").replace("ﬂ", "fl")) for sheet in printed(files["failed"], tmp_path)
    ]
    assert len(sheets) > 1
    sections = {
        "✗Failed": "againsttiny.npz(npz).",
        "Errorofeachtensoragainstitslimit": "declaredreader.",
        "LibraryVerdict": "whatitcomputeswiththat.",
        "OraclesbesideNumPy": "bit-convert[tensorflow]",
        "Logits": "onthediagonalbothareequal.",
        "Repeatit": "Max-poolpadding",
    }
    for first, last in sections.items():
        assert any(first in sheet and last in sheet for sheet in sheets), (first, last)
    rows = [sheet for sheet in sheets if "config.jsona." in sheet]
    assert sum(sheet.count("1" * 30) for sheet in rows) == 60
    assert all("FieldIsMustbe" in sheet for sheet in rows)
