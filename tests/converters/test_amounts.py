"""Amounts in words: each unit ends where its number would have a digit more than the next unit's."""

import pytest

from converters.amounts import clock, counted, duration, size, some


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.7, "1.0 kB"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (999_960_000, "1.0 GB"),
        (4_412_000_000_000, "4412.0 GB"),
    ],
)
def test_size(count: float, text: str) -> None:
    assert size(count) == text


def test_durations() -> None:
    assert [duration(seconds) for seconds in (1, 89, 90, 5399, 5400)] == [
        "1 second",
        "89 seconds",
        "2 minutes",
        "90 minutes",
        "1.5 hours",
    ]
    assert [clock(seconds) for seconds in (0, 59.6, 112, 10912)] == ["0:00", "1:00", "1:52", "3:01:52"]


def test_things() -> None:
    assert [counted(number, "file") for number in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
    assert [some([*"abcd"][:number]) for number in (0, 2, 3, 4)] == ["", "a, b", "a, b, c", "a, b, c and 1 more"]
    assert len(some(["a" * 1024])) == 120
