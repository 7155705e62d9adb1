"""Completion of options and of the catalogue's names in bash, zsh and fish: click's, put where the shell finds it."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

from converters.errors import UsageError
from converters.redaction import printable

PLACES = {
    "bash": ("XDG_DATA_HOME", ".local/share", "bash-completion/completions/{name}"),
    "zsh": ("ZDOTDIR", "", ".zfunc/_{name}"),
    "fish": ("XDG_CONFIG_HOME", ".config", "fish/completions/{name}.fish"),
}
"""Shell → the variable that names a folder, its place in the home directory without it, and the file in it."""
ZSH = 'Have ~/.zshrc say: fpath+=("{folder}"); autoload -Uz compinit; compinit\n'


def variants_like(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of the catalogue that begin so, and files."""
    from converters.catalogue.released import entries

    names = [cells["name"] for cells in entries() if cells["name"].startswith(incomplete)]
    found = [CompletionItem(name) for name in names]
    return found or [CompletionItem(incomplete, type="file")]


def install(command: click.Command) -> str:
    """Writes the script for the user's shell, and returns what to tell. Raises UsageError for a shell without one."""
    shell = Path(os.environ.get("SHELL", "")).name
    kind = get_completion_class(shell)
    if shell not in PLACES or kind is None:
        raise UsageError(f"SHELL is {shell or 'not set'}: completion is for {', '.join(PLACES)}. Set SHELL to one.")
    name = command.name or ""
    place = _place(shell, name)
    place.parent.mkdir(parents=True, exist_ok=True)
    variable = f"_{name.upper().replace('-', '_')}_COMPLETE"
    place.write_text(kind(command, {}, name, variable).source() + "\n", encoding="utf-8")
    more = ZSH.format(folder=printable(place.parent)) if shell == "zsh" else ""
    return f"{printable(place)} written: a new {shell} completes {name}.\n{more}"


def _place(shell: str, name: str) -> Path:
    variable, beneath_home, file = PLACES[shell]
    try:
        folder = Path(os.environ.get(variable) or Path.home() / beneath_home)
    except RuntimeError as error:
        raise UsageError(f"there is no home directory for the script. Set {variable} to a folder.") from error
    return folder / file.format(name=name)
