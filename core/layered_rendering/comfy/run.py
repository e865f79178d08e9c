"""What layered rendering does in one run of a ComfyUI sampler: masks, the switch at t0, and vision guidance."""

from collections.abc import Callable
from uuid import UUID

import comfy.model_patcher
import torch
from comfy.utils import repeat_to_batch_size
from torch import Tensor

from ...attention.comfy.phrases import read_phrase_attention
from ...comfy.runs import Run, check_canvas
from ...comfy.sampling import signal_and_noise
from ...comfy.types import Entry, Executor, ModelSampling, Options, Wrappers
from ...layout.masks import resample_by_area
from ..vision_guidance import EVERY_STEP, FIRST_STEP
from .cropping import areas_of_layers
from .entry import GivenPart, HandOver, LayerEntry, VisionEntry
from .layer_on_grid import RunLayer
from .state import scale_of_state

WRAPPER = "stagecraft_layers"
WINDOW = "context_window"  # in transformer_options: ComfyUI's, the part of the batch or of a video that is evaluated


class LayeredRun:
    """The layers of one run.

    Attributes:
        run: of the sampler.
        guider: the run's.
        layer_of: layer by the uuid of an entry.
        margins: around what is seen of a cropped layer.
        areas: rows, columns, top and left of the cropped entries, by uuid; from the first model call on.
        alone: the layer that is being sampled apart, or None.
        apart_until: last noise level of the layers where they are sampled apart, or None.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.guider, self.sigmas, self.sampling = run, run.guider, run.sigmas, run.model_sampling
        self.layer_of: dict[UUID, RunLayer] = {}
        self.global_uuids: set[UUID] = set()
        self.margins: dict[RunLayer, int] = {}
        self.areas: dict[UUID, tuple[int, ...]] = {}
        self.alone: RunLayer | None = None
        self.apart_until: float | None = None
        self.last_layered_sigma = 0.0
        # Where a run goes on, its first step was in another run.
        self.first_sigma = torch.full_like(self.sigmas[0], torch.inf) if run.goes_on else self.sigmas[0]
        self.started = False
        layers: dict[int, RunLayer] = {}
        for entry in run.entries:
            self._read(entry, layers, run.noise)
        self.layers = list(layers.values())

    def _read(self, entry: Entry, layers: dict[int, RunLayer], noise: Tensor) -> None:
        """Take what is ours off an entry and leave what ComfyUI understands."""
        hand_over = HandOver.from_options(entry) or HandOver()
        apart_until, layers_until = hand_over.trajectories_until, hand_over.layers_until
        if apart_until is not None:
            self.apart_until = self.last_layered_sigma = _last_sigma(self.sampling, apart_until)
        if layers_until is not None:
            self.last_layered_sigma = _last_sigma(self.sampling, layers_until)
            _hand_over(entry, self.last_layered_sigma, self.sampling.percent_to_sigma)
        if (given := GivenPart.from_options(entry)) is not None:
            _check_shape(given.part, noise)
            part = resample_by_area(given.part, *noise.shape[-2:]).to(self.guider.model_patcher.load_device)
            if entry.get("mask") is not None:  # of a later node
                part = _masked(part, entry["mask"])
            entry["mask"] = part if noise.ndim == 4 else part[:, None]
        ours, vision = LayerEntry.from_options(entry), VisionEntry.from_options(entry)
        if ours is None:
            if apart_until is not None:
                self.global_uuids.add(entry["uuid"])
            return
        _check_shape(ours.visible_mask, noise)
        if ours.layer not in layers:
            layers[ours.layer] = RunLayer(ours, vision, noise, self.guider.model_patcher.load_device)
        layer = self.layer_of[entry["uuid"]] = layers[ours.layer]
        _check_no_area(entry)
        if self.apart_until is None:
            mask = _seen_through(entry.get("mask"), ours, layer.visible)
            # One frame for a whole video: ComfyUI broadcasts it, also over a window of a few frames.
            entry["mask"] = mask if noise.ndim == 4 else mask[:, None]
            if ours.crop is not None:
                _check_can_crop(entry)
                self.margins[layer] = ours.crop
                # Together with an area ComfyUI cuts the mask's frames too.
                entry["mask"] = mask if noise.ndim == 4 else mask[:, None].expand(-1, *noise.shape[2:])

    def install(self) -> None:
        """Add to this run's model options what the layers need, and nothing where they need nothing."""
        seen_by_network = (EVERY_STEP,) if self.apart_until is not None else (EVERY_STEP, FIRST_STEP)
        if any(layer.is_guided and layer.inject in seen_by_network for layer in self.layers):
            self.run.wrap(Wrappers.APPLY_MODEL, WRAPPER, self._guide_rows)
        dynamic = any(layer.said is not None for layer in self.layers)
        if self.apart_until is None and (dynamic or self.margins):
            self.run.wrap(Wrappers.PREDICT_NOISE, WRAPPER, self._start)
        if any(layer.cfg is not None for layer in self.layers):
            if "negative" not in self.guider.conds:
                raise ValueError(
                    "A layer has a CFG of its own, but this guider has no negative prompt. Use KSampler or CFGGuider."
                )
            comfy.model_patcher.set_model_options_pre_cfg_function(self.run.options, self._scale_cfg, True)

    def _start(self, executor: Executor, x: Tensor, sigma: Tensor, *args: object, **kwargs: object) -> Tensor:
        """PREDICT_NOISE wrapper: before the first model call, crops the layers and measures the dynamic deltas."""
        if not self.started:
            self.started = True
            self.measure(x, sigma, args[0] if args else kwargs.get("model_options", {}))
            self._crop()
        return executor(x, sigma, *args, **kwargs)

    def _crop(self) -> None:
        """Give the cropped entries their areas.

        Only once a run is under way: before, ComfyUI would have given every area a counterpart among the negative
        prompts, and the conditionings that a batch must agree in are not there yet.
        """
        entries: dict[RunLayer, list[Entry]] = {}
        for entry in self.run.entries:
            layer = self.layer_of.get(entry["uuid"])
            if layer in self.margins:
                entries.setdefault(layer, []).append(entry)
        self.areas = areas_of_layers(entries, self.margins)
        for entry in self.run.entries:
            if entry["uuid"] in self.areas:
                entry["area"] = self.areas[entry["uuid"]]

    def measure(self, x: Tensor, sigma: Tensor, model_options: Options) -> None:
        """Measure the dynamic deltas (Eq. 6) with one evaluation of the captions at the state x (b c h w)."""
        entries = {}
        for entry in self.guider.conds["positive"]:
            layer = self.layer_of.get(entry["uuid"])
            if layer is not None and layer.said is not None and layer not in entries:
                entries[layer] = entry
        if not entries:
            return
        said = {entry["uuid"]: layer.said for layer, entry in entries.items()}
        maps = read_phrase_attention(self.guider.inner_model, list(entries.values()), said, x, sigma, model_options)
        scale = self.scale_of_state(x, sigma)
        data = (signal_and_noise(self.sampling, x, sigma)[0] / scale).flatten()
        for layer, entry in entries.items():
            layer.measure(x / scale, maps[entry["uuid"]], data)

    def scale_of_state(self, x: Tensor, sigma: Tensor) -> Tensor:
        """`state_scale` of every row, (b 1 1 ...), from how this model's own sampling mixes data and noise."""
        return scale_of_state(self.sampling, x, sigma)

    def _guide_rows(
        self,
        executor: Executor,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: dict[str, list[Tensor | None]] | None = None,
        transformer_options: Options | None = None,
        **kwargs: object,
    ) -> Tensor:
        """APPLY_MODEL wrapper that adds xi to the rows of the guided layers.

        A ControlNet has already been evaluated by then: it sees the unperturbed state, of which its hint speaks.
        """
        rest = (t, c_concat, c_crossattn, control, transformer_options or {})
        uuids = rest[-1].get("uuids", [])
        guided = [self.layer_of[uuid] if self._has_xi(uuid) else None for uuid in uuids]
        if not any(guided):
            return executor(x, *rest, **kwargs)
        offset = torch.zeros_like(x)
        scale = scale_of_state(executor.class_obj.model_sampling, x, t)
        # Compared where it lies: asking for the value would make the host wait for the device.
        at_first = (t >= self.first_sigma.to(t)).to(x).reshape(scale.shape)
        window = rest[-1].get(WINDOW)
        cut = None if window is None else window.get_tensor
        chunks = (part.chunk(len(uuids)) for part in (offset, scale, at_first))
        for uuid, layer, (rows, factor, first) in zip(uuids, guided, zip(*chunks, strict=True), strict=True):
            if layer is not None:
                factor = factor if layer.inject == EVERY_STEP else factor * first
                rows += factor * layer.xi_for(rows, self.areas.get(uuid), cut)
        denoised = executor(x + offset, *rest, **kwargs)
        without = [layer is not None and layer.without for layer in guided]
        if not any(without):
            return denoised
        for rows, is_taken_off in zip(offset.chunk(len(uuids)), without, strict=True):
            if not is_taken_off:
                rows.zero_()
        # A clean prediction is linear in the state beside the output: what xi alone would become is taken off again.
        nothing = torch.zeros_like(denoised)
        return denoised - executor.class_obj.model_sampling.calculate_denoised(t, nothing, offset.to(denoised))

    def _has_xi(self, uuid: UUID) -> bool:
        layer = self.layer_of.get(uuid)
        return layer is not None and layer.xi is not None

    def _scale_cfg(self, args: Options) -> list[Tensor]:
        """Pre-CFG function: gives the layers with a CFG of their own another share of (cond - uncond)."""
        cond, uncond, *others = args["conds_out"]
        if not args["cond_scale"]:
            return args["conds_out"]
        ratio = 1.0
        if self.alone is not None:
            ratio = 1.0 if self.alone.cfg is None else self.alone.cfg / args["cond_scale"]
        elif self.apart_until is None:
            ratio = torch.ones_like(cond)
            for layer in self.layers:
                # Every layer once: a joined one for the negative prompt has no CFG of its own.
                if layer.cfg is not None:
                    ratio = ratio + (layer.cfg / args["cond_scale"] - 1) * layer.visible_for(cond)
            layered = args["sigma"] >= self.last_layered_sigma
            ratio = torch.where(layered.reshape((-1,) + (1,) * (cond.ndim - 1)), ratio, 1.0)
        return [uncond + ratio * (cond - uncond), uncond, *others]


def _check_shape(visible: Tensor, noise: Tensor) -> None:
    check_canvas(noise, *visible.shape[-2:])
    if len(visible) not in (1, len(noise)):
        raise ValueError(
            f"There are {len(visible)} layouts for a batch of {len(noise)} pictures. Give the empty latent a "
            f"batch_size of {len(visible)}, or use one layout for all pictures."
        )


def _check_no_area(entry: Entry) -> None:
    if "area" in entry or entry.get("set_area_to_bounds"):
        raise ValueError(
            "A node behind Layered Rendering or Edit Picture in Layers gives its prompts an area, but layers have "
            'their own places. Use Conditioning (Set Mask) with set_cond_area "default", or set the area on other '
            "prompts and combine those with the layers."
        )


def _seen_through(mask: Tensor | None, ours: LayerEntry, visible: Tensor) -> Tensor:
    """What is seen of a layer (b h w) through the mask that a later node has put in place of the layer's own."""
    if mask is None or mask is ours.visible_mask or torch.equal(mask.to(ours.visible_mask), ours.visible_mask):
        return visible
    return _masked(visible, mask)


def _masked(part: Tensor, mask: Tensor) -> Tensor:
    """A part of the grid (b h w) through a mask of any size."""
    mask = resample_by_area(mask.reshape(-1, *mask.shape[-2:]), *part.shape[-2:]).to(part)
    rows = max(len(mask), len(part))
    return repeat_to_batch_size(mask, rows) * repeat_to_batch_size(part, rows)


def _check_can_crop(entry: Entry) -> None:
    if entry.get("control") is not None:
        raise ValueError(
            "A ControlNet cannot be cropped with its layer: its hint is for the whole canvas. Switch crop off, or "
            "remove the ControlNet."
        )


def _last_sigma(sampling: ModelSampling, until: float) -> float:
    """Lowest noise level, in float32 as samplers have it, at which the layers still rule."""
    return torch.tensor(float(sampling.percent_to_sigma(until)), dtype=torch.float32).item()


def _hand_over(entry: Entry, last: float, percent_to_sigma: Callable[[float], float]) -> None:
    """Start a global entry at the first noise level below the layers' last, so that no step counts twice or not at all.

    ComfyUI keeps both ends of an entry's share of the run, so two entries that meet at t0 would both be active there.
    """
    below = torch.nextafter(torch.tensor(last), torch.tensor(-torch.inf)).item()
    entry["timestep_start"] = min(below, float(percent_to_sigma(entry.pop("start_percent"))))
