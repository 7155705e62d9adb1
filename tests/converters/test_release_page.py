"""release.html as people get it: in a real Chromium, on a phone, in the dark, on paper, read aloud."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from converters.errors import CheckpointError
from converters.options import PublishOptions
from converters.release.events import Event
from converters.release.record import Record
from tests.browser import DESK, PHONE, look, printed
from tests.converters.releases import called, failed, jobs, published

HOSTILE = "vtab/<img src=x onerror=alert(1)>'\"&amp;-" + "long" * 40


def written(folder: Path, count: int, *, hostile: bool = False, end: bool = True) -> Path:
    """The page of a release of ``count`` models, of which every fifth failed."""
    todo = jobs(folder, count, PublishOptions(namespace="me"))
    if hostile:
        todo.append(called(HOSTILE, folder))
    record = Record(folder, todo, pytest.fail, command="bit-convert 'BiT-*' --push --namespace me --events e.jsonl")
    for number, job in enumerate(todo):
        record(Event(job.name, "started", host="node1:12", number=number))
        if hostile and number == count:
            record.add(number, failed(job, CheckpointError(f"{HOSTILE}: </td></table>.\nSee <b>there</b>.")))
        elif number % 5 == 3:
            record.add(number, failed(job))
        elif end or number < count - 1:
            record.add(number, published(job))
    record.close(4)
    return folder / "release.html"


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("small"), 6, hostile=True)


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("large"), 60)


class Outline(HTMLParser):
    """Tags with their attributes, each closed by its own."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "input"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag


# Without a browser


def test_the_verdict_comes_first_then_the_failures_each_with_what_to_type(small):
    text = small.read_text()
    body = text[text.index("<body>") :]
    at = [body.index(each) for each in ("✗ 5 of 7 published, 2 failed", "Run it again", "<h2", "✗</span> failed")]
    assert at == sorted(at)
    assert body.rindex("✗</span> failed") < body.index("✓</span> published")
    first = body[body.index("<tbody") : body.index("</tbody>")]
    assert re.sub(r"<[^>]+>", "", first[first.index('class="next"') :]).startswith('class="next">Next: bit-convert ')
    assert "<title>5 of 7 published, 2 failed" in text


def test_nothing_is_fetched_and_only_our_script_may_run(small):
    text = small.read_text()
    assert re.findall(r"@import|url\(", text) == []
    assert not [tag for tag, attributes in Outline(text).tags if tag == "link" or {"src", "style"} & attributes.keys()]
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/=]{44}'", policy[1])
    assert "unsafe-inline" not in policy[1].partition("script-src")[2]


def test_names_and_errors_are_no_markup(small):
    outline = Outline(small.read_text())
    assert [tag for tag, _ in outline.tags if tag in ("img", "b")] == []
    assert sum(tag == "script" for tag, _ in outline.tags) == sum(tag == "table" for tag, _ in outline.tags) == 1
    assert "&lt;img src=x onerror=alert(1)&gt;" in small.read_text()


def test_links_lead_to_the_hub_and_beside_the_page_alone(small):
    links = [attributes["href"] for tag, attributes in Outline(small.read_text()).tags if tag == "a"]
    assert links
    assert all(re.match(r"https://huggingface\.co/|\./[\w%-]+$", link or "") for link in links)


# In Chromium


@pytest.mark.slow
@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_is_read_without_scrolling_sideways_and_in_clear_colours(small, width, dark, tmp_path):
    seen = look(small, tmp_path, width=width, dark=dark)
    assert seen.sideways == []
    assert seen.faint == []
    assert seen.complaints == []
    assert seen.smallest >= 12
    assert len(seen.rows) == 7


@pytest.mark.slow
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_a_screen_reader_is_told_of_a_table_and_the_keyboard_gets_everywhere(small, width, tmp_path):
    seen = look(small, tmp_path, width=width, aloud=True)
    assert seen.named("table") == [("table", "Models")]
    assert {role for role, _ in seen.named("th")} == {"columnheader", "rowheader"}
    assert {role for role, _ in seen.named("td")} == {"cell"}
    assert {role for role, _ in seen.named("tr")} == {"row"}
    assert seen.named("h1") == [("heading", "✗ 5 of 7 published, 2 failed")]
    assert [(tag, name) for tag, _, name in seen.stops[:3]] == [
        ("input", "Find"),
        ("select", "State"),
        ("select", "Order"),
    ]
    assert {index for _, index, _ in seen.stops} == {0}
    assert {name for tag, _, name in seen.stops if tag == "a"} == {"published of BiT-digits", "folder of BiT-digits"}


@pytest.mark.slow
def test_rows_are_found_chosen_and_put_in_order(small, tmp_path):
    set_to = """const set = (id, value) => {
        const control = page.getElementById(id);
        control.value = value;
        control.dispatchEvent(new win.Event("input"));
    };"""
    everything = look(small, tmp_path).rows
    found = look(small, tmp_path, do=set_to + "set('find', 'DIGITS');")
    assert found.rows == ["BiT-digits"]
    assert found.status == ["1 of 7 models shown"]
    assert len(look(small, tmp_path, do=set_to + "set('state', 'failed');").rows) == 2
    by_name = look(small, tmp_path, do=set_to + "set('order', 'model');").rows
    assert by_name == sorted(everything, key=str.casefold) != everything
    assert look(small, tmp_path, do=set_to + "set('order', 'seconds'); set('order', '');").rows == everything


@pytest.mark.slow
def test_on_paper_no_row_is_torn_and_each_sheet_says_what_its_columns_are(large, tmp_path):
    sheets = [re.sub(r"\s+", "", sheet.replace("ﬁ", "fi").replace("ﬂ", "fl")) for sheet in printed(large, tmp_path)]
    assert len(sheets) > 1
    assert all("ModelStateParity" in sheet for sheet in sheets)
    assert all(sheet.startswith("ModelStateParity") for sheet in sheets[1:])
    for sheet in sheets:
        assert sheet.count("✗failed") == sheet.count("Giveatokenthatmaywrite.Next:bit-convert")
        assert sheet.count("✓published") == sheet.count("Next:bit-verify")
    assert sum(sheet.count("Next:") for sheet in sheets) == 60
    assert "Find" not in sheets[0]
