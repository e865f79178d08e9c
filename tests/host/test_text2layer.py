"""Text2Layer in a real sampler: files, latents, what lies below, and pictures that are painted layer by layer."""

import comfy.ldm.modules.diffusionmodules.openaimodel as openaimodel
import comfy.model_management
import comfy.model_sampling
import comfy.ops
import comfy.patcher_extension
import comfy.sample
import comfy.sd
import comfy.supported_models
import folder_paths
import pytest
import torch
from safetensors.torch import load_file, save_file
from stagecraft.core.host import comfy_layer_by_layer
from stagecraft.core.host.comfy_layer_by_layer import Sampling, paint_layers
from stagecraft.core.host.comfy_layered_vae import LayeredVae
from stagecraft.core.host.comfy_text2layer import BELOW, TEXT2LAYER, Text2LayerConfig, load_text2layer
from stagecraft.core.layer_prompts import layout_of_prompt
from stagecraft.core.layered_autoencoder import LayeredAutoencoder, LayeredAutoencoderConfig
from stagecraft.core.layered_image import Layer, LayeredImage, from_layers
from stagecraft.core.layout import LayoutError, parse_layout
from stagecraft.core.text2layer_files import (
    EPS,
    FIRST,
    Text2LayerFileError,
    V,
    read_text2layer,
    write_text2layer,
)
from stagecraft.evaluation import text2layer_layers
from stagecraft.evaluation.sets import load_presence
from stagecraft.nodes import NODES
from stagecraft.nodes.layer_by_layer import StageLayerByLayer
from stagecraft.nodes.text2layer import StageLayersDecode, StageLayersEncode, StageText2LayerLoader
from stagecraft.sticker_world.shipped import CHECKPOINT_FILE
from stagecraft.tests.host.families import fill

pytestmark = pytest.mark.usefixtures("no_gradients")

STEPS, SIDE = 3, 64
CONFIG = LayeredAutoencoderConfig(
    block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4, head_width=8, mid_block_add_attention=False
)
UNET = {
    "image_size": 32,
    "out_channels": 4,
    "model_channels": 64,  # with this context the embedded checkpoint's class
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "transformer_depth": [0, 1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [0, 0, 1, 1],
    "num_head_channels": 32,
    "use_spatial_transformer": True,
    "context_dim": 128,
    "legacy": False,
    "dtype": torch.float32,
}
SCALE, SHIFT = 1.7, 0.2
ROUNDING = 1e-5  # float32, with sums in another order


def random_unet(channels):
    network = openaimodel.UNetModel(**UNET, in_channels=channels, operations=comfy.ops.disable_weight_init)
    fill(network, 11)
    return network.state_dict()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files with random weights: with what lies below, without, and as training starts, where nothing comes of it."""
    folder = tmp_path_factory.mktemp("text2layer")
    autoencoder = LayeredAutoencoder(CONFIG)
    fill(autoencoder, 12)
    settings = {"autoencoder": autoencoder.state_dict(), "config": CONFIG, "scale": SCALE, "shift": SHIFT}
    given, alone = random_unet(8), random_unet(4)
    fresh = alone | {FIRST: torch.cat([alone[FIRST], torch.zeros_like(alone[FIRST])], 1)}
    write_text2layer(folder / "layers.safetensors", given, prediction=V, **settings)
    write_text2layer(folder / "alone.safetensors", alone, prediction=V, **settings)
    write_text2layer(folder / "fresh.safetensors", fresh, prediction=V, **settings)
    write_text2layer(folder / "packed.safetensors", given, prediction=EPS, bits=6, **settings)
    folder_paths.add_model_folder_path(TEXT2LAYER, str(folder), is_default=True)
    yield folder
    folder_paths.folder_names_and_paths[TEXT2LAYER][0].remove(str(folder))


@pytest.fixture(scope="module")
def loaded(folder):
    return load_text2layer("layers.safetensors")


@pytest.fixture(scope="module")
def clip():
    return comfy.sd.load_checkpoint_guess_config(str(CHECKPOINT_FILE), output_vae=False)[1]


@pytest.fixture(scope="module")
def prompts(clip):
    return [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a dog", "")]


def sample(model, prompts, batch=1, rows=8, columns=8, **options):
    positive, negative = ([[text, {**given, **options}] for text, given in entries] for entries in prompts)
    latent = torch.zeros(batch, 4, rows, columns)
    noise = comfy.sample.prepare_noise(latent, 7)
    return comfy.sample.sample(
        model, noise, STEPS, 4.0, "euler", "normal", positive, negative, latent, seed=7, disable_pbar=True
    )


def painted(loaded, clip, layout, seed=3, **options):
    options.setdefault("sampling", Sampling(seed, STEPS))
    sampling = options.pop("sampling")
    layout = layout_of_prompt(layout, "", SIDE, SIDE) if isinstance(layout, str) else layout
    return paint_layers(loaded[0], loaded[1], clip, layout, sampling, **options)


def same(first, second):
    return torch.equal(first.colour, second.colour) and torch.equal(first.alpha, second.alpha)


# Files


def test_a_file_comes_back_as_it_was_written(folder):
    file = read_text2layer(folder / "layers.safetensors")
    assert (file.config, file.scale, file.shift, file.prediction) == (CONFIG, SCALE, SHIFT, V)
    assert file.takes_below and not read_text2layer(folder / "alone.safetensors").takes_below
    expected = random_unet(8)
    assert file.unet.keys() == expected.keys()
    assert all(torch.equal(file.unet[key], value.half()) for key, value in expected.items())
    packed = read_text2layer(folder / "packed.safetensors")
    assert packed.prediction == EPS
    assert (folder / "packed.safetensors").stat().st_size < 0.6 * (folder / "layers.safetensors").stat().st_size
    error = (packed.unet[FIRST].float() - expected[FIRST]).norm() / expected[FIRST].norm()
    assert error < 0.05


def resaved(folder, change=lambda tensors: tensors, **metadata):
    from safetensors import safe_open

    with safe_open(folder / "layers.safetensors", "pt") as file:
        known = file.metadata()
    known = {key: value for key, value in (known | metadata).items() if value is not None}
    save_file(change(load_file(folder / "layers.safetensors")), folder / "broken.safetensors", known)
    return folder / "broken.safetensors"


def wider(tensors):
    return tensors | {f"model.diffusion_model.{FIRST}": torch.zeros(64, 9, 3, 3)}


def without(prefix):
    return lambda tensors: {key: value for key, value in tensors.items() if not key.startswith(prefix)}


@pytest.mark.parametrize(
    ("change", "metadata", "sentence"),
    [
        (wider, {}, "U-Net takes 9 channels"),
        (without("layered_autoencoder.heads"), {}, "weights of its autoencoder do not fit"),
        (without("layered_autoencoder."), {}, 'no weight begins with "layered_autoencoder."'),
        (without("model."), {}, 'no weight begins with "model.diffusion_model."'),
        (without("nothing"), {"latent_scale": None}, "does not say its latent_scale"),
        (without("nothing"), {"latent_scale": "-1"}, "latent_scale is -1"),
        (without("nothing"), {"prediction": "x0"}, 'predicts "x0"'),
        (without("nothing"), {"layered_autoencoder": '{"colour": 1}'}, "no setting 'colour'"),
        (without("nothing"), {"layered_autoencoder": "{"}, "cannot be used"),
    ],
)
def test_other_files_are_refused_in_one_sentence(folder, change, metadata, sentence):
    with pytest.raises(Text2LayerFileError, match=sentence):
        read_text2layer(resaved(folder, change, **metadata))


def test_an_ordinary_checkpoint_and_damaged_files_are_refused(folder, tmp_path):
    with pytest.raises(Text2LayerFileError, match="ordinary checkpoint.*Load Checkpoint"):
        read_text2layer(CHECKPOINT_FILE)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((folder / "layers.safetensors").read_bytes()[:5000])
    with pytest.raises(Text2LayerFileError, match="Copy the file again"):
        read_text2layer(cut)
    with pytest.raises(Text2LayerFileError, match="no safetensors file"):
        read_text2layer(tmp_path / "model.ckpt")
    assert "There is no Text2Layer file" in StageText2LayerLoader.validate_inputs("gone.safetensors")
    assert StageText2LayerLoader.validate_inputs("layers.safetensors") is True
    assert StageText2LayerLoader.fingerprint_inputs("layers.safetensors") > 0


def test_without_any_file_the_loader_says_how_to_get_one(monkeypatch, tmp_path):
    monkeypatch.setitem(folder_paths.folder_names_and_paths, TEXT2LAYER, ([str(tmp_path)], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    (choice,) = StageText2LayerLoader.define_schema().inputs[0].options
    for name in (choice, "sticker_world_text2layer.safetensors"):
        assert "python stage.py train text2layer" in StageText2LayerLoader.validate_inputs(name)
        with pytest.raises(Text2LayerFileError, match="There is no Text2Layer file yet"):
            StageText2LayerLoader.execute(name)
    (tmp_path / "mine.safetensors").touch()
    assert "found: mine.safetensors" in StageText2LayerLoader.validate_inputs(choice)


# The model


def test_the_file_says_what_the_network_predicts(loaded, folder):
    assert isinstance(loaded[0].model.model_sampling, comfy.model_sampling.V_PREDICTION)
    assert not isinstance(
        load_text2layer("packed.safetensors")[0].model.model_sampling, comfy.model_sampling.V_PREDICTION
    )
    factors = torch.tensor(loaded[0].model.latent_format.latent_rgb_factors)
    assert factors.shape == (4, 3) and factors.abs().max() > 0


def test_networks_of_sd_1_5_get_its_heads():
    plain = {
        "context_dim": 768, "model_channels": 320, "use_linear_in_transformer": False, "adm_in_channels": None,
        "use_temporal_attention": False, "out_channels": 4,
    }  # fmt: skip
    for channels in (4, 8):
        assert Text2LayerConfig(plain | {"in_channels": channels}).unet_config["num_heads"] == 8
    with pytest.raises(Text2LayerFileError, match="none that ComfyUI knows"):
        Text2LayerConfig(plain | {"model_channels": 100, "in_channels": 4})


def test_other_checkpoints_are_still_what_they_were(loaded):
    model = comfy.sd.load_checkpoint_guess_config(str(CHECKPOINT_FILE), output_vae=False, output_clip=False)[0]
    assert type(model.model) is comfy.model_base.BaseModel
    assert comfy.supported_models.models[0] is Text2LayerConfig


def test_training_starts_at_the_model_without_what_lies_below(folder, prompts):
    fresh, alone = (load_text2layer(f"{name}.safetensors")[0] for name in ("fresh", "alone"))
    below = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    expected = sample(alone, prompts)
    for options in ({}, {BELOW: below}):
        torch.testing.assert_close(sample(fresh, prompts, **options), expected, rtol=0, atol=ROUNDING)


class Seen:
    """What the U-Net is given at every call."""

    def __init__(self, model):
        self.inputs, self.model = [], model.clone()
        kind = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
        self.model.add_wrapper_with_key(kind, "test", self.keep)

    def keep(self, executor, x, *args, **kwargs):
        self.inputs.append(x.clone())
        return executor(x, *args, **kwargs)


@pytest.mark.parametrize(("rows", "columns", "batch"), [(8, 8, 1), (5, 11, 2)])
def test_the_network_sees_what_lies_below(loaded, prompts, rows, columns, batch):
    below = torch.randn(1, 4, rows, columns, generator=torch.Generator().manual_seed(5))
    seen = Seen(loaded[0])
    there = sample(seen.model, prompts, batch, rows, columns, **{BELOW: below})
    assert seen.inputs and all(torch.equal(x[:, 4:], below.expand(len(x), -1, -1, -1)) for x in seen.inputs)
    assert all(len(x) == 2 * batch for x in seen.inputs), "text and no text should go through together"
    seen.inputs.clear()
    nothing = sample(seen.model, prompts, batch, rows, columns)
    assert all(not x[:, 4:].any() for x in seen.inputs)
    assert torch.equal(nothing, sample(loaded[0], prompts, batch, rows, columns, **{BELOW: 0 * below}))
    assert not torch.allclose(there, nothing, atol=1e-3)


def test_a_batch_is_its_pictures(loaded, prompts):
    below = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(6))
    both = sample(loaded[0], prompts, 2, **{BELOW: below})
    one = sample(loaded[0], prompts, 1, **{BELOW: below[:1]})
    torch.testing.assert_close(both[:1], one, rtol=0, atol=1e-4)


def test_a_prompt_with_an_area_sees_what_lies_below_there(loaded, prompts):
    below = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    seen = Seen(loaded[0])
    (positive, options), (negative, others) = prompts[0][0], prompts[1][0]
    whole = [[positive, {**options, BELOW: below}]]
    part = [[positive, {**options, BELOW: below, "area": (4, 4, 2, 3), "strength": 1.0}]]
    found = sample(seen.model, (whole + part, [[negative, {**others, BELOW: below}]]))
    small = [x for x in seen.inputs if x.shape[-1] == 4]
    assert small and all(torch.equal(x[:, 4:], below[..., 2:6, 3:7].expand(len(x), -1, -1, -1)) for x in small)
    swapped = sample(loaded[0], (part + whole, [[negative, {**others, BELOW: below}]]))
    torch.testing.assert_close(swapped, found, rtol=0, atol=ROUNDING)


def test_a_lora_changes_layers_and_comes_off_again(loaded, clip):
    before = painted(loaded, clip, "a dog and a cat at night")
    model = loaded[0].clone()
    key = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_q.weight"
    generator = torch.Generator().manual_seed(1)
    assert model.add_patches({key: ("diff", (torch.randn(128, 128, generator=generator),))}, 1.0)
    changed = painted((model, loaded[1]), clip, "a dog and a cat at night")
    assert not torch.equal(changed.background, before.background)
    again = painted(loaded, clip, "a dog and a cat at night")
    assert all(same(*pair) for pair in zip(again.layers, before.layers, strict=True))


# Latents


def layers(batch=2, height=SIDE, width=SIDE):
    generator = torch.Generator().manual_seed(8)
    colours = torch.rand(2, batch, height, width, 3, generator=generator)
    return colours[0], colours[1], torch.rand(batch, height, width, generator=generator)


def test_latents_are_those_of_the_network_at_unit_scale(loaded, folder):
    vae, (foreground, background, mask) = loaded[1], layers()
    network = LayeredAutoencoder(CONFIG).eval()
    network.load_state_dict(read_text2layer(folder / "layers.safetensors").autoencoder)
    raw = network.encode(foreground.movedim(-1, 1), background.movedim(-1, 1), mask[:, None])
    latent = vae.encode(foreground, background, mask)
    torch.testing.assert_close(latent, (raw - SHIFT) * SCALE)
    torch.testing.assert_close(vae.decode(latent).mask, network.decode(raw).mask, rtol=0, atol=ROUNDING)
    torch.testing.assert_close(vae.encode(foreground[:1], background[:1], mask[:1]), latent[:1], rtol=0, atol=ROUNDING)


def test_where_memory_is_short_latents_go_in_tiles(loaded):
    vae = LayeredVae(LayeredAutoencoder(CONFIG), SCALE, SHIFT)
    whole = vae.autoencoder.decode

    def decode(latent):
        if latent.shape[-1] > 64:
            raise comfy.model_management.OOM_EXCEPTION
        return whole(latent)

    vae.autoencoder.decode = decode
    found = vae.decode(torch.randn(1, 4, 16, 80, generator=torch.Generator().manual_seed(1)))
    assert found.composite().shape == (1, 3, 128, 640) and found.composite().isfinite().all()


def test_what_does_not_fit_is_refused_before_the_network(loaded):
    foreground, background, mask = layers(1)
    with pytest.raises(ValueError, match="differ in size"):
        loaded[1].encode(foreground, background[:, :32], mask)
    with pytest.raises(ValueError, match="multiples of 8"):
        loaded[1].encode(foreground[:, :30], background[:, :30], mask[:, :30])
    with pytest.raises(ValueError, match="4 channels"):
        loaded[1].decode(torch.zeros(1, 16, 8, 8))


def test_nodes_encode_and_decode(loaded):
    foreground, background, mask = layers(2, 70, 61)  # cut to whole cells
    (latent,) = StageLayersEncode.execute(foreground, background, loaded[1], mask).args
    assert latent["samples"].shape == (2, 4, 8, 7)
    (again,) = StageLayersEncode.execute(torch.cat([foreground, mask[..., None]], -1), background, loaded[1]).args
    assert torch.equal(again["samples"], latent["samples"])
    (opaque,) = StageLayersEncode.execute(foreground, background, loaded[1]).args
    (full,) = StageLayersEncode.execute(foreground, background, loaded[1], torch.ones_like(mask)).args
    assert torch.equal(opaque["samples"], full["samples"])
    rgba, behind, found, composite, stacks = StageLayersDecode.execute(latent, loaded[1]).args
    assert rgba.shape == (2, 64, 56, 4) and torch.equal(rgba[..., 3], found)
    assert torch.equal(composite, found[..., None] * rgba[..., :3] + (1 - found[..., None]) * behind)
    assert len(stacks) == 2
    assert torch.equal(from_layers(stacks[1]).composite(), composite[1:])


# Layer by layer


def test_each_thing_gets_a_layer_and_what_was_painted_stays(loaded, clip):
    image = painted(loaded, clip, "a dog, a cat and an apple at night")
    assert [layer.name for layer in image.layers] == ["a dog", "a cat", "an apple"]
    two = painted(loaded, clip, "a dog and a cat at night")
    assert torch.equal(two.background, image.background)
    assert all(same(*pair) for pair in zip(two.layers, image.layers, strict=False))
    third = painted(loaded, clip, "an apple at night", below=two)
    assert all(same(*pair) for pair in zip(third.layers, image.layers, strict=True))
    other = painted(loaded, clip, "a dog, a cat and an apple at night", seed=4)
    assert not torch.equal(other.background, image.background)


def test_a_layer_is_replaced_and_the_others_stay(loaded, clip):
    image = painted(loaded, clip, "a dog, a cat and an apple at night")
    again = painted(loaded, clip, "a cat at night", below=image, replaced=2)
    assert all(same(*pair) for pair in zip(again.layers, image.layers, strict=True)), "the same seed, the same layer"
    bus = painted(loaded, clip, "a bus at night", below=image, replaced=2)
    assert [layer.name for layer in bus.layers] == ["a dog", "a bus", "an apple"]
    assert torch.equal(bus.background, image.background)
    assert same(bus.layers[0], image.layers[0]) and same(bus.layers[2], image.layers[2])
    assert not same(bus.layers[1], image.layers[1])
    slightly = painted(loaded, clip, "a bus at night", below=image, replaced=2, sampling=Sampling(3, 10, denoise=0.1))
    assert not same(slightly.layers[1], bus.layers[1])


def test_regions_keep_their_layers(loaded, clip):
    model, vae = loaded
    layout = parse_layout("a dog: 0 0 0.25 1\na cat: 0.5 0.5 1 1", width=SIDE, height=SIDE, background="at night")
    found, decode = [], vae.decode

    def keep(latent):
        found.append(latent)
        return decode(latent)

    vae.decode = keep
    try:
        image = painted(loaded, clip, layout, margin=0)
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
    assert comfy_layer_by_layer._named(clear, "a dog").name == "a dog"
    assert 'the layer "a dog" is empty' in caplog.text
    caplog.clear()
    comfy_layer_by_layer._named(Layer(clear.colour, clear.alpha + 0.2), "a dog")
    assert not caplog.text


def test_a_margin_grows_regions_by_whole_cells():
    region = parse_layout("a dog: 0.5 0.5 0.75 0.75", width=SIDE, height=SIDE).regions[0]
    for margin, first, end in ((0, 4, 6), (1, 3, 7), (8, 3, 7), (9, 2, 8)):
        free = comfy_layer_by_layer._free_cells(region, margin, (SIDE, SIDE), 8)
        expected = torch.zeros(1, 8, 8)
        expected[:, first:end, first:end] = 1
        assert torch.equal(free, expected)


def test_odd_sizes_keep_every_pixel(loaded, clip):
    layout = parse_layout("a dog: 0 0 0.5 1\na cat: 0.4 0 1 1", width=61, height=44, background="at night")
    image = painted(loaded, clip, layout)
    assert image.background.shape == (1, 44, 61, 3) and image.composite().isfinite().all()
    more = painted(loaded, clip, "a bus", below=image)
    assert torch.equal(more.background, image.background) and len(more.layers) == 3


def test_the_node_hands_on_every_input(loaded, clip):
    model, vae = loaded
    given = {
        "prompt": "a dog, a cat", "background": "at night", "seed": 5, "steps": STEPS, "cfg": 3.0,
        "sampler_name": "dpmpp_2m", "scheduler": "karras", "width": SIDE, "height": 48, "negative": "snow",
    }  # fmt: skip
    composite, alpha, (stack,), pictures, masks, background = StageLayerByLayer.execute(model, vae, clip, **given).args
    layout = layout_of_prompt("a dog, a cat", "at night", SIDE, 48)
    image = paint_layers(model, vae, clip, layout, Sampling(5, STEPS, 3.0, "dpmpp_2m", "karras"), negative="snow")
    assert torch.equal(composite, image.composite()) and torch.equal(background, image.background)
    assert torch.equal(pictures, torch.cat([layer.colour for layer in image.layers]))
    assert torch.equal(masks, torch.cat([layer.alpha for layer in image.layers])) and masks.shape == (2, 48, SIDE)
    assert torch.equal(alpha, image.alpha())
    assert torch.equal(from_layers(stack).composite(), composite)
    again = StageLayerByLayer.execute(
        model, vae, clip, **(given | {"prompt": "a bus"}), layers=stack, replace=1, denoise=0.8, layer_prompt="{phrase}"
    ).args
    sampling = Sampling(5, STEPS, 3.0, "dpmpp_2m", "karras", 0.8)
    bus = layout_of_prompt("a bus", "at night", SIDE, 48)
    expected = paint_layers(
        model, vae, clip, bus, sampling, negative="snow", layer_prompt="{phrase}", below=image, replaced=1
    )
    assert torch.equal(again[0], expected.composite())
    placed = parse_layout("a dog: 0 0 0.5 1", width=SIDE, height=48)
    region = StageLayerByLayer.execute(model, vae, clip, **given, layout=placed, margin=4).args
    expected = paint_layers(
        model, vae, clip, placed, Sampling(5, STEPS, 3.0, "dpmpp_2m", "karras"), negative="snow", margin=4
    )
    assert torch.equal(region[0], expected.composite())


def test_cancelling_stops_at_once_and_leaves_nothing_behind(loaded, clip, prompts, monkeypatch):
    before = sample(loaded[0], prompts)
    calls = []

    def stop(self, value, total=None, preview=None):
        calls.append(value)
        comfy.model_management.interrupt_current_processing()

    monkeypatch.setattr(comfy_layer_by_layer.comfy.utils.ProgressBar, "update_absolute", stop)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        painted(loaded, clip, "a dog, a cat and an apple at night")
    monkeypatch.undo()
    assert calls == [1]
    comfy.model_management.interrupt_current_processing(False)
    assert torch.equal(sample(loaded[0], prompts), before)


def test_progress_counts_the_steps_of_all_layers(loaded, clip, monkeypatch):
    seen = []
    monkeypatch.setattr(
        comfy_layer_by_layer.comfy.utils,
        "PROGRESS_BAR_HOOK",
        lambda value, total, *_, **__: seen.append((value, total)),
    )
    painted(loaded, clip, "a dog and a cat at night")
    assert [pair for pair in seen if pair[1] == 2 * STEPS] == [(i + 1, 2 * STEPS) for i in range(2 * STEPS)]


def test_what_cannot_be_meant_is_refused(loaded, folder, clip, model):
    image = painted(loaded, clip, "a dog at night")
    with pytest.raises(ValueError, match="paints pictures without layers"):
        painted((model, loaded[1]), clip, "a dog")
    alone = load_text2layer("alone.safetensors")
    assert len(painted(alone, clip, "a dog at night").layers) == 1
    for refused in ("a dog and a cat", parse_layout("a dog: 0 0 0.5 1", width=SIDE, height=SIDE)):
        with pytest.raises(ValueError, match="cannot be told what lies below"):
            painted(alone, clip, refused)
    with pytest.raises(ValueError, match="Layer 2 is to be replaced, but the connected layers are 1"):
        painted(loaded, clip, "a cat", below=image, replaced=2)
    with pytest.raises(ValueError, match="by 2 new ones"):
        painted(loaded, clip, "a cat and a bus", below=image, replaced=1)
    with pytest.raises(ValueError, match="no layers are connected"):
        painted(loaded, clip, "a cat", replaced=1)
    with pytest.raises(ValueError, match="nothing to keep"):
        painted(loaded, clip, "a cat", below=image, sampling=Sampling(1, STEPS, denoise=0.5))
    with pytest.raises(LayoutError, match="not the shape of the layout's canvas"):
        painted(loaded, clip, parse_layout("a cat: 0 0 0.5 1", width=128, height=64), below=image)
    with pytest.raises(LayoutError, match="placeholder {colour}"):
        painted(loaded, clip, "a cat", layer_prompt="{colour}")


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
