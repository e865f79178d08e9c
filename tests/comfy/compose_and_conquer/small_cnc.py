"""Small fusers, what is composed with them, and what the U-Net is given in a run, for tests in a real sampler."""

import comfy.patcher_extension
import comfy.sample
import torch
from stagecraft.core.compose_and_conquer.comfy.compose import Looks, compose_depth
from stagecraft.core.compose_and_conquer.comfy.exemplars import Exemplars
from stagecraft.core.compose_and_conquer.config import FuserConfig
from stagecraft.core.compose_and_conquer.depth_maps import Depths
from stagecraft.core.compose_and_conquer.files import write_fusers
from stagecraft.core.compose_and_conquer.global_fuser import GlobalFuser, TokenConfig
from stagecraft.core.compose_and_conquer.local_fuser import LocalFuser
from stagecraft.core.soft_guidance.soft_guidance import PUBLISHED
from stagecraft.tests.comfy.families import fill

STEPS, CFG, SIZE = 3, 4.0, (8, 8)
CONTEXT = 16  # of the small model
CONFIG = FuserConfig(
    model_channels=32,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_levels=(1,),
    num_head_channels=32,
    context_dim=CONTEXT,
    extractor_widths=(4, 6, 6, 8),
    stage_widths=(8, 12),
)
LOOKS = TokenConfig(embedding=10, context=CONTEXT)
ROUNDING = 1e-5  # of the largest value: float32, with sums in another order
LORA = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_q.weight"


def write_both(path):
    """A file of both fusers with random weights, which are given back."""
    local, looks = LocalFuser(CONFIG), GlobalFuser(LOOKS)
    fill(local, 7)
    fill(looks, 8)
    write_fusers(path, local.state_dict(), looks.state_dict(), 32)
    return local, looks


def compose(model, positive, negative, cnc, exemplars=None, mask=None, rule=PUBLISHED, **depths):
    """`compose_depth` with everything by its own name."""
    return compose_depth(model, positive, negative, cnc, Depths(**depths), Looks(exemplars, mask, rule))


def half_mask(rows=SIZE[0], columns=SIZE[1]):
    mask = torch.zeros(1, 8 * rows, 8 * columns)
    mask[:, :, : 4 * columns] = 1
    return mask


def looks():
    return Exemplars(*torch.randn(2, 1, LOOKS.tokens, CONTEXT, generator=torch.Generator().manual_seed(2)))


def sample(prepared, size=SIZE, batch=1, cfg=CFG, callback=None):
    latent = torch.zeros(batch, 4, *size)
    noise = comfy.sample.prepare_noise(latent, 7)
    model, *prompts = prepared
    return comfy.sample.sample(
        model, noise, STEPS, cfg, "euler", "normal", *prompts, latent, callback=callback, seed=7, disable_pbar=True
    )


class Seen:
    """What the U-Net is given at every call."""

    def __init__(self, prepared):
        self.calls = []
        self.model = prepared[0].clone()
        kind = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
        self.model.add_wrapper_with_key(kind, "test", self.keep)
        self.prepared = (self.model, *prepared[1:])

    def keep(self, executor, x, timesteps, context, y, control, options, **kwargs):
        residuals = control and [None if r is None else r.clone() for r in (*control["output"], *control["middle"])]
        self.calls.append((x.clone(), timesteps.clone(), context.clone(), residuals, list(options["uuids"])))
        return executor(x, timesteps, context, y, control, options, **kwargs)


def seen(prepared, *args, **kwargs):
    """The calls of one run; the last ones of CFG's two rows come together or one by one."""
    watcher = Seen(prepared)
    sample(watcher.prepared, *args, **kwargs)
    return watcher.calls


def residuals_of(cnc, call, maps, attend=None):
    """Of one call by the plain forward pass, with maps (rows 3 8h 8w) that were made for it here."""
    x, timesteps, context, *_ = call
    rows, middle = cnc.local.model(x, timesteps, context, *(m.expand(len(x), -1, -1, -1) for m in maps), attend)
    return [*rows, middle]


def assert_same(found, expected):
    """Tensors, or lists of them."""
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape and largest_difference(one, other) <= ROUNDING * other.abs().max().item()


def largest_difference(one, other):
    return (one - other).abs().max().item()


def as_maps(depths):
    return [depth.movedim(-1, 1).contiguous() for depth in depths]
