"""Training of Text2Layer on a folder of a user's own layers: what is read, the trained U-Net, and the whole command."""

import comfy.model_management
import numpy as np
import pytest
import torch
from PIL import Image
from stagecraft.core.compose_and_conquer.comfy.frozen import FrozenCheckpoint
from stagecraft.core.text2layer.comfy.trainable import TrainableUNet
from stagecraft.core.text2layer.files import V, read_text2layer
from stagecraft.sticker_world import cli
from stagecraft.sticker_world.compose_and_conquer.picture_folder import PictureFolderError
from stagecraft.sticker_world.shipped import CHECKPOINT_FILE
from stagecraft.sticker_world.text2layer import own_layers
from stagecraft.sticker_world.text2layer.autoencoder import EMBEDDED
from stagecraft.sticker_world.text2layer.layer_folder import open_layer_folder
from stagecraft.sticker_world.text2layer.perceptual import load_lpips
from stagecraft.sticker_world.text2layer.samples import whole_sample
from stagecraft.sticker_world.world.dataset import TRAINING_SEED
from stagecraft.sticker_world.world.scene import make_scene

NUMBER, SIZE = 3, 128


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A tiny folder as Split Layers writes it; the first picture is wider than high."""
    folder = tmp_path_factory.mktemp("own") / "stickers"
    for index in range(NUMBER):
        sample = whole_sample(make_scene(TRAINING_SEED, index))
        cut = slice(64, 192) if index == 0 else slice(0, 256)
        for kind in ("foreground", "background", "mask"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(getattr(sample, kind)[cut]).save(folder / kind / f"{index}.png")
        (folder / "captions").mkdir(exist_ok=True)
        (folder / "captions" / f"{index}.txt").write_text(f"{sample.caption}\n")
    return folder


@pytest.fixture(scope="module")
def checkpoint():
    return FrozenCheckpoint(CHECKPOINT_FILE)


def command(data, *arguments):
    shared = ["--checkpoint", str(CHECKPOINT_FILE), "--size", str(SIZE), "--batch", "2", "--threads", "1"]
    cli.main(["text2layer", *map(str, arguments), "--data", str(data), *shared])


def test_folder_gives_middle_squares_with_soft_masks(data):
    folder, sample = open_layer_folder(data, SIZE), whole_sample(make_scene(TRAINING_SEED, 0))
    stacks = folder.stacks(np.arange(NUMBER))
    assert stacks.shape == (NUMBER, SIZE, SIZE, 7)
    assert (stacks[0] == sample.stack()[64:192, 64:192]).all()  # as large as it is, nothing is resampled
    soft = (stacks[..., -1] > 0) & (stacks[..., -1] < 255)
    assert soft.any() and folder.folder.captions(range(1)) == [sample.caption]


def test_resized_foregrounds_keep_their_colour_up_to_the_edge(tmp_path):
    mask = np.zeros((2 * SIZE, 2 * SIZE), np.uint8)
    mask[51:201, 53:190] = 255
    colour = np.array([200, 100, 40], np.uint8)
    pictures = {"foreground": colour * (mask > 0)[..., None], "background": np.full_like(mask, 9), "mask": mask}
    for kind, picture in pictures.items():
        (tmp_path / kind).mkdir()
        Image.fromarray(picture).save(tmp_path / kind / "a.png")
    (tmp_path / "captions").mkdir()
    (tmp_path / "captions" / "a.txt").write_text("a box")
    (stack,) = open_layer_folder(tmp_path, SIZE).stacks(range(1))
    edge = (stack[..., -1] > 0) & (stack[..., -1] < 255)
    assert edge.any() and (stack[stack[..., -1] > 0, :3] == colour).all()
    assert not stack[stack[..., -1] == 0, :3].any() and (stack[..., 3:6] == 9).all()


def test_what_is_missing_in_a_folder_is_named(data, tmp_path):
    with pytest.raises(PictureFolderError, match="no sub-folder background and no foreground and no mask"):
        open_layer_folder(tmp_path, SIZE)
    with pytest.raises(PictureFolderError, match="multiple of 64"):
        open_layer_folder(data, 100)
    for kind in ("foreground", "background", "mask", "captions"):
        (tmp_path / kind).mkdir()
    with pytest.raises(PictureFolderError, match="no pictures in"):
        open_layer_folder(tmp_path, SIZE)
    for kind in ("foreground", "background", "mask"):
        Image.new("L", (64, 64)).save(tmp_path / kind / "a.png")
    with pytest.raises(PictureFolderError, match=r"1 of 1 masks have no file in .*captions, a first"):
        open_layer_folder(tmp_path, SIZE)


def test_the_trained_unet_starts_as_the_checkpoints_and_learns(checkpoint):
    unet = TrainableUNet(checkpoint.shapes, checkpoint.ldm_weights(), 8).to(checkpoint.device)
    x, t = torch.randn(2, 4, 16, 16), torch.tensor([30, 800])
    context = checkpoint.read(["a dog", ""])
    checkpoint.prepare()
    with torch.no_grad():
        expected = checkpoint(x, t, context, None, None)
    given = unet(torch.cat([x, torch.randn_like(x)], 1), t, context)
    torch.testing.assert_close(given.detach(), expected, rtol=1e-3, atol=1e-4)
    given.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in unet.parameters())
    assert unet.network.input_blocks[0][0].weight.grad[:, 4:].any()
    assert not any(weight.requires_grad for weight in checkpoint.ldm_weights().values())
    comfy.model_management.unload_all_models()


def test_the_command_trains_resumes_and_makes_a_file_that_opens(data, tmp_path, monkeypatch, capsys):
    weights, others = tmp_path / "weights", tmp_path / "others"
    command(data, "--steps", 3, "--folder", weights, "--learning-rate", 0.01)
    assert "for ComfyUI's models/text2layer" in capsys.readouterr().out
    original = own_layers.train

    def break_off(part, module, loss_of_step, **options):
        def loss(step):
            if (part, step) == ("t2l_layers", 2):
                raise KeyboardInterrupt
            return loss_of_step(step)

        return original(part, module, loss, **{**options, "save_every": 0.0})

    monkeypatch.setattr(own_layers, "train", break_off)
    with pytest.raises(KeyboardInterrupt):
        command(data, "--steps", 3, "--folder", others, "--learning-rate", 0.01)
    monkeypatch.setattr(own_layers, "train", original)
    monkeypatch.setattr(own_layers.LayeredAutoencoder, "encode", None)  # what is encoded is not encoded again
    command(data, "--steps", 3, "--folder", others, "--learning-rate", 0.01)
    monkeypatch.undo()
    name = "stickers_text2layer_fp16.safetensors"
    file, resumed = (read_text2layer(folder / name) for folder in (weights, others))
    assert file.takes_below and file.prediction == V and file.config == EMBEDDED
    assert file.scale > 0 and (file.scale, file.shift) == (resumed.scale, resumed.shift)
    for ours, theirs in ((file.unet, resumed.unet), (file.autoencoder, resumed.autoencoder)):
        assert all(torch.equal(ours[key], value) for key, value in theirs.items())
    assert file.unet["input_blocks.0.0.weight"][:, 4:].any()

    # On from a file: its autoencoder and its scale stay, its U-Net goes on.
    command(data, "--steps", 1, "--folder", tmp_path / "third", "--start", weights / name)
    third = read_text2layer(tmp_path / "third" / name)
    assert third.scale == file.scale and not (tmp_path / "third" / "t2l_autoencoder.state.pt").exists()
    assert all(torch.equal(file.autoencoder[key], value) for key, value in third.autoencoder.items())
    key = "input_blocks.0.0.weight"
    assert 0 < (third.unet[key].float() - file.unet[key].float()).abs().max() < 1e-3


def test_wrong_commands_are_refused_with_a_sentence(data, tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(["text2layer", "cnc_local", "--data", str(data), "--checkpoint", str(CHECKPOINT_FILE)])
    assert "or for text2layer alone, not for text2layer" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["text2layer", "--lpips", str(CHECKPOINT_FILE)])
    assert "name their folder with --data" in capsys.readouterr().err
    for part, option, sentence in (
        ("text2layer", "--clip-vision", "--clip-vision is for cnc_local, cnc_global, cnc_joint"),
        ("cnc_local", "--lpips", "--lpips is for text2layer"),
    ):
        with pytest.raises(SystemExit):
            cli.main([part, "--data", str(data), "--checkpoint", str(CHECKPOINT_FILE), option, str(CHECKPOINT_FILE)])
        assert sentence in capsys.readouterr().err
    with pytest.raises(SystemExit, match="no sub-folder background"):
        command(tmp_path)
    with pytest.raises(SystemExit, match="ordinary checkpoint"):
        command(data, "--start", CHECKPOINT_FILE, "--folder", tmp_path)


def test_lpips_comes_out_of_a_file_of_the_users(tmp_path):
    path = tmp_path / "lpips.pt"
    try:
        from lpips import LPIPS
    except ImportError:
        with pytest.raises(ValueError, match="pip install lpips"):
            load_lpips(path, torch.device("cpu"))
        return
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="does not hold the weights of LPIPS"):
        load_lpips(path, torch.device("cpu"))
    network = LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False).eval()
    torch.save(network.state_dict(), path)
    pictures = torch.rand(2, 1, 3, 64, 64)
    with torch.no_grad():
        expected = network(*(pictures * 2 - 1)).mean()
        torch.testing.assert_close(load_lpips(path, torch.device("cpu"))(*pictures), expected)
