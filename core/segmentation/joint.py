"""Several segmenters as one: each looks for what it knows, and their findings are weighed against each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .class_names import BACKGROUND, is_background
from .files import SegmenterError
from .segmenter import OpenSegmenter, Segmenter


@dataclass(frozen=True)
class JointSegmenter(Segmenter):
    """A segmenter made of others; `join_segmenters` makes it. Its classes begin with the background.

    Attributes:
        members: in order.
        columns: for each class behind the background, the members that know it and their own index of it.
    """

    members: tuple[Segmenter, ...] = ()
    columns: tuple[tuple[tuple[int, int], ...], ...] = ()

    def knows(self, phrase: str) -> bool:
        """Whether one of the members can look for what a phrase names."""
        return bool(self._looking_for(phrase))

    def name_of(self, phrase: str) -> str:
        """The name that the first member has that looks for the phrase.

        Raises:
            SegmenterError: none knows it; the message lists the nearest names of each.
        """
        for number in self._looking_for(phrase):
            return self.members[number].name_of(phrase)
        raise self._refusal(phrase)

    def class_of(self, phrase: str) -> int:
        """Index of the class that a phrase names.

        Raises:
            SegmenterError: there is none; for members that take phrases, `for_phrases` makes it.
        """
        for number, member in enumerate(self.members):
            if not isinstance(member, OpenSegmenter) and member.knows(phrase):
                own = (number, member.class_of(phrase))
                if any(own in column for column in self.columns):
                    return 1 + next(k for k, column in enumerate(self.columns) if own in column)
        raise self._refusal(phrase)

    def for_phrases(self, phrases: Sequence[str]) -> Segmenter:
        """A segmenter whose classes are what these phrases name, and then all others that the members have.

        A phrase that members have different names for is one class. A member that takes any phrase looks only for those
        that no other member has a class for.

        Raises:
            SegmenterError: a phrase that none knows.
        """
        looking = {phrase: self._looking_for(phrase) for phrase in dict.fromkeys(phrases)}
        for phrase, numbers in looking.items():
            if not numbers:
                raise self._refusal(phrase)
        members = [
            member.for_phrases([phrase for phrase, numbers in looking.items() if number in numbers])
            for number, member in enumerate(self.members)
        ]
        columns: dict[tuple[tuple[int, int], ...], str] = {}
        for phrase, numbers in looking.items():
            column = tuple((number, members[number].class_of(phrase)) for number in numbers)
            columns.setdefault(column, self.members[numbers[0]].name_of(phrase))
        asked = {own for column in columns for own in column}
        for name, column in _columns_by_name(members).items():
            if rest := tuple(own for own in column if own not in asked):
                columns[rest] = name
        return _joint(members, columns)

    def soft_masks(self, images: Tensor, phrases: Sequence[str]) -> Tensor:
        """Where the things are that phrases name, by all members that look for them; as `Segmenter.soft_masks`.

        Returns:
            (b k h w), at the pictures' own size, since members have grids of their own.
        """
        judge = self.for_phrases(phrases)
        whole = judge.probabilities(images.movedim(1, -1))
        return whole[:, [judge.class_of(phrase) for phrase in phrases]]

    def probabilities(self, images: Tensor) -> Tensor:
        """Class probabilities per pixel of pictures (b h w 3): (b k h w), summing to 1 over k.

        A class has the mean of what the members that know it give it. What all of them leave is the background's;
        where they claim more than there is, they share it out.
        """
        needed = {number for column in self.columns for number, _ in column}
        found = {number: self.members[number].probabilities(images) for number in sorted(needed)}
        scores = torch.stack(
            [torch.stack([found[number][:, own] for number, own in column]).mean(0) for column in self.columns], 1
        )
        claimed = scores.sum(1, keepdim=True)
        left = (1 - claimed).clamp(min=0)
        return torch.cat([left, scores], 1) / (left + claimed)

    def _looking_for(self, phrase: str) -> list[int]:
        """Members that look for a phrase: those with a class for it, or else those that take any."""
        knowing = [number for number, member in enumerate(self.members) if member.knows(phrase)]
        closed = [number for number in knowing if not isinstance(self.members[number], OpenSegmenter)]
        return closed or knowing

    def _refusal(self, phrase: str) -> SegmenterError:
        said = []
        for number, member in enumerate(self.members, 1):
            try:
                member.name_of(phrase)
            except SegmenterError as error:
                said.append(f"Segmenter {number}: {error}")
        return SegmenterError(" ".join(said) or f'say first that "{phrase}" is looked for')


def join_segmenters(segmenters: Sequence[Segmenter]) -> Segmenter:
    """Several segmenters as one; one alone stays as it is.

    Args:
        segmenters: at least one. A class that several have by the same name is theirs together.
    """
    if len(segmenters) == 1:
        return segmenters[0]
    return _joint(segmenters, {tuple(column): name for name, column in _columns_by_name(segmenters).items()})


def _columns_by_name(members: Sequence[Segmenter]) -> dict[str, list[tuple[int, int]]]:
    """For each name the members that have a class of it, and its index there."""
    found: dict[str, list[tuple[int, int]]] = {}
    for number, member in enumerate(members):
        for own, name in enumerate(member.classes):
            if not is_background(name):
                found.setdefault(name, []).append((number, own))
    return found


def _joint(members: Sequence[Segmenter], columns: dict[tuple[tuple[int, int], ...], str]) -> JointSegmenter:
    return JointSegmenter(
        network=nn.ModuleList([member.network for member in members]),
        classes=(BACKGROUND, *columns.values()),
        members=tuple(members),
        columns=tuple(columns),
    )
