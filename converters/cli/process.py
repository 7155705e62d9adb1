"""Settings of the process that a command has to itself.

Python looks for garbage again and again while PyTorch and transformers are imported, and once more among all of that at
the end. It takes a second of an audit, and hardly anything there is garbage.
"""

from __future__ import annotations

import atexit
import gc

THRESHOLDS = 50_000, 20, 100
"""Objects, and collections of younger ones, after which garbage is looked for; Python's are 700, 10 and 10."""


def seldom_collected() -> None:
    """From now on, garbage is looked for seldom, and not at the end of the process."""
    gc.set_threshold(*THRESHOLDS)
    atexit.register(gc.freeze)
