"""Text2Layer in a real sampler: files, latents, what lies below, and pictures that are painted layer by layer."""

import comfy.model_management
import comfy.model_sampling
import comfy.patcher_extension
import comfy.sd
import comfy.supported_models
import folder_paths
import pytest
import torch
from safetensors.torch import load_file, save_file
from stagecraft.core.layers.layered_image import LayeredImageError, from_layers
from stagecraft.core.text2layer.autoencoder import LayeredAutoencoder
from stagecraft.core.text2layer.comfy.model import BELOW, TEXT2LAYER, Text2LayerConfig, load_text2layer
from stagecraft.core.text2layer.comfy.vae import LayeredVae
from stagecraft.core.text2layer.files import (
    EPS,
    FIRST,
    Text2LayerFileError,
    V,
    read_text2layer,
)
from stagecraft.nodes.text2layer.text2layer import StageLayersDecode, StageLayersEncode, StageText2LayerLoader
from stagecraft.sticker_world.shipped import CHECKPOINT_FILE
from stagecraft.tests.comfy.text2layer.small_text2layer import (
    CONFIG,
    ROUNDING,
    SCALE,
    SHIFT,
    SIDE,
    painted,
    random_unet,
    same,
    sample,
)

pytestmark = pytest.mark.usefixtures("no_gradients")

# Files


def test_a_file_comes_back_as_it_was_written(text2layer_folder):
    file = read_text2layer(text2layer_folder / "layers.safetensors")
    assert (file.config, file.scale, file.shift, file.prediction) == (CONFIG, SCALE, SHIFT, V)
    assert file.takes_below and not read_text2layer(text2layer_folder / "alone.safetensors").takes_below
    expected = random_unet(8)
    assert file.unet.keys() == expected.keys()
    assert all(torch.equal(file.unet[key], value.half()) for key, value in expected.items())
    packed = read_text2layer(text2layer_folder / "packed.safetensors")
    assert packed.prediction == EPS
    assert (text2layer_folder / "packed.safetensors").stat().st_size < 0.6 * (
        text2layer_folder / "layers.safetensors"
    ).stat().st_size
    error = (packed.unet[FIRST].float() - expected[FIRST]).norm() / expected[FIRST].norm()
    assert error < 0.05


def resaved(text2layer_folder, change=lambda tensors: tensors, **metadata):
    from safetensors import safe_open

    with safe_open(text2layer_folder / "layers.safetensors", "pt") as file:
        known = file.metadata()
    known = {key: value for key, value in (known | metadata).items() if value is not None}
    save_file(
        change(load_file(text2layer_folder / "layers.safetensors")), text2layer_folder / "broken.safetensors", known
    )
    return text2layer_folder / "broken.safetensors"


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
        (without("nothing"), {"layered_autoencoder": '{"block_out_channels": []}'}, "cannot be used"),
        (without("nothing"), {"layered_autoencoder": '{"norm_num_groups": 0}'}, "cannot be used"),
    ],
)
def test_other_files_are_refused_in_one_sentence(text2layer_folder, change, metadata, sentence):
    with pytest.raises(Text2LayerFileError, match=sentence):
        read_text2layer(resaved(text2layer_folder, change, **metadata))


def test_a_unet_that_is_not_whole_is_refused(text2layer_folder):
    resaved(text2layer_folder, without("model.diffusion_model.out.0.weight"))
    with pytest.raises(Text2LayerFileError, match="broken.safetensors lacks 1 weights of its U-Net, out.0.weight"):
        load_text2layer("broken.safetensors")


def test_prompts_of_another_checkpoint_are_refused(text2layer):
    prompts = [[[torch.zeros(1, 77, 768), {}]]] * 2
    with pytest.raises(Text2LayerFileError, match="768 values for each word; this Text2Layer file reads 128"):
        sample(text2layer[0], prompts)


def test_an_ordinary_checkpoint_and_damaged_files_are_refused(text2layer_folder, tmp_path):
    with pytest.raises(Text2LayerFileError, match="ordinary checkpoint.*Load Checkpoint"):
        read_text2layer(CHECKPOINT_FILE)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((text2layer_folder / "layers.safetensors").read_bytes()[:5000])
    with pytest.raises(Text2LayerFileError, match="Copy the file again"):
        read_text2layer(cut)
    with pytest.raises(Text2LayerFileError, match="no safetensors file"):
        read_text2layer(tmp_path / "model.ckpt")
    assert "There is no Text2Layer file" in StageText2LayerLoader.validate_inputs("gone.safetensors")
    assert StageText2LayerLoader.validate_inputs("layers.safetensors") is True
    assert StageText2LayerLoader.fingerprint_inputs("layers.safetensors")


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


def test_the_file_says_what_the_network_predicts(text2layer, text2layer_folder):
    assert isinstance(text2layer[0].model.model_sampling, comfy.model_sampling.V_PREDICTION)
    assert not isinstance(
        load_text2layer("packed.safetensors")[0].model.model_sampling, comfy.model_sampling.V_PREDICTION
    )
    factors = torch.tensor(text2layer[0].model.latent_format.latent_rgb_factors)
    assert factors.shape == (4, 3) and factors.abs().max() > 0


def test_networks_of_sd_1_5_get_its_heads():
    plain = {
        "context_dim": 768,
        "model_channels": 320,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
        "use_temporal_attention": False,
        "out_channels": 4,
    }
    for channels in (4, 8):
        assert Text2LayerConfig(plain | {"in_channels": channels}).unet_config["num_heads"] == 8
    with pytest.raises(Text2LayerFileError, match="none that ComfyUI knows"):
        Text2LayerConfig(plain | {"model_channels": 100, "in_channels": 4})


def test_other_checkpoints_are_still_what_they_were(text2layer):
    model = comfy.sd.load_checkpoint_guess_config(str(CHECKPOINT_FILE), output_vae=False, output_clip=False)[0]
    assert type(model.model) is comfy.model_base.BaseModel
    # Where it stands depends on what else was registered before in this process.
    assert comfy.supported_models.models.count(Text2LayerConfig) == 1


def test_training_starts_at_the_model_without_what_lies_below(text2layer_folder, sticker_prompts):
    fresh, alone = (load_text2layer(f"{name}.safetensors")[0] for name in ("fresh", "alone"))
    below = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    expected = sample(alone, sticker_prompts)
    for options in ({}, {BELOW: below}):
        torch.testing.assert_close(sample(fresh, sticker_prompts, **options), expected, rtol=0, atol=ROUNDING)


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
def test_the_network_sees_what_lies_below(text2layer, sticker_prompts, rows, columns, batch):
    below = torch.randn(1, 4, rows, columns, generator=torch.Generator().manual_seed(5))
    seen = Seen(text2layer[0])
    there = sample(seen.model, sticker_prompts, batch, rows, columns, **{BELOW: below})
    assert seen.inputs and all(torch.equal(x[:, 4:], below.expand(len(x), -1, -1, -1)) for x in seen.inputs)
    assert all(len(x) == 2 * batch for x in seen.inputs), "text and no text should go through together"
    seen.inputs.clear()
    nothing = sample(seen.model, sticker_prompts, batch, rows, columns)
    assert all(not x[:, 4:].any() for x in seen.inputs)
    assert torch.equal(nothing, sample(text2layer[0], sticker_prompts, batch, rows, columns, **{BELOW: 0 * below}))
    assert not torch.allclose(there, nothing, atol=1e-3)


def test_a_batch_is_its_pictures(text2layer, sticker_prompts):
    below = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(6))
    both = sample(text2layer[0], sticker_prompts, 2, **{BELOW: below})
    one = sample(text2layer[0], sticker_prompts, 1, **{BELOW: below[:1]})
    torch.testing.assert_close(both[:1], one, rtol=0, atol=1e-4)


def test_a_prompt_with_an_area_sees_what_lies_below_there(text2layer, sticker_prompts):
    below = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    seen = Seen(text2layer[0])
    (positive, options), (negative, others) = sticker_prompts[0][0], sticker_prompts[1][0]
    whole = [[positive, {**options, BELOW: below}]]
    part = [[positive, {**options, BELOW: below, "area": (4, 4, 2, 3), "strength": 1.0}]]
    found = sample(seen.model, (whole + part, [[negative, {**others, BELOW: below}]]))
    small = [x for x in seen.inputs if x.shape[-1] == 4]
    assert small and all(torch.equal(x[:, 4:], below[..., 2:6, 3:7].expand(len(x), -1, -1, -1)) for x in small)
    swapped = sample(text2layer[0], (part + whole, [[negative, {**others, BELOW: below}]]))
    torch.testing.assert_close(swapped, found, rtol=0, atol=ROUNDING)


def test_a_lora_changes_layers_and_comes_off_again(text2layer, sticker_clip):
    before = painted(text2layer, sticker_clip, "a dog and a cat at night")
    model = text2layer[0].clone()
    key = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_q.weight"
    generator = torch.Generator().manual_seed(1)
    assert model.add_patches({key: ("diff", (torch.randn(128, 128, generator=generator),))}, 1.0)
    changed = painted((model, text2layer[1]), sticker_clip, "a dog and a cat at night")
    assert not torch.equal(changed.background, before.background)
    again = painted(text2layer, sticker_clip, "a dog and a cat at night")
    assert all(same(*pair) for pair in zip(again.layers, before.layers, strict=True))


# Latents


def layers(batch=2, height=SIDE, width=SIDE):
    generator = torch.Generator().manual_seed(8)
    colours = torch.rand(2, batch, height, width, 3, generator=generator)
    return colours[0], colours[1], torch.rand(batch, height, width, generator=generator)


def test_latents_are_those_of_the_network_at_unit_scale(text2layer, text2layer_folder):
    vae, (foreground, background, mask) = text2layer[1], layers()
    network = LayeredAutoencoder(CONFIG).eval()
    network.load_state_dict(read_text2layer(text2layer_folder / "layers.safetensors").autoencoder)
    raw = network.encode(foreground.movedim(-1, 1), background.movedim(-1, 1), mask[:, None])
    latent = vae.encode(foreground, background, mask)
    torch.testing.assert_close(latent, (raw - SHIFT) * SCALE)
    torch.testing.assert_close(vae.decode(latent).mask, network.decode(raw).mask, rtol=0, atol=ROUNDING)
    torch.testing.assert_close(vae.encode(foreground[:1], background[:1], mask[:1]), latent[:1], rtol=0, atol=ROUNDING)


def test_where_memory_is_short_latents_go_in_tiles(text2layer):
    vae = LayeredVae(LayeredAutoencoder(CONFIG), SCALE, SHIFT)
    whole = vae.autoencoder.decode

    def decode(latent):
        if latent.shape[-1] > 64:
            raise comfy.model_management.OOM_EXCEPTION
        return whole(latent)

    vae.autoencoder.decode = decode
    found = vae.decode(torch.randn(1, 4, 16, 80, generator=torch.Generator().manual_seed(1)))
    assert found.composite().shape == (1, 3, 128, 640) and found.composite().isfinite().all()


def test_what_does_not_fit_is_refused_before_the_network(text2layer):
    foreground, background, mask = layers(1)
    with pytest.raises(ValueError, match="differ in size"):
        text2layer[1].encode(foreground, background[:, :32], mask)
    with pytest.raises(ValueError, match="multiples of 8"):
        text2layer[1].encode(foreground[:, :30], background[:, :30], mask[:, :30])
    with pytest.raises(ValueError, match="4 channels"):
        text2layer[1].decode(torch.zeros(1, 16, 8, 8))


def test_nodes_encode_and_decode(text2layer):
    foreground, background, mask = layers(2, 70, 61)  # cut to whole cells
    (latent,) = StageLayersEncode.execute(foreground, background, text2layer[1], mask).args
    assert latent["samples"].shape == (2, 4, 8, 7)
    (again,) = StageLayersEncode.execute(torch.cat([foreground, mask[..., None]], -1), background, text2layer[1]).args
    assert torch.equal(again["samples"], latent["samples"])
    nothing = torch.where(mask[..., None] > 0, foreground, float("nan"))  # as 0 / 0 leaves it where nothing is seen
    (divided,) = StageLayersEncode.execute(nothing, background, text2layer[1], mask).args
    assert torch.equal(divided["samples"], latent["samples"])
    grey, clear = background[..., :1], torch.cat([background, torch.zeros_like(background[..., :1])], -1)
    (found,) = StageLayersEncode.execute(foreground, grey, text2layer[1], mask).args
    (expected,) = StageLayersEncode.execute(foreground, grey.expand_as(background), text2layer[1], mask).args
    assert torch.equal(found["samples"], expected["samples"])
    with pytest.raises(LayeredImageError, match="background can be seen through"):
        StageLayersEncode.execute(foreground, clear, text2layer[1], mask)
    (opaque,) = StageLayersEncode.execute(foreground, background, text2layer[1]).args
    (full,) = StageLayersEncode.execute(foreground, background, text2layer[1], torch.ones_like(mask)).args
    assert torch.equal(opaque["samples"], full["samples"])
    rgba, behind, found, composite, stacks = StageLayersDecode.execute(latent, text2layer[1]).args
    assert rgba.shape == (2, 64, 56, 4) and torch.equal(rgba[..., 3], found)
    assert torch.equal(composite, found[..., None] * rgba[..., :3] + (1 - found[..., None]) * behind)
    assert len(stacks) == 2
    assert torch.equal(from_layers(stacks[1]).composite(), composite[1:])
