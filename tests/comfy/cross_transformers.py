"""ComfyUI's transformers with cross-attention at a small size: Wan, Cosmos-Predict2, Anima."""

from typing import Any

import torch
from stagecraft.tests.comfy.small_network import OWN, WIDTH, Small, class_of, normal


def wan(name: str = "WanModel", **changed: Any) -> Small:
    sizes = {"in_dim": 4, "out_dim": 4, "dim": 64, "ffn_dim": 64, "freq_dim": 64, "text_dim": WIDTH, "num_heads": 4}
    network = class_of("wan.model", name)(**sizes, **{"num_layers": 3, **changed}, **OWN)
    return Small(network, (4, 2, 8, 12), time=700.0)


def wan_with_pictures() -> Small:
    """Image to video: a look at the picture's own encoding before that at the text, and a frame before the video."""
    network = wan(model_type="i2v", in_dim_ref_conv=4).network
    return Small(
        network,
        (4, 2, 8, 12),
        lambda batch: {"clip_fea": normal(batch, 7, 1280, seed=5), "reference_latent": normal(batch, 4, 8, 12, seed=6)},
        700.0,
    )


def wan_vace() -> Small:
    """The video has as many tokens as the prompt, so that shapes alone say nothing."""
    network = wan("VaceWanModel", num_layers=4, vace_layers=2, vace_in_dim=4).network
    return Small(
        network,
        (4, 2, 8, 12),
        lambda batch: {"vace_context": normal(batch, 1, 4, 2, 8, 12, seed=5), "vace_strength": [1.0]},
        700.0,
        text=48,
    )


def cosmos(module: str = "cosmos.predict2", name: str = "MiniTrainDIT", width: int = WIDTH) -> Small:
    network = class_of(module, name)(
        max_img_h=64,
        max_img_w=64,
        max_frames=8,
        in_channels=4,
        out_channels=4,
        patch_spatial=2,
        patch_temporal=1,
        concat_padding_mask=True,
        model_channels=64,
        num_blocks=3,
        num_heads=2,
        crossattn_emb_channels=width,
        pos_emb_cls="rope3d",
        pos_emb_interpolation="crop",
        use_adaln_lora=True,
        adaln_lora_dim=16,
        rope_enable_fps_modulation=False,
        **OWN,
    )
    return Small(network, (4, 1, 16, 12), lambda batch: {"padding_mask": None})


def camera_wan() -> Small:
    """Wan with a camera's path, whose rows the network is not given here."""
    return wan("CameraWanModel", in_dim_control_adapter=24)


def anima() -> Small:
    """T5's tokens through an adapter, without its layers, which would mix them; it pads them to 512."""
    network = cosmos("anima.model", "Anima").network
    network.llm_adapter = class_of("anima.model", "LLMAdapter")(
        source_dim=WIDTH, target_dim=WIDTH, model_dim=WIDTH, num_layers=0, num_heads=4, **OWN
    )
    ids = torch.arange(9)[None]
    return Small(
        network, (4, 1, 16, 12), lambda batch: {"padding_mask": None, "t5xxl_ids": ids.expand(batch, -1)}, text=512
    )
