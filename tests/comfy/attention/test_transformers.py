"""Maps of every transformer that ComfyUI runs: the softmax itself, and a network that does not notice."""

import pytest
import torch
from stagecraft.core.attention.comfy.families import known_family
from stagecraft.core.attention.comfy.recording import recording
from stagecraft.core.attention.recorder import AttentionRecorder
from stagecraft.core.attention.sites import ALL_BLOCKS, BLOCK, CROSS, SELF
from stagecraft.tests.comfy.attention.test_orders import watch
from stagecraft.tests.comfy.transformers import TRANSFORMERS, small

pytestmark = pytest.mark.usefixtures("no_gradients")
COLUMNS = torch.tensor([3, 4, -2])  # a token is counted from the prompt's end where that is what is known


@pytest.fixture(params=TRANSFORMERS)
def made(request):
    return small(request.param)


def options_with(recorders, **more):
    return recording({}, recorders, **more)["transformer_options"] | {"uuids": list(recorders)}


def softmax_of(queries, keys, order, text):
    """(b heads n keys) the rows of the picture, over all keys or over the picture."""
    logits = queries.double() @ keys.double().mT * queries.shape[-1] ** -0.5
    if not text:
        logits = logits[..., order.image]
    return logits.softmax(-1)[:, :, order.image]


def test_maps_are_the_softmax_and_the_network_does_not_notice(made):
    x, text = made.state(2), made.prompt(2)
    regions = torch.zeros(2, *x.shape[-2:])
    regions[0, : x.shape[-2] // 2], regions[1, :, x.shape[-1] // 2 :] = 1, 1
    plain = made.run(x, text, {})
    recorders = {
        name: AttentionRecorder(ALL_BLOCKS, x.shape[-2:], [COLUMNS], regions=regions) for name in ("first", "second")
    }
    seen = made.run(x, text, options_with(recorders))
    assert torch.equal(seen, plain)
    assert torch.equal(made.run(x, text, {}), plain), "something is left behind"

    calls = watch(made, x, text, refine=True)
    blocks = known_family(made.network).count(made.network)
    for row, recorder in enumerate(recorders.values()):
        for stream in (CROSS, SELF):
            found = {site: each for site, each in recorder.maps.items() if site.stream == stream}
            assert [site.number for site in found] == list(range(blocks))
            assert {site.part for site in found} == {BLOCK}
            own = [call for call in calls if (call[2].words if stream == CROSS else is_self(call[2]))]
            for (site, maps), (queries, keys, order) in zip(found.items(), own, strict=True):
                whole = softmax_of(queries[row : row + 1], keys[row : row + 1], order, stream == CROSS)
                if stream == CROSS:
                    columns = torch.where(COLUMNS < 0, order.text.stop + COLUMNS, order.text.start + COLUMNS)
                    expected = whole[..., columns]
                    close(recorder.text_shares[site], whole[..., order.text].sum(-1).mean(1))
                else:
                    pools = pooled(regions, site)
                    expected = torch.einsum("on,bhnk->bhko", pools, whole)
                close(maps, expected)


def is_self(order):
    return order.is_joint or not order.words


def pooled(regions, site):
    """(o (f h w)) which share of a token each region covers, of all that it covers."""
    height, width = (side // length for side, length in zip(regions.shape[-2:], site.grid, strict=True))
    cells = regions.unflatten(1, (site.grid[0], height)).unflatten(3, (site.grid[1], width)).mean((2, 4))
    pools = cells.flatten(1).repeat(1, site.frames).double()
    return pools / pools.sum(-1, keepdim=True)


def close(found, expected):
    torch.testing.assert_close(found, expected.float(), rtol=0, atol=1e-5)
