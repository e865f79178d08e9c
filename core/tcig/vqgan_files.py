"""VQGANs from local files: diffusers' VQModel folders, and taming-transformers' weights (`taming`), also pickled."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ..weights.folders import ModelFolder
from ..weights.kept import SAFE, is_pickled, open_checkpoint
from ..weights.packed import unpack_weights
from ..weights.pickled import PickledTensorsError, read_pickled_tensors
from .taming import from_taming, model_weights
from .vqgan import CONFIG, KIND, VQGAN, WEIGHTS, VQGANFileError, Weights

# Names that diffusers had for the same weights in its first years.
OLD_NAMES = ((".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0."))


def load_vqgan(path: str | Path) -> VQGAN:
    """Open a VQGAN. Nothing is downloaded.

    Args:
        path: a folder with diffusers' config.json and safetensors, or a file by taming-transformers' names: safetensors
            or a published checkpoint, of which only tensors are read, which are kept beside it (`open_checkpoint`). Its
            `.yaml` is not needed: every shape can be read from the weights.

    Returns:
        On the CPU in float32; packed weights (`packed_weights`) are unpacked.

    Raises:
        VQGANFileError: missing, damaged, no VQGAN, or it wants to run something; or diffusers is not installed.
    """
    path = Path(path)

    def build_taming(weights: Weights) -> torch.nn.Module:
        return _build(*from_taming(weights, path.name), path.name)

    with torch.inference_mode(False), torch.no_grad():  # weights made in inference mode could not be differentiated
        if not path.is_file():
            config = _read_config(path)
            return VQGAN(_build(config, _renamed(_read_safetensors(_weights_of(path))), path.name), path.name)
        if is_pickled(path):
            return VQGAN(open_checkpoint(path, _take, build_taming), path.stem)
        return VQGAN(build_taming(_read_safetensors(path)), path.stem)


def _take(checkpoint: Path) -> Weights:
    """The model's tensors; the discriminator and everything else of the training stays behind."""
    try:
        found = read_pickled_tensors(checkpoint, "the original checkpoint of taming-transformers")
    except PickledTensorsError as error:
        raise VQGANFileError(str(error)) from error
    return model_weights(found, checkpoint.name)


def _read_config(folder: Path) -> dict[str, object]:
    reader = ModelFolder(folder, "VQGAN", VQGANFileError)
    config = reader.config
    if config.get("_class_name") != KIND:
        raise reader.refuse(
            f"holds no VQGAN: its {CONFIG} is of {str(config.get('_class_name') or 'something else')[:80]}; expected a "
            f"{KIND} of diffusers"
        )
    return config


def _weights_of(folder: Path) -> Path:
    files = sorted(folder.glob(f"*{SAFE}"))
    if folder / WEIGHTS in files:
        files = [folder / WEIGHTS]
    if len(files) != 1:
        raise VQGANFileError(
            f"The VQGAN folder {folder.name} lacks {WEIGHTS} (pickled weights such as .bin are not opened). Copy it "
            "there."
        )
    return ModelFolder(folder, "VQGAN", VQGANFileError).inside(files[0].name)


def _read_safetensors(path: Path) -> Weights:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}
        return unpack_weights(weights, metadata)
    except Exception as error:  # over damaged bytes the reader stumbles anywhere
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
