"""VQGANs from local files: diffusers' VQModel folders, and original taming-transformers weights mapped onto them."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..weights.packed import unpack_weights
from ..weights.pickled import PickledTensorsError, read_pickled_tensors
from .vqgan import VQGAN

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
KIND = "VQModel"  # diffusers' name of the class, as a config.json says it
SAFE = ".safetensors"
BOOK = "quantize.embedding.weight"
GUMBEL_BOOK = "quantize.embed.weight"
PART_OF_NET2NET = "first_stage_model."
GROUPS = 32  # of taming's group normalisation, at every width
MODEL_PARTS = ("encoder.", "decoder.", "quantize.", "quant_conv.", "post_quant_conv.")

# taming-transformers' names -> diffusers'; the rules are applied one after another.
RULES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^encoder\.down\.(\d+)\.", r"encoder.down_blocks.\1."),
        (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
        (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
        (r"\.mid\.attn_1\.", ".mid_block.attentions.0."),
        (r"\.block\.(\d+)\.", r".resnets.\1."),
        (r"\.attn\.(\d+)\.", r".attentions.\1."),
        (r"\.(down|up)sample\.conv\.", r".\1samplers.0.conv."),
        (r"\.nin_shortcut\.", ".conv_shortcut."),
        (r"\.norm_out\.", ".conv_norm_out."),
        (r"(attentions\.\d+)\.norm\.", r"\1.group_norm."),
        (r"(attentions\.\d+)\.([qkv])\.", r"\1.to_\2."),
        (r"(attentions\.\d+)\.proj_out\.", r"\1.to_out.0."),
    )
)
# Names that diffusers had for the same weights in its first years.
OLD_NAMES = ((".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0."))

Weights = dict[str, Tensor]


class VQGANFileError(ValueError):
    """A folder or a file that is no usable VQGAN."""


def load_vqgan(path: str | Path) -> VQGAN:
    """Open a VQGAN. Nothing is downloaded and no pickle is opened.

    Args:
        path: a folder with diffusers' config.json and safetensors, or a safetensors file by taming-transformers' names.

    Returns:
        On the CPU in float32; packed weights (`packed_weights`) are unpacked.

    Raises:
        VQGANFileError: missing, damaged, or no VQGAN; or diffusers is not installed.
    """
    path = Path(path)
    with torch.inference_mode(False), torch.no_grad():  # weights made in inference mode could not be differentiated
        if path.is_file():
            config, weights = from_taming(_read_safetensors(path), path.name)
        else:
            config = _read_config(path)
            weights = _renamed(_read_safetensors(_weights_of(path)))
        return VQGAN(_build(config, weights, path.name), path.stem if path.is_file() else path.name)


def convert_taming(checkpoint: str | Path, folder: str | Path) -> int:
    """Write a published taming-transformers checkpoint as a diffusers folder, in half precision.

    Only tensors are read from the pickled file; the discriminator and everything else of the training stays behind.

    Args:
        checkpoint: a `.ckpt`. Its `.yaml` is not needed: every shape can be read from the weights.
        folder: to write; it appears when it is complete, and must not be there yet.

    Returns:
        How many weights it has.

    Raises:
        VQGANFileError: no VQGAN of the published form, or the file wants to run something.
    """
    checkpoint, folder = Path(checkpoint), Path(folder)
    try:
        found = read_pickled_tensors(checkpoint, "the original checkpoint of taming-transformers")
    except PickledTensorsError as error:
        raise VQGANFileError(str(error)) from error
    config, weights = from_taming(found, checkpoint.name)
    _build(config, weights, checkpoint.name)  # every name and shape has to fit before anything is written
    write_folder(folder, config, weights)
    return sum(weight.numel() for weight in weights.values())


def write_folder(folder: str | Path, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Write a diffusers VQModel folder in half precision.

    Args:
        folder: appears when it is complete.
        config: of VQModel.
        weights: by diffusers' names.

    Raises:
        VQGANFileError: the folder is there already.
    """
    folder = Path(folder)
    if folder.exists():
        raise VQGANFileError(f"There is a folder {folder.name} already. Rename or remove it, then convert again.")
    unfinished = folder.with_name(f".{folder.name}.part")
    unfinished.mkdir(parents=True, exist_ok=True)
    try:
        text = json.dumps({"_class_name": KIND, **config}, indent=1)
        (unfinished / CONFIG).write_text(text, encoding="utf-8")
        halves = {name: weight.to(torch.float16).contiguous() for name, weight in weights.items()}
        save_file(halves, unfinished / WEIGHTS, metadata={"format": "pt"})
        unfinished.replace(folder)
    finally:
        for part in (CONFIG, WEIGHTS):
            (unfinished / part).unlink(missing_ok=True)
        if unfinished.is_dir():
            unfinished.rmdir()


def from_taming(weights: Mapping[str, Tensor], name: str) -> tuple[dict[str, Any], Weights]:
    """Map weights by taming-transformers' names onto diffusers' VQModel.

    The published `.yaml` says nothing that the weights do not show: widths, blocks per level, which levels have
    attention, and the code-book.

    Args:
        weights: other weights than the model's, such as the discriminator's, are left out.
        name: the file's, for errors.

    Returns:
        VQModel's configuration, and the weights by its names.

    Raises:
        VQGANFileError: not a VQGAN, or one with another way to quantise.
    """
    if PART_OF_NET2NET + BOOK in weights:  # a transformer's checkpoint with its VQGAN in it
        part = len(PART_OF_NET2NET)
        weights = {key[part:]: value for key, value in weights.items() if key.startswith(PART_OF_NET2NET)}
    if GUMBEL_BOOK in weights:
        raise VQGANFileError(
            f"{name} is a VQGAN with Gumbel quantisation, which finds its codes in another way. Choose one with "
            "a nearest-code book, such as vqgan_imagenet_f16_16384."
        )
    if BOOK not in weights:
        raise VQGANFileError(
            f"{name} is no VQGAN: it has no code-book ({BOOK}). Choose a checkpoint of taming-transformers, or a "
            "folder of diffusers' VQModel."
        )
    found = {key: value for key, value in weights.items() if key.startswith(MODEL_PARTS)}
    if any(key.startswith("encoder.down_blocks.") for key in found):
        raise VQGANFileError(
            f"{name} has diffusers' names, which do not show the whole configuration. Put it with its {CONFIG} into a "
            f"folder in models/vqgan, as {WEIGHTS}."
        )
    try:
        config = _config_of(found)
    except KeyError as error:
        raise VQGANFileError(f"{name} is damaged, or no VQGAN: the weight {error.args[0]} is missing.") from error
    levels = len(config["block_out_channels"])
    return config, {diffusers_name(key, levels): _as_linear(key, value) for key, value in found.items()}


def diffusers_name(name: str, levels: int) -> str:
    """What diffusers' VQModel calls a weight of taming-transformers; it counts the decoder's levels from below.

    Args:
        name: taming-transformers'.
        levels: how many there are.
    """
    if up := re.match(r"decoder\.up\.(\d+)\.", name):
        name = f"decoder.up_blocks.{levels - 1 - int(up[1])}.{name[up.end() :]}"
    for pattern, replacement in RULES:
        name = pattern.sub(replacement, name)
    return name


def _as_linear(name: str, weight: Tensor) -> Tensor:
    """Attention's 1 x 1 convolutions are linear layers in diffusers."""
    is_attention = re.search(r"\.attn(_1|\.\d+)\.(q|k|v|proj_out)\.weight$", name)
    return weight.flatten(1) if is_attention else weight


def _config_of(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """VQModel's configuration from the weights' names and shapes."""

    def count(pattern: str) -> int:
        return len({found[1] for key in weights if (found := re.match(pattern, key))})

    levels, blocks = count(r"encoder\.down\.(\d+)\."), count(r"encoder\.down\.0\.block\.(\d+)\.")
    widths = [weights[f"encoder.down.{level}.block.0.conv2.weight"].shape[0] for level in range(levels)]
    attends = [f"encoder.down.{level}.attn.0.norm.weight" in weights for level in range(levels)]
    return {
        "in_channels": weights["encoder.conv_in.weight"].shape[1],
        "out_channels": weights["decoder.conv_out.weight"].shape[0],
        "down_block_types": ["AttnDownEncoderBlock2D" if each else "DownEncoderBlock2D" for each in attends],
        "up_block_types": ["AttnUpDecoderBlock2D" if each else "UpDecoderBlock2D" for each in reversed(attends)],
        "block_out_channels": widths,
        "layers_per_block": blocks,
        "latent_channels": weights["encoder.conv_out.weight"].shape[0],
        "num_vq_embeddings": weights[BOOK].shape[0],
        "vq_embed_dim": weights[BOOK].shape[1],
        "norm_num_groups": GROUPS,
        "mid_block_add_attention": "encoder.mid.attn_1.norm.weight" in weights,
    }


def _read_config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise VQGANFileError(f"There is no VQGAN {folder.name}: {folder} is missing. Choose another, or copy it there.")
    path = folder / CONFIG
    if not path.is_file():
        raise VQGANFileError(f"The VQGAN folder {folder.name} lacks {CONFIG}. Copy the whole folder of a VQModel.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VQGANFileError(f"{CONFIG} of the VQGAN {folder.name} cannot be read ({error}). Copy it again.") from error
    kind = config.get("_class_name") if isinstance(config, dict) else None
    if kind != KIND:
        raise VQGANFileError(
            f"The folder {folder.name} holds no VQGAN: its {CONFIG} is of {kind or 'something else'}; expected a "
            f"{KIND} of diffusers."
        )
    return config


def _weights_of(folder: Path) -> Path:
    files = sorted(folder.glob(f"*{SAFE}"))
    if folder / WEIGHTS in files:
        return folder / WEIGHTS
    if len(files) != 1:
        raise VQGANFileError(
            f"The VQGAN folder {folder.name} lacks {WEIGHTS} (pickled weights such as .bin are not opened). Copy it "
            "there."
        )
    return files[0]


def _read_safetensors(path: Path) -> Weights:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        return unpack_weights(weights, metadata)
    except (SafetensorError, OSError, ValueError) as error:
        raise VQGANFileError(f"{path.name} cannot be read as safetensors ({error}). Copy the file again.") from error


def _renamed(weights: Mapping[str, Tensor]) -> Weights:
    def rename(name: str) -> str:
        for old, new in OLD_NAMES:
            name = name.replace(old, new) if "attentions" in name else name
        return name

    return {rename(name): weight for name, weight in weights.items()}


def _build(config: Mapping[str, Any], weights: Mapping[str, Tensor], name: str) -> torch.nn.Module:
    try:
        from diffusers import VQModel  # slow to import, and needed by this alone
    except ImportError as error:
        raise VQGANFileError(
            "VQGANs need the Python package diffusers, which cannot be imported "
            f"({error}). Install the pack's requirements.txt into ComfyUI's Python and start ComfyUI again."
        ) from error
    try:
        with torch.device("meta"):
            network = VQModel.from_config(dict(config))
    except Exception as error:  # whatever a wrong value does inside
        raise VQGANFileError(f"The VQGAN {name} has a configuration that builds no VQModel ({error}).") from error
    try:
        # Copies: a file that is replaced while its weights are still mapped would end the process.
        copies = {key: value.to(torch.float32, copy=True) for key, value in weights.items()}
        network.load_state_dict(copies, assign=True)
    except RuntimeError as error:
        expected = network.state_dict().keys()
        missing, unknown = sorted(expected - weights.keys()), sorted(weights.keys() - expected)
        what = f"{missing[0]} is missing" if missing else f"{unknown[0]} is unknown" if unknown else "a shape is wrong"
        raise VQGANFileError(
            f"The weights of the VQGAN {name} do not fit its configuration: {what}. Copy config and weights again."
        ) from error
    if not all(torch.isfinite(weight).all() for weight in network.state_dict().values()):
        raise VQGANFileError(f"The VQGAN {name} has weights that are not finite (NaN or infinite). Copy it again.")
    return network.eval().requires_grad_(False)
