"""The small models' vocabulary: a few rows of CLIP's token table, addressed by genuine CLIP token ids.

Every word that the small models know is one CLIP token, so splitting at spaces and punctuation gives the ids that the
byte-pair tokenizer gives. A word they do not know is one `<unk>`.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

START, END = 49406, 49407  # CLIP's own ids; the end token is also the padding
UNKNOWN = -1
START_ROW, END_ROW = 1, 2
LENGTH = 77
_PIECES = re.compile(r"[a-z]+|[0-9]|[^\sa-z0-9]+")


@dataclass(frozen=True)
class Vocabulary:
    """Known words with their CLIP ids. Row 0 of a table stands for `<unk>`, then come START, END and the words."""

    words: dict[str, int]

    @staticmethod
    def load(path: Path) -> "Vocabulary":
        """Read a JSON object that maps words to CLIP token ids."""
        return Vocabulary(json.loads(Path(path).read_text(encoding="utf-8")))

    @property
    def token_ids(self) -> list[int]:
        """The CLIP id of every row of a compact table; `UNKNOWN` for row 0."""
        return [UNKNOWN, START, END, *self.words.values()]

    def split(self, text: str) -> list[str]:
        """Lower-case words and punctuation, in order."""
        return _PIECES.findall(text.lower())

    def encode(self, texts: list[str]) -> Tensor:
        """Rows of the compact table, int64 (b 77): start, words, end, padded with end.

        A text of more than 75 words is cut, as CLIP does.
        """
        row_of = {token: row for row, token in enumerate(self.token_ids)}
        rows = torch.full((len(texts), LENGTH), row_of[END])
        for i, text in enumerate(texts):
            ids = [self.words.get(word, UNKNOWN) for word in self.split(text)][: LENGTH - 2]
            rows[i, : len(ids) + 1] = torch.tensor([row_of[START], *(row_of[token] for token in ids)])
        return rows

    def find(self, text: str, word: str) -> int:
        """Position of a word's token in the encoded text (1 is the first word); ValueError if it is not there."""
        return 1 + self.split(text).index(word)
