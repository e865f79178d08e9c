"""What git says of this checkout: its commit, and what has changed since another."""

import subprocess
from collections.abc import Sequence

from ...commands.environment import CLONE

DIRTY = "-dirty"
# What runs and their tables write; it changes no number.
WRITTEN = ("evaluation/results", "assets", "docs", "README.md", "CHANGELOG.md")


def git(*arguments: str) -> str | None:
    """What a git command prints in the clone; None without git, outside a repository, and where it fails."""
    try:
        done = subprocess.run(["git", "-C", str(CLONE), *arguments], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def commit() -> str | None:
    """The checkout's commit, with "-dirty" where tracked files differ from it or new ones are there; None without git.

    What runs write themselves (`WRITTEN`) does not make it dirty.
    """
    found = git("rev-parse", "HEAD")
    changed = git("status", "--porcelain", "--", ".", *(f":(exclude){path}" for path in WRITTEN))
    return None if found is None or changed is None else found + (DIRTY if changed else "")


def has_changed(since: str, paths: Sequence[str]) -> bool | None:
    """Whether any of these paths is another in this checkout's commit than in that one.

    Contents are compared and not the log, so that a rebased or reverted commit is no change.

    Args:
        since: the other commit.
        paths: files and folders of the clone.

    Returns:
        None where that cannot be known: no git, an unknown commit, or one that is "-dirty".
    """
    changed = None if since.endswith(DIRTY) else git("diff", "--name-only", since, "HEAD", "--", *paths)
    return None if changed is None else bool(changed)
