"""The reports of docs/gallery.md are made by docs/gallery.py, and are what the page says."""

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.slow
def test_pages_are_made_and_are_what_is_said_of_them(tmp_path):
    spec = spec_from_file_location("gallery", DOCS / "gallery.py")
    gallery = module_from_spec(spec)
    spec.loader.exec_module(gallery)
    reports = gallery.make(tmp_path / "gallery")
    page = (DOCS / "gallery.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if "gallery/" in line and line.startswith("|")]
    assert len(rows) == len(reports) == 3
    for row, (name, report) in zip(rows, reports.items(), strict=True):
        assert f'href="gallery/{name}.html"' in row
        assert f"| {report.verdict} |" in row
        assert report.held_out.same == report.held_out.images == 360
        assert str(tmp_path.parent) not in (tmp_path / "gallery" / f"{name}.html").read_text(encoding="utf-8")
    assert reports["epsilon"].fault.kind == "standardisation epsilon"
    assert [fault.kind for fault in reports["swapped"].faults] == ["swapped tensors"]
    assert reports["swapped"].fault.place == gallery.SWAPPED[0]
    linked = {tmp_path / "gallery" / name for name in re.findall(r'href="gallery/([\w.]+)"', page)}
    assert linked == {*(tmp_path / "gallery").iterdir()}
    assert "gallery.py" in (DOCS.parent / "Makefile").read_text(encoding="utf-8")
