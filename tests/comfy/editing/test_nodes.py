"""The nodes of editing hand on to the core what they are given."""

import pytest
import torch
from stagecraft.core.editing.comfy.edit import Editing, edit_picture
from stagecraft.core.editing.edits import EditError
from stagecraft.core.layered_rendering.vision_guidance import LAMBDA_AT_1, VisionGuidance
from stagecraft.core.layout.reading import parse_layout
from stagecraft.nodes.editing.edit_picture import StageEditPicture
from stagecraft.nodes.editing.edits import StageEditInsert, StageEditMove, StageEditRemove, StageEditReplace
from stagecraft.tests.comfy.editing.small_edits import corner, picture

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.mark.parametrize("source", ["colour", "dynamic"])
def test_the_nodes_hand_on_every_input(model, clip, vae, prompts, source):
    layout = parse_layout("a dog: 0 0 0.5 1 | colour=red | order=1\na tree: 0.5 0 1 1", width=64, height=64)
    (chain,) = StageEditInsert.execute(layout).args
    given = {"phrase": "a cat", "prompt": "my cat", "colour": "blue", "keep": 0.3}
    (chain,) = StageEditReplace.execute(corner(), shape="outline", before=chain, **given).args
    (chain,) = StageEditRemove.execute(corner(), "a car", before=chain).args
    (chain,) = StageEditMove.execute(corner(), "a bus", 0.2, -0.1, before=chain).args
    assert [edit.action for edit in chain] == ["insert", "insert", "replace", "remove", "move"]
    assert [edit.region.phrase for edit in chain[:2]] == ["a tree", "a dog"]
    new = chain[2].region
    assert (new.phrase, new.prompt, new.colour, chain[2].keep) == ("a cat", "my cat", "blue", 0.3)
    assert torch.equal(new.mask, corner()[0]) and chain[3].gone == "a car"
    assert chain[4].gone == "a bus" and chain[4].shift == (0.2, -0.1)
    (boxed,) = StageEditReplace.execute(corner(), shape="box", **given).args
    assert boxed[0].region.box == (0, 0, 0.5, 0.5)
    with pytest.raises(EditError, match="2 layouts; expected one"):
        StageEditInsert.execute((layout, layout))

    settings = {
        "background": "grass",
        "source_prompt": "a cow",
        "edge": 6,
        "refinements": 2,
    }
    nodes = {"end_at": 0.4, "strength": 0.5}
    node = StageEditPicture.execute(
        picture(), model, clip, vae, *prompts, edits=boxed, source=source, **nodes, **settings
    ).args
    editing = Editing(0.4, 0.5 * LAMBDA_AT_1, **settings, guidance=VisionGuidance(source))
    core = edit_picture(model, clip, vae, picture(), boxed, *prompts, editing)
    assert torch.equal(node[3]["samples"], core[3]) and torch.equal(node[4], core[4])
    for found, expected in zip(node[1] + node[2], core[1] + core[2], strict=True):
        assert torch.equal(found[0], expected[0]) and found[1].keys() == expected[1].keys()
        for key, value in expected[1].items():
            assert torch.equal(found[1][key], value) if isinstance(value, torch.Tensor) else found[1][key] == value


@pytest.mark.parametrize("moved", [False, True], ids=["no edit", "moved by nothing"])
def test_edits_that_change_nothing_are_said(moved, model, clip, vae, prompts, caplog):
    edits = StageEditMove.execute(corner(), "a bus", 0.0, 0.0).args[0] if moved else None
    settings = {"background": "", "source_prompt": "", "end_at": 0.5, "strength": 0.5, "edge": 4, "refinements": 1}
    found = StageEditPicture.execute(picture(), model, clip, vae, *prompts, edits=edits, **settings).args
    assert not found[4].any()
    assert "No edit changes anything" in caplog.text
