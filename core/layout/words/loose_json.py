"""JSON as people and language models write it, made into JSON.

Comments, commas behind the last value, single and typographic quotes, names without quotes, Python's True, None and
tuples, percentages, and quotes within texts that nothing marks. Nothing is guessed: what is cut off or no value at all
is an error. No library that repairs JSON does that: `json5` refuses half of it, and `json-repair` makes up the end of
an answer that was cut off, takes the last of two equal keys and reads plain text as a value.
"""

import re

OPENING, CLOSING = "{[(", "}])"
_QUOTES = {
    '"': '"',
    "'": "'",
    "\u201c": '\u201d\u201c"',
    "\u201d": '\u201d\u201c"',
    "\u201e": '\u201c\u201d"',
    "\u2018": "\u2019\u2018'",
    "\u2019": "\u2019\u2018'",
    "`": "`'",
}
_ENDS_TEXT = re.compile(r"\s*(?:[,:\]})]|//|/\*|#|$)")
_SKIPPED = re.compile(r"\s+|//[^\n]*|#[^\n]*|/\*.*?\*/", re.DOTALL)
_NUMBER = re.compile(r"([+-]?)(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?(\s?%|px\b)?(?![\w.])")
_WORD = re.compile(r"[^\W\d][\w-]*")
_UNFINISHED = re.compile(r"[-+.\w]+$")
_WORDS = {"true": "true", "false": "false", "null": "null", "none": "null", "undefined": "null", "nan": "NaN"}
FENCE = "```"


class CutOffError(ValueError):
    """A text that ends before its brackets do; `depth` is how many are open."""

    def __init__(self, depth: int) -> None:
        super().__init__(f"{depth} brackets are open at its end")
        self.depth = depth


def as_json(text: str, start: int) -> tuple[str, int]:
    """Make the value that begins at an opening bracket into JSON.

    Args:
        text: with the value in it.
        start: where its bracket is.

    Returns:
        The value as JSON, and where it ends in the text.

    Raises:
        CutOffError: the text ends before it.
        ValueError: no value.
    """
    written: list[str] = []
    open_brackets: list[str] = []
    place = start
    while place < len(text):
        if skipped := _SKIPPED.match(text, place):
            place = skipped.end()
            continue
        sign = text[place]
        if text.startswith(FENCE, place):
            break
        if sign in OPENING:
            open_brackets.append("}" if sign == "{" else "]")
            written.append("{" if sign == "{" else "[")
            place += 1
        elif sign in CLOSING:
            if ("}" if sign == "}" else "]") != open_brackets[-1]:
                raise ValueError(f"{sign!r} closes another bracket")
            if written[-1] == ",":
                written.pop()
            written.append(open_brackets.pop())
            place += 1
            if not open_brackets:
                return "".join(written), place
        elif sign in ",:":
            written.append(sign)
            place += 1
        else:
            value, place = _value(text, place, len(open_brackets))
            written.append(value)
    raise CutOffError(len(open_brackets))


def _value(text: str, place: int, depth: int) -> tuple[str, int]:
    """A text, a number or a word as JSON, and where it ends."""
    if text[place] in _QUOTES:
        return _quoted(text, place, depth)
    if number := _NUMBER.match(text, place):
        sign, digits, power, unit = number.groups()
        digits = ("0" if digits.startswith(".") else "") + digits + ("0" if digits.endswith(".") else "")
        plain = ("-" if sign == "-" else "") + (digits.lstrip("0") if digits.isdigit() else digits) + (power or "")
        plain = plain if re.search(r"\d", plain) else "0"
        return (f'"{plain}%"' if unit and "%" in unit else plain), number.end()
    if word := _WORD.match(text, place):
        if re.match(r"\s*:", text[word.end() :]):
            return f'"{word[0]}"', word.end()
        if word[0].lower() in _WORDS:
            return _WORDS[word[0].lower()], word.end()
    if _UNFINISHED.match(text, place):
        raise CutOffError(depth)
    raise ValueError(f"{text[place : place + 20]!r} is no value")


def _quoted(text: str, place: int, depth: int) -> tuple[str, int]:
    """A text in any quotes; a quote ends it where a text can end, so "the "big" hat" is one text."""
    ends = _QUOTES[text[place]]
    written: list[str] = []
    at = place + 1
    while at < len(text):
        sign = text[at]
        if sign == "\\" and at + 1 < len(text):
            escaped = text[at + 1]
            written.append(sign + escaped if escaped in '"\\/bfnrtu' else "\\n" if escaped == "\n" else escaped)
            at += 2
        elif sign in ends and _ENDS_TEXT.match(text, at + 1):
            return '"' + "".join(written) + '"', at + 1
        else:
            written.append({'"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(sign, sign))
            at += 1
    raise CutOffError(depth)
