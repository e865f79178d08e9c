"""ComfyUI's own transformers at a size that runs in milliseconds, with random weights: one for each way of attention.

Classes that a version of ComfyUI lacks are skipped by `small`, with the reason.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from stagecraft.tests.comfy.cross_transformers import anima, camera_wan, cosmos, wan, wan_vace, wan_with_pictures
from stagecraft.tests.comfy.families import fill
from stagecraft.tests.comfy.signatures import accepted
from stagecraft.tests.comfy.small_network import NO_NETWORK, OWN, TEXT, WIDTH, Small, class_of, normal

__all__ = ["NO_NETWORK", "TRANSFORMERS", "Small", "filled", "flux", "small"]


def small(name: str) -> Small:
    """One of `TRANSFORMERS`, or skip the test."""
    try:
        built = TRANSFORMERS[name]()
    except ModuleNotFoundError as error:
        pytest.skip(f"this ComfyUI has no {name}: {error}")
    return filled(built)


def filled(built: Small) -> Small:
    """The same with random weights."""
    fill(built.network, 3)
    for each in built.network.parameters():
        each.requires_grad_(False)
    for name, table in built.network.named_buffers():
        if "pos_embed" in name:  # SD 3's table, which ComfyUI leaves without values
            table.copy_(0.3 * normal(*table.shape, seed=5))
    return Small(**{**vars(built), "network": built.network.eval()})


FLUX = {
    "in_channels": 4,
    "out_channels": 4,
    "vec_in_dim": 32,
    "context_in_dim": WIDTH,
    "hidden_size": 64,
    "mlp_ratio": 2.0,
    "num_heads": 4,
    "depth": 2,
    "depth_single_blocks": 2,
    "axes_dim": [4, 6, 6],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
    "guidance_embed": False,
    "txt_ids_dims": [],
}


def _of_params(module: str, name: str, params: str, sizes: dict[str, Any]) -> torch.nn.Module:
    sizes = accepted(class_of(module, params), **sizes)
    return class_of(module, name)(image_model="", **sizes, **OWN)


def _pooled(batch: int) -> dict[str, Any]:
    return {"y": normal(batch, 32, seed=3), "guidance": None}


def flux(**changed: Any) -> Small:
    """Flux, with some of its sizes changed."""
    return Small(_of_params("flux.model", "Flux", "FluxParams", FLUX | changed), (4, 16, 12), _pooled)


def _flux2() -> Small:
    return flux(
        global_modulation=True,
        mlp_silu_act=True,
        qkv_bias=False,
        ops_bias=False,
        vec_in_dim=None,
        txt_ids_dims=[3],
        axes_dim=[4, 4, 4, 4],
    )


def _flux_with_references() -> Small:
    plain = flux()
    return Small(
        plain.network,
        plain.shape,
        lambda batch: {
            **_pooled(batch),
            "ref_latents": [normal(batch, 4, 8, 10, seed=6), normal(batch, 4, 6, 6, seed=7)],
        },
    )


def _chroma() -> Small:
    sizes = FLUX | {"in_dim": 64, "out_dim": 64, "hidden_dim": 64, "n_layers": 2, "in_channels": 16, "out_channels": 16}
    network = _of_params("chroma.model", "Chroma", "ChromaParams", sizes)
    return Small(network, (4, 16, 12), lambda batch: {"guidance": torch.zeros(batch)})


def _radiance() -> Small:
    """Pixels in place of a latent."""
    sizes = FLUX | {"in_dim": 64, "out_dim": 64, "hidden_dim": 64, "n_layers": 2, "in_channels": 3, "patch_size": 4}
    sizes |= {"nerf_hidden_size": 8, "nerf_mlp_ratio": 1, "nerf_depth": 1, "nerf_max_freqs": 2, "nerf_tile_size": 0}
    sizes |= {"nerf_final_head_type": "linear", "nerf_embedder_dtype": None, "use_x0": False}
    sizes |= {"out_channels": 3, "use_sequential_txt_ids": False}
    network = _of_params("chroma_radiance.model", "ChromaRadiance", "ChromaRadianceParams", sizes)
    return Small(network, (3, 32, 24), lambda batch: {"guidance": torch.zeros(batch)}, patch=4)


def _sd3(with_self: tuple[int, ...] = ()) -> Small:
    network = class_of("modules.diffusionmodules.mmdit", "OpenAISignatureMMDITWrapper")(
        input_size=None,
        patch_size=2,
        in_channels=4,
        depth=2,
        adm_in_channels=32,
        pos_embed_max_size=16,
        num_patches=16 * 16,
        qk_norm="rms",
        x_block_self_attn_layers=list(with_self),
        context_embedder_config={"target": "torch.nn.Linear", "params": {"in_features": WIDTH, "out_features": 128}},
        **OWN,
    )
    return Small(network, (4, 16, 12), lambda batch: {"y": normal(batch, 32, seed=3)}, 700.0)


def _aura() -> Small:
    network = class_of("aura.mmdit", "MMDiT")(
        dim=64, n_layers=3, n_double_layers=1, n_heads=4, global_conddim=64, cond_seq_dim=WIDTH, max_seq=256, **OWN
    )
    return Small(network, (4, 16, 12))


def _qwen() -> Small:
    network = class_of("qwen_image.model", "QwenImageTransformer2DModel")(
        in_channels=16,
        out_channels=4,
        num_layers=3,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(8, 12, 12),
        **OWN,
    )
    return Small(network, (4, 1, 16, 12))


def _qwen_edit() -> Small:
    return Small(_qwen().network, (4, 1, 16, 12), lambda batch: {"ref_latents": [normal(batch, 4, 1, 8, 10, seed=6)]})


def _lumina(is_z: bool = False, kind: str = "NextDiT", **more: Any) -> Small:
    width = 256 if is_z else 64  # Z-Image's modulation has width 256
    network = class_of("lumina.model", kind)(
        in_channels=4,
        dim=width,
        n_layers=3,
        n_refiner_layers=1,
        n_heads=4,
        n_kv_heads=4 if is_z else 2,
        multiple_of=32,
        ffn_dim_multiplier=1.0,
        qk_norm=True,
        cap_feat_dim=WIDTH,
        axes_dims=[16, 24, 24] if is_z else [4, 6, 6],
        axes_lens=[300, 512, 512],
        z_image_modulation=is_z,
        pad_tokens_multiple=32 if is_z else None,
        **more,
        **OWN,
    )
    return Small(network, (4, 16, 12), lambda batch: {"num_tokens": TEXT, "attention_mask": None})


def _hunyuan(**changed: Any) -> Small:
    sizes = FLUX | {
        "vec_in_dim": None,
        "axes_dim": [8, 8],
        "theta": 256,
        "patch_size": [1, 1],
        "byt5": False,
        "meanflow": False,
        "meanflow_sum": False,
        "use_cond_type_embedding": False,
        "vision_in_dim": None,
    }
    network = _of_params("hunyuan_video.model", "HunyuanVideo", "HunyuanVideoParams", sizes | changed)
    return Small(network, (4, 8, 6), lambda batch: {"guidance": None}, patch=1)


def _hunyuan_video() -> Small:
    network = _hunyuan(patch_size=[1, 2, 2], axes_dim=[4, 6, 6], byt5=True, use_cond_type_embedding=True).network
    return Small(network, (4, 3, 8, 12), lambda batch: {"guidance": None, "txt_byt5": normal(batch, 5, 1472, seed=8)})


def _hunyuan_video_of_a_picture() -> Small:
    """A frame before the video, and a vision encoder's tokens before the text."""
    network = _hunyuan(patch_size=[1, 2, 2], axes_dim=[4, 6, 6], vision_in_dim=16).network

    def given(batch: int) -> dict[str, Any]:
        # ComfyUI itself fails with a frame before several videos.
        before = {"ref_latent": normal(1, 4, 2, 8, 12, seed=6)} if batch == 1 else {}
        return {"guidance": None, "clip_fea": normal(batch, 3, 16, seed=7), **before}

    return Small(network, (4, 3, 8, 12), given)


def _hidream() -> Small:
    network = class_of("hidream.model", "HiDreamImageTransformer2DModel")(
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=4,
        caption_channels=[WIDTH, WIDTH],
        text_emb_dim=32,
        axes_dims_rope=(4, 6, 6),
        max_resolution=(32, 32),
        llama_layers=[0, 1, 2, 3],
        **OWN,
    )
    return Small(
        network,
        (4, 16, 12),
        lambda batch: {
            "y": normal(batch, 32, seed=3),
            "encoder_hidden_states_llama3": normal(batch, 4, 7, WIDTH, seed=4),
        },
        700.0,
    )


def _krea2() -> Small:
    network = class_of("krea2.model", "SingleStreamDiT")(
        features=64,
        tdim=64,
        txtdim=16,
        heads=4,
        kvheads=2,
        layers=3,
        channels=4,
        txtlayers=3,
        txtheads=2,
        txtkvheads=2,
        **OWN,
    )
    return Small(network, (4, 16, 12))


def _ideogram4() -> Small:
    network = class_of("ideogram4.model", "Ideogram4Transformer2DModel")(
        in_channels=16,
        num_layers=3,
        num_attention_heads=2,
        attention_head_dim=64,
        intermediate_size=64,
        adaln_dim=32,
        llm_features_dim=WIDTH,
        mrope_section=(12, 10, 10),
        **OWN,
    )
    return Small(network, (16, 8, 6), patch=1)


def _lens() -> Small:
    network = class_of("lens.model", "LensTransformer2DModel")(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=3,
        attention_head_dim=16,
        num_attention_heads=4,
        enc_hidden_dim=WIDTH,
        axes_dims_rope=(4, 6, 6),
        multi_layer_encoder_feature=False,
        selected_layer_index=(5,),
        **OWN,
    )
    return Small(network, (16, 8, 6), patch=1)


TRANSFORMERS: dict[str, Callable[[], Small]] = {
    "Flux": flux,
    "Flux with references": _flux_with_references,
    "Flux.2": _flux2,
    "Chroma": _chroma,
    "Chroma Radiance": _radiance,
    "SD 3": _sd3,
    "SD 3.5 medium": lambda: _sd3((0, 1)),
    "AuraFlow": _aura,
    "Qwen-Image": _qwen,
    "Qwen-Image-Edit": _qwen_edit,
    "Lumina 2": _lumina,
    "Z-Image": lambda: _lumina(True),
    "Z-Image in pixels": lambda: _lumina(True, "NextDiTPixelSpace", decoder_hidden_size=32, decoder_num_res_blocks=1),
    "HunyuanImage": _hunyuan,
    "HunyuanVideo 1.5": _hunyuan_video,
    "HunyuanVideo of a picture": _hunyuan_video_of_a_picture,
    "HiDream-I1": _hidream,
    "Wan": wan,
    "Wan with pictures": wan_with_pictures,
    "Wan VACE": wan_vace,
    "Wan with a camera": camera_wan,
    "Cosmos-Predict2": cosmos,
    "Anima": anima,
    "Krea 2": _krea2,
    "Ideogram 4": _ideogram4,
    "Lens": _lens,
}
