"""CnC in a real sampler at any size: batches, areas and context windows get their part of the depth maps."""

import comfy.context_windows
import pytest
import torch
from stagecraft.core.compose_and_conquer.depth_maps import DepthMap
from stagecraft.tests.comfy.compose_and_conquer.small_cnc import (
    SIZE,
    STEPS,
    as_maps,
    assert_same,
    compose,
    half_mask,
    largest_difference,
    looks,
    residuals_of,
    sample,
    seen,
)

import nodes as comfy_nodes

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.mark.parametrize("size", [(8, 12), (7, 5), (9, 16)])
def test_any_size(model, prompts, cnc, size, caplog):
    """Level by level the fuser's maps are as large as the U-Net's, also where sides are odd; nothing is padded."""
    exact = torch.rand(2, 1, 8 * size[0], 8 * size[1], 3, generator=torch.Generator().manual_seed(4))
    exact = exact[..., :1].expand(-1, -1, -1, -1, 3)
    calls = seen(compose(model, *prompts, cnc, foreground=exact[0], background=exact[1]), size)
    assert_same(calls[0][3], residuals_of(cnc, calls[0], as_maps(exact)))
    halves = (-(-size[0] // 2), -(-size[1] // 2))
    assert [tuple(r.shape[-2:]) for r in calls[0][3]] == [size, size, halves, halves, halves]
    assert "control could not be applied" not in caplog.text
    given = {"exemplars": looks(), "mask": half_mask(*size)}
    assert sample(compose(model, *prompts, cnc, foreground=exact[0], **given), size).isfinite().all()


def test_maps_of_another_resolution_are_resized(model, prompts, cnc):
    """A smooth map and the same at three times the size; one with a fourth channel, and odd sides of the same shape."""
    slope = torch.linspace(0, 1, 64).reshape(1, 1, 64, 1).expand(1, 64, 64, 3)
    fine = torch.nn.functional.interpolate(slope.movedim(-1, 1), (192, 192), mode="bilinear").movedim(1, -1)
    found = [DepthMap("depth", image).on(SIZE) for image in (slope, fine, torch.cat([slope, slope[..., :1] * 0], -1))]
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0.02)
    torch.testing.assert_close(found[2], found[0])
    assert DepthMap("depth", torch.zeros(1, 61, 61, 3)).on(SIZE).shape == (1, 3, 64, 64)
    with pytest.raises(ValueError, match="foreground depth has 64 x 48 pixels.*latent .8 x 8 cells"):
        sample(compose(model, *prompts, cnc, foreground=slope[:, :48]))


def test_a_batch_is_its_pictures(model, prompts, cnc, depths):
    """With a map for each picture in front, and one behind for both."""
    pair = torch.cat([depths[0], depths[0].flip(1)])
    calls = seen(compose(model, *prompts, cnc, foreground=pair, background=depths[1]), batch=2)
    for call in calls:
        rows = len(call[0])
        maps = [as_maps([pair])[0].repeat(rows // 2, 1, 1, 1), as_maps(depths)[1].expand(rows, -1, -1, -1)]
        assert_same(call[3], residuals_of(cnc, call, maps))
    with pytest.raises(ValueError, match="2 pictures of foreground depth for a batch of 3"):
        sample(compose(model, *prompts, cnc, foreground=pair), batch=3)


def test_an_area_sees_its_part_of_the_maps(model, prompts, cnc, depths):
    """Two areas of one size, beside the whole canvas: each row has the maps of its own place."""
    area = comfy_nodes.ConditioningSetArea()
    places = {(0, 0): (0, 0), (32, 16): (4, 2)}
    parts = [area.append(prompts[0], 32, 32, x, y, 1.0)[0][0] for x, y in places]
    positive = [*prompts[0], *parts]
    calls = seen(compose(model, positive, prompts[1], cnc, foreground=depths[0], background=depths[1]), cfg=1.0)
    crops = [
        [depth[..., 8 * y : 8 * y + 32, 8 * x : 8 * x + 32] for depth in as_maps(depths)] for x, y in places.values()
    ]
    matched = []
    for call in calls:
        rows = range(len(call[0])) if call[0].shape[-1] == 4 else ()  # the others see the whole canvas
        for row in rows:
            one = [part[row : row + 1] for part in call[:3]]
            mine = [residual[row : row + 1] for residual in call[3]]
            errors = [max(map(largest_difference, mine, residuals_of(cnc, one, crop))) for crop in crops]
            assert min(errors) < 1e-4 < max(errors)
            matched.append(errors.index(min(errors)))
    assert sorted(matched) == [0] * STEPS + [1] * STEPS


def test_windows_of_a_batch_need_one_map_for_all(model, prompts, cnc, depths):
    windows = comfy.context_windows
    model = model.clone()
    model.model_options["context_handler"] = windows.IndexListContextHandler(
        context_schedule=windows.get_matching_context_schedule(windows.ContextSchedules.STATIC_STANDARD),
        fuse_method=windows.get_matching_fuse_method(windows.ContextFuseMethods.FLAT),
        context_length=2,
    )
    calls = seen(compose(model, *prompts, cnc, foreground=depths[0], background=depths[1]), batch=4)
    assert len(calls) == 2 * STEPS
    for call in calls:
        assert_same(call[3], residuals_of(cnc, call, as_maps(depths)))
    pair = torch.cat([depths[0], depths[0].flip(1)])
    with pytest.raises(ValueError, match="Context windows cut the batch, but Depth Compose has depth maps for single"):
        sample(compose(model, *prompts, cnc, foreground=pair), batch=4)
