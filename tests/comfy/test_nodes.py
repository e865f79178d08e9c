"""What a user reads on every node, and that the nodes hand on to the core what they are given."""

import inspect
from pathlib import Path

import pytest
import torch
from stagecraft.core.layered_rendering.comfy.render import render_in_layers
from stagecraft.core.layered_rendering.comfy.settings import LayerSettings, Rendering
from stagecraft.core.layered_rendering.vision_guidance import LAMBDA_AT_1, VisionGuidance
from stagecraft.core.layout.reading import parse_layout
from stagecraft.core.layout.region import LayoutError
from stagecraft.core.layout.writing import write_json_prompt
from stagecraft.nodes import NODES
from stagecraft.nodes.api import io
from stagecraft.nodes.inputs import NOT_CONNECTED, file_choice, refusal
from stagecraft.nodes.layered_rendering.layer_settings import StageLayerSettings
from stagecraft.nodes.layered_rendering.layered_rendering import StageLayeredRendering
from stagecraft.nodes.layered_rendering.vision_guidance import chosen_guidance, read_vector
from stagecraft.nodes.layout.layout import StageLayout, StageLayoutBatch, StageLayoutPreview

DOCS = Path(__file__).resolve().parents[2] / "web" / "docs"


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.__name__)
def test_every_node_explains_itself(node):
    schema = node.GET_SCHEMA()
    assert schema.node_id == node.__name__ and schema.display_name and schema.description
    folder = Path(inspect.getfile(node)).parent.name.replace("_", " ")
    assert schema.category.casefold() == f"stagecraft/{folder}"
    assert all(len(each.tooltip or "") > 20 for each in schema.inputs), "an input has no tooltip"
    assert all(each.tooltip and each.display_name for each in schema.outputs), "an output has no name or tooltip"
    page = (DOCS / f"{schema.node_id}.md").read_text(encoding="utf-8")
    missing = [each.id for each in schema.inputs if each.id not in page and not each.id.startswith("mask_")]
    assert not missing, f"the help page does not speak of {missing}"


# What other nodes call otherwise: where a number, or a choice of samplers, is called so, one thing has two names.
ONE_NAME = {
    "t0": "end_at",
    "start": "start_at",
    "end": "end_at",
    "sampler": "sampler_name",
    "start_percent": "start_at",
}


def misnamed(each):
    """How an input is called in all other nodes, or what its default is there; None where it is so."""
    is_number = isinstance(each, io.Int.Input | io.Float.Input)
    if each.id in ONE_NAME and (is_number or "euler" in (getattr(each, "options", None) or ())):
        return ONE_NAME[each.id]
    if each.id == "strength" and (each.default != 1.0 or not each.min <= 0.0):
        return "strength: 1 is as recommended, 0 off"
    if isinstance(each, io.Combo.Input) and each.id in ("segmenter", "cut_out"):
        return "segmenter: a link from Load Segmenter"
    return None


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.__name__)
def test_one_thing_has_one_name(node):
    found = {each.id: name for each in node.define_schema().inputs if (name := misnamed(each))}
    assert not found, f"other nodes say {found}"


def test_another_name_or_unit_is_found():
    assert misnamed(io.Float.Input("t0", default=0.5)) == misnamed(io.Float.Input("end", default=0.5)) == "end_at"
    assert misnamed(io.Combo.Input("sampler", options=["euler", "heun"])) == "sampler_name"
    assert misnamed(io.Combo.Input("start", options=["inversion", "noise"])) is None
    assert misnamed(io.Float.Input("strength", default=0.6, min=0.0)) and misnamed(
        io.Float.Input("strength", default=1.0, min=0.5)
    )
    assert misnamed(io.Float.Input("strength", default=1.0, min=-2.0)) is None
    assert misnamed(io.Combo.Input("segmenter", options=["sticker_world"]))


def test_a_drop_down_of_files_prefers_its_own_and_is_never_empty():
    found = file_choice("name", ["a", "ours"], "models/things", "What it is.", "ours")
    assert (found.options, found.default) == (["a", "ours"], "ours")
    missing = file_choice("name", [], "models/things", "What it is.", "ours")
    assert (missing.options, missing.default) == (["none in models/things"], None)


def test_layered_rendering_hands_on_every_input(model, clip, vae):
    text = clip.encode_from_tokens_scheduled(clip.tokenize("all"))
    layout = parse_layout("a dog: 0 0 0.5 1 | colour=red", width=64, height=64, background="grass")
    given = {"layer_prompt": "{phrase} {background}", "background_negative": "{phrases}"}
    guidance = {"source": "colour", "top_k": 3, "inside": 0.5, "outside": 2.0, "inject": "first step"}
    guidance["reading"] = "without the vector"
    (first,) = StageLayerSettings.execute("a dog", True, 3.0).args
    (layers,) = StageLayerSettings.execute("background", False, 4.0, negative=text, before=first).args
    assert [(each.region, each.cfg) for each in layers] == [("a dog", 3.0), ("background", None)]
    sockets = {"vae": vae, "crop": True, "crop_margin": 2, "layers": layers}
    node = StageLayeredRendering.execute(model, clip, layout, text, text, 0.4, 0.5, **given, **guidance, **sockets).args
    chosen = VisionGuidance(**guidance)
    settings = (LayerSettings("a dog", cfg=3.0), LayerSettings("background", negative=text))
    rendering = Rendering(0.4, 0.5 * LAMBDA_AT_1, **given, crop=2, guidance=chosen, settings=settings)
    core = render_in_layers(model, clip, vae, layout, text, text, rendering)
    assert node[0].model is core[0].model and node[0].wrappers == core[0].wrappers
    for found, expected in zip(node[1] + node[2], core[1] + core[2], strict=True):
        assert torch.equal(found[0], expected[0]) and found[1].keys() == expected[1].keys()
        for key, value in expected[1].items():
            assert torch.equal(found[1][key], value) if isinstance(value, torch.Tensor) else found[1][key] == value


def test_modes_reach_the_core(model, clip):
    text = clip.encode_from_tokens_scheduled(clip.tokenize("all"))
    layout = parse_layout("a dog: 0 0 0.5 1", width=64, height=64)
    given = {"end_at": 0.4, "strength": 0.3, "source": "auto", "layer_prompt": "{phrase}"}
    node = StageLayeredRendering.execute(model, clip, layout, text, text, **given, mode="trajectories").args
    assert all("mask" not in options for _, options in node[1])
    with pytest.raises(ValueError, match="mode is 'other'"):
        StageLayeredRendering.execute(model, clip, layout, text, text, **given, mode="other")


def test_vectors_are_read_and_refused_early():
    assert read_vector(" 0.5, -2  1e-3,") == (0.5, -2.0, 0.001)
    asked = StageLayeredRendering.validate_inputs
    assert asked("colour", "nonsense") is True and asked("auto") is True
    assert asked(None, None) is True
    assert "vector is empty" in asked("vector", "") and "vector is empty" in asked("vector")
    assert 'vector is "a b"' in asked("vector", "a b")
    with pytest.raises(ValueError, match="vector is empty"):  # one that came by a link
        chosen_guidance("vector")
    assert "finite" in asked("vector", "1 nan")
    assert chosen_guidance("vector", "1 2 3 4").vector == (1.0, 2.0, 3.0, 4.0)


def test_pictures_are_for_sources_that_show_them():
    pictures = torch.zeros(1, 8, 8, 3)
    for source in ("auto", "reference"):
        assert chosen_guidance(source, references=pictures).references is pictures
    assert chosen_guidance("colour", references=pictures).references is None
    with pytest.raises(ValueError, match="Connect one for each region"):
        chosen_guidance("reference")


def test_a_batch_of_layouts_reaches_every_node():
    layouts = [parse_layout(f"a dog: 0 0 {x} 1", width=64, height=64) for x in (0.25, 0.5, 0.75)]
    (two,) = StageLayoutBatch.execute(layouts[0], layouts[1]).args
    (three,) = StageLayoutBatch.execute(two, layouts[2]).args
    assert list(three) == layouts
    drawn = StageLayoutPreview.execute(three).args[0]
    alone = torch.cat([StageLayoutPreview.execute(layout).args[0] for layout in layouts])
    assert torch.equal(drawn, alone) and len(drawn) == 3
    with pytest.raises(LayoutError, match="3 layouts for 2 pictures"):
        StageLayoutPreview.execute(three, torch.zeros(2, 64, 64, 3))
    assert len(StageLayoutPreview.execute(three, torch.zeros(3, 64, 64, 3)).args[0]) == 3
    assert StageLayoutPreview.execute(three).args[1] == write_json_prompt(layouts[0])


def test_layout_is_only_refused_early_where_everything_is_known():
    assert StageLayout.validate_inputs("a dog: 0 0 1 1") is True
    assert StageLayout.validate_inputs(None) is True
    assert "neither a box nor a mask" in StageLayout.validate_inputs("a dog | strength=2")
    assert "No place of a thing was found in 'a dog'" in StageLayout.validate_inputs("a dog")
    assert StageLayout.validate_inputs("a dog", boxes=None) is True
    assert StageLayout.validate_inputs("a dog", masks=None) is True
    assert "four numbers" in StageLayout.validate_inputs("a dog: 0.1 0.2", boxes=NOT_CONNECTED, masks=None)


def test_a_refusal_is_the_expected_error_and_no_other():
    def check(error):
        raise error

    assert refusal(lambda: None) is None
    assert refusal(lambda: check(ValueError("no"))) == "no"
    assert refusal(lambda: check(LayoutError("no place")), LayoutError) == "no place"
    with pytest.raises(ValueError, match="a fault of ours"):
        refusal(lambda: check(ValueError("a fault of ours")), LayoutError)
