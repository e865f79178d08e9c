"""What Compose and Conquer's evaluation paints with: our fusers, settings to try, and the control with a single map.

The control is the same network, trained for as many steps with the whole scene's depth in place of the two. It is not
shipped: its weights are taken from the training folder.
"""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors.torch import load_file

from ...commands.messages import SetupProblem
from ...sticker_world.compose_and_conquer.train import export_fusers
from ...sticker_world.shipped import CNC_FILE
from ...sticker_world.training.loop import is_trained, weights_folder
from ..painter import Painter, evaluation_server
from .graphs import CnC
from .order import SINGLE

CNC = "cnc"
SINGLE_FILE = "cnc_single.safetensors"
FUSERS_FILE = "evaluated.safetensors"  # on the server
# One setting at a time on the tuning sets, by which the nodes' defaults are chosen.
TRIED: dict[str, dict[str, float]] = {
    f"{CNC} {name}={value:g}": {name: value}
    for name, values in {
        "residual_scale": (0.5, 0.75, 1.25, 1.5),
        "foreground_depth_strength": (0.5, 2.0),
        "background_depth_strength": (0.5, 2.0),
    }.items()
    for value in values
}


@dataclass(frozen=True)
class Methods:
    """What is painted with.

    Attributes:
        ours: with its settings, by name.
        single: the control with a single depth map; None where its weights are missing.
    """

    ours: dict[str, CnC]
    single: CnC | None

    def with_depths(self, *others: str) -> dict[str, CnC | None]:
        """All that take depth maps, and others that need no settings."""
        found: dict[str, CnC | None] = dict(self.ours)
        if self.single is not None:
            found[SINGLE] = self.single
        return found | dict.fromkeys(others)


def default_single() -> Path:
    """Where training leaves the control's averaged weights."""
    return weights_folder() / SINGLE_FILE


@contextmanager
def cnc_painter(fusers: Path | None, single: Path | None, tuning: bool) -> Iterator[tuple[Painter, Methods]]:
    """A painter whose server knows the fusers and the control, and the methods that they are.

    Args:
        fusers: averaged weights of a training part, or None for the shipped file.
        single: averaged weights of the control, or None for those in the training folder, if they are there.
        tuning: also try one setting at a time.

    Raises:
        SetupProblem: the shipped fusers are missing, or a named file.
    """
    if fusers is None and not CNC_FILE.is_file():
        raise SetupProblem(f"{CNC_FILE} is missing. Make it with: python stage.py train cnc_joint cnc_export")
    for option, file in (("--fusers", fusers), ("--single", single)):
        if file is not None and not file.is_file():
            raise SetupProblem(f"There is no file {file}. Leave {option} out, or name another.")
    single = single or default_single()
    with tempfile.TemporaryDirectory() as folder:
        ours, control = CnC(), None
        if fusers is not None:
            export_fusers(load_file(fusers), Path(folder) / FUSERS_FILE)
            ours = CnC(file=FUSERS_FILE)
        if is_trained(single):
            export_fusers(load_file(single), Path(folder) / SINGLE_FILE)
            control = CnC(file=SINGLE_FILE)
        else:
            logging.warning(
                f"There are no fully trained weights {single} of the control with a single depth map, so its rows are "
                "left out. Train them with: python stage.py train cnc_single"
            )
        configuration = Path(folder) / "models.yaml"
        configuration.write_text(f"evaluated:\n  cnc: {Path(folder).as_posix()}\n", encoding="utf-8")
        tried = {name: replace(ours, **changed) for name, changed in TRIED.items()} if tuning else {}
        with evaluation_server(configuration) as server:
            yield Painter(server), Methods({CNC: ours} | tried, control)
