"""The blueprints of `subgraphs/`: found by name in the editor, queued with a checkpoint, their pictures scored."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from PIL import Image
from stagecraft.commands.environment import CLONE
from stagecraft.core.segmentation.segmenter import Segmenter
from stagecraft.evaluation.sets.sets import Placement, paste
from stagecraft.sticker_world.shipped import CHECKPOINT_FILE, SEGMENTER_FOLDER
from stagecraft.tests.things import LEAST, labels_of, opened

FOLDER = CLONE / "subgraphs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
ON_MEADOW = "a dog on a green meadow"
DOG = Placement("dog", 0.4, 0.0, False, 140, 130)
# The blueprint's node, of which the graph has one.
HOST = "app.graph.nodes.find((node) => node.subgraph)"
# Connects what a blueprint takes to loaders, and what it gives to previews; the first picture is the result.
WIRE = """([checkpoint, picture, values]) => {
    const host = app.graph.nodes.find((node) => node.subgraph);
    const add = (type, name, value) => {
        const node = LiteGraph.createNode(type);
        app.graph.add(node);
        if (name) node.widgets.find((widget) => widget.name === name).value = value;
        return node };
    const loader = add("CheckpointLoaderSimple", "ckpt_name", checkpoint), loaded = ["MODEL", "CLIP", "VAE"];
    const image = picture && add("LoadImage", "image", picture);
    host.inputs.forEach((input, slot) => {
        if (loaded.includes(input.type)) loader.connect(loaded.indexOf(input.type), host, slot);
        if (["IMAGE", "MASK"].includes(input.type)) image.connect(["IMAGE", "MASK"].indexOf(input.type), host, slot) });
    for (const [name, value] of Object.entries(values)) host.widgets.find((each) => each.name === name).value = value;
    const previews = host.outputs.map((output, slot) => {
        if (output.type !== "IMAGE") return null;
        const preview = add("PreviewImage");
        host.connect(slot, preview, 0);
        return [output.name, String(preview.id)] });
    return Object.fromEntries(previews.filter(Boolean)) }"""


@dataclass(frozen=True)
class Tried:
    """What is done with a blueprint.

    Attributes:
        things: that are in the result, each in one of its pictures.
        output: the picture that is the result.
        gone: what is not.
        values: of promoted inputs, by name.
    """

    things: tuple[str, ...]
    output: str = "image"
    gone: tuple[str, ...] = ()
    values: Mapping[str, object] = field(default_factory=dict)


TRIED = {
    "Paint a Layout": Tried(("house", "dog")),
    "Guide a Layout": Tried(("house", "dog")),
    "Edit a Picture": Tried(("gift",), gone=("dog",), values={"the whole picture then": "a gift on a green meadow"}),
    "Layers from a Prompt": Tried(("apple",)),
    "Draft and Refine": Tried(("apple",), values={"iterations": 10}),
    "Layout of a Picture": Tried(("dog",)),
    "Vary a Picture": Tried(("dog",), values={"what it shows": ON_MEADOW, "what it should show": ON_MEADOW}),
    "Split a Picture": Tried(("dog",), output="foreground"),
    "Variations of a Layout": Tried(("house", "dog")),
    "Words for a Mask": Tried(("dog",)),
    "One Region in Detail": Tried(("house", "dog")),
    "Repaint Layers": Tried(("dog",), output="composite"),
}


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter.load(SEGMENTER_FOLDER)


@pytest.fixture(scope="module")
def picture(pinned, tmp_path_factory):
    """A dog on a meadow, masked by its alpha channel as the editor's mask editor does it."""
    pixels = paste("meadow", [DOG], 5)
    alpha = np.round(255 * (1 - DOG.mask())).astype(np.uint8)
    path = tmp_path_factory.mktemp("picture") / "dog.png"
    Image.fromarray(np.dstack([pixels, alpha])).save(path)
    return pinned.upload(path)


def add_by_name(editor, name):
    """As a person adds a node: the search box, its name, Enter."""
    editor.load()
    page = editor.page
    page.mouse.move(700, 300)
    page.evaluate("void app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
    page.locator("input:focus").wait_for()
    page.keyboard.type(name)
    page.get_by_text(name).last.wait_for()
    page.wait_for_timeout(500)
    page.keyboard.press("Enter")
    page.wait_for_timeout(200)
    page.mouse.click(900, 500)  # the newest editor lets a new node hang on the pointer
    page.wait_for_function(f"() => !!{HOST}")


def test_every_blueprint_is_tried():
    assert sorted(TRIED) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_blueprint_paints_what_it_is_asked_for(editor, pinned, picture, segmenter, name):
    tried = TRIED[name]
    add_by_name(editor, name)
    shown = editor.page.evaluate(WIRE, [CHECKPOINT_FILE.name, picture, dict(tried.values)])
    known = set(pinned.get_json("/history"))
    editor.page.evaluate("app.queuePrompt(0)")
    result = pinned.result_of_new(known, 300)
    found = torch.stack([labels_of(segmenter, opened(file)) for file in result.images[shown[tried.output]]])
    shares = {thing: float((found == segmenter.class_of(thing)).float().mean()) for thing in tried.things + tried.gone}
    assert all(shares[thing] > LEAST for thing in tried.things), shares
    assert all(shares[thing] < LEAST for thing in tried.gone), shares


def test_the_newest_editor_has_them_too_with_the_same_inputs(editors, newest):
    editor = editors.get(newest, "vue")
    for name in NAMES:
        add_by_name(editor, name)
        saved = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        names = [slot["name"] for slot in saved["nodes"][0]["inputs"]]
        assert editor.page.evaluate(f"{HOST}.inputs.map((each) => each.name)") == names
