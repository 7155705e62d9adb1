"""The faults of the network that publishing survives, as data; test_publish.py runs every row.

A row is a kind of request, what goes wrong with it, and whether the Hub has done its work by then. The outcome to
expect is in the fault itself: what may pass is asked again and ends in one commit; what is refused ends at once, in
none. A refusal of a commit that was made all the same is found out by looking, and ends in one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

STEPS = (
    "whoami",
    "create_repo",
    "model_info",
    "resolve",
    "refs",
    "branch",
    "preupload",
    "lfs_batch",
    "lfs_upload",
    "lfs_verify",
    "validate_yaml",
    "commit",
    "tag",
)
"""Every kind of request that a publication can consist of."""

PULL_REQUEST_STEPS = ("whoami", "model_info", "discussions", "preupload", "lfs_batch", "lfs_upload", "commit")
"""The same for one with --create-pr into another's repository."""


@dataclass(frozen=True)
class Trouble:
    """One thing that goes wrong; ``passes`` says whether asking again can help."""

    what: int | str
    passes: bool
    headers: dict[str, str] = field(default_factory=dict)
    error: str = "injected"

    def __str__(self) -> str:
        return f"{self.what}" + ("-retry-after" if self.headers else "")


TROUBLES = (
    Trouble(401, passes=False, error="Invalid credentials in Authorization header"),
    Trouble(403, passes=False),
    Trouble(404, passes=False),
    Trouble(408, passes=True),
    Trouble(409, passes=True, error="Cannot create repo: another conflicting operation is in progress"),
    Trouble(412, passes=True),
    Trouble(429, passes=True),
    Trouble(429, passes=True, headers={"Retry-After": "7"}),
    Trouble(500, passes=True),
    Trouble(502, passes=True),
    Trouble(503, passes=True, headers={"Retry-After": "3"}),
    Trouble(504, passes=True),
    Trouble("reset", passes=True),
    Trouble("cut", passes=True),
    Trouble("slow", passes=True),
)
"""Once each: the next request of the kind is well again."""

RANDOM = (429, 500, 502, 503, "reset", "cut")
"""What one in five requests meets in the runs at random."""

LASTING = (429, 503, "reset", "cut")
"""What does not pass: publishing gives up after its patience."""
