"""A graph of nodes in a row: each takes the model and the prompts that the one before gives, and a sampler ends it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import pytest
import torch
from einops import reduce
from stagecraft.nodes.api import io
from torch import Tensor

STEPS, CFG, SEED = 3, 2.0, 7
CELL, HEIGHT, WIDTH = 8, 64, 128  # pixels; 8 x 16 cells, of which a cropped layer sees 8 x 8

PACK = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Stack:
    """What a sampler is given.

    Attributes:
        model: ComfyUI's.
        positive: CONDITIONING.
        negative: CONDITIONING.
        latent: (b c h w).
        noise: ComfyUI's NOISE; None: fresh noise.
        free: (1 1 h w), in cells, what of a given picture may change; None: there is no such picture.
    """

    model: Any
    positive: list
    negative: list
    latent: Tensor
    noise: Any = None
    free: Tensor | None = None


Member = Callable[["World", Stack], Stack]


class Fresh:
    """NOISE as Random Noise gives it."""

    def generate_noise(self, latent):
        return comfy.sample.prepare_noise(latent["samples"], SEED)


class Nothing:
    """NOISE as Disable Noise gives it."""

    def generate_noise(self, latent):
        return torch.zeros_like(latent["samples"])


@dataclass
class Calls:
    """What the network was given in a run: its state, context and residuals, call by call."""

    states: list[Tensor] = field(default_factory=list)
    contexts: list[Tensor] = field(default_factory=list)
    residuals: list[Tensor] = field(default_factory=list)

    def keep(self, executor, x, t, c_concat, context, control, options, **kwargs):
        self.states.append(x.detach().clone())
        self.contexts.append(context.detach().clone())
        self.residuals += [each.detach().clone() for each in (control or {}).get("middle", []) if each is not None]
        return executor(x, t, c_concat, context, control, options, **kwargs)


@dataclass
class World:
    """Small networks and what is drawn with them; the same for every stack.

    Attributes:
        given: socket -> copy's number -> value; sockets by type, by name, or by name "of" a patcher.
        start: model and prompts before any node.
        batch: pictures.
        runs: what came of stacks that were sampled already, by their members' names.
        stacks: what was made already; the models of a graph stay as long as it does.
    """

    given: dict[str, Callable[[int], Any]]
    start: Stack
    control_net: Any
    clip: Any
    batch: int = 1
    runs: dict[tuple[str, ...], tuple[Tensor, Calls]] = field(default_factory=dict)
    stacks: dict[tuple[str, ...], Stack] = field(default_factory=dict)

    def value(self, kind: str, socket: str, patcher: "Patcher") -> Any:
        """What is connected to a socket, by its name and the patcher's, by its name, or by its type."""
        name = patcher.name.removesuffix(" again")
        for key in (f"{socket} of {name}", socket, kind):
            if key in self.given:
                return self.given[key](patcher.copy)
        raise AssertionError(
            f"{patcher.node.__name__} takes a {kind} at {socket}, which the stacking tests cannot make: give "
            "it a line in `given` of tests/comfy/stacking/conftest.py."
        )

    def stacked(self, *members: Member) -> Stack:
        """The start with members put on it, the first one first."""
        names = tuple(member.name for member in members)
        if not members:
            return self.start
        if names not in self.stacks:
            self.stacks[names] = members[-1](self, self.stacked(*members[:-1]))
        return self.stacks[names]

    def picture(self, *members: Member) -> Tensor:
        """What is sampled of a stack."""
        return self.run(*members)[0]

    def run(self, *members: Member) -> tuple[Tensor, Calls]:
        """What is sampled of a stack, and what the network was given on the way."""
        names = tuple(member.name for member in members)
        if names not in self.runs:
            calls = Calls()
            self.runs[names] = sample(self.stacked(*members), calls), calls
        return self.runs[names]


def sample(stack: Stack, calls: Calls | None = None, steps: int = STEPS, sampler: str = "euler") -> Tensor:
    """What a sampler gives."""
    model = stack.model
    if calls is not None:
        model = model.clone()
        model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, "test", calls.keep)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", steps)
    noise = (stack.noise or Fresh()).generate_noise({"samples": stack.latent})
    how = CFG, comfy.samplers.sampler_object(sampler), sigmas, stack.positive, stack.negative, stack.latent
    return comfy.sample.sample_custom(model, noise, *how, disable_pbar=True, seed=SEED)


def patches(node: type[io.ComfyNode]) -> bool:
    """Whether a node gives a model or prompts of the same kind as it takes."""
    schema = node.GET_SCHEMA()
    taken = {each.get_io_type() for each in schema.inputs}
    return bool(taken & {each.get_io_type() for each in schema.outputs} & {"MODEL", "CONDITIONING"})


@dataclass(frozen=True)
class Patcher:
    """One of our nodes with its links and widgets.

    Attributes:
        name: of the variant.
        node: the class.
        links: optional inputs that are connected.
        widgets: values in place of the defaults.
        copy: 0 or 1: which of two layouts, pictures and so on it is given.
        start: which output starts the run: "noise", "latent" without noise, or neither.
    """

    name: str
    node: type[io.ComfyNode]
    links: tuple[str, ...] = ()
    widgets: dict[str, Any] = field(default_factory=dict)
    copy: int = 0
    start: str = ""

    def other(self) -> "Patcher":
        """The same node on another layout or picture."""
        return replace(self, name=f"{self.name} again", copy=1)

    def __call__(self, world: World, stack: Stack) -> Stack:
        """Run the node."""
        schema = self.node.GET_SCHEMA()
        values = {}
        for each in schema.inputs:
            kind = each.get_io_type()
            if each.id in self.widgets:
                values[each.id] = self.widgets[each.id]
            elif each.id == "batch_size":
                values[each.id] = world.batch
            elif isinstance(each, io.WidgetInput):
                values[each.id] = each.options[0] if kind == "COMBO" and each.default is None else each.default
            elif kind == "MODEL":
                values[each.id] = stack.model
            elif kind == "CONDITIONING":
                values[each.id] = getattr(stack, each.id)
            elif not each.optional or each.id in self.links:
                values[each.id] = world.value(kind, each.id, self)
        outputs = self.node.execute(**values).args
        changed: dict[str, Any] = {}
        kinds = {each.get_io_type() for each in schema.outputs}
        for each, value in zip(schema.outputs, outputs, strict=True):
            kind = each.get_io_type()
            if kind == "MODEL":
                changed["model"] = value
            elif kind == "CONDITIONING":
                changed[each.display_name] = value
            elif kind == "MASK":
                changed["free"] = reduce(value, "b (h p) (w q) -> b 1 h w", "mean", p=CELL, q=CELL)
            elif kind == "NOISE" and self.start == "noise":
                changed["noise"] = value
            elif kind == "LATENT" and ("NOISE" not in kinds or self.start == "latent"):
                changed["latent"] = value["samples"]
                if self.start == "latent":
                    changed["noise"] = Nothing()
        return replace(stack, **changed)


def difference(one: Tensor, other: Tensor) -> float:
    """The largest, in deviations of the picture."""
    return ((one - other).abs().max() / one.std()).item()


def assert_same_picture(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Equal up to rounding, which random weights enlarge."""
    assert difference(found, expected) < tolerance


def refusal(run: Callable[[], object], said: str) -> None:
    """A stack is refused by a sentence of ours that says what to do, raised where it was found out."""
    with pytest.raises(ValueError, match=said) as caught:
        run()
    raised = caught.traceback[-1]
    assert PACK in Path(raised.path).parents and str(raised.statement).lstrip().startswith("raise")
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
