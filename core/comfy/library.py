"""ComfyUI as a library, outside its own server: for training, which wants its loaders and its U-Nets."""

import sys
from pathlib import Path

import torch


def use_comfyui(folder: Path) -> None:
    """Make ComfyUI's modules importable; has to come before the first import of one.

    Args:
        folder: of ComfyUI, where main.py lies.
    """
    sys.path.insert(0, str(folder))
    import utils.extra_config  # noqa: F401 - like ComfyUI's main.py, before its `nodes` hides this package
    from comfy.cli_args import args

    args.cpu = args.cpu or not torch.cuda.is_available()
