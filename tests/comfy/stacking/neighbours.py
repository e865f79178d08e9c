"""ComfyUI's own nodes that patch a model or prompts, as members of a stack."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import comfy.sd
import torch
from comfy_extras.nodes_context_windows import ContextWindowsManualNode
from comfy_extras.nodes_easycache import EasyCacheNode
from comfy_extras.nodes_freelunch import FreeU, FreeU_V2
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from stagecraft.tests.comfy.conftest import encode
from stagecraft.tests.comfy.signatures import accepted
from stagecraft.tests.comfy.stacking.stack import HEIGHT, WIDTH, Stack, World

import nodes as comfy_nodes


@dataclass(frozen=True)
class Neighbour:
    """One of ComfyUI's nodes.

    Attributes:
        name: of the node.
        put: world, stack -> stack.
    """

    name: str
    put: Callable[[World, Stack], Stack]

    def __call__(self, world: World, stack: Stack) -> Stack:
        """Run the node."""
        return self.put(world, stack)


def given(answer: Any) -> Any:
    """The first output of a node of either kind."""
    return answer.args[0] if hasattr(answer, "args") else answer[0]


def run(node: type, **values: Any) -> Any:
    """The first output of a node, however its version calls its method."""
    method = node.execute if hasattr(node, "execute") else getattr(node(), node.FUNCTION)
    return given(method(**values))


def lora(world: World, stack: Stack) -> Stack:
    generator, weights = torch.Generator().manual_seed(5), {}
    for name, weight in stack.model.model.diffusion_model.named_parameters():
        if name.endswith(("attn1.to_q.weight", "attn2.to_v.weight")):
            key = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
            weights[f"{key}.lora_up.weight"] = torch.randn(weight.shape[0], 2, generator=generator)
            weights[f"{key}.lora_down.weight"] = torch.randn(2, weight.shape[1], generator=generator)
    return replace(stack, model=comfy.sd.load_lora_for_models(stack.model, None, weights, 0.5, 0)[0])


def control_net(world: World, stack: Stack) -> Stack:
    hint = torch.rand(1, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(6))
    apply = comfy_nodes.ControlNetApplyAdvanced().apply_controlnet
    positive, negative = apply(stack.positive, stack.negative, world.control_net, hint, 0.8, 0.0, 1.0)
    return replace(stack, positive=positive, negative=negative)


def old_control_net(world: World, stack: Stack) -> Stack:
    hint = torch.rand(1, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(6))
    positive, *_ = comfy_nodes.ControlNetApply().apply_controlnet(stack.positive, world.control_net, hint, 0.8)
    return replace(stack, positive=positive)


def on_model(node: type, **values: Any) -> Callable[[World, Stack], Stack]:
    return lambda world, stack: replace(stack, model=run(node, model=stack.model, **values))


def set_mask(area: str) -> Callable[[World, Stack], Stack]:
    def put(world: World, stack: Stack) -> Stack:
        mask = torch.zeros(1, HEIGHT, WIDTH)
        mask[..., : 3 * WIDTH // 4] = 1
        (positive,) = comfy_nodes.ConditioningSetMask().append(stack.positive, mask, area, 0.5)
        return replace(stack, positive=positive + encode(world.clip, "a tree"))

    return put


def set_area(world: World, stack: Stack) -> Stack:
    (positive,) = comfy_nodes.ConditioningSetArea().append(stack.positive, WIDTH, HEIGHT // 2, 0, 0, 0.5)
    return replace(stack, positive=positive + encode(world.clip, "a tree"))


def windows(world: World, stack: Stack) -> Stack:
    values = {
        "context_length": 3,
        "context_overlap": 1,
        "context_schedule": "standard_static",
        "context_stride": 1,
        "closed_loop": False,
        "fuse_method": "pyramid",
        "dim": 0,
        **accepted(ContextWindowsManualNode.execute, freenoise=False),
    }
    return replace(stack, model=run(ContextWindowsManualNode, model=stack.model, **values))


NEIGHBOURS = [
    Neighbour("LoRA", lora),
    Neighbour("ControlNet", control_net),
    Neighbour("ControlNet (old)", old_control_net),
    Neighbour("PAG", on_model(PerturbedAttentionGuidance, scale=1.5)),
    Neighbour("FreeU", on_model(FreeU, b1=1.1, b2=1.2, s1=0.9, s2=0.2)),
    Neighbour("FreeU_V2", on_model(FreeU_V2, b1=1.3, b2=1.4, s1=0.9, s2=0.2)),
    Neighbour("SetMask", set_mask("default")),
    Neighbour("SetMask bounds", set_mask("mask bounds")),
    Neighbour("SetArea", set_area),
    Neighbour(
        "EasyCache",
        on_model(EasyCacheNode, reuse_threshold=3.0, start_percent=0.0, end_percent=1.0, verbose=False),
    ),
]
WINDOWS = Neighbour("context windows", windows)
CONTROL_NETS = ("ControlNet", "ControlNet (old)")
MASKS, AREAS = ("SetMask",), ("SetMask bounds", "SetArea")
