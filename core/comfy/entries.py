"""What the pack writes on a prompt's entries for a run to read: a dataclass on one side, options on the other."""

from dataclasses import fields
from typing import ClassVar, TypeVar

from .types import Conditioning, Entry, Options

PREFIX = "stagecraft_"  # of every key, so that nobody else's is met

Kind = TypeVar("Kind", bound="OnEntry")


class OnEntry:
    """Base of frozen dataclasses that travel on entries, each attribute under its own name behind `PREFIX`.

    Attributes are tensors, lists of tensors, numbers and words only, so that ComfyUI can copy and save them; those that
    are None do not travel.

    Attributes:
        NODE: whose output carries it.
    """

    NODE: ClassVar[str]

    def to_options(self) -> Options:
        """Give what an entry carries."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {PREFIX + name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_options(cls: type[Kind], entry: Entry) -> Kind | None:
        """Take it off an entry, which keeps what ComfyUI understands; None where there is none."""
        found = {field.name: entry.pop(PREFIX + field.name) for field in fields(cls) if PREFIX + field.name in entry}
        return cls(**found) if found else None

    @classmethod
    def is_on(cls, entry: Entry | Options) -> bool:
        """Whether an entry carries it; it stays there."""
        return any(PREFIX + field.name in entry for field in fields(cls))


def prepared_by(conditioning: Conditioning) -> str | None:
    """The node that has shared out the canvas or the run among a prompt's entries; None: nobody of ours has.

    Such entries only mean something together, in a run with that node's model: they are no prompt to prepare again, to
    invert a picture with, or to paint one layer by.
    """
    # A method that builds on another one's entries comes later.
    for kind in reversed(OnEntry.__subclasses__()):
        if any(kind.is_on(options) for _, options in conditioning):
            return kind.NODE
    return None
