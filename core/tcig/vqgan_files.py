"""VQGANs from local files: diffusers' VQModel folders, and taming-transformers' weights (`taming`) as such folders."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..weights.folders import ModelFolder
from ..weights.packed import unpack_weights
from ..weights.pickled import SOURCE, PickledTensorsError, read_pickled_tensors
from .taming import from_taming
from .vqgan import CONFIG, KIND, VQGAN, WEIGHTS, VQGANFileError, Weights

SAFE = ".safetensors"

# Names that diffusers had for the same weights in its first years.
OLD_NAMES = ((".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0."))


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


def convert_taming(checkpoint: str | Path, folder: str | Path, source: str = "") -> int:
    """Write a published taming-transformers checkpoint as a diffusers folder, in half precision.

    Only tensors are read from the pickled file; the discriminator and everything else of the training stays behind.

    Args:
        checkpoint: a `.ckpt`. Its `.yaml` is not needed: every shape can be read from the weights.
        folder: to write; it appears when it is complete, and must not be there yet.
        source: the checkpoint's name, for `written_from`.

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
    write_folder(folder, config, weights, source)
    return sum(weight.numel() for weight in weights.values())


def write_folder(
    folder: str | Path, config: Mapping[str, Any], weights: Mapping[str, Tensor], source: str = ""
) -> None:
    """Write a diffusers VQModel folder in half precision.

    Args:
        folder: appears when it is complete.
        config: of VQModel.
        weights: by diffusers' names.
        source: see `convert_taming`.

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
        save_file(halves, unfinished / WEIGHTS, metadata={"format": "pt", SOURCE: source})
        unfinished.replace(folder)
    except (OSError, SafetensorError) as error:
        raise VQGANFileError(
            f"The folder {folder.name} cannot be written ({error}). Nothing of it was kept: make room on the disk."
        ) from error
    finally:
        for part in (CONFIG, WEIGHTS):
            (unfinished / part).unlink(missing_ok=True)
        if unfinished.is_dir():
            unfinished.rmdir()


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
