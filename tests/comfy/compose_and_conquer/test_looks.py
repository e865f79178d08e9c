"""CnC's looks in a real sampler: the fuser sees the same tokens and masks as the U-Net."""

import pytest
import torch
from stagecraft.core.compose_and_conquer.comfy.exemplars import Exemplars
from stagecraft.core.compose_and_conquer.comfy.files import load_cnc
from stagecraft.core.soft_guidance.soft_guidance import AREA, SoftGuidance, two_sides
from stagecraft.tests.comfy.compose_and_conquer.small_cnc import (
    CONTEXT,
    LOOKS,
    STEPS,
    as_maps,
    assert_same,
    compose,
    half_mask,
    looks,
    residuals_of,
    sample,
    seen,
)

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.mark.parametrize("rule", [None, AREA])
def test_the_fuser_sees_the_tokens_and_the_mask(model, prompts, cnc, depths, rule):
    given = {"foreground": depths[0], "background": depths[1], "exemplars": looks(), "mask": half_mask()}
    calls = seen(compose(model, *prompts, cnc, **given, **({} if rule is None else {"rule": rule})))
    tokens = torch.cat([looks().foreground, looks().background], 1)
    guidance = SoftGuidance([half_mask()], two_sides(LOOKS.tokens), *([] if rule is None else [rule]))
    lengths = []
    for call in calls:
        for row in range(len(call[0])):
            x, t, context, *_ = (part[row : row + 1] for part in call[:3])
            length = next(n for n in (77, 154) if torch.equal(context[:, n : n + tokens.shape[1]], tokens))
            lengths.append(length)
            one = (x, t, context[:, : length + tokens.shape[1]])  # what is behind them is for nobody
            expected = residuals_of(cnc, one, as_maps(depths), guidance.attend)
            assert_same([residual[row : row + 1] for residual in call[3]], expected)
    assert sorted(lengths) == [77] * STEPS + [154] * STEPS


def test_without_a_mask_the_tokens_are_open_everywhere(model, prompts, cnc, depths):
    given = {"foreground": depths[0], "exemplars": looks()}
    calls = seen(compose(model, *prompts, cnc, **given), cfg=1.0)
    maps = [as_maps(depths)[0], torch.zeros_like(as_maps(depths)[0])]
    tokens = torch.cat([looks().foreground, looks().background], 1)
    for call in calls:
        assert torch.equal(call[2], torch.cat([prompts[0][0][0], tokens], 1))
        assert_same(call[3], residuals_of(cnc, call, maps))
    masked = sample(compose(model, *prompts, cnc, **given, mask=half_mask()))
    assert not torch.allclose(masked, sample(compose(model, *prompts, cnc, **given)), atol=1e-3)


def test_a_file_with_looks_alone(model, prompts, folder):
    alone = load_cnc("looks.safetensors")
    prepared = compose(model, *prompts, alone, exemplars=looks(), mask=half_mask())
    assert all(call[3] is None for call in seen(prepared))
    with pytest.raises(ValueError, match=r"looks\.safetensors has no local fuser"):
        compose(model, *prompts, alone, foreground=torch.zeros(1, 64, 64, 3))
    with pytest.raises(ValueError, match=r"looks\.safetensors has no local fuser, and no exemplars"):
        compose(model, *prompts, alone)


def test_tokens_of_several_pictures_and_prompts_of_several_rows(model, prompts, folder):
    """Without a mask they are repeated as ComfyUI repeats prompts."""
    text = torch.cat([prompts[0][0][0], prompts[0][0][0] + 1])
    three = Exemplars(*torch.randn(2, 3, LOOKS.tokens, CONTEXT))
    _, positive, _ = compose(model, [[text, {}]], prompts[1], load_cnc("looks.safetensors"), exemplars=three)
    assert torch.equal(positive[0][0], torch.cat([text[[0, 1, 0]], three.foreground, three.background], 1))
