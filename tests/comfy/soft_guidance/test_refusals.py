"""Models, tokens and masks that cannot be meant are refused in words that say what to change."""

import comfy.hooks
import pytest
import torch
from comfy_extras.nodes_hooks import SetClipHooks
from stagecraft.core.layout.reading import parse_layout
from stagecraft.core.soft_guidance.comfy.apply import apply_soft_guidance
from stagecraft.core.soft_guidance.comfy.regions import phrase_regions
from stagecraft.core.soft_guidance.comfy.tokens import RegionTokens
from stagecraft.tests.comfy.conftest import CONTEXT
from stagecraft.tests.comfy.soft_guidance.small_regions import (
    left,
    sample,
    soft,
    tokens,
    two_sides,
)
from stagecraft.tests.comfy.transformers import small

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("HiDream-I1", r"does not work on HiDream-I1: it needs .* two text encoders .*Use Layered Rendering"),
        ("Anima", r"does not work on Anima: an adapter .*Use Layered Rendering"),
    ],
)
def test_transformers_that_it_does_not_work_on_say_why(name, reason, plain_model, prompts):
    model = plain_model.clone()
    model.add_object_patch("diffusion_model", small(name).network)
    with pytest.raises(ValueError, match=reason):
        apply_soft_guidance(model, *prompts, two_sides())


def test_a_network_that_nobody_knows_is_named(plain_model, prompts):
    model = plain_model.clone()
    model.add_object_patch("diffusion_model", torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"of this model, Linear, .* does not know that class.*Use Layered Rendering"):
        apply_soft_guidance(model, *prompts, two_sides())


def test_u_nets_that_read_the_text_in_place_of_the_picture_are_refused(plain_model, prompts, monkeypatch):
    """As the x4 upscaler's first attentions, where nothing would be masked."""
    network = plain_model.get_model_object("diffusion_model")
    first = next(part for part in network.modules() if hasattr(part, "disable_self_attn"))
    monkeypatch.setattr(first, "disable_self_attn", True)
    with pytest.raises(ValueError, match="mixes text and picture otherwise"):
        apply_soft_guidance(plain_model, *prompts, two_sides())


def test_what_cannot_be_meant_is_one_sentence(plain_model, prompts):
    wide = RegionTokens(torch.zeros(1, 4, 24), left())
    with pytest.raises(ValueError, match=f"width 24, but the prompts have {CONTEXT}"):
        apply_soft_guidance(plain_model, *prompts, [wide])
    other = [[torch.zeros(1, 77, 24), {}]]
    with pytest.raises(ValueError, match=f"width {CONTEXT}, but the prompts have 24"):
        apply_soft_guidance(plain_model, prompts[0], other, two_sides())
    with pytest.raises(ValueError, match="expected .pictures, tokens, width"):
        apply_soft_guidance(plain_model, *prompts, [RegionTokens(tokens(), torch.ones(8, 8))])
    with pytest.raises(ValueError, match="weight -1; expected a number from 0 on"):
        apply_soft_guidance(plain_model, *prompts, two_sides(weight=-1.0))
    with pytest.raises(ValueError, match='no rule "half"'):
        apply_soft_guidance(plain_model, *prompts, two_sides(), "half")
    with pytest.raises(ValueError, match="24 x 16 cells, which is not the shape of soft guidance's mask of 128 x 128"):
        sample(*soft(plain_model, prompts, two_sides()), 16, 24)


def test_a_clip_with_a_schedule_is_refused_by_its_own_name_and_one_with_plain_hooks_works(clip):
    hooks = comfy.hooks.create_hook_lora({}, strength_model=1.0, strength_clip=1.0)
    keyframes = comfy.hooks.HookKeyframeGroup()
    for strength, start in ((1.0, 0.0), (0.5, 0.5)):
        keyframes.add(comfy.hooks.HookKeyframe(strength=strength, start_percent=start))
    hooks.set_keyframes_on_hooks(keyframes)
    layouts = [parse_layout(f"{name}: 0 0 0.5 1\na cat: 0.5 0 1 1") for name in ("a dog", "a hat")]
    for layout in (layouts[0], layouts):
        with pytest.raises(
            ValueError, match='CLIP on Soft Guidance embeds "a .*" in 2 ways.*before Set CLIP Hooks'
        ) as error:
            phrase_regions(SetClipHooks().apply_hooks(clip, True, True, hooks)[0], layout, 1.0)
        assert "Region Tokens" not in str(error.value), "a node that is not in the graph"
    hooked = SetClipHooks().apply_hooks(clip, False, True, hooks)[0]
    found, plain = (phrase_regions(each, layouts[0], 1.0) for each in (hooked, clip))
    assert len(found) == len(plain) == 2 and torch.equal(found[0].tokens, plain[0].tokens)
