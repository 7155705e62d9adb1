"""Publishes a verified folder to the Hub: one commit that carries every file, whatever the network does.

    files that a passed report vouches for → look at what the Hub holds → the next step that is missing → look again

A publication is a loop over one pass: make the repository and the branch where they are missing, upload, commit on the
head that was looked at, compare checksums, tag. A step that is done is never asked for again; after any doubtful answer
the next pass begins with a look at what the Hub holds, so that a commit whose answer was lost is found, not repeated,
and a process that was killed is simply run again. The commit names its parent: where another writer was faster the Hub
refuses it, and the next pass builds on what is there then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote

from converters.amounts import counted
from converters.download.addresses import endpoint
from converters.download.hub_client import client, guarded, meaning, patience_with
from converters.download.retry import Pace, Patience, Refused, Trouble, wait_in_place
from converters.errors import HubError, ParityError, Scope, UsageError
from converters.files import CARD, PARITY, SIGNATURE, sha256
from converters.hub.guard import (
    LARGE_SUFFIXES,
    MAIN,
    Publication,
    is_signed,
    our_stale_files,
    published_card,
    refuse_repository,
    same_result,
    verified_files,
)
from converters.options import PublishOptions
from converters.placing import temporary_folder
from converters.redaction import printable
from verify import Report

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.hf_api import RepoSibling

PACE = Pace()
IN_MEMORY = 16 << 20
"""Files up to this size (bytes) are sent from the very bytes whose digest was checked."""
REMEDIES = {
    401: "Log in with `hf auth login`, or set HF_TOKEN to a token with write access.",
    403: "Use a token with write access to it (`hf auth login`), or another --namespace or --repo-id.",
    404: "Check --repo-id, --revision and what the token may see.",
}
REFUSED_TOKEN = (401, 403)
"""Statuses that every other repository of the run would get, too."""
PARITY_SIZE = 64 << 20
"""A parity.json on the Hub larger than this (bytes) is not ours."""


def publish(
    folder: Path,
    report: Report,
    name: str,
    options: PublishOptions,
    *,
    token: str | None = None,
    progress: Callable[[str], None] | None = None,
    pace: Pace = PACE,
    sign_key: Path | None = None,
) -> Publication:
    """Publishes ``folder``, a model called ``name``, under the options' ``repo_id``, else ``namespace/name``, else the
    token's user / ``name``.

    Nothing is committed where the Hub already has this result. ``private`` is for a repository that does not exist
    yet; ``create_pr`` opens a pull request, or updates the one we have open; ``revision`` is a branch, made from main
    where it is missing; ``tag`` is put on the commit and never moved. The endpoint is ``$HF_ENDPOINT``, the token
    huggingface_hub's own (``hf auth login``, ``$HF_TOKEN``) unless one is given. A signature by ``sign_key`` that is
    there and holds is kept. ``progress`` gets a line a step.

    Raises ParityError where the report did not pass or the files are not those that were verified, UsageError for a
    name that cannot be, HubError where the Hub refuses, cannot be reached, or holds other bytes than were sent.
    """
    files = verified_files(folder, report)
    run = _Publishing(
        files=files,
        digests={name: report.files.get(name) or sha256(path) for name, path in files.items()},
        report=report,
        name=name,
        options=options,
        token=token,
        say=progress or (lambda line: None),
        patience=patience_with(replace(pace, patience=options.patience), token),
        sign_key=sign_key,
        repo_id=options.repo_id or (f"{options.namespace}/{name}" if options.namespace else ""),
    )
    with guarded(run.patience, run.sent):
        return run.to_the_end()


_users: dict[tuple[str, str], str] = {}
"""Endpoint and token → the token's user, who stays the same."""


@dataclass(frozen=True)
class _Held:
    """The content of a revision of the repository."""

    revision: str
    commit: str | None
    """None: a repository without any commit."""
    files: dict[str, RepoSibling]
    parity: str | None
    """The text of its parity.json."""


@dataclass
class _Publishing:
    """One publication. The fields below ``patience`` are what is known to be done; they only ever fill."""

    files: dict[str, Path]
    digests: dict[str, str]
    """The sha256 of each file when it was verified."""
    report: Report
    name: str
    options: PublishOptions
    token: str | None
    say: Callable[[str], None]
    patience: Patience
    sign_key: Path | None
    """The key that our files are signed with, where it is known."""

    repo_id: str
    """Without a namespace until the token's user is known."""
    exists: bool = False
    uploads: dict[str, CommitOperationAdd] = field(default_factory=dict)
    uploads_for: str | None = None
    """The parent that ``uploads`` were prepared for."""
    asked: bool = False
    """A commit was asked for, and whether it was made is not known."""
    doubted: bool = False
    """Some commit that was asked for may still be made, late."""
    landed: Publication | None = None
    unchecked: bool = False
    """This run made that commit, and the Hub's checksums are still to be compared."""
    refused: Refused | None = None
    """A refusal of the commit, kept while a look makes sure that it was not made."""
    taken: set[str] = field(default_factory=set)
    blob_ids: dict[str, str] = field(default_factory=dict)
    card: bytes | None = None
    """The card of this very repository, once that has a name."""

    @property
    def branch(self) -> str:
        return self.options.revision or MAIN

    def to_the_end(self) -> Publication:
        """Passes until one comes through. Raises HubError after a refusal, or when patience is over."""
        while True:
            try:
                return self._pass()
            except Exception as error:
                answer = meaning(error)
            if isinstance(answer, Trouble):
                self._wait(answer)
            elif self.asked and self.refused is None:
                self.refused = answer
            else:
                raise self._refusal(self.refused or answer)

    def sent(self, path: str) -> None:
        """A large file has arrived: progress, the first time."""
        if path not in self.taken:
            self.taken.add(path)
            self.patience.progress()

    def _wait(self, trouble: Trouble) -> None:
        self.doubted = self.doubted or self.asked
        if not self.patience.pause(trouble, self.say):
            after = "" if trouble.wait else f" after {self.patience.limit:g} s without progress"
            raise HubError(
                f"{self.repo_id or self.name}: gave up{after}: {trouble}\n"
                f"{self._whats_there()} Run the same command again to go on from there.",
                Scope.PASSING,
            )

    def _pass(self) -> Publication:
        api = client(self.token)
        if not self.repo_id:
            self.repo_id = f"{self._user(api)}/{self.name}"
        self._check_name(api.endpoint)
        self._fill_card()
        if self.landed is None:
            held, number = self._destination(api)
            self.landed = self._already_there(api, held, number) or self._commit(api, held, number)
            self.patience.progress()
        if self.unchecked:
            self._compare(api, self.landed)
            self.unchecked = False
            self.patience.progress()
        if self.options.tag is not None:
            self._tag_commit(api, self.options.tag, self.landed.commit)
        return self.landed

    def _check_name(self, address: str) -> None:
        refuse_repository(self.repo_id)
        if self.repo_id.count("/") != 1:
            raise UsageError(f"{self.repo_id!r} lacks the namespace: give NAMESPACE/NAME with --repo-id.")
        if not address.startswith(("http://", "https://")):
            raise UsageError(f"HF_ENDPOINT is {address!r}, which is not the address of a web server.")

    def _fill_card(self) -> None:
        """The card of this very repository is published; no digest of the report covers it."""
        if self.card is None:
            self._content(CARD)  # raises where it has changed
            self.card = published_card(self.files, self.repo_id)
            self.digests = {**self.digests, CARD: hashlib.sha256(self.card).hexdigest()}

    def _opened(self, name: str) -> IO[bytes]:
        if name == CARD and self.card is not None:
            return BytesIO(self.card)
        return self.files[name].open("rb")

    def _size(self, name: str) -> int:
        return len(self.card) if name == CARD and self.card is not None else self.files[name].stat().st_size

    def _user(self, api: HfApi) -> str:
        asked = str(api.endpoint), str(api.token)
        if asked not in _users:
            _users[asked] = str(api.whoami()["name"])
            self.patience.progress()
        return _users[asked]

    def _destination(self, api: HfApi) -> tuple[_Held, int | None]:
        """Returns the content of the branch, made where it is missing; with ``create_pr``, of our open pull request."""
        base = self._branch(api)
        if not self.options.create_pr or self._holds(api, base):
            return base, None
        return self._our_pull_request(api) or (base, None)

    def _branch(self, api: HfApi) -> _Held:
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        for _ in range(3):
            try:
                return self._look(api, self.branch)
            except RevisionNotFoundError:
                if self.branch.startswith("refs/"):
                    raise
                self.say(f"making the branch {self.branch}")
                api.create_branch(self.repo_id, branch=self.branch, exist_ok=True)
            except RepositoryNotFoundError:
                self.say(f"making the repository {self.repo_id}")
                api.create_repo(self.repo_id, private=self.options.private, exist_ok=True)
        raise Trouble(f"{self.repo_id} was made and cannot be seen yet")

    def _look(self, api: HfApi, revision: str) -> _Held:
        info = api.model_info(self.repo_id, revision=revision, files_metadata=True)
        if not self.exists:
            self.exists = True
            self.patience.progress()
        if self.options.private and info.private is False:
            raise HubError(
                f"{self.repo_id} is public, so nothing was published with --private. Make it private in its settings,"
                " or choose another --repo-id."
            )
        files = {file.rfilename: file for file in info.siblings or ()}
        commit = str(info.sha) if info.sha else None
        return _Held(revision, commit, files, self._parity(api, commit, files.get(PARITY)))

    def _parity(self, api: HfApi, commit: str | None, file: RepoSibling | None) -> str | None:
        """The text of the parity.json that the Hub holds; asked for only where it is not the local one."""
        if file is None or commit is None or (file.size or 0) > PARITY_SIZE:
            return None
        if self._same(file, PARITY):
            return self.report.to_json()
        return self._fetched(api, commit, PARITY).decode(errors="replace")

    def _fetched(self, api: HfApi, commit: str | None, name: str) -> bytes:
        """A small file of a commit."""
        from huggingface_hub import get_session, hf_hub_url, hf_raise_for_status

        url = hf_hub_url(self.repo_id, name, revision=commit, endpoint=api.endpoint)
        response = get_session().get(url, headers={"Authorization": f"Bearer {api.token}"})
        hf_raise_for_status(response)
        return response.content

    def _holds(self, api: HfApi, held: _Held) -> bool:
        """Whether this result is there: a passed report on the same source, and the very files that it vouches for."""
        return (
            same_result(self.report, held.parity, self.options.refresh)
            and {*self.report.files, CARD} <= {*held.files}
            and all(self._same(held.files[name], name) for name in self.report.files)
            and self._is_signed(api, held)
        )

    def _is_signed(self, api: HfApi, held: _Held) -> bool:
        """Whether the Hub's files are signed where ours are; those that are not ours are small, and are fetched."""
        if SIGNATURE not in self.files:
            return True
        with temporary_folder("bit-convert-") as temporary:
            found = {}
            for name in self.files.keys() & held.files.keys():
                if self._same(held.files[name], name):
                    found[name] = self.files[name]
                elif (held.files[name].size or 0) <= PARITY_SIZE:
                    found[name] = temporary / name
                    found[name].write_bytes(self._fetched(api, held.commit, name))
            return is_signed(self.files, found, self.sign_key)

    def _our_pull_request(self, api: HfApi) -> tuple[_Held, int] | None:
        """The open pull request that an earlier run of ours made, if any.

        It has our title and author and carries a parity.json. Where an answer was so late that there are several with
        this very result, all but the first are closed.
        """
        user = self._user(api)
        found = api.get_repo_discussions(
            self.repo_id, author=user, discussion_type="pull_request", discussion_status="open"
        )
        numbers = sorted(pr.num for pr in found if (pr.title, pr.author) == (self._title, user) and pr.is_pull_request)
        ours = [(self._look(api, f"refs/pr/{number}"), number) for number in numbers]
        ours = [(held, number) for held, number in ours if held.parity is not None]
        same = [(held, number) for held, number in ours if self._holds(api, held)]
        for _, number in same[1:]:
            comment = f"The same result is proposed in #{same[0][1]}."
            api.change_discussion_status(self.repo_id, number, "closed", comment=comment)
        return next(iter(same or ours), None)

    def _already_there(self, api: HfApi, held: _Held, number: int | None) -> Publication | None:
        if held.commit is None or not self._holds(api, held):
            return None
        return self._result(held.revision, held.commit, number, changed=self.asked)

    def _commit(self, api: HfApi, held: _Held, number: int | None) -> Publication:
        if self.refused is not None:
            raise self.refused
        if self.options.tag is not None:
            self._is_tagged(api, self.options.tag, None)
        from huggingface_hub import CommitOperationDelete

        opens = self.options.create_pr and number is None
        target: dict[str, Any] = {"repo_id": self.repo_id, "revision": held.revision, "create_pr": opens}
        stale = our_stale_files(self.files, held.parity, held.files)
        self._upload(api, held, target)
        operations: list[Any] = [*self.uploads.values(), *(CommitOperationDelete(path) for path in stale)]
        self.say(f"committing {counted(len(operations), 'file')} to {self.repo_id}")
        self.asked = True
        made = api.create_commit(
            operations=operations,
            commit_message=self._title,
            commit_description=self._message[1],
            parent_commit=held.commit,
            **target,
        )
        if opens and made.pr_num is None:
            raise Trouble("no pull request was opened: main has changed")
        if opens and self.doubted and (first := self._our_pull_request(api)):
            held, number = first
            return self._result(held.revision, held.commit or made.oid, number, changed=True)
        self.asked, self.unchecked = False, True
        wait_in_place()  # a later attempt would find the commit there, and would call it somebody else's
        number = made.pr_num if opens else number
        return self._result(f"refs/pr/{number}" if number else held.revision, made.oid, number, changed=True)

    def _upload(self, api: HfApi, held: _Held, target: dict[str, Any]) -> None:
        """Sends what is large ahead of the commit, so that a commit asked for again sends nothing twice."""
        from huggingface_hub import CommitOperationAdd

        if not self.uploads or self.uploads_for != held.commit:
            changed = [name for name in self.files if not self._same(held.files.get(name), name)]
            self.uploads = {name: CommitOperationAdd(name, self._content(name)) for name in changed}
            self.uploads_for = held.commit
        size = sum(upload.upload_info.size for upload in self.uploads.values())
        self.say(f"uploading {counted(len(self.uploads), 'file')}, {size / 1e6:.1f} MB")
        # Without these rules a .gitignore of the repository would silently keep files out of the commit.
        rules = "# nothing is left out\n"
        for part in self._parts():
            api.preupload_lfs_files(additions=part, free_memory=False, gitignore_content=rules, **target)
        self.sent("all of them")
        for name, upload in self.uploads.items():
            self._check_digest(name, upload.upload_info.sha256.hex())

    def _parts(self) -> list[list[CommitOperationAdd]]:
        """Groups files that are sent together: of weights one file, as several would be sent by threads of
        huggingface_hub, which are not guarded."""
        weights = [upload for name, upload in self.uploads.items() if PurePath(name).suffix in LARGE_SUFFIXES]
        others = [upload for upload in self.uploads.values() if upload not in weights]
        return [[*others, *weights[:1]], *([upload] for upload in weights[1:])]

    def _content(self, name: str) -> Path | bytes:
        if self._size(name) > IN_MEMORY:
            return self.files[name]
        with self._opened(name) as file:
            content = file.read()
        self._check_digest(name, hashlib.sha256(content).hexdigest())
        return content

    def _check_digest(self, name: str, digest: str) -> None:
        if digest != self.digests[name]:
            raise ParityError(
                f"{self.files[name]}: changed while it was published. Nothing was committed; convert again."
            )

    def _compare(self, api: HfApi, landed: Publication) -> None:
        """Compares the checksums that the Hub has with the local ones. Raises HubError where they differ."""
        held = self._look(api, landed.commit)
        wrong = [name for name in self.files if not self._same(held.files.get(name), name)]
        if wrong:
            raise HubError(
                f"{self.repo_id}: commit {landed.commit[:12]} does not hold what was sent: {', '.join(wrong)}.\n"
                "Run the same command again; if this comes back, look at the repository's .gitattributes."
            )

    def _same(self, held: RepoSibling | None, name: str) -> bool:
        """Whether the Hub's file has the bytes of ours, by the digest that the Hub keeps of it: LFS's or git's."""
        if held is None:
            return False
        if held.lfs is not None:
            return held.lfs.sha256 == self.digests[name]
        if held.size not in (None, self._size(name)):
            return False
        return held.blob_id == self._blob_id(name)

    def _blob_id(self, name: str) -> str:
        """Git's id of our file, as it was verified."""
        if name not in self.blob_ids:
            content, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % self._size(name))
            with self._opened(name) as file:
                while piece := file.read(1 << 20):
                    content.update(piece)
                    blob.update(piece)
            self._check_digest(name, content.hexdigest())
            self.blob_ids[name] = blob.hexdigest()
        return self.blob_ids[name]

    def _tag_commit(self, api: HfApi, tag: str, commit: str) -> None:
        if not self._is_tagged(api, tag, commit):
            self.say(f"tagging {commit[:12]} as {tag}")
            api.create_tag(self.repo_id, tag=tag, revision=commit)

    def _is_tagged(self, api: HfApi, tag: str, commit: str | None) -> bool:
        """Whether the tag is on this commit already (None: on one still to be made). Raises HubError if on another."""
        there = {ref.name: ref.target_commit for ref in api.list_repo_refs(self.repo_id).tags}.get(tag)
        if there in (None, commit):
            return there is not None
        state = "Nothing was published" if commit is None else f"The result is published as commit {commit[:12]}"
        raise HubError(
            f"{self.repo_id}: the tag {tag} is on commit {there[:12]} and is never moved. {state}."
            " Choose another --tag, or delete that one on the Hub first."
        )

    @property
    def _title(self) -> str:
        """The title of the commit and the pull request; by it a later run recognises its pull request."""
        return self._message[0] or f"Add {self.name}, converted and verified by bit-convert"

    @property
    def _message(self) -> tuple[str, str | None]:
        """Title and description, as the user wrote them."""
        title, _, description = (self.options.commit_message or "").strip().partition("\n")
        return title.strip(), description.strip() or None

    def _result(self, revision: str, commit: str, number: int | None, changed: bool) -> Publication:
        url = f"{endpoint()}/{self.repo_id}"
        if number is not None:
            url += f"/discussions/{number}"
        elif revision != MAIN:
            url += f"/tree/{quote(revision, safe='')}"
        return Publication(self.repo_id, revision, commit, printable(url), changed, number)

    def _whats_there(self) -> str:
        if self.landed is not None:
            return f"The result is there as commit {self.landed.commit[:12]}; what comes after the commit is not done."
        if self.asked:
            return "Whether the commit arrived is not known."
        if self.exists:
            return "The repository is there, without this result."
        return "Nothing was published."

    def _refusal(self, refusal: Refused) -> HubError:
        problem, remedy = refusal.problem.rstrip("."), REMEDIES.get(refusal.status or 0, "")
        scope = Scope.RUN if refusal.status in REFUSED_TOKEN else Scope.MODEL
        return HubError(f"{self.repo_id or self.name}: not published: {problem}. {remedy}".rstrip(), scope)
