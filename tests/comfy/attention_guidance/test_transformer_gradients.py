"""Gradients of attention through ComfyUI's transformers, against differences along the gradient itself."""

import comfy.controlnet
import comfy.samplers
import pytest
import torch
from stagecraft.core.attention.comfy.families import known_family
from stagecraft.core.attention.comfy.recording import recording
from stagecraft.core.attention.recorder import AttentionRecorder
from stagecraft.core.attention.sites import ALL_BLOCKS
from stagecraft.core.attention_guidance.comfy.gradients import AttentionGradient
from stagecraft.core.attention_guidance.energies import in_box_share
from stagecraft.core.attention_guidance.target import Target
from stagecraft.core.attention_guidance.transformer_maps import energy_of_blocks
from stagecraft.tests.comfy.attention_guidance.transformer_models import model_of
from stagecraft.tests.comfy.small_network import normal
from stagecraft.tests.comfy.transformers import TRANSFORMERS, small

pytestmark = pytest.mark.usefixtures("no_gradients")
COLUMNS = torch.tensor([3, 4, 5])
SIGMA = 0.7
STEP = 0.005  # of differences: larger ones meet the jumps of HiDream's experts, smaller ones those of float32


class Guided:
    """A small network as ComfyUI's model, a state and an energy."""

    def __init__(self, made, which=ALL_BLOCKS, checkpointing=False, batch=1, control=None):
        self.which = which
        self.patcher = model_of(made)
        self.patcher.pre_run()
        self.model = self.patcher.model
        self.x, self.sigma = made.state(batch), torch.full((batch,), SIGMA)
        mask = torch.zeros(self.x.shape[-2:])
        mask[: mask.shape[0] // 2, mask.shape[1] // 3 :] = 1
        self.target = Target((0, 1, 2), mask)
        entries = [{"cross_attn": made.prompt(), "model_conds": {}, "uuid": "ours"}]
        if control is not None:
            entries[0]["control"] = control
        self.entries = comfy.samplers.encode_model_conds(
            self.model.extra_conds, entries, self.x, self.x.device, "positive"
        )
        self.gradient = AttentionGradient(
            self.model, self.entries, self.recorder, self.measure, checkpointing=checkpointing
        )

    def recorder(self, _=None, known=frozenset()):
        return AttentionRecorder(self.which, self.x.shape[-2:], [COLUMNS], known=known)

    def measure(self, _, maps):
        return energy_of_blocks(lambda maps: in_box_share(maps, [self.target]), maps)

    def energy(self, x):
        """Without a gradient, in double precision where it is small."""
        recorder = self.recorder()
        options = recording({}, {"ours": recorder}, leave_early=True)
        comfy.samplers.calc_cond_batch(self.model, [self.entries], x, self.sigma, options)
        return self.measure(None, {site: each.double() for site, each in recorder.maps.items()})

    def __call__(self, options=None):
        return self.gradient(self.x, self.sigma, options or {})


def slope_along(guided, direction):
    """Derivative of the energy along a direction, by differences of fourth order."""
    energies = [guided.energy(guided.x + share * STEP * direction).sum() for share in (-2, -1, 1, 2)]
    return (energies[0] - 8 * energies[1] + 8 * energies[2] - energies[3]).item() / (12 * STEP)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_the_gradient_is_the_slope_along_itself(name, checkpointing):
    guided = Guided(small(name), checkpointing=checkpointing)
    _, found = guided()
    assert found.shape == guided.x.shape
    size = found.norm()
    assert slope_along(guided, found / size) == pytest.approx(size.item(), rel=1e-3)


class FixedControl(comfy.controlnet.ControlBase):
    """ComfyUI's base of all ControlNets, around residuals that are there already."""

    def __init__(self, residuals):
        super().__init__()
        self.residuals = residuals

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
        return {place: [each.clone() for each in found] for place, found in self.residuals.items()}

    def cleanup(self):
        """Nothing is loaded."""


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("name", "places"),
    [("Flux", ("input", "output")), ("Chroma", ("input", "output")), ("SD 3", ("output",)), ("Qwen-Image", ("input",))],
)
def test_a_control_net_acts_and_changes_nothing_that_the_way_back_needs(name, places, checkpointing):
    """They are added in place, to parts of the tokens."""
    made = small(name)
    tokens, width = made.shape[-1] * made.shape[-2] // 4, {"SD 3": 128}.get(name, 64)
    control = FixedControl({place: [normal(1, tokens, width, seed=i) for i in range(2)] for place in places})
    guided = Guided(made, checkpointing=checkpointing, control=control)
    energy, found = guided()
    size = found.norm()
    assert slope_along(guided, found / size) == pytest.approx(size.item(), rel=1e-3)
    assert (energy - Guided(made)()[0]).abs() > 1e-4


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_checkpointing_evaluates_mlps_again_and_leaves_them_as_they_were(name):
    made, counts = small(name), []
    names = known_family(made.network).checkpointed
    parts = [part for full, part in made.network.named_modules() if full.rpartition(".")[2] in names]
    assert parts

    def counted(forward):
        def evaluate(*args, **kwargs):
            counts.append(1)
            return forward(*args, **kwargs)

        return evaluate

    for part in parts:
        part.forward = counted(part.forward)
    own = [part.forward for part in parts]
    evaluated = []
    for checkpointing in (False, True):
        counts.clear()
        Guided(made, checkpointing=checkpointing)()
        evaluated.append(len(counts))
    assert evaluated[1] > evaluated[0] > 0
    assert [part.forward for part in parts] == own


@pytest.mark.parametrize("name", ["Flux", "SD 3", "Wan"])
def test_a_pass_ends_at_the_last_block_that_is_read(name):
    made = small(name)
    family = known_family(made.network)
    blocks = [block for each in family.blocks for block in getattr(made.network, each)]
    seen = []
    for number, block in enumerate(blocks):
        block.register_forward_pre_hook(lambda *_, number=number: seen.append(number))
    guided = Guided(made, which="0" if len(blocks) < 3 else "0-1")
    for _ in range(2):  # the first pass does not know yet which attention is the last
        seen.clear()
        guided()
    assert seen == list(range(len(guided.gradient.known))) and len(seen) < len(blocks)
