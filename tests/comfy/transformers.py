"""ComfyUI's own transformers at a size that runs in milliseconds, with random weights: one for each way of attention.

Classes that a version of ComfyUI lacks are skipped by `small`, with the reason.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import comfy.model_base
import comfy.ops
import comfy.supported_models
import pytest
import torch
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers
from stagecraft.tests.comfy.families import fill
from stagecraft.tests.comfy.signatures import accepted

TEXT, WIDTH = 11, 48  # tokens of the prompt, and the width of its embedding
NO_NETWORK = comfy.supported_models.SD15({"disable_unet_model_creation": True})
OWN = {"dtype": torch.float32, "device": "cpu", "operations": comfy.ops.disable_weight_init}


@dataclass(frozen=True)
class Small:
    """A network and what goes into it.

    Attributes:
        network: of ComfyUI's class.
        shape: of its latent, for one picture.
        given: what it is given besides, for a batch of so many.
        time: between 0 and 1, of a flow; others count to 1000.
        patch: cells of a token's sides.
        text: tokens of the prompt.
    """

    network: torch.nn.Module
    shape: tuple[int, ...]
    given: Callable[[int], dict[str, Any]] = field(default=lambda batch: {})
    time: float = 0.7
    patch: int = 2
    text: int = TEXT

    def state(self, batch: int = 1) -> torch.Tensor:
        """A noisy latent."""
        return normal(batch, *self.shape, seed=1)

    def prompt(self, batch: int = 1) -> torch.Tensor:
        """An embedding."""
        return normal(batch, self.text, WIDTH, seed=2)

    def run(self, x: torch.Tensor, text: torch.Tensor, options: dict[str, Any], **more: Any) -> torch.Tensor:
        """Evaluate it as ComfyUI does."""
        time = torch.full((len(x),), self.time)
        return evaluate(self.network, x, time, text, options, **self.given(len(x)), **more)


def normal(*shape: int, seed: int) -> torch.Tensor:
    """Random numbers, always the same."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def evaluate(network, x, t, text, options, control=None, **more):
    """A network in ComfyUI's own wrappers of an evaluation, without what a model does to its state."""

    def apply(x, t, _, text, control, options, **more):
        more |= {} if control is None else {"control": control}
        return network(x, t, context=text, transformer_options=options, **more)

    model = comfy.model_base.BaseModel(NO_NETWORK)
    model.diffusion_model = network
    wrappers = get_all_wrappers(WrappersMP.APPLY_MODEL, options)
    return WrapperExecutor.new_class_executor(apply, model, wrappers).execute(
        x, t, None, text, control, options, **more
    )


def small(name: str) -> Small:
    """One of `TRANSFORMERS`, or skip the test."""
    try:
        built = TRANSFORMERS[name]()
    except ModuleNotFoundError as error:
        pytest.skip(f"this ComfyUI has no {name}: {error}")
    fill(built.network, 3)
    for each in built.network.parameters():
        each.requires_grad_(False)
    for name, table in built.network.named_buffers():
        if "pos_embed" in name:  # SD 3's table, which ComfyUI leaves without values
            table.copy_(0.3 * normal(*table.shape, seed=5))
    return Small(**{**vars(built), "network": built.network.eval()})


def _class(module: str, name: str) -> type:
    return getattr(importlib.import_module(f"comfy.ldm.{module}"), name)


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
    sizes = accepted(_class(module, params), **sizes)
    return _class(module, name)(image_model="", **sizes, **OWN)


def _pooled(batch: int) -> dict[str, Any]:
    return {"y": normal(batch, 32, seed=3), "guidance": None}


def _flux(**changed: Any) -> Small:
    return Small(_of_params("flux.model", "Flux", "FluxParams", FLUX | changed), (4, 16, 12), _pooled)


def _flux2() -> Small:
    return _flux(
        global_modulation=True,
        mlp_silu_act=True,
        qkv_bias=False,
        ops_bias=False,
        vec_in_dim=None,
        txt_ids_dims=[3],
        axes_dim=[4, 4, 4, 4],
    )


def _flux_with_references() -> Small:
    plain = _flux()
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


def _sd3(with_self: tuple[int, ...] = ()) -> Small:
    network = _class("modules.diffusionmodules.mmdit", "OpenAISignatureMMDITWrapper")(
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
    network = _class("aura.mmdit", "MMDiT")(
        dim=64, n_layers=3, n_double_layers=1, n_heads=4, global_conddim=64, cond_seq_dim=WIDTH, max_seq=256, **OWN
    )
    return Small(network, (4, 16, 12))


def _qwen() -> Small:
    network = _class("qwen_image.model", "QwenImageTransformer2DModel")(
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


def _lumina(is_z: bool = False) -> Small:
    width = 256 if is_z else 64  # Z-Image's modulation has width 256
    network = _class("lumina.model", "NextDiT")(
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


def _hidream() -> Small:
    network = _class("hidream.model", "HiDreamImageTransformer2DModel")(
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


def _wan(name: str = "WanModel", **changed: Any) -> Small:
    sizes = {"in_dim": 4, "out_dim": 4, "dim": 64, "ffn_dim": 64, "freq_dim": 64, "text_dim": WIDTH, "num_heads": 4}
    network = _class("wan.model", name)(**sizes, **{"num_layers": 3, **changed}, **OWN)
    return Small(network, (4, 2, 8, 12), time=700.0)


def _wan_with_pictures() -> Small:
    """Image to video: a look at the picture's own encoding before that at the text, and a frame before the video."""
    network = _wan(model_type="i2v", in_dim_ref_conv=4).network
    return Small(
        network,
        (4, 2, 8, 12),
        lambda batch: {"clip_fea": normal(batch, 7, 1280, seed=5), "reference_latent": normal(batch, 4, 8, 12, seed=6)},
        700.0,
    )


def _wan_vace() -> Small:
    """The video has as many tokens as the prompt, so that shapes alone say nothing."""
    network = _wan("VaceWanModel", num_layers=4, vace_layers=2, vace_in_dim=4).network
    return Small(
        network,
        (4, 2, 8, 12),
        lambda batch: {"vace_context": normal(batch, 1, 4, 2, 8, 12, seed=5), "vace_strength": [1.0]},
        700.0,
        text=48,
    )


def _cosmos(module: str = "cosmos.predict2", name: str = "MiniTrainDIT", width: int = WIDTH) -> Small:
    network = _class(module, name)(
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


def _krea2() -> Small:
    network = _class("krea2.model", "SingleStreamDiT")(
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
    network = _class("ideogram4.model", "Ideogram4Transformer2DModel")(
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
    network = _class("lens.model", "LensTransformer2DModel")(
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
    "Flux": _flux,
    "Flux with references": _flux_with_references,
    "Flux.2": _flux2,
    "Chroma": _chroma,
    "SD 3": _sd3,
    "SD 3.5 medium": lambda: _sd3((0, 1)),
    "AuraFlow": _aura,
    "Qwen-Image": _qwen,
    "Qwen-Image-Edit": _qwen_edit,
    "Lumina 2": _lumina,
    "Z-Image": lambda: _lumina(True),
    "HunyuanImage": _hunyuan,
    "HunyuanVideo 1.5": _hunyuan_video,
    "HiDream-I1": _hidream,
    "Wan": _wan,
    "Wan with pictures": _wan_with_pictures,
    "Wan VACE": _wan_vace,
    "Cosmos-Predict2": _cosmos,
    "Krea 2": _krea2,
    "Ideogram 4": _ideogram4,
    "Lens": _lens,
}
