"""Training on a folder of a user's own pictures: what is read, the frozen checkpoint, all stages by the command."""

import comfy.model_detection
import numpy as np
import pytest
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.ops import disable_weight_init as ops
from einops import rearrange
from PIL import Image
from stagecraft.core.compose_and_conquer.comfy import frozen
from stagecraft.core.compose_and_conquer.comfy.frozen import CheckpointError, FrozenCheckpoint
from stagecraft.core.compose_and_conquer.config import FuserConfig
from stagecraft.core.compose_and_conquer.files import read_fusers
from stagecraft.core.compose_and_conquer.global_fuser import TokenConfig
from stagecraft.core.soft_guidance.soft_guidance import SoftGuidance, two_sides
from stagecraft.sticker_world import cli
from stagecraft.sticker_world.checkpoint.shipped_weights import load_diffusion, load_encoder
from stagecraft.sticker_world.compose_and_conquer import frozen_denoiser, own_pictures, train
from stagecraft.sticker_world.compose_and_conquer.picture_folder import (
    BACKGROUND_DEPTHS,
    FOREGROUND_DEPTHS,
    PICTURES,
    PictureFolderError,
    open_pictures,
)
from stagecraft.sticker_world.compose_and_conquer.triplets import OVERLAPPING_COUNTS, OVERLAPPING_SEED, without_nearest
from stagecraft.sticker_world.own_settings import OwnPictures
from stagecraft.sticker_world.shipped import CHECKPOINT_FILE, CLIP_FOLDER
from stagecraft.sticker_world.world.scene import make_scene
from stagecraft.sticker_world.world.vocabulary import vocabulary

NUMBER, SIZE = 3, 64


def write(folder, kind, name, values):
    (folder / kind).mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(folder / kind / name)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A tiny folder as a user's tools make one; the first picture is wider than high, and some depths have 16 bits."""
    folder = tmp_path_factory.mktemp("own") / "stickers"
    for index in range(NUMBER):
        scene = make_scene(OVERLAPPING_SEED, index, counts=OVERLAPPING_COUNTS)
        cut = slice(64, 192) if index == 0 else slice(0, 256)
        mask = scene.objects[-1].mask >= 0.5
        nearest = scene.objects[-1].disparity * mask
        write(folder, "pictures", f"{index}.png", scene.image[cut])
        write(folder, "backgrounds", f"{index}.png", without_nearest(scene)[1][cut])
        write(folder, "masks", f"{index}.png", (255 * mask).astype(np.uint8)[cut])
        write(folder, "foreground_depths", f"{index}.png", (65535 * nearest).astype(np.uint16)[cut])
        write(folder, "background_depths", f"{index}.webp", (255 * scene.disparity()).astype(np.uint8)[cut])
        (folder / "captions").mkdir(exist_ok=True)
        (folder / "captions" / f"{index}.txt").write_text(f"{scene.caption}\n")
    return folder


@pytest.fixture(scope="module")
def checkpoint():
    return FrozenCheckpoint(CHECKPOINT_FILE)


def command(data, *arguments):
    shared = ["--checkpoint", str(CHECKPOINT_FILE), "--size", str(SIZE), "--batch", "2", "--threads", "1"]
    cli.main([*map(str, arguments), "--data", str(data), *shared])


def test_folder_gives_middle_squares_of_everything(data):
    folder = open_pictures(data, SIZE, depths=True, looks=True)
    assert folder.names == tuple(map(str, range(NUMBER)))
    scene = make_scene(OVERLAPPING_SEED, 0, counts=OVERLAPPING_COUNTS)
    middle = (slice(64, 192), slice(64, 192))
    expected = rearrange(torch.from_numpy(scene.image[middle]).float() / 255, "(h a) (w b) c -> c h a w b", a=2, b=2)
    assert (folder.pictures(PICTURES, range(1))[0] - expected.mean((2, 4))).abs().mean() < 0.01
    mask = scene.objects[-1].mask[middle] >= 0.5
    assert (folder.masks(np.array([0]))[0, 0] != torch.from_numpy(mask[::2, ::2])).float().mean() < 0.03
    for kind in (FOREGROUND_DEPTHS, BACKGROUND_DEPTHS):
        depths = folder.depths(kind, np.arange(NUMBER))
        assert depths.shape == (NUMBER, 1, SIZE, SIZE)
        assert depths.amin((1, 2, 3)).tolist() == [0] * NUMBER and depths.amax((1, 2, 3)).tolist() == [1] * NUMBER
    assert folder.captions(range(1)) == [scene.caption]


def test_what_is_missing_in_a_folder_is_named(data, tmp_path):
    with pytest.raises(PictureFolderError, match="no sub-folder pictures and no captions and no masks"):
        open_pictures(tmp_path, SIZE, depths=False, looks=True)
    with pytest.raises(PictureFolderError, match="multiple of 64"):
        open_pictures(data, 100, depths=False, looks=False)
    write(tmp_path, "pictures", "a.png", np.zeros((64, 64, 3), np.uint8))
    (tmp_path / "captions").mkdir()
    with pytest.raises(PictureFolderError, match=r"1 of 1 pictures have no file in .*captions, a first"):
        open_pictures(tmp_path, SIZE, depths=False, looks=False)
    (tmp_path / "captions" / "a.txt").write_text("a dog")
    write(tmp_path, "foreground_depths", "a.png", np.zeros((64, 128), np.uint8))
    write(tmp_path, "background_depths", "a.png", np.zeros((64, 64), np.uint8))
    folder = open_pictures(tmp_path, SIZE, depths=True, looks=False)
    assert not folder.depths(BACKGROUND_DEPTHS, np.array([0])).any()
    with pytest.raises(PictureFolderError, match=r"a.png has 128 x 64 pixels, which is not the shape of .*a.png"):
        folder.depths(FOREGROUND_DEPTHS, np.array([0]))
    (tmp_path / "background_depths" / "a.png").write_bytes(b"no picture")
    with pytest.raises(PictureFolderError, match="cannot be read"):
        folder.depths(BACKGROUND_DEPTHS, np.array([0]))


def test_frozen_checkpoint_equals_the_trained_modules_also_in_its_gradients(checkpoint, monkeypatch):
    monkeypatch.setattr(frozen_denoiser, "use_fast_norms", lambda module: None)
    reference = frozen_denoiser.FrozenDenoiser(load_diffusion(CHECKPOINT_FILE).state_dict())
    captions = ["a dog and a red apple on a green meadow", ""]
    read = reference.read(vocabulary().encode(captions))
    torch.testing.assert_close(checkpoint.read(captions), read, rtol=1e-4, atol=1e-4)
    assert checkpoint.read(["a dog " * 100]).shape == read[:1].shape  # the rest of a long caption does not count
    assert torch.equal(checkpoint.read(["(a dog:1.5)"]), checkpoint.read(["( a dog : 1.5 )"]))
    pictures = torch.rand(1, 3, SIZE, SIZE)
    expected = load_encoder(CHECKPOINT_FILE)(pictures)
    torch.testing.assert_close(checkpoint.encode(pictures), expected, rtol=1e-3, atol=1e-3)
    assert checkpoint.predicts_velocity and checkpoint.config.widths == train.LOCAL.widths
    torch.testing.assert_close(checkpoint.alphas, train.scaled_linear_alphas(), rtol=1e-3, atol=1e-6)

    generator = torch.Generator().manual_seed(0)
    x, t = torch.randn(2, 4, 8, 8, generator=generator), torch.tensor([30, 800])
    shapes = [r.shape for r in train.LocalFuser(train.LOCAL)(x, t, read, *torch.zeros(2, 2, 3, 64, 64))[0]]
    added = [0.1 * torch.randn(shape, generator=generator) for shape in [*shapes, shapes[-1]]]
    tokens, mask = torch.randn(2, 8, read.shape[-1], generator=generator), torch.zeros(2, 64, 64)
    mask[:, 10:40, 20:50] = 1
    results = []
    for model in (checkpoint, reference):
        leaves = [leaf.clone().requires_grad_() for leaf in (*added, tokens)]
        *down, middle, extra = leaves
        guidance = SoftGuidance([mask], two_sides(4))
        out = model(x, t, torch.cat([read, extra], 1), (down, middle), guidance)
        gradients = torch.autograd.grad(out.square().sum(), leaves)
        alone = model(x, t, read, None, None)
        results.append((out, alone, *gradients))
    for ours, theirs in zip(*results, strict=True):
        ours, theirs = ours.detach(), theirs.detach()
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))
    assert not torch.allclose(results[0][0], results[0][1], atol=1e-2)


def test_other_checkpoints_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot open the checkpoint|text encoder"):
        FrozenCheckpoint(CLIP_FOLDER / "model.safetensors")


@pytest.mark.parametrize("family", ["SD15", "SD20", "SDXL"])
def test_shapes_follow_from_the_unet_as_comfyui_detects_it(family):
    """Real architectures without their weights: SD 1.5 gets the published fuser, others none."""
    shapes = {
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 320,
        "use_spatial_transformer": True,
        "legacy": False,
    }
    shapes |= {
        "SD15": {"channel_mult": (1, 2, 4, 4), "num_res_blocks": [2] * 4, "num_heads": 8, "context_dim": 768}
        | {"transformer_depth": [1] * 6 + [0] * 2, "transformer_depth_output": [1] * 9 + [0] * 3},
        "SD20": {"channel_mult": (1, 2, 4, 4), "num_res_blocks": [2] * 4, "num_head_channels": 64, "context_dim": 1024}
        | {"transformer_depth": [1] * 6 + [0] * 2, "transformer_depth_output": [1] * 9 + [0] * 3}
        | {"use_linear_in_transformer": True},
        "SDXL": {"channel_mult": (1, 2, 4), "num_res_blocks": [2] * 3, "num_head_channels": 64, "context_dim": 2048}
        | {"transformer_depth": [0, 0, 2, 2, 10, 10], "transformer_depth_output": [0] * 3 + [2] * 3 + [10] * 3}
        | {"use_linear_in_transformer": True, "num_classes": "sequential", "adm_in_channels": 2816},
    }[family]
    with torch.device("meta"):
        network = UNetModel(**shapes, transformer_depth_middle=shapes["transformer_depth"][-1] or 1, operations=ops)
    found = comfy.model_detection.model_config_from_unet(network.state_dict(prefix="x."), "x.").unet_config
    if family == "SD15":
        assert frozen._is_sd1(found) and frozen._fuser_config(found) == FuserConfig()
        with torch.device("meta"):
            fusers = train.Fusers(depths=True, looks=True, local=FuserConfig(), tokens=TokenConfig())
        fusers.clone_encoder(network.state_dict())  # refuses weights that are missing or have another shape
        assert sum(weight.numel() for weight in fusers.parameters()) == 411_807_104 + 94_427_136  # as published
    else:
        assert not frozen._is_sd1(found)


def test_all_stages_through_the_command_resume_and_make_files(data, tmp_path, monkeypatch, capsys):
    weights, others = tmp_path / "weights", tmp_path / "others"
    command(data, "cnc_local", "--steps", 2, "--folder", weights, "--learning-rate", 0.01)
    original = own_pictures.train

    def break_off(part, module, loss_of_step, **options):
        def loss(step):
            if step == 1:
                raise KeyboardInterrupt
            return loss_of_step(step)

        return original(part, module, loss, **{**options, "save_every": 0.0})

    monkeypatch.setattr(own_pictures, "train", break_off)
    with pytest.raises(KeyboardInterrupt):
        command(data, "cnc_local", "--steps", 2, "--folder", others, "--learning-rate", 0.01)
    monkeypatch.setattr(own_pictures, "train", original)
    monkeypatch.setattr(FrozenCheckpoint, "encode", None)  # what is encoded already is not encoded again
    command(data, "cnc_local", "--steps", 2, "--folder", others, "--learning-rate", 0.01)
    name = "stickers_cnc_local_fp16.safetensors"
    local, resumed = (read_fusers(folder / name) for folder in (weights, others))
    assert local.config == train.LOCAL and all(torch.equal(local.local[k], v) for k, v in resumed.local.items())
    assert local.local["zero_convs.2.0.weight"].any() and local.global_ is None

    command(data, "cnc_joint", "cnc_global", "--steps", 1, "--folder", weights)
    assert "for ComfyUI's models/cnc" in capsys.readouterr().out
    joint = read_fusers(weights / "stickers_cnc_joint_fp16.safetensors")
    assert joint.config == train.LOCAL and joint.tokens == train.LOOKS
    # One step of 1e-5 in the warm-up: nearly where the stages before it stopped.
    assert (joint.local["zero_convs.2.0.weight"] - local.local["zero_convs.2.0.weight"]).abs().max() < 1e-4
    started = weights / "stickers_cnc_joint_fp16.safetensors"
    command(data, "cnc_global", "--steps", 1, "--folder", others, "--start", started)
    third = read_fusers(others / "stickers_cnc_global_fp16.safetensors")
    assert (third.global_["norm1_fg.weight"] - joint.global_["norm1_fg.weight"]).abs().max() < 1e-3


def test_looks_for_another_checkpoint_need_its_clip(checkpoint, data, tmp_path, monkeypatch):
    settings = OwnPictures(data=data, checkpoint=CHECKPOINT_FILE, folder=tmp_path)
    assert own_pictures._clip_folder(checkpoint, settings) == CLIP_FOLDER
    monkeypatch.setattr(checkpoint, "config", FuserConfig())
    with pytest.raises(PictureFolderError, match="clip-vit-large-patch14"):
        own_pictures._clip_folder(checkpoint, settings)


def test_wrong_commands_are_refused_with_a_sentence(data, tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(["cnc_local", "--checkpoint", str(CHECKPOINT_FILE)])
    assert "name their folder with --data" in capsys.readouterr().err
    for arguments, message in (
        (("segmenter",), "--data is for cnc_local, cnc_global, cnc_joint, or for text2layer alone, not for segmenter"),
        (("cnc_local", "--start", tmp_path / "nothing"), "there is no"),
    ):
        with pytest.raises(SystemExit):
            command(data, *arguments)
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit, match="no sub-folder pictures"):
        command(tmp_path, "cnc_local")
    with pytest.raises(SystemExit, match="cnc_joint goes on from cnc_local, which is not trained yet"):
        command(data, "cnc_joint", "--folder", tmp_path)
    with pytest.raises(SystemExit, match="CLIP in the Hugging Face layout"):
        command(data, "cnc_global", "--folder", tmp_path, "--clip-vision", tmp_path)
