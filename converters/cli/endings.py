"""A command ends here: with a message on stderr, with ``--json`` a document on stdout, and an exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import click

from converters.cli.output import OutputClosed, say, say_json, say_traceback
from converters.errors import INTERRUPTED, OUTPUT_CLOSED, TERMINATED, BitConvertError, UsageError
from converters.failures import Terminated, failure_of, version_and_issues


class Ending:
    """The end of the command ``name``, as it was asked for.

    ``empty`` is what the JSON of a run that did nothing has besides.
    """

    def __init__(self, name: str, *, debug: bool, as_json: bool, empty: Mapping[str, Any]) -> None:
        self.name, self.debug, self.as_json, self.empty = name, debug, as_json, empty

    def of(self, work: Callable[[], int | None]) -> int:
        """The exit status of ``work``, and what is said of it where that is an error."""
        stdout = sys.stdout
        try:
            return work() or 0
        except click.ClickException as error:
            return self.with_error(UsageError(f"{error.format_message()} See {self.name} --help."))
        except (KeyboardInterrupt, click.Abort):
            return self._say("interrupted; run it again to go on.", INTERRUPTED)
        except Terminated:
            return self._say("terminated; run it again to go on.", TERMINATED)
        except OutputClosed:
            return OUTPUT_CLOSED
        except SystemExit:
            if sys.stdout is stdout:
                raise
            return OUTPUT_CLOSED  # click puts another in its place where it cannot print --help, and ends with 1
        except Exception as error:
            return self.with_error(failure_of(error))

    def with_error(self, error: BitConvertError) -> int:
        return self._say(str(error), error.exit_status)

    def _say(self, message: str, status: int) -> int:
        if self.debug:
            say_traceback()
        say(f"{self.name}: {message}", err=True)
        if self.as_json:
            with suppress(OutputClosed, UsageError):
                version, _ = version_and_issues()
                say_json({"release": version, "exit_status": status, "error": message, **self.empty})
        return status
