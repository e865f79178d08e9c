"""What a layout's texts mean to a prompt: templates that name its parts, words of a phrase that matter, articles."""

import re

from .layout import Layout
from .region import LayoutError, Region


def fill_prompt(template: str, layout: Layout, region: Region | None, name: str) -> str:
    """Put a layout's texts in the place of a template's placeholders.

    Args:
        template: may hold {background} and {prompt}, and {phrase} of a region or else {phrases} of all.
        layout: whose texts.
        region: whose phrase; None for a template that is about all of them.
        name: how an error calls the template.

    Raises:
        LayoutError: an unknown placeholder.
    """
    words = {"background": layout.background, "prompt": layout.prompt}
    if region is not None:
        words = {"phrase": region.phrase} | words
    else:
        words = {"phrases": ", ".join(each.phrase for each in layout.regions)} | words

    def fill(match: re.Match[str]) -> str:
        if match[1] not in words:
            raise LayoutError(f"The {name} has the placeholder {match[0]}; known: {{{'}, {'.join(words)}}}.")
        return words[match[1]]

    return re.sub(r"\{(\w*)\}", fill, template).strip()


def with_article(name: str) -> str:
    """A name with "a" or "an" before it."""
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
