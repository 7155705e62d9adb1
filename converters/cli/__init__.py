"""The command lines ``bit-convert`` and ``bit-verify``.

In: options. Out: text or JSON, and an exit status. ``commands.py`` declares the options; ``runs.py`` does what they ask
for; ``summary.py`` is what a person reads at the end, ``progress.py`` what is shown meanwhile.
"""

from converters.cli.commands import convert, verify

__all__ = ["convert", "verify"]
