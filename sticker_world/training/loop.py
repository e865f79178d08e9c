"""One training loop for every part: resumable, with an average of the weights, on CPU or GPU."""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from ...commands.environment import CACHE_FOLDER_VARIABLE

CLIP_NORM = 1.0
WARM_UP = 200  # steps
STEP, STEPS = "step", "steps"  # metadata of averaged weights: how far they are trained, and the schedule's length


def training_folder() -> Path:
    """Where `stage.py train` keeps drawn scenes and weights: inside the cache folder that it passes on."""
    return Path(os.environ.get(CACHE_FOLDER_VARIABLE, Path.cwd() / "stage_output")) / "training"


def weights_folder(training: Path | None = None) -> Path:
    """Where it leaves states and averaged weights; None for the default training folder."""
    return (training or training_folder()) / "weights"


def pick_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def learning_rate(step: int, steps: int, peak: float, floor: float = 0.02, warm_up: int = WARM_UP) -> float:
    """Linear warm-up, then a cosine down to `floor` of the peak."""
    rise = min(1.0, (step + 1) / warm_up)
    return peak * rise * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))


def is_trained(path: Path) -> bool:
    """Whether a file of averaged weights is there and its training came to its end."""
    if not path.is_file():
        return False
    with safe_open(path, "pt") as file:
        found = file.metadata() or {}
    return int(found.get(STEP, 0)) >= int(found.get(STEPS, 0))  # older files do not say it


def train(
    name: str,
    module: nn.Module,
    loss_of_step: Callable[[int], tuple[Tensor, dict[str, float]]],
    *,
    folder: Path,
    steps: int,
    peak_lr: float,
    ema: float = 0.999,
    weight_decay: float = 0.01,
    warm_up: int = WARM_UP,
    save_every: float = 120.0,
) -> dict[str, Tensor]:
    """Train `module` for `steps` steps, or go on where an earlier call stopped.

    Args:
        name: file stem of the state and of the averaged weights in `folder`.
        module: holds every trained parameter; changed in place.
        loss_of_step: maps the step number to a scalar loss and numbers to print. It draws its batch from the step
            number alone, so that a resumed run sees what an unbroken one would have seen.
        folder: where the state is kept.
        steps: length of the schedule.
        peak_lr: learning rate after the warm-up (AdamW).
        ema: decay of the weight average at full length; shorter at the start.
        weight_decay: AdamW's.
        warm_up: steps until the learning rate is there.
        save_every: seconds between two saves of the state.

    Returns:
        The averaged weights, also written to `<name>.safetensors`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state_path, average_path = folder / f"{name}.state.pt", folder / f"{name}.safetensors"
    optimizer = torch.optim.AdamW(
        [p for p in module.parameters() if p.requires_grad],
        lr=peak_lr,
        betas=(0.9, 0.99),
        weight_decay=weight_decay,
        fused=True,
    )
    average = {key: value.detach().clone().float() for key, value in module.state_dict().items()}
    start = 0
    if state_path.exists():
        state = torch.load(state_path, map_location=pick_device(), weights_only=True)
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        average, start = state["average"], state["step"]

    def save(step: int) -> None:
        state = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "average": average, "step": step}
        partial = state_path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, state_path)
        tensors = {key: value.contiguous().cpu() for key, value in average.items()}
        save_file(tensors, average_path, metadata={STEP: str(step), STEPS: str(steps)})

    saved = time.monotonic()
    bar = tqdm(range(start, steps), name, initial=start, total=steps, mininterval=10)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak_lr, warm_up=warm_up)
        loss, numbers = loss_of_step(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), CLIP_NORM)
        optimizer.step()
        decay = min(ema, (step + 1) / (step + 10))
        with torch.no_grad():
            for key, value in module.state_dict().items():
                average[key].lerp_(value.float(), 1 - decay)
        if step % 20 == 0:
            bar.set_postfix({key: f"{value:.4g}" for key, value in numbers.items()}, refresh=False)
        if time.monotonic() - saved > save_every:
            save(step + 1)
            saved = time.monotonic()
    save(steps)
    return load_file(average_path)
