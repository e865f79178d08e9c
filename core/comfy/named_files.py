"""Drop-downs of model files and folders: what there is by name, what is said where one is gone, who shares one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

import folder_paths

from .model_folders import Fingerprint, fingerprint

Thing = TypeVar("Thing")


@dataclass(frozen=True, eq=False)
class NamedFiles:
    """What one kind of ComfyUI's model folders holds. Their folder below `models` is made known to ComfyUI.

    Attributes:
        kind: of model folder, such as "cnc", and the name of the folder below `models`.
        error: what is raised where a name is gone.
        missing: the sentence for that; may hold {name}, {found} and {kind}.
        nothing: the sentence where there is nothing at all; empty: `missing`, with "none" as what was found.
        suffixes: files are offered whose names end in one of these, in lower case.
        folders: gives name -> path of all there are, where these are not simply files.
        embedded: the one that comes with the pack.
    """

    kind: str
    error: type[ValueError]
    missing: str
    nothing: str = ""
    suffixes: tuple[str, ...] = ()
    folders: Callable[[], Mapping[str, Path]] | None = None
    embedded: str | None = None

    def __post_init__(self) -> None:
        folder_paths.add_model_folder_path(self.kind, str(Path(folder_paths.models_dir) / self.kind))

    @property
    def place(self) -> str:
        """Where people put them."""
        return f"models/{self.kind}"

    def names(self) -> list[str]:
        """All that the drop-down offers."""
        if self.folders is not None:
            return list(self.folders())
        return [name for name in folder_paths.get_filename_list(self.kind) if name.lower().endswith(self.suffixes)]

    def find(self, name: str) -> Path | None:
        """The file or folder of this name; None where it is gone."""
        if self.folders is not None:
            return self.folders().get(name)
        try:
            path = folder_paths.get_full_path(self.kind, name)
        except (OSError, ValueError):  # a name that no disk has
            return None
        return None if path is None else Path(path)

    def require(self, name: str) -> Path:
        """The file or folder of this name.

        Raises:
            ValueError: it is gone; `error` says which one.
        """
        path = self.find(name)
        if path is None:
            raise self.error(self._sentence(name))
        return path

    def refusal(self, name: str | None) -> str | None:
        """What is wrong with a name, before anything runs; None where nothing is, or where it is not known yet."""
        return None if name is None or self.find(name) is not None else self._sentence(name)

    def version(self, name: str | None) -> Fingerprint:
        """Of the files, which tells whether what is loaded was replaced; empty where it is gone or not known."""
        path = None if name is None else self.find(name)
        return () if path is None else fingerprint(path)

    def reader(self, read: Callable[[Path], Thing]) -> Callable[[str], Thing]:
        """A function that opens what has a name.

        Args:
            read: opens a path.

        Returns:
            Gives all who ask for the same files the same thing while one of them holds it, and holds nothing itself:
            how long a node's output lives is ComfyUI's to say. Raises like `require`, and like `read`.
        """
        alive: WeakValueDictionary[tuple[Path, Fingerprint], Thing] = WeakValueDictionary()

        def load(name: str) -> Thing:
            path = self.require(name)
            key = path, fingerprint(path)
            thing = alive.get(key)
            if thing is None:
                thing = alive[key] = read(path)
            return thing

        return load

    def _sentence(self, name: str) -> str:
        found = self.names()
        sentence = self.missing if found else self.nothing or self.missing
        return sentence.format(name=name, found=", ".join(found) or "none", kind=self.kind)
