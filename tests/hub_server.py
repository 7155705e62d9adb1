"""A Hub on 127.0.0.1: the protocol that huggingface_hub speaks to huggingface.co, in memory, with faults on request.

    client → route (which kind of request) → fault before? → the work, on git-like repositories → fault after? → answer

The repositories are real enough to be wrong about: commits have parents and whole trees, a commit on another parent
than the branch's head is refused (412), an LFS file must have been uploaded with the digest it claims, blob ids are
git's, tokens have roles and namespaces have owners. Large files go through git-LFS's basic transfer; Xet is not
offered, so a client must run with HF_HUB_DISABLE_XET=1. Use: ``with HubServer(users) as hub: hub.url, hub.fail(...)``.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import os
import random
import re
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

GITATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n*.npz filter=lfs diff=lfs merge=lfs -text\n"
LARGE = 10_000_000
"""Bytes from which the Hub stores any file in LFS."""
CREATED_AT = "2024-01-01T00:00:00.000Z"


# ---------------------------------------------------------------------------------------------------- repositories


@dataclass(frozen=True)
class Blob:
    """A file of a repository."""

    content: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        """Git's id: of the content, or of the pointer file that git keeps in place of an LFS file."""
        stored = self.content
        if self.lfs:
            stored = (
                f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
            ).encode()
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()

    def metadata(self) -> dict[str, Any]:
        known: dict[str, Any] = {"size": len(self.content), "oid": self.oid}
        if self.lfs:
            known["lfs"] = {"oid": self.sha256, "sha256": self.sha256, "size": len(self.content), "pointerSize": 134}
        return known


Tree = dict[str, Blob]


@dataclass(frozen=True)
class Commit:
    parent: str | None
    tree: Tree
    title: str
    author: str
    number: int
    """Makes two commits of the same content two commits."""

    @property
    def oid(self) -> str:
        listing = sorted((path, blob.oid) for path, blob in self.tree.items())
        return hashlib.sha1(repr((self.parent, listing, self.title, self.author, self.number)).encode()).hexdigest()


@dataclass
class PullRequest:
    number: int
    title: str
    author: str
    status: str = "open"


@dataclass
class Repository:
    name: str
    private: bool
    refs: dict[str, str] = field(default_factory=dict)
    """``main``, other branches and ``refs/pr/N`` → commit."""
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    sent: dict[str, bytes] = field(default_factory=dict)
    """LFS objects in the storage, by sha256."""
    large: dict[str, bytes] = field(default_factory=dict)
    """Those that the client has had verified: they need not be sent again, and commits may name them."""
    pull_requests: list[PullRequest] = field(default_factory=list)

    def commit(self, ref: str, tree: Tree, title: str, author: str, parent: str | None = None) -> str:
        """Puts a commit on ``ref``; returns its id."""
        parent = parent or self.refs.get(ref)
        made = Commit(parent, tree, title, author, len(self.commits))
        self.commits[made.oid] = made
        self.refs[ref] = made.oid
        return made.oid

    def resolve(self, revision: str) -> str | None:
        found = self.refs.get(revision) or self.tags.get(revision)
        return found or (revision if revision in self.commits else None)

    def tree(self, revision: str = "main") -> Tree:
        commit = self.resolve(revision)
        assert commit is not None, revision
        return self.commits[commit].tree

    def history(self, ref: str = "main") -> list[Commit]:
        """The commits of a branch, newest first, without the one that made the repository."""
        found, at = [], self.refs.get(ref)
        while at is not None:
            found.append(self.commits[at])
            at = self.commits[at].parent
        return found[:-1]


@dataclass
class Gathering:
    """A collection."""

    slug: str
    title: str
    owner: str
    private: bool
    items: list[tuple[str, str]] = field(default_factory=list)
    """Kind and name of each, such as ``("model", "me/BiT-digits")``."""

    def content(self) -> dict[str, Any]:
        items = [
            {"_id": f"{number:024x}", "id": name, "type": kind, "position": number}
            for number, (kind, name) in enumerate(self.items)
        ]
        known = {"slug": self.slug, "title": self.title, "owner": {"name": self.owner}, "private": self.private}
        return {**known, "items": items, "lastUpdated": CREATED_AT, "position": 0, "theme": "blue", "upvotes": 0}


@dataclass(frozen=True)
class User:
    name: str
    role: str = "write"
    organizations: tuple[str, ...] = ()


# --------------------------------------------------------------------------------------------------------- faults


@dataclass
class Fault:
    """What goes wrong with the requests of one kind (None: of every kind).

    ``what`` is an HTTP status, or ``reset`` (the connection, by RST), ``cut`` (half an answer, half an upload),
    ``slow`` (nothing for the server's ``delay``, then all as if nothing had been), ``kill`` (the client's process).
    ``after``: when the server has done its work, else before it. It strikes ``times`` times (None: always).
    """

    kind: str | None
    what: int | str
    after: bool = False
    times: int | None = 1
    headers: dict[str, str] = field(default_factory=dict)
    error: str = "injected"


class Answer(Exception):
    """An HTTP answer; raised for refusals, returned otherwise."""

    def __init__(self, status: int, content: Any = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.headers = dict(headers or {})
        if isinstance(content, bytes):
            self.body = content
        else:
            self.headers.setdefault("Content-Type", "application/json")
            self.body = b"" if content is None else json.dumps(content).encode()


def refusal(status: int, message: str, code: str | None = None) -> Answer:
    """A refusal as the Hub words it: in the body, and in headers that huggingface_hub goes by."""
    headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return Answer(status, {"error": message}, headers)


_REPO = r"(?P<repo>[^/]+/[^/]+)"
_API = rf"/api/models/{_REPO}"
_SLUG = r"(?P<slug>[^/]+/[^/]+)"
LIBRARYS_OWN = "/api/agent-harnesses"
"""Asked for by huggingface_hub of its own accord, once a process or not at all: no request of ours."""
ROUTES: list[tuple[str, str, str]] = [
    ("whoami", "GET", r"/api/whoami-v2"),
    ("create_repo", "POST", r"/api/repos/create"),
    ("validate_yaml", "POST", r"/api/validate-yaml"),
    ("model_info", "GET", rf"{_API}"),
    ("model_info", "GET", rf"{_API}/revision/(?P<revision>[^/]+)"),
    ("refs", "GET", rf"{_API}/refs"),
    ("branch", "POST", rf"{_API}/branch/(?P<branch>[^/]+)"),
    ("tag", "POST", rf"{_API}/tag/(?P<revision>[^/]+)"),
    ("preupload", "POST", rf"{_API}/preupload/(?P<revision>[^/]+)"),
    ("commit", "POST", rf"{_API}/commit/(?P<revision>[^/]+)"),
    ("tree", "GET", rf"{_API}/tree/(?P<revision>[^/]+)"),
    ("paths_info", "POST", rf"{_API}/paths-info/(?P<revision>[^/]+)"),
    ("xet_token", "GET", rf"{_API}/xet-write-token/(?P<revision>[^/]+)"),
    ("discussions", "GET", rf"{_API}/discussions"),
    ("discussion_status", "POST", rf"{_API}/discussions/(?P<number>\d+)/status"),
    ("create_collection", "POST", r"/api/collections"),
    ("collection", "GET", rf"/api/collections/{_SLUG}"),
    ("add_item", "POST", rf"/api/collections/{_SLUG}/items"),
    ("lfs_batch", "POST", rf"/{_REPO}\.git/info/lfs/objects/batch"),
    ("lfs_verify", "POST", rf"/{_REPO}\.git/info/lfs/objects/verify"),
    ("lfs_upload", "PUT", rf"/storage/{_REPO}/(?P<oid>[0-9a-f]{{64}})"),
    ("resolve", "GET", rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)"),
    ("resolve", "HEAD", rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)"),
]
_ROUTES = [(kind, method, re.compile(pattern)) for kind, method, pattern in ROUTES]
KINDS = tuple(dict.fromkeys(kind for kind, _, _ in ROUTES))


@dataclass(frozen=True)
class Request:
    kind: str
    method: str
    path: str
    query: dict[str, str]
    body: bytes
    user: User | None
    arguments: dict[str, str]

    def json(self) -> Any:
        return json.loads(self.body)


# --------------------------------------------------------------------------------------------------------- the hub


class HubServer:
    """The server; a context manager. ``users`` maps tokens to users."""

    def __init__(self, users: dict[str, User] | None = None, delay: float = 0.3) -> None:
        self.users = users or {}
        self.delay = delay
        self.repositories: dict[str, Repository] = {}
        self.collections: dict[str, Gathering] = {}
        """By slug."""
        self.requests: list[str] = []
        """The kinds of the requests so far, in order."""
        self.faults: list[Fault] = []
        self.victim: int | None = None
        """The process that the fault ``kill`` kills."""
        self.on_request: Callable[[Request], None] | None = None
        """Called before each request is worked on, outside of the lock."""
        self._chance: tuple[random.Random, float, list[int | str]] | None = None
        self._lock = threading.RLock()
        self._http = _HttpServer(("127.0.0.1", 0), _Handler)
        self._http.hub = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def add(self, name: str, *, private: bool = False, files: dict[str, bytes] | None = None) -> Repository:
        """A repository that is there already, with one commit by somebody else where it has files."""
        repository = self.repositories[name] = Repository(name, private)
        repository.commit("main", {".gitattributes": Blob(GITATTRIBUTES, False)}, "initial commit", "hub")
        if files:
            added = {path: Blob(content, path.endswith(".safetensors")) for path, content in files.items()}
            repository.commit("main", repository.tree() | added, "theirs", "somebody")
        return repository

    def fail(self, kind: str | None, what: int | str, **options: Any) -> None:
        """Adds a fault (see ``Fault``)."""
        self.faults.append(Fault(kind, what, **options))

    def fail_at_random(self, whats: Iterable[int | str], rate: float, seed: int) -> None:
        """Every request fails with this probability, before or after the work is done, in one of these ways."""
        self._chance = (random.Random(seed), rate, list(whats))

    def heal(self) -> None:
        """No more faults, and nothing remembered of the requests so far."""
        self.faults.clear()
        self.requests.clear()
        self._chance = self.on_request = None

    def strike(self, kind: str) -> Fault | None:
        """The fault that the next request of this kind meets."""
        with self._lock:
            for fault in self.faults:
                if fault.kind in (None, kind) and fault.times != 0:
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault
            if self._chance is not None:
                chance, rate, whats = self._chance
                if chance.random() < rate:
                    return Fault(kind, chance.choice(whats), after=chance.random() < 0.5)
        return None

    def work(self, request: Request) -> Answer:
        """Does what is asked."""
        try:
            with self._lock:
                return getattr(self, f"_{request.kind}")(request, **request.arguments)
        except Answer as refused:
            return refused

    # ------------------------------------------------------------------------------------------------ permissions

    def _user(self, request: Request) -> User:
        if request.user is None:
            raise refusal(401, "Invalid credentials in Authorization header")
        return request.user

    def _repo(self, request: Request, name: str) -> Repository:
        repository = self.repositories.get(name)
        if repository is None or (repository.private and not self._owns(request.user, name)):
            raise refusal(404, "Repository not found", "RepoNotFound")
        return repository

    @staticmethod
    def _owns(user: User | None, name: str) -> bool:
        return user is not None and name.split("/")[0] in (user.name, *user.organizations)

    def _writable(self, request: Request, name: str) -> Repository:
        user = self._user(request)
        repository = self._repo(request, name)
        if user.role != "write" or not self._owns(user, name):
            raise refusal(403, f"You don't have the rights to write to {name}")
        return repository

    def _at(self, repository: Repository, revision: str) -> str:
        commit = repository.resolve(revision)
        if commit is None:
            raise refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    # ------------------------------------------------------------------------------------------------ the requests

    def _whoami(self, request: Request) -> Answer:
        user = self._user(request)
        return Answer(200, {"type": "user", "name": user.name, "orgs": [{"name": o} for o in user.organizations]})

    def _create_repo(self, request: Request) -> Answer:
        user, asked = self._user(request), request.json()
        name = f"{asked.get('organization') or user.name}/{asked['name']}"
        url = f"{self.url}/{name}"
        if name in self.repositories and self._owns(user, name):
            return Answer(409, {"error": "You already created this model repo", "url": url})
        if user.role != "write" or not self._owns(user, name):
            raise refusal(403, f"You don't have the rights to create a model under the namespace {name.split('/')[0]}")
        self.add(name, private=asked.get("visibility") == "private")
        return Answer(200, {"url": url, "name": name})

    def _validate_yaml(self, request: Request) -> Answer:
        if not request.json()["content"].startswith("---\n"):
            return Answer(400, {"errors": [{"message": "metadata is missing"}], "warnings": []})
        return Answer(200, {"errors": [], "warnings": []})

    def _model_info(self, request: Request, repo: str, revision: str = "main") -> Answer:
        repository = self._repo(request, repo)
        commit = self._at(repository, revision)
        siblings = []
        for path, blob in sorted(repository.commits[commit].tree.items()):
            known = blob.metadata()
            siblings.append({"rfilename": path} | ({"blobId": known.pop("oid")} | known if request.query else {}))
        return Answer(
            200, {"id": repo, "modelId": repo, "private": repository.private, "sha": commit, "siblings": siblings}
        )

    def _refs(self, request: Request, repo: str) -> Answer:
        repository = self._repo(request, repo)
        branches = {name: commit for name, commit in repository.refs.items() if not name.startswith("refs/")}

        def listed(refs: dict[str, str], kind: str) -> list[dict[str, str]]:
            return [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": commit} for n, commit in refs.items()]

        return Answer(
            200, {"branches": listed(branches, "heads"), "tags": listed(repository.tags, "tags"), "converts": []}
        )

    def _branch(self, request: Request, repo: str, branch: str) -> Answer:
        repository = self._writable(request, repo)
        if branch in repository.refs:
            raise refusal(409, f"Reference already exists: refs/heads/{branch}")
        repository.refs[branch] = self._at(repository, request.json().get("startingPoint", "main"))
        return Answer(200, {})

    def _tag(self, request: Request, repo: str, revision: str) -> Answer:
        repository, tag = self._writable(request, repo), request.json()["tag"]
        if tag in repository.tags:
            raise refusal(409, f"Reference already exists: refs/tags/{tag}")
        repository.tags[tag] = self._at(repository, revision)
        return Answer(200, {})

    def _preupload(self, request: Request, repo: str, revision: str) -> Answer:
        repository = self._open_to(request, repo)
        tree = repository.commits[self._at(repository, revision)].tree
        rules = request.json().get("gitIgnore", tree[".gitignore"].content.decode() if ".gitignore" in tree else "")
        ignored = [rule for line in rules.splitlines() if not line.startswith("#") for rule in line.split()]
        files = []
        for asked in request.json()["files"]:
            path = asked["path"]
            lfs = path.endswith((".safetensors", ".npz")) or asked["size"] >= LARGE
            held = tree.get(path)
            oid = held and (held.sha256 if held.lfs else held.oid)
            ignore = any(fnmatch.fnmatch(path, pattern) for pattern in ignored)
            files.append({"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": ignore, "oid": oid})
        return Answer(200, {"files": files})

    def _open_to(self, request: Request, repo: str) -> Repository:
        """A repository that this request may write to: its owner, or anyone who asks for a pull request."""
        if request.query.get("create_pr"):
            self._user(request)
            return self._repo(request, repo)
        revision = request.arguments.get("revision", "main")
        if match := re.fullmatch(r"refs/pr/(\d+)", revision):
            repository = self._repo(request, repo)
            number, user = int(match[1]), self._user(request)
            if number <= len(repository.pull_requests) and repository.pull_requests[number - 1].author == user.name:
                return repository
        return self._writable(request, repo)

    def _xet_token(self, request: Request, repo: str, revision: str) -> Answer:
        raise refusal(404, "this Hub offers no Xet")

    def _lfs_batch(self, request: Request, repo: str) -> Answer:
        self._user(request)
        repository = self._repo(request, repo)
        objects = []
        for asked in request.json()["objects"]:
            known: dict[str, Any] = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in repository.large:
                known["actions"] = {
                    "upload": {"href": f"{self.url}/storage/{repo}/{asked['oid']}?signature=secret", "header": {}},
                    "verify": {"href": f"{self.url}/{repo}.git/info/lfs/objects/verify", "header": {}},
                }
            objects.append(known)
        return Answer(200, {"transfer": "basic", "objects": objects})

    def _lfs_upload(self, request: Request, repo: str, oid: str) -> Answer:
        if request.query.get("signature") != "secret":
            raise refusal(403, "SignatureDoesNotMatch")
        if hashlib.sha256(request.body).hexdigest() != oid:
            raise refusal(400, "BadDigest")
        self.repositories[repo].sent[oid] = request.body
        return Answer(200, b"")

    def _lfs_verify(self, request: Request, repo: str) -> Answer:
        self._user(request)
        asked, repository = request.json(), self._repo(request, repo)
        content = repository.sent.get(asked["oid"])
        if content is None or len(content) != asked["size"]:
            raise refusal(404, "Object was not uploaded")
        repository.large[asked["oid"]] = content
        return Answer(200, {})

    def _commit(self, request: Request, repo: str, revision: str) -> Answer:
        user = self._user(request)
        repository = self._open_to(request, repo)
        header, *operations = (json.loads(line) for line in request.body.splitlines())
        parent = header["value"].get("parentCommit")
        create_pr = bool(request.query.get("create_pr"))
        if not create_pr and revision not in repository.refs:
            raise refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        head = repository.refs[revision]
        if parent is not None and parent != head and not (create_pr and parent in repository.commits):
            raise refusal(412, "A commit has happened since. Please refresh and try again.")
        tree = dict(repository.commits[parent or head].tree)
        for operation in operations:
            self._apply(repository, tree, operation["key"], operation["value"])
        title = header["value"]["summary"]
        pull_request_url = None
        if create_pr:
            number = len(repository.pull_requests) + 1
            repository.pull_requests.append(PullRequest(number, title, user.name))
            revision, pull_request_url = f"refs/pr/{number}", f"{self.url}/{repo}/discussions/{number}"
        commit = repository.commit(revision, tree, title, user.name, parent or head)
        return Answer(
            200,
            {
                "success": True,
                "commitOid": commit,
                "commitUrl": f"{self.url}/{repo}/commit/{commit}",
                "pullRequestUrl": pull_request_url,
            },
        )

    @staticmethod
    def _apply(repository: Repository, tree: Tree, key: str, value: dict[str, Any]) -> None:
        path = value["path"]
        match key:
            case "file":
                tree[path] = Blob(base64.b64decode(value["content"]), lfs=False)
            case "lfsFile":
                if value["oid"] not in repository.large:
                    raise refusal(422, f"LFS pointer of {path} points to a file that was not uploaded")
                tree[path] = Blob(repository.large[value["oid"]], lfs=True)
            case "deletedFile":
                if path not in tree:
                    raise refusal(404, "A file with this name doesn't exist", "EntryNotFound")
                del tree[path]
            case _:
                raise refusal(400, f"no such operation: {key}")

    def _tree(self, request: Request, repo: str, revision: str) -> Answer:
        repository = self._repo(request, repo)
        tree = repository.commits[self._at(repository, revision)].tree
        return Answer(200, [{"type": "file", "path": path} | blob.metadata() for path, blob in sorted(tree.items())])

    def _paths_info(self, request: Request, repo: str, revision: str) -> Answer:
        repository = self._repo(request, repo)
        tree = repository.commits[self._at(repository, revision)].tree
        asked = parse_qs(request.body.decode()).get("paths", [])
        return Answer(200, [{"type": "file", "path": path} | tree[path].metadata() for path in asked if path in tree])

    def _discussions(self, request: Request, repo: str) -> Answer:
        repository = self._repo(request, repo)
        author, status = request.query.get("author"), request.query.get("status", "all")
        found = [
            {
                "num": pr.number,
                "title": pr.title,
                "author": {"name": pr.author},
                "status": pr.status,
                "createdAt": CREATED_AT,
                "isPullRequest": True,
                "repo": {"name": repo, "type": "model"},
            }
            for pr in reversed(repository.pull_requests)
            if author in (None, pr.author) and status in ("all", pr.status)
        ]
        return Answer(200, {"discussions": found, "count": len(found), "start": 0})

    def _discussion_status(self, request: Request, repo: str, number: str) -> Answer:
        user = self._user(request)
        pull_request = self._repo(request, repo).pull_requests[int(number) - 1]
        if pull_request.author != user.name and not self._owns(user, repo):
            raise refusal(403, "You don't have the rights to change this discussion")
        pull_request.status = status = request.json()["status"]
        event = {"id": "1", "type": "status-change", "createdAt": CREATED_AT, "data": {"status": status}}
        return Answer(200, {"newStatus": event | {"author": {"name": user.name}}})

    def _create_collection(self, request: Request) -> Answer:
        user, asked = self._user(request), request.json()
        owner, title = asked["namespace"], asked["title"]
        if user.role != "write" or not self._owns(user, f"{owner}/"):
            raise refusal(403, f"You don't have the rights to create a collection under the namespace {owner}")
        for known in self.collections.values():
            if (known.owner, known.title) == (owner, title):
                return Answer(409, {"error": "This collection already exists", "slug": known.slug})
        words = "-".join(re.findall(r"[a-z0-9]+", title.lower()))
        return Answer(200, self.add_collection(f"{owner}/{words}", title, private=asked["private"]).content())

    def add_collection(self, name: str, title: str, *, private: bool = False) -> Gathering:
        """A collection of this owner, ``OWNER/WORDS``; its number ends its slug."""
        slug = f"{name}-{len(self.collections) + 0xABC:024x}"
        made = self.collections[slug] = Gathering(slug, title, name.partition("/")[0], private)
        return made

    def _gathering(self, request: Request, slug: str) -> Gathering:
        found = self.collections.get(slug)
        if found is None or (found.private and not self._owns(request.user, slug)):
            raise refusal(404, "Collection not found")
        return found

    def _collection(self, request: Request, slug: str) -> Answer:
        return Answer(200, self._gathering(request, slug).content())

    def _add_item(self, request: Request, slug: str) -> Answer:
        user, found, item = self._user(request), self._gathering(request, slug), request.json()["item"]
        if user.role != "write" or not self._owns(user, slug):
            raise refusal(403, "You don't have the rights to change this collection")
        self._repo(request, item["id"])
        if (item["type"], item["id"]) in found.items:
            raise refusal(409, "Item already in collection")
        found.items.append((item["type"], item["id"]))
        return Answer(200, found.content())

    def _resolve(self, request: Request, repo: str, revision: str, path: str) -> Answer:
        repository = self._repo(request, repo)
        commit = self._at(repository, revision)
        blob = repository.commits[commit].tree.get(path)
        if blob is None:
            raise refusal(404, "Entry not found", "EntryNotFound")
        etag = blob.sha256 if blob.lfs else blob.oid
        return Answer(200, blob.content, {"X-Repo-Commit": commit, "ETag": f'"{etag}"', "Content-Type": "text/plain"})


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    hub: HubServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that break are what this server is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _HttpServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        hub = self.server.hub
        parts = urlsplit(self.path)
        if parts.path == LIBRARYS_OWN:
            self.wfile.write(self._bytes(refusal(404, "no such page")))
            return
        kind, arguments = self._route(parts.path)
        hub.requests.append(kind)
        fault = hub.strike(kind)
        length = int(self.headers.get("Content-Length") or 0)
        if fault is not None and not fault.after and fault.what in ("reset", "cut") and length:
            self.rfile.read(length // 2)
            self._reset()
            return
        body = self._chunks() if self.headers.get("Transfer-Encoding") == "chunked" else self.rfile.read(length)
        user = hub.users.get(self.headers.get("Authorization", "").removeprefix("Bearer "))
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        request = Request(kind, self.command, parts.path, query, body, user, arguments)
        if hub.on_request is not None:
            hub.on_request(request)
        if fault is not None and not fault.after and not self._survives(fault, None):
            return
        answer = hub.work(request) if kind != "unknown" else refusal(404, "no such page")
        if fault is not None and fault.after and not self._survives(fault, answer):
            return
        self.wfile.write(self._bytes(answer))

    do_POST = do_PUT = do_HEAD = do_GET

    def _route(self, path: str) -> tuple[str, dict[str, str]]:
        for kind, method, pattern in _ROUTES:
            match = pattern.fullmatch(path)
            if match and method == self.command:
                return kind, {name: unquote(value) for name, value in match.groupdict().items()}
        return "unknown", {}

    def _survives(self, fault: Fault, answer: Answer | None) -> bool:
        """Whether the request goes on after the fault; else the client has had its answer, or none."""
        match fault.what:
            case "slow":
                time.sleep(self.server.hub.delay)
                return True
            case "kill":
                assert self.server.hub.victim is not None
                os.kill(self.server.hub.victim, signal.SIGKILL)
                self._reset()
            case "cut":
                whole = self._bytes(answer or Answer(200, {"cut": "short"}))
                self.wfile.write(whole[: whole.index(b"\r\n\r\n") + 4 + 3])
                self.close_connection = True
            case "reset":
                self._reset()
            case int(status):
                refused = refusal(status, fault.error, "RepoNotFound" if status == 404 else None)
                refused.headers |= fault.headers
                self.wfile.write(self._bytes(refused))
            case other:
                raise ValueError(other)
        return False

    def _bytes(self, answer: Answer) -> bytes:
        lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
        body = answer.body + (b" " * 8 if answer.headers.get("Content-Type") == "application/json" else b"")
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        lines += [f"Content-Length: {len(body)}", "", ""]
        return "\r\n".join(lines).encode() + (b"" if self.command == "HEAD" else body)

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
