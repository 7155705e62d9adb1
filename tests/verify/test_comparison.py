"""Two reports side by side: their titles, the rows that differ, the faults that only one of them has, the page."""

import dataclasses

import numpy as np
import pytest

from tests.browser import DESK, PHONE, look
from tests.checkpoints import make_checkpoint
from tests.verify.support import TorchModel, audited
from tests.verify.test_html import Page
from verify.report.comparison import compared, render
from verify.report.parity import Report


@pytest.fixture(scope="module")
def tensors():
    return make_checkpoint((1, 1), 32, 4, mids=(32, 64), kernel_std=1e-3)


@pytest.fixture(scope="module")
def good(tensors) -> Report:
    return dataclasses.replace(audited(tensors, size=48), target={"name": "me/good", "revision": "a" * 40})


@pytest.fixture(scope="module")
def bad(tensors) -> Report:
    return dataclasses.replace(audited(tensors, TorchModel(tensors, epsilon=1e-8), size=48), target={"name": "bad"})


@pytest.fixture(scope="module")
def worse(tensors) -> Report:
    model = TorchModel(tensors, epsilon=1e-8, pool_padding=-np.inf)
    return dataclasses.replace(audited(tensors, model, size=48), target={"name": "worse"})


def test_rows_say_what_was_audited_and_found(good, bad):
    found = compared(good, bad)
    assert not found.passed
    assert compared(good, good).passed
    rows = {row.name: row for row in found.rows}
    assert rows["verdict"].texts == ("passed", "failed")
    assert rows["audited"].texts == ("me/good", "bad")
    assert rows["revision"].texts == ("a" * 40, "–")
    assert rows["source's sha256"].texts == ("ab" * 32,) * 2
    assert rows["source's sha256"].is_same
    assert rows["why"].texts == ("–", bad.reason)
    assert rows["read by torch"].texts[0].startswith("passed, declared: error is ")
    assert f"at {max((layer.ratio, layer.name) for layer in bad.layers)[1]}" in rows["error"].texts[1]
    assert found.titles == (f"me/good@{'a' * 12} against tiny.npz", "bad against tiny.npz")
    assert found.notes[0] == "Both were judged by the same checkpoint."
    assert found.notes[-1] == "All 25 stored tensors hold the same bits in both."
    assert [row.name for row in found.layers] == [layer.name for layer in good.layers]
    assert found.layers[0].texts == tuple(f"{report.layers[0].ratio:.3g}" for report in (good, bad))


def test_faults_stand_beside_each_other(good, bad, worse):
    assert [pair.faults for pair in compared(good, bad).faults] == [(None, fault) for fault in bad.faults]
    assert [pair.faults for pair in compared(bad, good).faults] == [(fault, None) for fault in bad.faults]
    mine = {(fault.kind, fault.place) for fault in bad.faults}
    others = {(fault.kind, fault.place) for fault in worse.faults}
    found = compared(bad, worse).faults
    assert {(pair.known.kind, pair.known.place) for pair in found} == mine | others
    assert {(pair.known.kind, pair.known.place) for pair in found if pair.is_in_both} == mine & others
    told = compared(bad, worse).to_json()
    assert [fault["details"][0] for fault in told["faults"]][: len(bad.faults)] == [f.detail for f in bad.faults]
    assert told["verdicts"] == ["failed", "failed"]


def test_reports_of_one_title_are_told_apart(good):
    assert compared(good, good).titles == (good.title,) * 2
    assert compared(good, good).notes == ("Both are the same report.",)
    half = dataclasses.replace(good, dtype="float16")
    assert compared(good, half).titles[1] == f"{good.title} (transformers, float16, exactness: bits)"
    one, other = compared(good, dataclasses.replace(good, release="9")).titles
    assert one != other
    assert one.startswith(f"{good.title} (report ")


def test_what_does_not_compare_is_said(tensors, good):
    source = {**good.source, "sha256": "ef" * 32}
    weights = tuple(dataclasses.replace(weight, sha256="00" * 32) for weight in good.weights[:5])
    other = dataclasses.replace(good, source=source, weights=weights + good.weights[5:], images=good.images[:1])
    notes = compared(good, other).notes
    assert notes[0].startswith("They were judged by two checkpoints")
    assert notes[1].startswith("They were judged on other images")
    assert notes[2].startswith("5 of 25 stored tensors differ: ")
    assert notes[2].endswith(" and 2 more.")


def test_page_is_whole_and_nothing_in_it_is_markup(good, worse):
    named = dataclasses.replace(worse, target={"name": "<script>alert(1)</script>"})
    text = render(compared(good, named), "bit-verify --compare a b")
    page = Page(text)
    assert "<script" not in text
    assert f"{good.title} · {named.title}" in page.text
    assert "A: ✓ Passed" in page.text
    assert "B: ✗ Failed" in page.text
    assert ", in B alone." in page.text
    assert all(fault.detail in page.text for fault in named.faults)
    assert "bit-verify --compare a b" in page.text


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(PHONE, False), (DESK, True)])
def test_page_is_read_on_a_phone_and_at_a_desk(good, worse, width, dark, tmp_path):
    page = tmp_path / "comparison.html"
    page.write_text(render(compared(good, worse), "bit-verify --compare a b"), encoding="utf-8")
    seen = look(page, tmp_path, width=width, dark=dark)
    assert (seen.sideways, seen.faint, seen.complaints) == ([], [], [])
