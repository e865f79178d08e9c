"""The file of a run: a first line that says where its numbers come from, then a line for every picture.

A line is written as soon as a picture is judged, so that a run which was stopped in any way goes on where it was. What
was being written at that moment is half a line, which is dropped.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...commands.messages import SetupProblem
from .lines import JSON, Key, PictureLine
from .provenance import Provenance, differences

HEADER = "provenance"


def records_of(results: Path) -> Path:
    """Where the pictures' scores of a result file lie: beside it."""
    return results.with_suffix(".jsonl")


class PictureRecords:
    """The pictures of a run that are scored already, and the file that they are kept in.

    Args:
        path: the file; None keeps them in memory alone.
        provenance: of this run.
        anew: whether what the file holds of another run, or of this one, is to be painted again.

    Raises:
        SetupProblem: the file holds pictures of another run, or something else.
    """

    def __init__(self, path: Path | None, provenance: Provenance, *, anew: bool = False) -> None:
        self.path, self.provenance = path, provenance
        self._lines: dict[Key, PictureLine] = {}
        self._begun = False  # the old file stays until there is a picture to replace it
        if path is None or anew or not path.is_file():
            return
        header, lines, kept = read_lines(path)
        if header is None:
            return
        if changed := differences(header, provenance):
            raise SetupProblem(
                f"{path} holds pictures of another run ({'; '.join(changed)}), so they are not mixed with new ones. "
                "Add --anew to paint from the beginning in its place, or move the file away to keep it."
            )
        self.provenance = header
        self._lines = {line.key: line for line in lines}
        with path.open("r+b") as file:
            file.truncate(kept)
        self._begun = True

    def __contains__(self, key: Key) -> bool:
        return key in self._lines

    def __iter__(self) -> Iterator[PictureLine]:
        return iter(self._lines.values())

    def __len__(self) -> int:
        return len(self._lines)

    def get(self, key: Key) -> PictureLine | None:
        """The scores of a picture, if it is there."""
        return self._lines.get(key)

    def has_all(self, keys: Iterable[Key]) -> bool:
        """Whether none of these pictures has to be painted."""
        return all(key in self._lines for key in keys)

    def add(self, lines: Iterable[PictureLine]) -> None:
        """Keep pictures that are not there yet, on disk before this returns."""
        for line in lines:
            if line.key not in self._lines:
                self._lines[line.key] = line
                self._write(line)

    def _write(self, line: PictureLine) -> None:
        if self.path is None:
            return
        text = line.to_text() + "\n"
        if not self._begun:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps({HEADER: self.provenance}, ensure_ascii=False) + "\n" + text
        with self.path.open("ab" if self._begun else "wb") as file:
            file.write(text.encode())
        self._begun = True


def read_lines(path: Path) -> tuple[Provenance | None, list[PictureLine], int]:
    """Read a file of pictures' scores.

    Returns:
        The provenance, None where not even that was written wholly; the pictures; and how many bytes of the file are
        whole lines.

    Raises:
        SetupProblem: it is no such file.
    """
    content = path.read_bytes()
    kept = content.rfind(b"\n") + 1
    if not kept:
        begin = f'{{"{HEADER}"'.encode()
        if not begin.startswith(content[: len(begin)]):
            raise SetupProblem(_refusal(path, 1))
        return None, [], 0
    first, *rest = content[:kept].removesuffix(b"\n").split(b"\n")
    header = _parsed(path, 1, first).get(HEADER)
    if not isinstance(header, dict):
        raise SetupProblem(_refusal(path, 1))
    lines = []
    for number, text in enumerate(rest, 2):
        try:
            lines.append(PictureLine.from_json(_parsed(path, number, text)))
        except (KeyError, TypeError, ValueError) as error:
            raise SetupProblem(_refusal(path, number)) from error
    return header, lines, kept


def _parsed(path: Path, number: int, text: bytes) -> JSON:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise SetupProblem(_refusal(path, number)) from error
    if not isinstance(found, dict):
        raise SetupProblem(_refusal(path, number))
    return found


def _refusal(path: Path, number: int) -> str:
    return (
        f"Line {number} of {path} is not what evaluate writes of a picture. Restore the file, move it away, or add "
        "--anew to paint from the beginning in its place."
    )
