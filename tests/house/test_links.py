"""Links between the pages lead somewhere: files are there, and headings too."""

import re
from pathlib import Path

import pytest
from stagecraft.commands.environment import CLONE

PAGES = (*CLONE.glob("*.md"), *(CLONE / "docs").glob("*.md"), *(CLONE / "web" / "docs").glob("*.md"))
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?\)")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page):
    lost = []
    for target, anchor in LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        there = page.parent / target if target else page
        if not there.exists():
            lost.append(target)
        elif anchor and anchor not in anchors(there):
            lost.append(f"{target}#{anchor}")
    assert not lost
