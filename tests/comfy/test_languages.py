"""Every text that the nodes show is in every language, and none is older than its English."""

import pytest
from stagecraft.commands.languages import (
    LANGUAGES,
    SOURCES,
    changed,
    english_of_nodes,
    english_texts,
    flat,
    problems,
    read,
    translations,
)


def test_no_english_of_the_nodes_has_changed_since_it_was_translated():
    found = changed(flat(english_of_nodes()), flat(read(SOURCES)))
    assert not found, "translate anew, then run `python stage.py languages --translated`:\n" + "\n".join(found)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_in_every_language(language):
    found = problems(language, english_texts(english_of_nodes()), translations(language))
    assert not found, "\n".join(found)
