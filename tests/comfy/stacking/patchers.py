"""Our nodes that patch a model or prompts, in variants that act in different ways, and what shows that each acted."""

from collections.abc import Sequence

import torch
from stagecraft.core.attention_guidance.comfy.guide import GUIDANCE_LOG
from stagecraft.core.attention_guidance.published import CHEN
from stagecraft.nodes import NODES
from stagecraft.nodes.attention_guidance.attention_guidance import NEVER, OWN, StageAttentionGuidance
from stagecraft.nodes.compose_and_conquer.compose import StageDepthCompose
from stagecraft.nodes.editing.edit_picture import StageEditPicture
from stagecraft.nodes.inversion.invert import StageInvert
from stagecraft.nodes.inversion.spatial_latent import StageSpatialLatent
from stagecraft.nodes.layered_rendering.layered_rendering import StageLayeredRendering
from stagecraft.nodes.soft_guidance.soft_guidance import StageSoftGuidance
from stagecraft.tests.comfy.conftest import encode
from stagecraft.tests.comfy.stacking.stack import STEPS, Calls, Member, Patcher, Stack, World, patches
from torch import Tensor

GUIDANCE = {"energy": CHEN, "strength": 10.0, "settings": OWN, "iterations": 2, "end_at": 0.6, "threshold": NEVER}
INVERSION = {"steps": STEPS, "measure": False}
SPATIAL = {"steps": STEPS, "background": "grey noise"}
LAYERS = {"end_at": 0.5}

VARIANTS = [
    Patcher("guidance", StageAttentionGuidance, (), GUIDANCE),
    Patcher("layers", StageLayeredRendering, ("vae",), LAYERS),
    Patcher("cropped layers", StageLayeredRendering, ("vae", "layers"), LAYERS | {"crop": True, "crop_margin": 0}),
    Patcher("trajectories", StageLayeredRendering, ("vae",), LAYERS | {"mode": "trajectories"}),
    Patcher("dynamic layers", StageLayeredRendering, (), LAYERS | {"source": "dynamic", "top_k": 5}),
    Patcher("soft phrases", StageSoftGuidance, ("clip", "layout"), {"strength": 0.2}),
    Patcher("soft regions", StageSoftGuidance, ("regions",)),
    Patcher("depths", StageDepthCompose, ("foreground_depth", "background_depth")),
    Patcher("depths and looks", StageDepthCompose, ("foreground_depth", "exemplars", "mask")),
    Patcher("edit", StageEditPicture, ("edits",), {"edge": 8}),
    Patcher("removal", StageEditPicture, ("edits",), {"edge": 8, "background": "on a meadow"}),
    Patcher("inverted noise", StageInvert, (), INVERSION, start="noise"),
    Patcher("inverted latent", StageInvert, (), INVERSION, start="latent"),
    Patcher("spatial noise", StageSpatialLatent, ("images", "masks"), SPATIAL, start="noise"),
]
# A node without a variant is stacked with its required links and its defaults.
PATCHERS = VARIANTS + [
    Patcher(node.__name__, node) for node in NODES if patches(node) and node not in {each.node for each in VARIANTS}
]
BY_NAME = {each.name: each for each in PATCHERS}
LAYERED = ("layers", "cropped layers", "trajectories", "dynamic layers")
EDITS = ("edit", "removal")
STARTS = ("inverted noise", "inverted latent", "spatial noise")
INVERTED = STARTS[:2]


def is_said(text: Tensor, calls: Calls) -> bool:
    """Whether the U-Net was told a prompt (1 t c), with whatever tokens behind it."""
    return any(
        bool((rows[:, : text.shape[1]] == text).flatten(1).all(1).any())
        for rows in calls.contexts
        if rows.shape[1] >= text.shape[1]
    )


def is_shown(token: Tensor, calls: Calls) -> bool:
    """Whether a token (c) was among the columns behind the text."""
    return any(bool((rows[:, 77:] == token).all(-1).any()) for rows in calls.contexts)


def evidence(world: World, members: Sequence[Member], stack: Stack, calls: Calls, picture: Tensor) -> list[str]:
    """Names of the members that left no trace in a run, apart from what the picture says."""
    phrase = encode(world.clip, "a cat")[0][0]
    missing = []
    for member in members:
        kind, copy = member.name.removesuffix(" again"), getattr(member, "copy", 0)
        if kind == "guidance":
            runs = GUIDANCE_LOG.find(picture)
            energies = [each.energies for run in runs for each in run.measurements]
            guided = sum(each.name.startswith("guidance") for each in members)
            seen = len(runs) == guided and all(run.measurements for run in runs)
            seen = seen and bool(torch.tensor(energies).isfinite().all())
        elif kind in LAYERED:
            seen = is_said(phrase, calls)
        elif kind == "soft phrases":
            seen = is_shown(phrase[0, 2], calls)
        elif kind == "soft regions":
            seen = is_shown(world.given["regions"](copy)[0].tokens[0, 0], calls)
        elif kind in ("depths", "depths and looks"):
            seen = bool(calls.residuals) and all(bool(each.any()) for each in calls.residuals)
            if kind == "depths and looks":
                seen = seen and is_shown(world.given["exemplars"](copy).foreground[0, 0], calls)
        elif kind in EDITS:
            outside = (stack.free == 0).expand_as(picture)
            same, changed = picture == stack.latent, (picture != stack.latent)[~outside]
            seen = bool(outside.any() and same[outside].all() and changed.float().mean() > 0.9)
        else:
            seen = True  # what the picture says is enough
        missing += [] if seen else [member.name]
    return missing
