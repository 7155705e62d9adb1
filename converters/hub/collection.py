"""Gathers what was released in a collection of the Hub: made where it is missing, added to where it is there.

    title or slug, repositories → the collection, made or found → what is missing is added, one request each

Nothing is taken out, and no note or order changed: a collection is its owner's. A run that was stopped anywhere is run
again: what is in the collection is not asked for twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from converters.download.addresses import endpoint
from converters.download.hub_client import client, guarded, meaning, patience_with
from converters.download.retry import Pace, Patience, Refused
from converters.errors import HubError, Scope
from converters.redaction import printable

if TYPE_CHECKING:
    from huggingface_hub import Collection, HfApi

PACE = Pace()
SLUG = re.compile(r"[\w.-]+/[\w.-]*[0-9a-f]{24}", re.ASCII)
"""The collection's name in its address: ``google/bit-64f9a55bb3115b4f513ec026``."""
REMEDIES = {
    401: "Log in with `hf auth login`, or set HF_TOKEN to a token with write access.",
    403: "Use a token that may write the collections of its owner.",
    404: "Check the slug of the collection, and what the token may see.",
}


@dataclass(frozen=True)
class Gathered:
    """A collection after a run."""

    slug: str
    title: str
    url: str
    added: tuple[str, ...]
    """The repositories that were not in it before, in the order in which they were added."""


def gather(
    collection: str,
    repositories: Sequence[str],
    *,
    private: bool = False,
    patience: float = PACE.patience,
    token: str | None = None,
    progress: Callable[[str], None] | None = None,
    pace: Pace = PACE,
) -> Gathered:
    """Adds repositories of models to a collection, which is given by its title or, where it is another's, its slug.

    One of this title is looked for, and made, ``private`` or not, under the namespace of the first repository. Requests
    are those of ``upload.publish``: of one token, guarded, and asked again for as long as ``patience`` says. Raises
    HubError where the Hub refuses or cannot be reached.
    """
    patient = patience_with(replace(pace, patience=patience), token)
    run = _Gathering(collection, tuple(dict.fromkeys(repositories)), private, progress or (lambda line: None), patient)
    with guarded(patient):
        while True:  # passes until one comes through
            try:
                return run.attempt(client(token))
            except Exception as error:
                answer = meaning(error)
            if isinstance(answer, Refused):
                remedy = REMEDIES.get(answer.status or 0, "")
                raise HubError(f"{run.state}: {answer.problem.rstrip('.')}. {remedy}".rstrip())
            if not patient.pause(answer, run.say):
                raise HubError(
                    f"{run.state}: gave up: {answer}\nRun the same command again to go on from there.", Scope.PASSING
                )


@dataclass
class _Gathering:
    """One run. The fields below ``patience`` are what is known to be done; they only ever fill."""

    name: str
    repositories: tuple[str, ...]
    private: bool
    say: Callable[[str], None]
    patience: Patience

    slug: str | None = None
    before: frozenset[str] | None = None
    """The models that were in it when it was first looked at."""
    held: set[str] = field(default_factory=set)
    """The models that are in it."""

    @property
    def state(self) -> str:
        left = [repository for repository in self.repositories if repository not in self.held]
        return f"the collection {self.name} lacks {len(left)} of {len(self.repositories)} models"

    def attempt(self, api: HfApi) -> Gathered:
        found = self._collection(api)
        self.held |= {item.item_id for item in found.items if item.item_type == "model"}
        before = self.before = frozenset(self.held) if self.before is None else self.before
        for repository in self.repositories:
            if repository not in self.held:
                self.say(f"adding {repository} to the collection {found.title}")
                api.add_collection_item(found.slug, repository, "model", exists_ok=True)
                self.held.add(repository)
                self.patience.progress()
        url = f"{endpoint()}/collections/{found.slug}"
        added = tuple(repository for repository in self.repositories if repository not in before)
        return Gathered(found.slug, printable(found.title), printable(url), added)

    def _collection(self, api: HfApi) -> Collection:
        """Looks at the collection; one that is made twice is the same one, as the Hub says with 409."""
        slug = self.slug or (self.name if SLUG.fullmatch(self.name) else None)
        if slug is None:
            namespace = self.repositories[0].partition("/")[0]
            found = api.create_collection(self.name, namespace=namespace, private=self.private, exists_ok=True)
        else:
            found = api.get_collection(slug)
        if self.slug is None:
            self.slug = found.slug
            self.patience.progress()
        return found
