"""Layers painted one by one in a real sampler: what stays, what is painted anew, regions, progress and refusals."""

import comfy.model_management
import pytest
import torch
from stagecraft.core.comfy.sampling import Sampling
from stagecraft.core.layers.layered_image import Layer, LayeredImage, from_layers
from stagecraft.core.layout.reading import parse_layout
from stagecraft.core.layout.region import LayoutError
from stagecraft.core.text2layer.comfy import layer_by_layer as comfy_layer_by_layer
from stagecraft.core.text2layer.comfy.layer_by_layer import paint_layers
from stagecraft.core.text2layer.comfy.model import load_text2layer
from stagecraft.core.text2layer.prompts import layout_of_prompt
from stagecraft.evaluation.sets.sets import load_presence
from stagecraft.evaluation.text2layer import layer_by_layer as text2layer_layers
from stagecraft.nodes import NODES
from stagecraft.nodes.text2layer.layer_by_layer import StageLayerByLayer
from stagecraft.tests.comfy.text2layer.small_text2layer import SIDE, STEPS, painted, same, sample

pytestmark = pytest.mark.usefixtures("no_gradients")


def test_each_thing_gets_a_layer_and_what_was_painted_stays(text2layer, sticker_clip):
    image = painted(text2layer, sticker_clip, "a dog, a cat and an apple at night")
    assert [layer.name for layer in image.layers] == ["a dog", "a cat", "an apple"]
    two = painted(text2layer, sticker_clip, "a dog and a cat at night")
    assert torch.equal(two.background, image.background)
    assert all(same(*pair) for pair in zip(two.layers, image.layers, strict=False))
    third = painted(text2layer, sticker_clip, "an apple at night", below=two)
    assert all(same(*pair) for pair in zip(third.layers, image.layers, strict=True))
    other = painted(text2layer, sticker_clip, "a dog, a cat and an apple at night", seed=4)
    assert not torch.equal(other.background, image.background)


def test_a_layer_is_replaced_and_the_others_stay(text2layer, sticker_clip):
    image = painted(text2layer, sticker_clip, "a dog, a cat and an apple at night")
    again = painted(text2layer, sticker_clip, "a cat at night", below=image, replaced=2)
    assert all(same(*pair) for pair in zip(again.layers, image.layers, strict=True)), "the same seed, the same layer"
    bus = painted(text2layer, sticker_clip, "a bus at night", below=image, replaced=2)
    assert [layer.name for layer in bus.layers] == ["a dog", "a bus", "an apple"]
    assert torch.equal(bus.background, image.background)
    assert same(bus.layers[0], image.layers[0]) and same(bus.layers[2], image.layers[2])
    assert not same(bus.layers[1], image.layers[1])
    slightly = painted(
        text2layer, sticker_clip, "a bus at night", below=image, replaced=2, sampling=Sampling(3, 10, denoise=0.1)
    )
    assert not same(slightly.layers[1], bus.layers[1])


def test_regions_keep_their_layers(text2layer, sticker_clip):
    model, vae = text2layer
    layout = parse_layout("a dog: 0 0 0.25 1\na cat: 0.5 0.5 1 1", width=SIDE, height=SIDE, background="at night")
    found, decode = [], vae.decode

    def keep(latent):
        found.append(latent)
        return decode(latent)

    vae.decode = keep
    try:
        image = painted(text2layer, sticker_clip, layout, margin=0)
    finally:
        del vae.decode
    assert len(image.layers) == 2 and len(found) == 3, "a run for the background, and one for each layer"
    for number, place in ((0, (slice(None), slice(0, 2))), (1, (slice(4, 8), slice(4, 8)))):
        below = LayeredImage(image.background, image.layers[:number]).composite()
        condition = vae.encode(0 * below, below, 0 * below[..., 0])
        outside = torch.ones(8, 8, dtype=torch.bool)
        outside[place] = False
        latent = found[1 + number]
        torch.testing.assert_close(latent[..., outside], condition[..., outside], rtol=0, atol=1e-4)
        assert not torch.allclose(latent[..., ~outside], condition[..., ~outside], atol=1e-2)


def test_an_empty_layer_is_said_in_the_log(caplog):
    clear = Layer(torch.zeros(1, 8, 8, 3), torch.full((1, 8, 8), 0.4))
    assert comfy_layer_by_layer.named(clear, "a dog").name == "a dog"
    assert 'the layer "a dog" is empty' in caplog.text
    caplog.clear()
    comfy_layer_by_layer.named(Layer(clear.colour, clear.alpha + 0.2), "a dog")
    assert not caplog.text


def test_a_margin_grows_regions_by_whole_cells():
    region = parse_layout("a dog: 0.5 0.5 0.75 0.75", width=SIDE, height=SIDE).regions[0]
    for margin, first, end in ((0, 4, 6), (1, 3, 7), (8, 3, 7), (9, 2, 8)):
        free = comfy_layer_by_layer.free_cells(region, margin, (SIDE, SIDE), 8)
        expected = torch.zeros(1, 8, 8)
        expected[:, first:end, first:end] = 1
        assert torch.equal(free, expected)


def test_odd_sizes_keep_every_pixel(text2layer, sticker_clip):
    layout = parse_layout("a dog: 0 0 0.5 1\na cat: 0.4 0 1 1", width=61, height=44, background="at night")
    image = painted(text2layer, sticker_clip, layout)
    assert image.background.shape == (1, 44, 61, 3) and image.composite().isfinite().all()
    more = painted(text2layer, sticker_clip, "a bus", below=image)
    assert torch.equal(more.background, image.background) and len(more.layers) == 3


def test_the_node_hands_on_every_input(text2layer, sticker_clip):
    model, vae = text2layer
    given = {
        "prompt": "a dog, a cat",
        "background": "at night",
        "seed": 5,
        "steps": STEPS,
        "cfg": 3.0,
        "sampler_name": "dpmpp_2m",
        "scheduler": "karras",
        "width": SIDE,
        "height": 48,
        "negative": "snow",
    }
    composite, alpha, (stack,), pictures, masks, background = StageLayerByLayer.execute(
        model, vae, sticker_clip, **given
    ).args
    layout = layout_of_prompt("a dog, a cat", "at night", SIDE, 48)
    image = paint_layers(
        model, vae, sticker_clip, layout, Sampling(5, STEPS, 3.0, "dpmpp_2m", "karras"), negative="snow"
    )
    assert torch.equal(composite, image.composite()) and torch.equal(background, image.background)
    assert torch.equal(pictures, torch.cat([layer.colour for layer in image.layers]))
    assert torch.equal(masks, torch.cat([layer.alpha for layer in image.layers])) and masks.shape == (2, 48, SIDE)
    assert torch.equal(alpha, image.alpha())
    assert torch.equal(from_layers(stack).composite(), composite)
    again = StageLayerByLayer.execute(
        model,
        vae,
        sticker_clip,
        **(given | {"prompt": "a bus"}),
        layers=stack,
        replace=1,
        denoise=0.8,
        layer_prompt="{phrase}",
    ).args
    sampling = Sampling(5, STEPS, 3.0, "dpmpp_2m", "karras", 0.8)
    bus = layout_of_prompt("a bus", "at night", SIDE, 48)
    expected = paint_layers(
        model, vae, sticker_clip, bus, sampling, negative="snow", layer_prompt="{phrase}", below=image, replaced=1
    )
    assert torch.equal(again[0], expected.composite())
    placed = parse_layout("a dog: 0 0 0.5 1", width=SIDE, height=48)
    region = StageLayerByLayer.execute(model, vae, sticker_clip, **given, layout=placed, margin=4).args
    expected = paint_layers(
        model, vae, sticker_clip, placed, Sampling(5, STEPS, 3.0, "dpmpp_2m", "karras"), negative="snow", margin=4
    )
    assert torch.equal(region[0], expected.composite())


def test_cancelling_stops_at_once_and_leaves_nothing_behind(text2layer, sticker_clip, sticker_prompts, monkeypatch):
    before = sample(text2layer[0], sticker_prompts)
    calls = []

    def stop(self, value, total=None, preview=None):
        calls.append(value)
        comfy.model_management.interrupt_current_processing()

    monkeypatch.setattr(comfy_layer_by_layer.comfy.utils.ProgressBar, "update_absolute", stop)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        painted(text2layer, sticker_clip, "a dog, a cat and an apple at night")
    monkeypatch.undo()
    assert calls == [1]
    comfy.model_management.interrupt_current_processing(False)
    assert torch.equal(sample(text2layer[0], sticker_prompts), before)


def test_progress_counts_the_steps_of_all_layers(text2layer, sticker_clip, monkeypatch):
    seen, bar = [], comfy_layer_by_layer.comfy.utils.ProgressBar
    update = bar.update_absolute

    def watched(self, value, total=None, *args, **kwargs):
        seen.append((value, total or self.total))
        return update(self, value, total, *args, **kwargs)

    # What the bar is told: newer versions of it tell the page of some steps only.
    monkeypatch.setattr(bar, "update_absolute", watched)
    painted(text2layer, sticker_clip, "a dog and a cat at night")
    assert [pair for pair in seen if pair[1] == 2 * STEPS] == [(i + 1, 2 * STEPS) for i in range(2 * STEPS)]


def test_what_cannot_be_meant_is_refused(text2layer, text2layer_folder, sticker_clip, model):
    image = painted(text2layer, sticker_clip, "a dog at night")
    with pytest.raises(ValueError, match="paints pictures without layers"):
        painted((model, text2layer[1]), sticker_clip, "a dog")
    alone = load_text2layer("alone.safetensors")
    assert len(painted(alone, sticker_clip, "a dog at night").layers) == 1
    for refused in ("a dog and a cat", parse_layout("a dog: 0 0 0.5 1", width=SIDE, height=SIDE)):
        with pytest.raises(ValueError, match="cannot be told what lies below"):
            painted(alone, sticker_clip, refused)
    with pytest.raises(ValueError, match="Layer 2 is to be replaced, but the connected layers are 1"):
        painted(text2layer, sticker_clip, "a cat", below=image, replaced=2)
    with pytest.raises(ValueError, match="by 2 new ones"):
        painted(text2layer, sticker_clip, "a cat and a bus", below=image, replaced=1)
    with pytest.raises(ValueError, match="no layers are connected"):
        painted(text2layer, sticker_clip, "a cat", replaced=1)
    with pytest.raises(ValueError, match="nothing to keep"):
        painted(text2layer, sticker_clip, "a cat", below=image, sampling=Sampling(1, STEPS, denoise=0.5))
    with pytest.raises(LayoutError, match="not the shape of the layout's canvas"):
        painted(text2layer, sticker_clip, parse_layout("a cat: 0 0 0.5 1", width=128, height=64), below=image)
    with pytest.raises(LayoutError, match="placeholder {colour}"):
        painted(text2layer, sticker_clip, "a cat", layer_prompt="{colour}")


def test_what_is_evaluated_fits_the_nodes():
    graph = text2layer_layers.graph(load_presence(3)[0])
    schemas = {node.__name__: node.GET_SCHEMA() for node in NODES}
    ours = [node for node in graph.values() if node["class_type"] in schemas]
    assert len(ours) == 3
    for node in ours:
        schema = schemas[node["class_type"]]
        required = {each.id for each in schema.inputs if not each.optional}
        assert required <= node["inputs"].keys() <= {each.id for each in schema.inputs}
    (painted,) = (key for key, node in graph.items() if node["class_type"] == "StageLayerByLayer")
    names = [each.display_name for each in schemas["StageLayerByLayer"].outputs]
    shown = {"pictures": "image", "colours": "pictures", "background": "background"}
    for key, name in shown.items():
        assert graph[key]["inputs"]["images"] == [painted, names.index(name)]


def test_the_node_refuses_early():
    check = StageLayerByLayer.validate_inputs
    assert check("a dog") is True and check(None) is True and check("", layout=None) is True
    assert "prompt is empty" in check(" ")
    assert "no layers are connected" in check("a dog", replace=1)
    assert check("a dog", replace=1, denoise=0.5, layers=None) is True
    assert "nothing to keep" in check("a dog", denoise=0.5, layers=None)
