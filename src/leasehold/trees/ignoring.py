"""
What of a directory is no part of its tree: the rules of its ignore files.

`.gitignore` and `.leaseholdignore` in any directory, in the syntax of git: a rule counts from
the file's own directory, a deeper file beats a higher one, and ours beats git's beside it.
What is below an ignored directory is ignored with it. `.git` and an embedded home never go.
"""

from collections.abc import Mapping
from typing import Final

from pathspec import GitIgnoreSpec

FILES: Final = (".gitignore", ".leaseholdignore")
"""In the order of their power, the weaker first."""

NEVER: Final = frozenset({".git", ".leasehold"})
MAX_BYTES: Final = 1024 * 1024
"""Of one ignore file; what is beyond is not read."""


class Ignored:
    """The rules of one tree; files may be added while it is walked from its root down."""

    def __init__(self) -> None:
        self._rules: dict[str, list[GitIgnoreSpec]] = {}

    def add(self, folder: str, texts: Mapping[str, str]) -> None:
        """Take in the ignore files of one directory, by their names."""
        rules = [
            GitIgnoreSpec.from_lines(texts[name].splitlines())
            for name in FILES
            if name in texts
        ]
        if rules:
            self._rules[folder] = rules

    def says(self, path: str, *, is_directory: bool) -> bool:
        """Return whether one path is ignored, what is above it aside."""
        if path.rpartition("/")[2] in NEVER:
            return True
        folder = path.rpartition("/")[0]
        while True:
            below = path[len(folder) + 1 :] if folder else path
            text = f"{below}/" if is_directory else below
            for rule in reversed(self._rules.get(folder, [])):
                verdict = rule.check_file(text).include
                if verdict is not None:
                    return bool(verdict)
            if not folder:
                return False
            folder = folder.rpartition("/")[0]

    def covers(self, path: str, *, is_directory: bool = False) -> bool:
        """Return whether a path is ignored, by itself or with a directory above it."""
        parts = path.split("/")
        above = ("/".join(parts[:end]) for end in range(1, len(parts)))
        return any(self.says(one, is_directory=True) for one in above) or self.says(
            path, is_directory=is_directory
        )
