"""What a user reads on every node, and that the nodes hand on to the core what they are given."""

from pathlib import Path

import pytest
import torch
from stagecraft.core.host.comfy_layers import render_in_layers
from stagecraft.core.layout import parse_layout
from stagecraft.nodes import NODES
from stagecraft.nodes.layered_rendering import StageLayeredRendering
from stagecraft.nodes.layout import NOT_CONNECTED, StageLayout

DOCS = Path(__file__).resolve().parents[2] / "web" / "docs"


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.__name__)
def test_every_node_explains_itself(node):
    schema = node.GET_SCHEMA()
    assert schema.node_id == node.__name__ and schema.display_name and schema.description
    assert schema.category.startswith("Stagecraft/")
    assert all(len(each.tooltip or "") > 20 for each in schema.inputs), "an input has no tooltip"
    assert all(each.tooltip and each.display_name for each in schema.outputs), "an output has no name or tooltip"
    page = (DOCS / f"{schema.node_id}.md").read_text(encoding="utf-8")
    missing = [each.id for each in schema.inputs if each.id not in page and not each.id.startswith("mask_")]
    assert not missing, f"the help page does not speak of {missing}"


def test_layered_rendering_hands_on_every_input(model, clip, vae):
    text = clip.encode_from_tokens_scheduled(clip.tokenize("all"))
    layout = parse_layout("a dog: 0 0 0.5 1 | colour=red", width=64, height=64, background="grass")
    given = {"t0": 0.4, "strength": 0.3, "layer_prompt": "{phrase} {background}"}
    node = StageLayeredRendering.execute(model, clip, layout, text, text, vae=vae, **given).args
    core = render_in_layers(model, clip, vae, layout, text, text, **given)
    assert node[0].model is core[0].model and node[0].wrappers == core[0].wrappers
    for found, expected in zip(node[1] + node[2], core[1] + core[2], strict=True):
        assert torch.equal(found[0], expected[0]) and found[1].keys() == expected[1].keys()
        for key, value in expected[1].items():
            assert torch.equal(found[1][key], value) if isinstance(value, torch.Tensor) else found[1][key] == value


def test_layout_is_only_refused_early_where_everything_is_known():
    assert StageLayout.validate_inputs("a dog: 0 0 1 1") is True
    assert StageLayout.validate_inputs(None) is True
    assert "neither a box nor a mask" in StageLayout.validate_inputs("a dog")
    assert StageLayout.validate_inputs("a dog", boxes=None) is True
    assert StageLayout.validate_inputs("a dog", mask_4=None) is True
    assert "four numbers" in StageLayout.validate_inputs("a dog: here", boxes=NOT_CONNECTED, mask_1=None)
