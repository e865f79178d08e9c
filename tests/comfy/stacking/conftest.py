"""Small networks, pictures, layouts and tokens for every socket of our nodes."""

import comfy.controlnet
import comfy.ops
import comfy.taesd.taesd
import pytest
import torch
from comfy.cldm.cldm import ControlNet
from stagecraft.core.compose_and_conquer.comfy.exemplars import Exemplars
from stagecraft.core.editing.edits import insert, remove
from stagecraft.core.layered_rendering.comfy.settings import LayerSettings
from stagecraft.core.layout.reading import parse_layout
from stagecraft.core.soft_guidance.comfy.tokens import RegionTokens
from stagecraft.tests.comfy.compose_and_conquer import conftest as fusers
from stagecraft.tests.comfy.compose_and_conquer.small_cnc import LOOKS
from stagecraft.tests.comfy.conftest import CONTEXT, NEGATIVE, PROMPT, UNET, encode
from stagecraft.tests.comfy.families import RememberingVAE, fill
from stagecraft.tests.comfy.inversion.spatial import things
from stagecraft.tests.comfy.stacking.stack import CELL, HEIGHT, WIDTH, Stack, World, sample

folder, cnc = fusers.folder, fusers.cnc  # fixtures
TEXTS = (
    "a dog: 0 0 0.5 0.5 | colour=red\na cat: 0.5 0.25 1 1 | colour=#2040ff",
    "a cat: 0.125 0.125 0.625 0.5 | colour=green\na dog: 0.25 0.5 0.75 1 | colour=white",
)


def a_layout(copy):
    return parse_layout(TEXTS[copy], width=WIDTH, height=HEIGHT, prompt=PROMPT, background="on a meadow")


def random(*shape, seed):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def looks_of(copy):
    return Exemplars(*torch.randn(2, 1, LOOKS.tokens, CONTEXT, generator=torch.Generator().manual_seed(50 + copy)))


def half(copy):
    mask = torch.zeros(1, HEIGHT, WIDTH)
    mask[(..., slice(WIDTH // 2)) if copy == 0 else (slice(None), slice(HEIGHT // 2))] = 1
    return mask


def make_world(model, clip, vae, cnc, control_net, batch=1):
    prompts = encode(clip, PROMPT), encode(clip, NEGATIVE)

    def regions(copy):
        tokens = 2 * torch.randn(1, 4, CONTEXT, generator=torch.Generator().manual_seed(copy))
        return (RegionTokens(tokens, half(copy)),)

    def picture(seed):
        return {"samples": vae.encode(random(batch, HEIGHT, WIDTH, 3, seed=seed))}

    given = {
        "CLIP": lambda copy: clip,
        "VAE": lambda copy: vae,
        "STAGE_LAYOUT": a_layout,
        "IMAGE": lambda copy: random(batch, HEIGHT, WIDTH, 3, seed=20 + copy),
        "MASK": half,
        "latent of inverted latent": lambda copy: picture(60 + copy),
        "LATENT": lambda copy: picture(30 + copy),
        "images": lambda copy: things()[0],
        "masks": lambda copy: things()[1],
        "STAGE_CNC": lambda copy: cnc,
        "exemplars": looks_of,
        "foreground_depth": lambda copy: random(1, HEIGHT, WIDTH, 1, seed=10 + copy).expand(-1, -1, -1, 3),
        "background_depth": lambda copy: random(1, HEIGHT, WIDTH, 1, seed=40 + copy).expand(-1, -1, -1, 3),
        "edits": lambda copy: (insert(a_layout(copy).regions[0]),),
        "edits of removal": lambda copy: (remove(a_layout(copy).regions[0].mask_on(HEIGHT, WIDTH)[None], "a dog"),),
        "layers": lambda copy: (LayerSettings("a dog", encode(clip, "a brown dog"), cfg=3.0),),
        "regions": regions,
    }
    empty = torch.zeros(batch, 4, HEIGHT // CELL, WIDTH // CELL)
    return World(given, Stack(model, *prompts, empty), control_net, clip, batch)


@pytest.fixture(scope="module")
def stacked_control_net():
    network = ControlNet(**UNET, hint_channels=3, operations=comfy.ops.disable_weight_init, device="cpu")
    fill(network, 4)
    return comfy.controlnet.ControlNet(network, load_device=torch.device("cpu"))


@pytest.fixture(scope="module")
def remembering_vae():
    small = comfy.taesd.taesd.TAESD()
    fill(small, 3)
    return RememberingVAE(sd=small.state_dict())


@pytest.fixture(scope="module")
def world(no_gradients, make_model, clip, remembering_vae, cnc, stacked_control_net):
    return make_world(make_model(), clip, remembering_vae, cnc, stacked_control_net)


@pytest.fixture(scope="module")
def before(world):
    return sample(world.start, steps=1)


@pytest.fixture
def unharmed(world, before):
    """A plain run is what it was before, bit for bit."""
    yield
    assert torch.equal(sample(world.start, steps=1), before)
