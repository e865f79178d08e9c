"""Which words the embedded models know: every word of every caption, with its CLIP token id."""

import itertools
import json
from functools import cache
from pathlib import Path

from ...core.clip.vocabulary import Vocabulary
from .captions import IN_FRONT, LINKS, OPENINGS
from .concepts import ADJECTIVES, BACKGROUNDS, CONCEPT_NAMES, EMPTY_CAPTIONS

VOCABULARY_FILE = Path(__file__).parent / "vocabulary.json"


@cache
def vocabulary() -> Vocabulary:
    """The committed vocabulary."""
    return Vocabulary.load(VOCABULARY_FILE)


def caption_words() -> list[str]:
    """Every word and punctuation mark that a caption can hold."""
    phrases = itertools.chain(
        OPENINGS,
        LINKS,
        [IN_FRONT, ", a an"],
        ADJECTIVES.values(),
        CONCEPT_NAMES,
        EMPTY_CAPTIONS.values(),
        *BACKGROUNDS.values(),
    )
    splitter = Vocabulary({})
    return sorted({word for phrase in phrases for word in splitter.split(phrase)})


def write_vocabulary(tokenizer_folder: Path) -> None:
    """Look every caption word up in a CLIP tokenizer folder (Hugging Face layout) and write the file."""
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder, local_files_only=True)
    words = {}
    for word in caption_words():
        ids = tokenizer(word)["input_ids"][1:-1]
        if len(ids) != 1:
            raise ValueError(f"'{word}' is {len(ids)} CLIP tokens; Sticker World's words must be one token each.")
        words[word] = ids[0]
    VOCABULARY_FILE.write_text(json.dumps(words, indent=0) + "\n")
