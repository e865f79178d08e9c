"""One U-Net in both hosts, ComfyUI's and diffusers', with the same weights."""

import copy

import comfy.ops
import comfy.sd
import comfy.utils
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from diffusers import UNet2DConditionModel
from stagecraft.core.attention.comfy.recording import recording
from stagecraft.core.attention.diffusers import record_attention
from stagecraft.core.attention_guidance.target import Target
from stagecraft.core.comfy.sticker_world import register_model_class
from stagecraft.sticker_world.checkpoint.shipped_weights import load_diffusion
from stagecraft.sticker_world.shipped import CHECKPOINT_FILE
from stagecraft.tests.comfy.families import fill
from stagecraft.tests.comfy.small_network import evaluate

COLUMNS = torch.tensor([2, 5, 6])
BOXES = {(0.0, 0.0, 0.5, 0.5): (2, 3), (0.5, 0.25, 1.0, 1.0): (5,)}  # of whole cells, and their phrases' tokens


class Pair:
    """One network in both hosts."""

    def __init__(self, comfyui, diffusers, width, y=None, added=None):
        self.comfyui, self.diffusers = comfyui.requires_grad_(False), diffusers.requires_grad_(False)
        self.width = width
        self.more = {"comfyui": {} if y is None else {"y": y}, "diffusers": added or {}}

    def double(self):
        """A copy in double precision."""
        both = copy.copy(self)
        both.comfyui, both.diffusers = (copy.deepcopy(network).double() for network in (self.comfyui, self.diffusers))
        both.more = _changed(self.more, torch.Tensor.double)
        return both

    def run(self, host, recorder, x, text, leave_early=False):
        t, more = torch.tensor([500.0]), _changed(self.more[host], lambda inputs: inputs.expand(len(x), -1))
        if host == "diffusers":
            with record_attention(self.diffusers, recorder, leave_early=leave_early):
                self.diffusers(x, t, text, **more)
        else:
            options = recording({}, {"entry": recorder}, leave_early=leave_early)["transformer_options"]
            evaluate(self.comfyui, x, t, text, options | {"uuids": ["entry"]}, **more)
        return recorder.maps


def _changed(inputs, change):
    """The same dictionaries with other tensors."""
    return change(inputs) if torch.is_tensor(inputs) else {k: _changed(each, change) for k, each in inputs.items()}


def embedded():
    register_model_class()
    loaded = comfy.sd.load_checkpoint_guess_config(str(CHECKPOINT_FILE), output_vae=False, output_clip=False)
    network = loaded[0].model.diffusion_model.float()
    return Pair(network, load_diffusion(CHECKPOINT_FILE).unet, 128)


def sdxl_like():
    """Two transformer blocks at a place, linear projections, and a vector beside the text."""
    sizes = {
        "num_res_blocks": [1, 1],
        "channel_mult": [1, 2],
        "transformer_depth": [0, 2],
        "transformer_depth_middle": 2,
        "transformer_depth_output": [0, 0, 2, 2],
    }
    comfyui = UNetModel(
        **copy.deepcopy(sizes),
        image_size=32,
        in_channels=4,
        out_channels=4,
        model_channels=32,
        num_head_channels=16,
        num_heads=-1,
        use_spatial_transformer=True,
        use_linear_in_transformer=True,
        context_dim=24,
        legacy=False,
        num_classes="sequential",
        adm_in_channels=16 + 6 * 8,
        operations=comfy.ops.disable_weight_init,
        dtype=torch.float32,
    )
    fill(comfyui, 5)
    diffusers = UNet2DConditionModel(
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        attention_head_dim=(2, 4),
        cross_attention_dim=24,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=16 + 6 * 8,
    )
    weights = comfyui.state_dict()
    names = comfy.utils.unet_to_diffusers(copy.deepcopy(sizes))
    diffusers.load_state_dict({key: weights[names[key]] for key in diffusers.state_dict()})
    pooled, sizes_and_offsets = torch.randn(1, 16), torch.tensor([[128.0, 128, 0, 0, 128, 128]])
    added = {"text_embeds": pooled, "time_ids": sizes_and_offsets}
    times = diffusers.add_time_proj(sizes_and_offsets.flatten()).reshape(1, -1)
    return Pair(comfyui, diffusers, 24, torch.cat([pooled, times], 1), {"added_cond_kwargs": added})


def noisy(height, width, batch=1):
    return torch.randn(batch, 4, height, width, generator=torch.Generator().manual_seed(1))


def some_text(width, batch=1):
    return torch.randn(batch, 77, width, generator=torch.Generator().manual_seed(2))


def agree(found, expected, share=1e-5):
    """Equal up to a share of the largest value."""
    torch.testing.assert_close(found, expected, rtol=0, atol=share * expected.abs().max().item())


def targets_of_boxes():
    found = []
    for (x0, y0, x1, y1), tokens in BOXES.items():
        mask = torch.zeros(16, 16)
        mask[int(16 * y0) : int(16 * y1), int(16 * x0) : int(16 * x1)] = 1
        found.append(Target(tokens, mask))
    return found
