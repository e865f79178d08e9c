"""Maps of every transformer that ComfyUI runs: the softmax itself, and a network that does not notice."""

import pytest
import torch
from stagecraft.core.attention.comfy.families import known_family
from stagecraft.core.attention.comfy.orders import Call
from stagecraft.core.attention.comfy.recording import OVERRIDE, recording
from stagecraft.core.attention.recorder import AttentionRecorder
from stagecraft.core.attention.sites import ALL_BLOCKS, BLOCK, CROSS, SELF
from stagecraft.tests.comfy.attention.test_orders import watch
from stagecraft.tests.comfy.small_network import normal
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
                else:
                    pools = pooled(regions, site)
                    expected = torch.einsum("on,bhnk->bhko", pools, whole)
                close(maps, expected)


def test_it_leaves_behind_the_last_block_that_is_known(made):
    x, text, calls = made.state(), made.prompt(), []
    blocks = known_family(made.network).count(made.network)

    def other_packs(attend, *args, **kwargs):
        calls.append(attend)
        return attend(*args, **kwargs)

    def run(**more):
        calls.clear()
        recorder = AttentionRecorder(ALL_BLOCKS, x.shape[-2:], [COLUMNS], **more)
        before = {"transformer_options": {OVERRIDE: other_packs}}
        options = recording(before, {"entry": recorder}, leave_early=True)
        assert before["transformer_options"] == {OVERRIDE: other_packs}
        out = made.run(x, text, options["transformer_options"] | {"uuids": ["entry"]})
        assert out.shape == x.shape
        return recorder.maps, len(calls)

    whole, count = run()
    chosen = {site: maps for site, maps in whole.items() if site.number == 1}
    found, fewer = run(known=frozenset(chosen))
    assert found.keys() == chosen.keys()
    assert all(torch.equal(found[site], maps) for site, maps in chosen.items())
    assert fewer < count * 2 / blocks + 4, "refiners, two blocks, and nothing behind them"


def test_only_the_rows_of_watched_prompts_are_read(made):
    x, text = made.state(2), made.prompt(2)
    maps = []
    for uuids in (["prompt", "negative"], ["negative", "prompt"]):
        recorder = AttentionRecorder(ALL_BLOCKS, x.shape[-2:], [COLUMNS], lengths=[made.text])
        options = recording({}, {"prompt": recorder})["transformer_options"] | {"uuids": uuids}
        made.run(x, text, options)
        maps.append(recorder.maps)
    both = options_with({name: AttentionRecorder(ALL_BLOCKS, x.shape[-2:], [COLUMNS]) for name in ("a", "b")})
    made.run(x, text, both)
    for first, second in zip(maps[0].values(), maps[1].values(), strict=True):
        assert first.shape == second.shape and len(first) == 1
        assert not torch.equal(first, second)


def test_tiles_and_foreign_tokens_are_not_read(made):
    """A call that is not accounted for token by token is none of the network's own."""
    family, x = known_family(made.network), made.state()
    refined = 13 if made.text == x[0, 0].numel() // made.patch**2 else made.text
    for queries, keys in ((7, 7), (refined, refined), (x[0, 0].numel(), 3)):
        call = Call(made.network, queries, keys, x.shape, made.text, made.given(1))
        assert family.order(call) is None
    assert family.order(Call(made.network, 48, 48, x.shape, 0, made.given(1))) is None, "no prompt, no map"


@pytest.mark.parametrize("name", ["Flux", "Flux.2", "Chroma", "SD 3", "Qwen-Image", "HunyuanImage", "Lens"])
def test_a_control_net_acts_as_before(name):
    made = small(name)
    x, text = made.state(), made.prompt()
    order = watch(made, x, text, refine=True)[0][2]
    n, width = order.image.stop - order.image.start, WIDTHS.get(name, 64)
    control = {place: [0.5 * normal(1, n, width, seed=9)] * 2 for place in ("input", "output")}
    plain = made.run(x, text, {}, control=copied(control))
    assert not torch.equal(plain, made.run(x, text, {}))
    recorder = AttentionRecorder(ALL_BLOCKS, x.shape[-2:], [COLUMNS])
    assert torch.equal(made.run(x, text, options_with({"entry": recorder}), control=copied(control)), plain)
    alone = AttentionRecorder(ALL_BLOCKS, x.shape[-2:], [COLUMNS])
    made.run(x, text, options_with({"entry": alone}))
    first, *rest = (torch.equal(alone.maps[site], maps) for site, maps in recorder.maps.items() if site.stream == CROSS)
    assert first and not any(rest), "behind the first block it is another picture"


WIDTHS = {"SD 3": 128}


def copied(control):
    return {place: [each.clone() for each in residuals] for place, residuals in control.items()}


@pytest.mark.parametrize("name", ["HunyuanImage", "Lens", "Qwen-Image"])
def test_hidden_words_get_no_attention(name):
    """A mask on the text is one of the softmax'; older versions of Qwen-Image do not mask at all."""
    made = small(name)
    x, text = made.state(), made.prompt()
    seen = torch.ones(1, made.text, dtype=torch.int64)
    seen[:, 6:] = 0
    recorders = []
    for mask in (None, seen):
        recorders.append(AttentionRecorder(ALL_BLOCKS, x.shape[-2:], [torch.tensor([2, 8])]))
        made.run(x, text, options_with({"entry": recorders[-1]}), attention_mask=mask)
    open_maps, masked = ([maps for site, maps in each.maps.items() if site.stream == CROSS] for each in recorders)
    if name == "Qwen-Image" and torch.equal(masked[0], open_maps[0]):
        pytest.skip("this ComfyUI does not mask the text of Qwen-Image")
    assert all(maps[..., 1].max() < 1e-6 < maps[..., 0].min() for maps in masked)
    assert open_maps[0][..., 1].min() > 1e-6


def test_pictures_beside_the_painted_one_are_not_read_where_their_order_is_another():
    edit, omni = small("HiDream-I1"), small("Z-Image")
    x = edit.state()
    given = edit.given(1) | {"image_cond": x}
    n = 2 * 48 + edit.text + 14
    assert known_family(edit.network).order(Call(edit.network, n, n, x.shape, edit.text, given)) is None
    given = omni.given(1) | {"ref_latents": [x]}
    call = Call(omni.network, 96, 96, x.shape, omni.text, given)
    assert known_family(omni.network).order(call) is None


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
