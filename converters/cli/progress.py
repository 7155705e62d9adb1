"""Progress on stderr: one bar for what is being done now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO

from verify.protocols import Progress


@contextmanager
def shown(title: str, quiet: bool) -> Iterator[Progress]:
    """A callback (what, done, total); it shows nothing when ``quiet`` or when stderr is no terminal.

    Inside, what libraries print is lost: stdout is for what the command says at the end.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("[bold]{task.fields[title]}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    console = Console(stderr=True)
    is_hidden = quiet or not console.is_terminal
    with redirect_stdout(StringIO()), Progress(*columns, console=console, transient=True, disable=is_hidden) as bar:
        task = bar.add_task("", title=title, total=None)

        def step(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield step
