"""Real ComfyUI classes with small random weights: no file is loaded, nothing is imitated."""

import os
import sys
from pathlib import Path

import pytest

COMFYUI = os.environ.get("STAGECRAFT_COMFYUI", "")
if not (Path(COMFYUI) / "comfy" / "samplers.py").is_file():
    raise pytest.UsageError(
        f"tests/comfy needs a ComfyUI, but STAGECRAFT_COMFYUI is {COMFYUI!r}. Run `python stage.py test`, which sets "
        "it, or let it name the folder of your own ComfyUI."
    )
sys.path.insert(0, COMFYUI)  # before the repository, whose folder `nodes` has the name of a ComfyUI module

import utils.extra_config  # like ComfyUI's main.py, before its `nodes` hides this package
from comfy.cli_args import args

DEVICE = os.environ.get("STAGECRAFT_TEST_DEVICE", "cpu")  # the choice of `stage.py test --device`
args.cpu = DEVICE == "cpu"  # bit for bit the same on every machine; has to be said before the next import

import comfy.controlnet
import comfy.model_base
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base
import comfy.taesd.taesd
import torch
from comfy.cldm.cldm import ControlNet
from stagecraft.tests.comfy.families import fill
from stagecraft.tests.comfy.text2layer.small_text2layer import (  # fixtures
    sticker_clip,
    sticker_prompts,
    text2layer,
    text2layer_folder,
)

CONTEXT = 16
PROMPT, NEGATIVE = "a dog and a cat on a green meadow", "blurry"
UNET = {
    "image_size": 32,
    "in_channels": 4,
    "model_channels": 32,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "transformer_depth": [0, 1],
    "transformer_depth_middle": 1,
    "num_heads": 2,
    "use_spatial_transformer": True,
    "context_dim": CONTEXT,
    "legacy": False,
    "dtype": torch.float32,
}
TEXT = {
    "num_hidden_layers": 1,
    "hidden_size": CONTEXT,
    "num_attention_heads": 2,
    "intermediate_size": CONTEXT,
    "hidden_act": "quick_gelu",
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}


class SmallSD(comfy.supported_models.SD15):
    """SD 1.5's own class at another size."""

    unet_config = {}
    unet_extra_config = {}


class SmallTextModel(comfy.sd1_clip.SDClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None):
        super().__init__(
            device=device,
            dtype=torch.float32,
            textmodel_json_config=TEXT,
            return_projected_pooled=False,
            model_options=model_options or {},
        )


class SmallClip(comfy.sd1_clip.SD1ClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None, **kwargs):
        super().__init__(
            device=device, dtype=dtype, model_options=model_options or {}, clip_model=SmallTextModel, **kwargs
        )


class SmallTokens(comfy.sd1_clip.SDTokenizer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{**kwargs, "embedding_size": CONTEXT})


class SmallTokenizer(comfy.sd1_clip.SD1Tokenizer):
    def __init__(self, embedding_directory=None, tokenizer_data=None):
        super().__init__(embedding_directory, tokenizer_data or {}, tokenizer=SmallTokens)


def encode(clip, text=PROMPT):
    """A prompt as ComfyUI's CLIP Text Encode makes it."""
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


@pytest.fixture(scope="module")
def no_gradients():
    with torch.no_grad():  # as the executor does it
        yield


@pytest.fixture(scope="session")
def make_model():
    """Build the small model for one kind of prediction: "EPS", "V_PREDICTION" or "FLOW"."""

    def make(
        kind: str = "EPS", dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> comfy.model_patcher.ModelPatcher:
        config = SmallSD({**UNET, "out_channels": 4, "transformer_depth_output": [1, 1, 0, 0], "dtype": dtype})
        model = comfy.model_base.BaseModel(config, comfy.model_base.ModelType[kind], device="cpu")
        fill(model.diffusion_model, 1)
        cpu = torch.device("cpu")
        return comfy.model_patcher.ModelPatcher(model, load_device=torch.device(device), offload_device=cpu)

    return make


@pytest.fixture(scope="session")
def model(make_model):
    return make_model()


@pytest.fixture(scope="session")
def clip():
    target = comfy.supported_models_base.ClipTarget(SmallTokenizer, SmallClip)
    clip = comfy.sd.CLIP(target)
    fill(clip.cond_stage_model, 2)
    return clip


@pytest.fixture
def prompts(clip):
    return encode(clip), encode(clip, NEGATIVE)


@pytest.fixture(scope="session")
def vae():
    small = comfy.taesd.taesd.TAESD()
    fill(small, 3)
    return comfy.sd.VAE(sd=small.state_dict())


@pytest.fixture
def control_net():
    network = ControlNet(**UNET, hint_channels=3, operations=comfy.ops.disable_weight_init, device="cpu")
    fill(network, 4)
    cpu = torch.device("cpu")
    return comfy.controlnet.ControlNet(network, load_device=cpu)
