"""What a vocabulary's pieces say, as bytes: byte pairs of CLIP and of GPT's kind, and SentencePiece."""

import re
from collections.abc import Iterable
from enum import Enum

_BYTE_FALLBACK = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_CLIP_END, _SPACE = "</w>", "\u2581"


class Spelling(Enum):
    """How a vocabulary writes its pieces."""

    CLIP = "byte pairs, a word's last with </w> behind it"
    SENTENCE_PIECE = "text with a low line for a blank, and <0x0A> for a single byte"
    BYTES = "byte pairs, blanks among the bytes, as GPT 2's and those of Qwen, Llama and Mistral"

    @staticmethod
    def of(vocabulary: Iterable[str]) -> "Spelling":
        """Tell a vocabulary's spelling by what stands in it."""
        known = set(vocabulary)
        if any(piece.endswith(_CLIP_END) for piece in known) and "\u0120the" not in known:
            return Spelling.CLIP
        return Spelling.SENTENCE_PIECE if _SPACE in known or _SPACE + "a" in known else Spelling.BYTES

    def read(self, piece: str) -> bytes:
        """What a piece adds to the text; a character may be spread over the bytes of several pieces."""
        if self is Spelling.SENTENCE_PIECE:
            if byte := _BYTE_FALLBACK.fullmatch(piece):
                return bytes([int(byte[1], 16)])
            return piece.replace(_SPACE, " ").encode()
        blank = b""
        if self is Spelling.CLIP and piece.endswith(_CLIP_END):
            piece, blank = piece.removesuffix(_CLIP_END), b" "
        if all(letter in _BYTE_OF for letter in piece):
            return bytes(_BYTE_OF[letter] for letter in piece) + blank
        return piece.encode() + blank  # a piece that was added later, as it is


def _byte_of_letters() -> dict[str, int]:
    """GPT 2's alphabet: printable bytes as Latin 1 has them, the others in order from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_OF = _byte_of_letters()
