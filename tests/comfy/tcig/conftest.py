"""Small real models of TCIG's first stage, and a layout for them."""

from pathlib import Path

import folder_paths
import pytest
import torch
from diffusers import VQModel
from stagecraft.core.clip.comfy import vision as comfy_clip_vision
from stagecraft.core.layout.reading import parse_layout
from stagecraft.core.segmentation.segmenter import Segmenter
from stagecraft.core.tcig.comfy import models as comfy_vqgan
from stagecraft.nodes.clip.folder import StageCLIPLoader
from stagecraft.nodes.tcig.models import StageVQGANLoader

MODELS = Path(__file__).resolve().parents[3] / "models"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for VQGANs with a small one in it, and the embedded CLIP's."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    small = VQModel(
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        num_vq_embeddings=32,
        norm_num_groups=4,
    )
    small.quantize.embedding.weight.data.normal_()
    small.save_pretrained(folder / "vqgan" / "small")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(folder_paths.folder_names_and_paths, comfy_vqgan.VQGANS, ([str(folder / "vqgan")], set()))
        kind = comfy_clip_vision.KIND
        patch.setitem(folder_paths.folder_names_and_paths, kind, ([str(MODELS / kind)], set()))
        patch.setattr(folder_paths, "models_dir", str(folder))
        yield folder / "vqgan"


@pytest.fixture(scope="module")
def models(folder):
    with torch.inference_mode():  # as the executor does it
        (vqgan,) = StageVQGANLoader.execute("small").args
        clip = StageCLIPLoader.execute("sticker_world").args[0]
        segmenter = Segmenter.load(MODELS / "segmenters" / "sticker_world")
    return {"vqgan": vqgan, "clip": clip, "segmenter": (segmenter,)}


@pytest.fixture(scope="module")
def layout():
    return parse_layout("a dog: 0 0 0.5 1\na cat: 0.5 0 1 1", width=64, height=64)
