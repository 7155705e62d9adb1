"""Amounts in words, the same ones in every text: bytes and durations."""

from __future__ import annotations


def size(count: float) -> str:
    """Bytes in decimal units, as the Hub and disks count them."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def clock(seconds: float) -> str:
    """Minutes and seconds, or hours as well: ``1:52``, ``3:01:52``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
