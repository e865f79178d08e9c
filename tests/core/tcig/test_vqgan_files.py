"""VQGANs from files: diffusers' folders, and taming-transformers' weights against a forward pass of our own."""

import json
import pickle
import sys

import pytest
import torch
from diffusers import VQModel
from safetensors.torch import load_file, save_file
from stagecraft.core.tcig.vqgan import CONFIG, WEIGHTS, VQGANFileError
from stagecraft.core.tcig.vqgan_files import load_vqgan
from stagecraft.core.weights.packed import pack_weights
from stagecraft.tests.core.tcig.small_taming import Taming, taming_weights


def nearest(codes, latent):
    distances = (latent[:, None] - codes[None, :, :, None, None]).square().sum(2)
    return codes[distances.argmin(1)].movedim(-1, 1)


@pytest.fixture(scope="module")
def weights():
    return taming_weights()


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return VQModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        num_vq_embeddings=8,
        norm_num_groups=4,
    ).eval()


@pytest.fixture
def folder(small, tmp_path):
    small.save_pretrained(tmp_path / "small")
    return tmp_path / "small"


def require_same(vqgan, weights, tolerance):
    reference, pictures = Taming(weights), torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    latent, codes = reference.encode(2 * pictures - 1), weights["quantize.embedding.weight"]
    network = vqgan.network
    found = network.quant_conv(network.encoder(2 * pictures - 1))
    assert latent.shape == (2, 3, 8, 12)
    torch.testing.assert_close(found, latent, atol=tolerance, rtol=tolerance)
    chosen = nearest(codes, latent)
    assert len(chosen.flatten(2).unique(dim=2)[0].T.unique(dim=0)) > 2, "the codes are all the same"
    painted = (reference.decode(chosen) + 1) / 2
    torch.testing.assert_close(vqgan.decode(chosen), painted.clamp(0, 1), atol=tolerance, rtol=tolerance)
    if tolerance < 1e-3:
        torch.testing.assert_close(vqgan.encode(pictures), chosen)


def test_taming_weights_give_what_taming_gives(weights, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({**weights, "loss.discriminator.main.0.weight": torch.zeros(3)}, path)
    vqgan = load_vqgan(path)
    assert vqgan.factor == 2 and vqgan.name == "model"
    require_same(vqgan, weights, 1e-4)
    assert not any(each.requires_grad for each in vqgan.network.parameters())


def test_a_checkpoint_of_a_transformer_has_its_vqgan_in_it(weights, tmp_path):
    whole = {f"first_stage_model.{name}": each for name, each in weights.items()} | {"transformer.x": torch.zeros(2)}
    torch.save({"state_dict": whole}, tmp_path / "net2net.ckpt")
    require_same(load_vqgan(tmp_path / "net2net.ckpt"), weights, tolerance=2e-2)
    assert load_file(tmp_path / "net2net.safetensors").keys() == weights.keys()


def test_a_file_of_diffusers_names_needs_its_configuration(small, tmp_path):
    save_file(small.state_dict(), tmp_path / "alone.safetensors")
    with pytest.raises(VQGANFileError, match="diffusers' names.*config.json into a folder"):
        load_vqgan(tmp_path / "alone.safetensors")


def test_a_published_checkpoint_is_opened_and_kept(weights, tmp_path):
    checkpoint = tmp_path / "vqgan.ckpt"
    torch.save({"epoch": 3, "state_dict": {**weights, "loss.logits_laplace": torch.zeros(2)}}, checkpoint)
    halves = {name: each.half().float() for name, each in weights.items()}
    first = load_vqgan(checkpoint)
    require_same(first, halves, 1e-4)
    kept = tmp_path / "vqgan.safetensors"
    assert load_file(kept).keys() == weights.keys() and first.name == "vqgan"
    latent = torch.rand(1, 3, 4, 4)
    for path in (checkpoint, kept):  # the second reading is of what is kept
        assert torch.equal(load_vqgan(path).decode(latent), first.decode(latent))


class Harmful:
    def __reduce__(self):
        return print, ("run",)


def test_nothing_of_a_checkpoint_is_run(weights, tmp_path, capsys):
    checkpoint = tmp_path / "vqgan.ckpt"
    checkpoint.write_bytes(pickle.dumps({"state_dict": Harmful()}, protocol=2))
    with pytest.raises(VQGANFileError, match="not opened|cannot be read|no checkpoint"):
        load_vqgan(checkpoint)
    torch.save({"state_dict": weights, "callbacks": Harmful()}, checkpoint)
    with pytest.raises(VQGANFileError, match="holds more than tensors.*taming-transformers"):
        load_vqgan(checkpoint)
    assert "run" not in capsys.readouterr().out and list(tmp_path.iterdir()) == [checkpoint]


def test_a_diffusers_folder_gives_what_diffusers_gives(small, folder):
    vqgan = load_vqgan(folder)
    pictures = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        latent = small.encode(2 * pictures - 1).latents
        expected = small.decode(latent).sample
        torch.testing.assert_close(vqgan.decode(latent), ((expected + 1) / 2).clamp(0, 1))
        torch.testing.assert_close(vqgan.decode(vqgan.encode(pictures)), vqgan.decode(latent))


def test_weights_are_normal_tensors_even_when_loaded_in_inference_mode(folder):
    with torch.inference_mode():
        vqgan = load_vqgan(folder)
    latent = torch.zeros(1, 4, 2, 2, requires_grad=True)
    vqgan.decode(latent).sum().backward()
    assert latent.grad.abs().sum() > 0


def test_half_precision_packed_and_old_names_are_opened(small, folder, tmp_path):
    latent = torch.rand(1, 4, 4, 4)
    expected = load_vqgan(folder).decode(latent)
    save_file({name: each.half() for name, each in small.state_dict().items()}, folder / WEIGHTS)
    torch.testing.assert_close(load_vqgan(folder).decode(latent), expected, atol=5e-3, rtol=0)
    tensors, metadata = pack_weights(small.state_dict(), 8)
    save_file(tensors, folder / WEIGHTS, metadata=metadata)
    torch.testing.assert_close(load_vqgan(folder).decode(latent), expected, atol=2e-2, rtol=0)
    old = {new: was for was, new in ((".query.", ".to_q."), (".key.", ".to_k."), (".proj_attn.", ".to_out.0."))}
    renamed = {}
    for name, each in small.state_dict().items():
        for new, was in old.items():
            name = name.replace(new, was)
        renamed[name] = each
    assert renamed.keys() != small.state_dict().keys()
    save_file(renamed, folder / WEIGHTS)
    assert torch.equal(load_vqgan(folder).decode(latent), expected)


def test_a_folder_that_is_no_vqgan_is_refused_in_a_sentence(folder, tmp_path):
    def refusal(path=folder):
        with pytest.raises(VQGANFileError) as error:
            load_vqgan(path)
        assert str(error.value).endswith(".") and "\n" not in str(error.value).split("(")[0]
        return str(error.value)

    assert "missing" in refusal(tmp_path / "nowhere")
    whole = (folder / WEIGHTS).read_bytes()
    weights = {name: each.clone() for name, each in load_file(folder / WEIGHTS).items()}  # else they stay in the file
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    assert "cannot be read as safetensors" in refusal()
    (folder / WEIGHTS).unlink()
    assert f"lacks {WEIGHTS}" in refusal()
    save_file({name: each for name, each in weights.items() if name != "quantize.embedding.weight"}, folder / WEIGHTS)
    assert "quantize.embedding.weight is missing" in refusal()
    save_file({**weights, "quantize.embedding.weight": torch.full((8, 4), torch.nan)}, folder / WEIGHTS)
    assert "not finite" in refusal()
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, "up_block_types": ["None of these"] * 2}))
    assert "builds no VQModel" in refusal()
    (folder / CONFIG).write_text(json.dumps({**config, "_class_name": "AutoencoderKL"}))
    assert "holds no VQGAN" in refusal() and "AutoencoderKL" in refusal()
    (folder / CONFIG).write_text("{")
    assert "cannot be read" in refusal()
    (folder / CONFIG).unlink()
    assert f"lacks {CONFIG}" in refusal()


def test_other_weights_than_a_vqgan_are_refused(weights, tmp_path):
    path = tmp_path / "model.safetensors"
    book = weights["quantize.embedding.weight"]
    without = {name: each for name, each in weights.items() if name != "quantize.embedding.weight"}
    for content, message in (
        (without, "has no code-book"),
        ({**without, "quantize.embed.weight": book}, "Gumbel"),
        ({"quantize.embedding.weight": book}, "damaged"),
        ({name: each for name, each in weights.items() if name != "decoder.mid.attn_1.q.weight"}, "is missing"),
    ):
        save_file(content, path)
        with pytest.raises(VQGANFileError, match=message):
            load_vqgan(path)
        torch.save({"state_dict": content}, tmp_path / "published.ckpt")
        with pytest.raises(VQGANFileError, match=message):
            load_vqgan(tmp_path / "published.ckpt")
        assert not (tmp_path / "published.safetensors").exists()


def test_a_missing_diffusers_is_a_sentence(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(VQGANFileError, match="need the Python package diffusers.*requirements.txt"):
        load_vqgan(folder)
