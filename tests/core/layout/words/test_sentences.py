"""What sentences say, and what they are told from."""

import pytest
import torch
from stagecraft.core.layout.other_programs import check_layout, import_layout
from stagecraft.core.layout.region import LayoutError
from stagecraft.core.layout.words.described import is_sentences
from stagecraft.core.layout.words.sentences import read_sentences

# Sentence -> names of the things, what is said of them, the scene.
SAID = {
    "a dog left of a cat, under a tree": ("a dog|a cat|a tree", ["0 left 1", "0 below 2"], ""),
    "a red car on a road with two birds above it": ("a red car|a bird|a bird", ["1 above 0", "2 above 0"], "on a road"),
    "three balloons over a house in the park": (
        "a balloon|a balloon|a balloon|a house",
        ["0 above 3", "1 above 3", "2 above 3"],
        "in the park",
    ),
    "a cat and a dog on the grass": ("a cat|a dog", [], "on the grass"),
    "a big bear behind a small table": ("a big bear|a small table", ["0 behind 1"], ""),
    "a vase on the left, a lamp on the right": ("a vase|a lamp", ["0 left", "1 right"], ""),
    "a boat in the middle, the moon at the top": ("a boat|the moon", ["0 middle", "1 top"], ""),
    "On the left a dog, on the right a cat.": ("a dog|a cat", ["0 left", "1 right"], ""),
    "In the foreground, a dog; in the background a castle": ("a dog|a castle", ["0 foreground", "1 background"], ""),
    "Under a tree sits a dog": ("a tree|a dog", ["1 below 0"], ""),
    "a cat on a mat under a table": ("a cat|a mat|a table", ["0 on 1", "1 below 2"], ""),
    "a cat on a mat, under a table": ("a cat|a mat|a table", ["0 on 1", "0 below 2"], ""),
    "There is a dog on the left side of a cat. The cat is next to a black and white cow. It is at night.": (
        "a dog|a cat|a black and white cow",
        ["0 left 1", "1 beside 2"],
        "at night",
    ),
    "a man in a red dress next to a house on fire": ("a man in a red dress|a house on fire", ["0 beside 1"], ""),
    "a dog between a cat and a bird and a tree on the left": (
        "a dog|a cat|a bird|a tree",
        ["0 between 1 2", "3 left"],
        "",
    ),
    "a dog between two cats": ("a dog|a cat|a cat", ["0 between 1 2"], ""),
    "two dogs next to each other": ("a dog|a dog", ["0 beside 1"], ""),
    "a beach with a boat on the left and a dog on the right, oil painting, 4k": (
        "a boat|a dog",
        ["0 left", "1 right"],
        "a beach",
    ),
    "A photo of a dog, which is sitting in front of a house. Behind it is a mountain.": (
        "a dog|a house|a mountain",
        ["0 front 1", "2 behind 0"],
        "",
    ),
    "a dog left of\na cat\nunder a tree": ("a dog|a cat|a tree", ["0 left 1", "1 below 2"], ""),
    "a dog at the top\na cat at the bottom": ("a dog|a cat", ["0 top", "1 bottom"], ""),
    "dog left of cat, cat left of bird": ("dog|cat|bird", ["0 left 1", "1 left 2"], ""),
    "a house with a bird above": ("a house|a bird", ["1 above 0"], ""),
    "a girl with a red hat left of a tree": ("a girl with a red hat|a tree", ["0 left 1"], ""),
    "a dog, a cat and a bird left of a tree": (
        "a dog|a cat|a bird|a tree",
        ["0 left 3", "1 left 3", "2 left 3"],
        "",
    ),
    "a house behind a car, a tree and a dog": ("a house|a car|a tree|a dog", [f"0 behind {k}" for k in (1, 2, 3)], ""),
    "a pair of shoes under a chair, a pair of scissors on a table": (
        "a shoe|a shoe|a chair|a pair of scissors|a table",
        ["0 below 2", "1 below 2", "3 on 4"],
        "",
    ),
    "two sheep and three small glass balls on the left": (
        "a sheep|a sheep|a small glass ball|a small glass ball|a small glass ball",
        [f"{k} left" for k in range(5)],
        "",
    ),
    "a bird in the top-right corner of the picture, two cups of tea on a table": (
        "a bird|a cup of tea|a cup of tea|a table",
        ["0 top right", "1 on 3", "2 on 3"],
        "",
    ),
    "a table. On the table is a vase. Next to the vase is a lamp.": (
        "a table|a vase|a lamp",
        ["1 on 0", "2 beside 1"],
        "",
    ),
    "two dogs on a sofa. The dogs are left of a cat.": (
        "a dog|a dog|a sofa|a cat",
        ["0 on 2", "1 on 2", "0 left 3", "1 left 3"],
        "",
    ),
    "ten birds above a house": ("ten birds|a house", ["0 above 1"], ""),
    "a fish in a bowl at sunset": ("a fish|a bowl", ["0 inside 1"], "at sunset"),
    "a mountain behind a lake": ("a mountain|a lake", ["0 behind 1"], ""),
    "狗 left of 猫": ("狗|猫", ["0 left 1"], ""),
}


@pytest.mark.parametrize("text", SAID)
def test_what_a_sentence_says(text):
    read = read_sentences(text)
    said = [" ".join([str(each.thing), each.kind, *map(str, each.others)]) for each in read.statements]
    assert ("|".join(read.names), said, " ".join(read.scene)) == SAID[text]
    words = [word.strip(".,;") for word in read.prompt.lower().split()]
    assert all(word in words for name in read.names for word in name.lower().split()), "a prompt says every name"


def test_prompt_and_background_are_the_sentences_own_where_none_is_given():
    text = "# a comment\nThree balloons over a house in the park.\nA dog left of the house"
    layout = import_layout(text)
    assert layout.background == "in the park"
    assert layout.prompt == ("a balloon, a balloon and a balloon over a house in the park. A dog left of the house")
    given = import_layout(text, prompt="mine", background="at night")
    assert (given.prompt, given.background, given.regions) == ("mine", "at night", layout.regions)


def test_size_and_depth_follow_the_words():
    def area(region):
        x0, y0, x1, y1 = region.box
        return (x1 - x0) * (y1 - y0)

    bear, table = import_layout("a big bear behind a small table").regions
    assert area(bear) > 2 * area(table) and bear.order < table.order
    tower, wall = import_layout("a tall tower and a wide wall").regions
    assert tower.box[3] - tower.box[1] > 1.5 * (tower.box[2] - tower.box[0])
    assert wall.box[2] - wall.box[0] > 1.5 * (wall.box[3] - wall.box[1])
    dog, castle = import_layout("a dog in the foreground, a castle in the background").regions
    assert dog.order > castle.order and sum(dog.box[1::2]) > sum(castle.box[1::2])
    birds = import_layout("a car with two birds above it").regions[1:]
    assert birds[0].box[1] == birds[1].box[1], "of whom the same is said stand beside each other"


@pytest.mark.parametrize("size", [(512, 512), (1024, 256), (256, 1024)])
def test_things_are_about_square_on_every_canvas(size):
    for region in import_layout("a dog and a cat", width=size[0], height=size[1]).regions:
        x0, y0, x1, y1 = region.box
        assert 0.25 <= (x1 - x0) * size[0] / ((y1 - y0) * size[1]) <= 4


CONTRADICTIONS = {
    "a dog left of a cat, the cat left of the dog": ["a dog left of a cat", "a cat left of the dog"],
    "a dog left of a cat. The cat is left of a cow. The cow is left of the dog": [
        "a dog left of a cat",
        "a cat left of a cow",
        "a cow left of the dog",
    ],
    "a dog next to a cat, the dog above the cat": ["a dog next to a cat", "a dog above the cat"],
    "a dog inside a house, the dog left of the house": ["a dog inside a house", "a dog left of the house"],
    "a dog in front of a cat, the cat in front of the dog": ["a dog in front of a cat", "a cat in front of the dog"],
    "a dog on the left, the dog on the right": ["a dog on the left", "a dog on the right"],
    "a dog in the foreground, a cat in the background, the cat in front of the dog": [
        "a cat in the background, a dog in the foreground",
        "a cat in front of the dog",
    ],
}


@pytest.mark.parametrize("text", CONTRADICTIONS)
def test_contradictions_name_the_sentences(text):
    with pytest.raises(LayoutError, match="cannot hold together") as caught:
        import_layout(text)
    assert all(f'"{said}"' in str(caught.value) for said in CONTRADICTIONS[text])


NOT_UNDERSTOOD = {
    "a dog": "No place of a thing",
    "a dog\na cat": "No place of a thing",
    "hello world": "No place of a thing",
    "masterpiece, 4k, oil painting": "No place of a thing",
    "it is under a": "No place of a thing",
    "一只狗在猫的左边": "No place of a thing",
    "un perro a la izquierda": "No place of a thing",
    "ein Hund in einem Park": "Only English sentences",
    "der Hund under the tree": "Only English sentences",
    "a dog left of the dog": "sees a thing from itself",
    "a dog between a cat": "names one thing",
    "a dog under them": "not said before",
    ", ".join(f"a dog{'abcdefghijklmnopq'[k]} left of a tree" for k in range(17)): "at most 16",
    "a dog left of a cat " * 300: "at most 4000 characters",
}


@pytest.mark.parametrize("text", NOT_UNDERSTOOD, ids=lambda text: text[:30])
def test_what_is_not_understood_says_so(text):
    for read in (import_layout, check_layout):
        with pytest.raises(LayoutError) as caught:
            read(text)
        assert NOT_UNDERSTOOD[text] in str(caught.value) and len(str(caught.value)) < 400


def test_no_line_is_taken_for_a_sentence():
    """A damaged line has its own error, whatever words are in it."""
    for line in (
        "a dog left of a cat: 0.1 0.2 0.5",
        "a dog on a mat: left",
        "a dog left of a cat 0.1 0.2 0.5 0.8",
        "a dog on a mat 10 20 200 150",
        "a dog on a mat | colour=red",
        "a dog on a mat colour=red",
        "a dog on a mat：0.1",
        "a dog on a mat\na cat: 0 0 1",
    ):
        assert not is_sentences(line)
        with pytest.raises(LayoutError) as caught:
            import_layout(line)
        assert "No place of a thing" not in str(caught.value)
    assert import_layout("a dog left of a cat: 0 0 1 1").regions[0].phrase == "a dog left of a cat"


def test_fences_and_byte_order_marks_are_no_part_of_a_sentence():
    text = "a dog left of a cat"
    for written in (f"\ufeff{text}", f"```\n{text}\n```", f"```text\n{text}\n```", f"  {text}.\n\n"):
        check_layout(written)
        layout = import_layout(written)
        assert layout.regions == import_layout(text).regions and layout.prompt.rstrip(".") == text


def test_with_masks_or_boxes_connected_the_text_is_names():
    text, box = "a dog left of a cat", {"x": 0, "y": 0, "width": 512, "height": 512}
    assert [region.phrase for region in import_layout(text, masks=[torch.ones(8, 8)]).regions] == [text]
    assert [region.phrase for region in import_layout(text, boxes=[box]).regions] == [text]
