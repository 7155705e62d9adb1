"""The command lines ``bit-convert`` and ``bit-verify``.

In: options. Out: text or JSON, and an exit status. ``commands.py`` declares the options, ``command.py`` what both
commands have in common; ``runs.py`` does what they ask for, of several targets ``audits.py``, of two reports
``comparing.py``; ``outcome.py`` says what came of a run, ``summary.py`` is what a person reads at the end,
``progress.py`` what is shown meanwhile. ``output.py`` is the one way out for text, ``endings.py`` has the exit status
of whatever happens. ``words.py`` reads a word without an option, ``completion.py`` completes one that is not finished.
"""

import os

from converters.cli.commands import convert, verify

# Xet's client would ask for six minutes by itself; it reads this when it is first used, and is told of nothing else.
os.environ.setdefault("HF_XET_CLIENT_RETRY_MAX_DURATION", "120s")

__all__ = ["convert", "verify"]
