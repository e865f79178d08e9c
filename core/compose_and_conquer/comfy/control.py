"""CnC's local fuser as a control object beside ControlNets, and what it must be told about a run."""

from collections.abc import Callable

import comfy.controlnet
import comfy.model_patcher
import comfy.patcher_extension
from torch import Tensor

from ...comfy.guider import OurControl
from ...comfy.runs import Run, around_runs, check_one_gpu, warn_of_idle, warn_of_plain_prompts
from ...comfy.types import BaseModel, Entry, Executor, Model, ModelSampling, Options, Wrappers
from ...soft_guidance.comfy.run import soft_attention
from ..depth_maps import DepthMap, join_rows, maps_under
from ..local_fuser import Modulations
from .files import CnC

WRAPPER = "stagecraft_depth_fusion"
RUN = "stagecraft_depth_run"  # in transformer_options: what the maps gave in this run
AREAS = "stagecraft_areas"  # in transformer_options: rows and columns of the whole latent, and areas by uuid
WINDOW = "context_window"  # in transformer_options: ComfyUI's, the part of the batch that is evaluated
PICTURES = 4  # dimensions of a latent


class DepthRun:
    """What the maps gave in one run, by control object, latent and area; it goes when the run ends or fails."""

    def __init__(self) -> None:
        self.known: dict[object, Modulations] = {}


class DepthControl(OurControl):
    """CnC's local fuser, shaped as a ControlNet; it sees the same context and soft guidance as the U-Net."""

    def __init__(
        self, cnc: CnC, maps: tuple[DepthMap, DepthMap], scales: tuple[float, ...], start: float, end: float
    ) -> None:
        """Take the fuser, foreground and background, a scale for each residual, and shares of the run."""
        super().__init__()
        self.cnc, self.maps, self.scales = cnc, maps, scales
        self.timestep_percent_range = (start, end)
        self.sampling: ModelSampling | None = None

    def copy(self) -> "DepthControl":
        """The same settings for another place in a chain."""
        other = DepthControl(self.cnc, self.maps, self.scales, *self.timestep_percent_range)
        self.copy_to(other)
        return other

    def get_models(self) -> list[Model]:
        """What ComfyUI loads for a run."""
        return [*super().get_models(), self.cnc.local]

    def pre_run(self, model: BaseModel, percent_to_timestep_function: Callable[[float], float]) -> None:
        """Before a run."""
        super().pre_run(model, percent_to_timestep_function)
        self.sampling = model.model_sampling

    def cleanup(self) -> None:
        """After a run."""
        super().cleanup()
        self.sampling = None

    def get_control(
        self,
        x_noisy: Tensor,
        t: Tensor,
        cond: Options,
        batched_number: int,
        transformer_options: Options,
    ) -> dict[str, list[Tensor]] | None:
        """Residuals at one step, joined with those of the ControlNets before.

        Raises:
            ValueError: depth maps of another shape or number than the pictures, or a model without our wrappers.
        """
        if RUN not in transformer_options:
            raise ValueError(
                "The prompts come from Depth Compose, but the model does not. Connect the model output of Depth "
                "Compose to the sampler too."
            )
        previous = None
        if self.previous_controlnet is not None:
            previous = self.previous_controlnet.get_control(x_noisy, t, cond, batched_number, transformer_options)
        # The noise level lies on the device, as in ComfyUI's own ControlNets.
        if self.timestep_range is not None and not self.timestep_range[1] <= t[0] <= self.timestep_range[0]:
            return previous
        fuser, dtype = self.cnc.local.model, self.cnc.dtype
        residuals, middle = fuser.residuals(
            self.sampling.calculate_input(t, x_noisy).to(dtype),
            self.sampling.timestep(t),
            cond["c_crossattn"].to(x_noisy.device, dtype),
            self._modulations(x_noisy, batched_number, transformer_options),
            soft_attention(transformer_options),
        )
        outputs = [residual * scale for residual, scale in zip([*residuals, middle], self.scales, strict=True)]
        return self.control_merge({"middle": outputs[-1:], "output": outputs[:-1]}, previous, None)

    def _modulations(self, x: Tensor, entries: int, options: Options) -> Modulations:
        """What the maps give for each row of a batch, or one row for all; the maps are looked at once per run."""
        if WINDOW in options and any(each.image is not None and len(each.image) > 1 for each in self.maps):
            raise ValueError(
                "Context windows cut the batch, but Depth Compose has depth maps for single pictures. Give it one map "
                "in front and one behind."
            )
        whole, area_of = options.get(AREAS, (tuple(x.shape[-2:]), {}))
        keys = [(self, whole, area_of.get(uuid)) for uuid in options["uuids"]]
        pictures, known = len(x) // entries, options[RUN].known
        for key in keys:
            if key not in known:
                maps = [depth.to(x.device, self.cnc.dtype) for depth in maps_under(self.maps, *key[1:], pictures)]
                known[key] = self.cnc.local.model.modulations(*maps)
        return join_rows([known[key] for key in keys], pictures)


def follow_depths(model: Model) -> Model:
    """Give a clone of the model that tells control objects of their run; doing so twice changes nothing more."""
    return around_runs(model, WRAPPER, _remember_run)


def _remember_run(run: Run) -> Tensor:
    check_one_gpu(run, "Depth Compose")
    controls = [control for entry in run.entries if (control := _depth_of(entry.get("control"))) is not None]
    if not controls:
        warn_of_plain_prompts(run, "Depth Compose", "depths")
    else:
        level = run.model_sampling.percent_to_sigma
        starts, ends = zip(*(control.timestep_percent_range for control in controls), strict=True)
        warn_of_idle(run, "Depth Compose", "start_at and end_at", level(min(starts)), level(max(ends)))
    _share_control(run.guider.conds)
    run.options.setdefault("transformer_options", {})[RUN] = DepthRun()
    run.wrap(Wrappers.CALC_COND_BATCH, WRAPPER, _tell_areas)
    return run.go()


def _share_control(conds: dict[str, list[Entry]]) -> None:
    """Give the negative prompt what Apply ControlNet (OLD), behind Depth Compose, has put on the positive one alone.

    ComfyUI does so in a run, but only where the negative prompt has no control object, and ours is one.
    """
    shared = [
        entry["control"]
        for entry in conds.get("positive", ())
        if entry.get("control_apply_to_uncond") and _depth_of(entry.get("control")) is not None
    ]
    ours = [entry for entry in conds.get("negative", ()) if isinstance(entry.get("control"), DepthControl)]
    for count, entry in enumerate(ours if shared else ()):
        entry["control"] = shared[count % len(shared)]


def _depth_of(control: comfy.controlnet.ControlBase | None) -> DepthControl | None:
    """The newest of a prompt's control objects that has depths."""
    while control is not None and not isinstance(control, DepthControl):
        control = control.previous_controlnet
    return control


def _tell_areas(
    executor: Executor,
    model: BaseModel,
    conds: list[list[Entry] | None],
    x: Tensor,
    timestep: Tensor,
    model_options: Options,
) -> list[Tensor]:
    """CALC_COND_BATCH wrapper: a control object is only given the cut-out latent of an entry with an area."""
    entries = [entry for conditioning in conds for entry in conditioning or [] if entry.get("area") is not None]
    if not entries or x.ndim != PICTURES:
        return executor(model, conds, x, timestep, model_options)
    options = comfy.model_patcher.create_model_options_clone(model_options)
    areas = {entry["uuid"]: tuple(entry["area"]) for entry in entries}
    options.setdefault("transformer_options", {})[AREAS] = (tuple(x.shape[-2:]), areas)
    return executor(model, conds, x, timestep, options)
