"""CnC in a real sampler: what the U-Net is given, when, at which sizes, beside what else, and what is refused."""

import gc
import os
import weakref
from dataclasses import replace

import comfy.context_windows
import comfy.model_management
import comfy.patcher_extension
import comfy.sample
import comfy.sd
import folder_paths
import pytest
import torch
from comfy.cli_args import args
from stagecraft.core.attention_guidance.comfy.guide import guide_attention
from stagecraft.core.comfy.sticker_world import register_model_class
from stagecraft.core.compose_and_conquer.comfy.compose import compose_depth
from stagecraft.core.compose_and_conquer.comfy.exemplars import Exemplars
from stagecraft.core.compose_and_conquer.comfy.files import CNC, load_cnc
from stagecraft.core.compose_and_conquer.config import FuserConfig
from stagecraft.core.compose_and_conquer.depth_maps import DepthMap
from stagecraft.core.compose_and_conquer.files import CnCFileError, write_fusers
from stagecraft.core.compose_and_conquer.global_fuser import GlobalFuser, TokenConfig
from stagecraft.core.compose_and_conquer.local_fuser import LocalFuser
from stagecraft.core.layered_rendering.comfy.render import render_in_layers
from stagecraft.core.layout.layout import parse_layout
from stagecraft.core.soft_guidance.soft_guidance import AREA, SoftGuidance, two_sides
from stagecraft.nodes.compose_and_conquer.compose import StageDepthCompose
from stagecraft.nodes.compose_and_conquer.models import StageCnCConvert, StageCnCLoader
from stagecraft.sticker_world.compose_and_conquer.train import LOCAL
from stagecraft.sticker_world.shipped import CHECKPOINT_FILE
from stagecraft.tests.comfy.families import build_family, fill
from stagecraft.tests.comfy.model_folder import model_folder

import nodes as comfy_nodes

pytestmark = pytest.mark.usefixtures("no_gradients")

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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of CnC files: both fusers with random weights, each alone, and the local one as it starts."""
    folder = tmp_path_factory.mktemp("cnc")
    local, looks = LocalFuser(CONFIG), GlobalFuser(LOOKS)
    fresh = {name: weight.clone() for name, weight in local.state_dict().items()}
    fill(local, 7)
    fill(looks, 8)
    write_fusers(folder / "both.safetensors", local.state_dict(), looks.state_dict(), 32)
    write_fusers(folder / "looks.safetensors", None, looks.state_dict())
    write_fusers(folder / "fresh.safetensors", fresh, None, 32)
    write_fusers(folder / "wrong_heads.safetensors", local.state_dict(), None)
    with model_folder(CNC, folder, first=True):
        yield folder


@pytest.fixture(scope="module")
def cnc(folder):
    return load_cnc("both.safetensors")


@pytest.fixture(scope="module")
def prompts(clip):
    """The negative one is two chunks long, so that ComfyUI has to pad."""
    return [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a dog", "bad " * 90)]


@pytest.fixture(scope="module")
def depths():
    return torch.rand(2, 1, 8 * SIZE[0], 8 * SIZE[1], 1, generator=torch.Generator().manual_seed(1)).expand(
        -1, -1, -1, -1, 3
    )


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
        assert one.shape == other.shape and _largest_difference(one, other) <= ROUNDING * other.abs().max().item()


def _largest_difference(one, other):
    return (one - other).abs().max().item()


def as_maps(depths):
    return [depth.movedim(-1, 1).contiguous() for depth in depths]


# --- the fuser beside ComfyUI's own U-Net ---


@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
def test_its_encoder_is_the_unets(model, size):
    """A clone whose denormalisations are the U-Net's norms, and whose last layers hand on, sees what the U-Net sees."""
    unet = model.model.diffusion_model
    fuser = LocalFuser(CONFIG)
    fuser.load_encoder(unet.state_dict())
    for number, block in enumerate(fuser.input_blocks):
        for name, key in (("norm_in", "in_layers.0"), ("norm_out", "out_layers.0")):
            if (norm := getattr(block[0], name, None)) is not None:
                own = unet.get_submodule(f"input_blocks.{number}.0.{key}")
                for conv, bias in ((norm.conv_gamma, own.weight - 1), (norm.conv_beta, own.bias)):
                    conv.weight.zero_()
                    conv.bias.copy_(bias)
    for conv in (*fuser.zero_convs, fuser.middle_block_out):
        torch.nn.init.dirac_(conv[0].weight)
    states = []
    lasts = (*(block[-1] for block in unet.input_blocks), unet.middle_block[-1])
    hooks = [last.register_forward_hook(lambda module, args, out: states.append(out)) for last in lasts]
    generator = torch.Generator().manual_seed(3)
    x, context = torch.randn(2, 4, *size, generator=generator), torch.randn(2, 77, CONTEXT, generator=generator)
    timesteps = torch.tensor([5.0, 917.0])
    unet(x, timesteps, context, transformer_options={})
    for hook in hooks:
        hook.remove()
    found, middle = fuser(x, timesteps, context, *torch.rand(2, 2, 3, 8 * size[0], 8 * size[1]))
    assert_same([*found, middle], states)


def test_the_embedded_checkpoint_and_its_fusers_fit(folder, depths):
    register_model_class()
    model, clip, *_ = comfy.sd.load_checkpoint_guess_config(str(CHECKPOINT_FILE), output_vae=False)
    prompts = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a dog", "")]
    fuser = LocalFuser(LOCAL)
    fuser.load_encoder(model.model.diffusion_model.state_dict())
    write_fusers(folder / "embedded.safetensors", fuser.state_dict(), None, LOCAL.num_head_channels)
    embedded = load_cnc("embedded.safetensors")
    assert embedded.config.matches(model.model.model_config.unet_config) is None
    prepared = compose_depth(model, *prompts, embedded, foreground=depths[0], background=depths[1])
    assert torch.equal(sample(prepared), sample((model, *prompts)))


def test_a_fresh_fuser_leaves_sampling_bit_identical(model, prompts, folder, depths):
    plain = sample((model, *prompts))
    prepared = compose_depth(model, *prompts, load_cnc("fresh.safetensors"), foreground=depths[0], background=depths[1])
    calls = seen(prepared)
    assert all(not residual.any() for call in calls for residual in call[3])
    assert torch.equal(sample(prepared), plain)


def test_a_plain_run_before_and_after_is_bit_identical(model, prompts, cnc, depths):
    before = sample((model, *prompts))
    prepared = compose_depth(
        model, *prompts, cnc, foreground=depths[0], background=depths[1], exemplars=looks(), mask=half_mask()
    )
    composed = sample(prepared)
    assert not torch.allclose(composed, before, atol=1e-2)
    assert torch.equal(sample((model, *prompts)), before) and torch.equal(sample(prepared), composed)


# --- what the U-Net is given ---


def test_both_rows_get_the_maps_and_residuals_are_the_fusers(model, prompts, cnc, depths):
    calls = seen(compose_depth(model, *prompts, cnc, foreground=depths[0], background=depths[1]))
    assert sum(len(call[0]) for call in calls) == 2 * STEPS
    for call in calls:
        assert_same(call[3], residuals_of(cnc, call, as_maps(depths)))


def test_swapped_maps_are_not_the_same_picture(model, prompts, cnc, depths):
    first, second = (
        sample(compose_depth(model, *prompts, cnc, foreground=front, background=behind))
        for front, behind in (depths, depths.flip(0))
    )
    assert not torch.allclose(first, second, atol=1e-2)


def test_a_missing_map_is_one_of_zeros(model, prompts, cnc, depths):
    zeros = torch.zeros_like(depths[0])
    for given in ((depths[0], None), (None, depths[1]), (None, None)):
        missing = sample(compose_depth(model, *prompts, cnc, foreground=given[0], background=given[1]))
        filled = [zeros if depth is None else depth for depth in given]
        assert torch.equal(
            missing, sample(compose_depth(model, *prompts, cnc, foreground=filled[0], background=filled[1]))
        )


@pytest.mark.parametrize(
    ("strength", "expected"), [(0.0, torch.zeros_like), (2.0, lambda depth: (2 * depth).clamp(0, 1))]
)
def test_depth_strengths_multiply_the_maps(model, prompts, cnc, depths, strength, expected):
    given = {"foreground": depths[0], "background": depths[1]}
    call = seen(compose_depth(model, *prompts, cnc, **given, foreground_strength=strength))[0]
    maps = [expected(as_maps(depths)[0]), as_maps(depths)[1]]
    assert_same(call[3], residuals_of(cnc, call, maps))
    call = seen(compose_depth(model, *prompts, cnc, **given, background_strength=strength))[0]
    maps = [as_maps(depths)[0], expected(as_maps(depths)[1])]
    assert_same(call[3], residuals_of(cnc, call, maps))


@pytest.mark.parametrize("scale", [0.5, [0.0, 1.0, 2.0, 0.5, 3.0]])
def test_residual_scales(model, prompts, cnc, depths, scale):
    prepared = compose_depth(model, *prompts, cnc, foreground=depths[0], background=depths[1], residual_scale=scale)
    call = seen(prepared)[0]
    scales = scale if isinstance(scale, list) else [scale] * 5
    expected = [s * r for s, r in zip(scales, residuals_of(cnc, call, as_maps(depths)), strict=True)]
    assert_same(call[3], expected)


def test_scale_zero_is_the_plain_run(model, prompts, cnc, depths):
    prepared = compose_depth(model, *prompts, cnc, foreground=depths[0], residual_scale=0.0)
    assert prepared[0] is model and prepared[1] is prompts[0] and prepared[2] is prompts[1]


@pytest.mark.parametrize(("start", "end", "controlled"), [(0.0, 0.4, [0]), (0.4, 1.0, [1, 2]), (0.0, 1.0, [0, 1, 2])])
def test_start_and_end(model, prompts, cnc, depths, start, end, controlled):
    prepared = compose_depth(model, *prompts, cnc, foreground=depths[0], start=start, end=end)
    calls = seen(prepared)
    timesteps = sorted({float(call[1][0]) for call in calls}, reverse=True)
    found = {timesteps.index(float(call[1][0])) for call in calls if call[3] is not None}
    sampling = model.get_model_object("model_sampling")
    limits = [float(sampling.timestep(torch.tensor(sampling.percent_to_sigma(share)))) for share in (start, end)]
    expected = {i for i, t in enumerate(timesteps) if limits[1] <= t <= limits[0]}
    assert found == expected == set(controlled)


def test_maps_are_looked_at_once_per_run_and_forgotten_after_it(model, prompts, cnc, depths, monkeypatch):
    """Also after a run that was interrupted, which ComfyUI does not tell control objects."""
    plain, made = cnc.local.model.modulations, []

    def watched(*maps):
        found = plain(*maps)
        made.append(weakref.ref(found[0][0][0]))
        return found

    def interrupt(step, *_):
        if step == 1:
            raise comfy.model_management.InterruptProcessingException()

    monkeypatch.setattr(cnc.local.model, "modulations", watched)
    prepared = compose_depth(model, *prompts, cnc, foreground=depths[0])
    sample(prepared)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(prepared, callback=interrupt)
    gc.collect()
    assert [each() for each in made] == [None, None]


def test_an_output_that_is_not_connected_is_named(model, prompts, cnc, depths, caplog):
    prepared = compose_depth(model, *prompts, cnc, foreground=depths[0])
    with pytest.raises(ValueError, match=r"the model does not\. Connect the model output of Depth Compose"):
        sample((model, *prepared[1:]))
    assert not caplog.records
    assert torch.equal(sample((prepared[0], *prompts)), sample((model, *prompts)))
    assert "the prompts do not; sampling without depths" in caplog.text


# --- looks ---


@pytest.mark.parametrize("rule", [None, AREA])
def test_the_fuser_sees_the_tokens_and_the_mask(model, prompts, cnc, depths, rule):
    given = {"foreground": depths[0], "background": depths[1], "exemplars": looks(), "mask": half_mask()}
    calls = seen(compose_depth(model, *prompts, cnc, **given, **({} if rule is None else {"rule": rule})))
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
    calls = seen(compose_depth(model, *prompts, cnc, **given), cfg=1.0)
    maps = [as_maps(depths)[0], torch.zeros_like(as_maps(depths)[0])]
    tokens = torch.cat([looks().foreground, looks().background], 1)
    for call in calls:
        assert torch.equal(call[2], torch.cat([prompts[0][0][0], tokens], 1))
        assert_same(call[3], residuals_of(cnc, call, maps))
    masked = sample(compose_depth(model, *prompts, cnc, **given, mask=half_mask()))
    assert not torch.allclose(masked, sample(compose_depth(model, *prompts, cnc, **given)), atol=1e-3)


def test_a_file_with_looks_alone(model, prompts, folder):
    alone = load_cnc("looks.safetensors")
    prepared = compose_depth(model, *prompts, alone, exemplars=looks(), mask=half_mask())
    assert all(call[3] is None for call in seen(prepared))
    with pytest.raises(ValueError, match=r"looks\.safetensors has no local fuser"):
        compose_depth(model, *prompts, alone, foreground=torch.zeros(1, 64, 64, 3))
    with pytest.raises(ValueError, match=r"looks\.safetensors has no local fuser, and no exemplars"):
        compose_depth(model, *prompts, alone)


def test_tokens_of_several_pictures_and_prompts_of_several_rows(model, prompts, folder):
    """Without a mask they are repeated as ComfyUI repeats prompts."""
    text = torch.cat([prompts[0][0][0], prompts[0][0][0] + 1])
    three = Exemplars(*torch.randn(2, 3, LOOKS.tokens, CONTEXT))
    _, positive, _ = compose_depth(model, [[text, {}]], prompts[1], load_cnc("looks.safetensors"), exemplars=three)
    assert torch.equal(positive[0][0], torch.cat([text[[0, 1, 0]], three.foreground, three.background], 1))


# --- sizes, batches, areas ---


@pytest.mark.parametrize("size", [(8, 12), (7, 5), (9, 16)])
def test_any_size(model, prompts, cnc, size, caplog):
    """Level by level the fuser's maps are as large as the U-Net's, also where sides are odd; nothing is padded."""
    exact = torch.rand(2, 1, 8 * size[0], 8 * size[1], 3, generator=torch.Generator().manual_seed(4))
    exact = exact[..., :1].expand(-1, -1, -1, -1, 3)
    calls = seen(compose_depth(model, *prompts, cnc, foreground=exact[0], background=exact[1]), size)
    assert_same(calls[0][3], residuals_of(cnc, calls[0], as_maps(exact)))
    halves = (-(-size[0] // 2), -(-size[1] // 2))
    assert [tuple(r.shape[-2:]) for r in calls[0][3]] == [size, size, halves, halves, halves]
    assert "control could not be applied" not in caplog.text
    given = {"exemplars": looks(), "mask": half_mask(*size)}
    assert sample(compose_depth(model, *prompts, cnc, foreground=exact[0], **given), size).isfinite().all()


def test_maps_of_another_resolution_are_resized(model, prompts, cnc):
    """A smooth map and the same at three times the size; one with a fourth channel, and odd sides of the same shape."""
    slope = torch.linspace(0, 1, 64).reshape(1, 1, 64, 1).expand(1, 64, 64, 3)
    fine = torch.nn.functional.interpolate(slope.movedim(-1, 1), (192, 192), mode="bilinear").movedim(1, -1)
    found = [DepthMap("depth", image).on(SIZE) for image in (slope, fine, torch.cat([slope, slope[..., :1] * 0], -1))]
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0.02)
    torch.testing.assert_close(found[2], found[0])
    assert DepthMap("depth", torch.zeros(1, 61, 61, 3)).on(SIZE).shape == (1, 3, 64, 64)
    with pytest.raises(ValueError, match="foreground depth has 64 x 48 pixels.*latent .8 x 8 cells"):
        sample(compose_depth(model, *prompts, cnc, foreground=slope[:, :48]))


def test_a_batch_is_its_pictures(model, prompts, cnc, depths):
    """With a map for each picture in front, and one behind for both."""
    pair = torch.cat([depths[0], depths[0].flip(1)])
    calls = seen(compose_depth(model, *prompts, cnc, foreground=pair, background=depths[1]), batch=2)
    for call in calls:
        rows = len(call[0])
        maps = [as_maps([pair])[0].repeat(rows // 2, 1, 1, 1), as_maps(depths)[1].expand(rows, -1, -1, -1)]
        assert_same(call[3], residuals_of(cnc, call, maps))
    with pytest.raises(ValueError, match="2 pictures of foreground depth for a batch of 3"):
        sample(compose_depth(model, *prompts, cnc, foreground=pair), batch=3)


def test_an_area_sees_its_part_of_the_maps(model, prompts, cnc, depths):
    """Two areas of one size, beside the whole canvas: each row has the maps of its own place."""
    area = comfy_nodes.ConditioningSetArea()
    places = {(0, 0): (0, 0), (32, 16): (4, 2)}
    parts = [area.append(prompts[0], 32, 32, x, y, 1.0)[0][0] for x, y in places]
    positive = [*prompts[0], *parts]
    calls = seen(compose_depth(model, positive, prompts[1], cnc, foreground=depths[0], background=depths[1]), cfg=1.0)
    crops = [
        [depth[..., 8 * y : 8 * y + 32, 8 * x : 8 * x + 32] for depth in as_maps(depths)] for x, y in places.values()
    ]
    matched = []
    for call in calls:
        rows = range(len(call[0])) if call[0].shape[-1] == 4 else ()  # the others see the whole canvas
        for row in rows:
            one = [part[row : row + 1] for part in call[:3]]
            mine = [residual[row : row + 1] for residual in call[3]]
            errors = [max(map(_largest_difference, mine, residuals_of(cnc, one, crop))) for crop in crops]
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
    calls = seen(compose_depth(model, *prompts, cnc, foreground=depths[0], background=depths[1]), batch=4)
    assert len(calls) == 2 * STEPS
    for call in calls:
        assert_same(call[3], residuals_of(cnc, call, as_maps(depths)))
    pair = torch.cat([depths[0], depths[0].flip(1)])
    with pytest.raises(ValueError, match="Context windows cut the batch, but Depth Compose has depth maps for single"):
        sample(compose_depth(model, *prompts, cnc, foreground=pair), batch=4)


# --- beside others ---


def test_it_adds_to_another_control_net(model, prompts, cnc, depths, control_net):
    hint = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(6))
    given = {"foreground": depths[0], "background": depths[1]}

    def controlled(positive, negative):
        return comfy_nodes.ControlNetApplyAdvanced().apply_controlnet(
            positive, negative, control_net, hint, 0.7, 0.0, 1.0
        )

    orders = (
        compose_depth(model, *controlled(*prompts), cnc, **given),
        (prepared := compose_depth(model, *prompts, cnc, **given))[:1] + tuple(controlled(*prepared[1:])),
    )
    alone = seen((model, *controlled(*prompts)))
    for order in orders:
        call = seen(order)[0]
        own = residuals_of(cnc, call, as_maps(depths))
        assert_same(call[3], [a + b for a, b in zip(alone[0][3], own, strict=True)])


def test_the_old_control_net_node_goes_on_to_reach_the_negative_prompt(model, prompts, cnc, depths, control_net):
    """It marks the positive prompt alone, and ComfyUI hands its ControlNet on only to prompts that have none."""
    hint = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(6))
    (positive,) = comfy_nodes.ControlNetApply().apply_controlnet(prompts[0], control_net, hint, 0.7)
    alone = seen((model, positive, prompts[1]))[0]
    call = seen(compose_depth(model, positive, prompts[1], cnc, foreground=depths[0], background=depths[1]))[0]
    assert len(call[0]) == len(alone[0]) == 2
    own = residuals_of(cnc, call, as_maps(depths))
    assert_same(call[3], [a + b for a, b in zip(alone[3], own, strict=True)])


def test_it_stacks_with_a_lora_and_with_itself(make_model, prompts, cnc, depths):
    patched, merged = make_model(), make_model()
    change = 0.3 * torch.randn(merged.model.state_dict()[LORA].shape, generator=torch.Generator().manual_seed(5))
    patched.add_patches({LORA: (change,)}, 1.0)
    merged.model.state_dict()[LORA].add_(change)
    given = {"foreground": depths[0], "background": depths[1], "exemplars": looks(), "mask": half_mask()}
    found, expected = (sample(compose_depth(each, *prompts, cnc, **given)) for each in (patched, merged))
    assert_same(found, expected)
    once = compose_depth(merged, *prompts, cnc, foreground=depths[0])
    call = seen(compose_depth(*once, cnc, background=depths[1]))[0]
    zeros = torch.zeros_like(as_maps(depths)[0])
    parts = [residuals_of(cnc, call, maps) for maps in ((as_maps(depths)[0], zeros), (zeros, as_maps(depths)[1]))]
    assert_same(call[3], [a + b for a, b in zip(*parts, strict=True)])


def test_every_weight_can_stay_behind(folder, depths):
    """Where memory is short ComfyUI leaves weights where they are and casts them when they are used."""
    patcher = load_cnc("both.safetensors").local
    given = (torch.randn(1, 4, *SIZE), torch.tensor([5.0]), torch.randn(1, 77, CONTEXT), *as_maps(depths))
    expected, _ = patcher.model(*given)
    patcher.load(patcher.load_device, lowvram_model_memory=1)
    layers = [part for part in patcher.model.modules() if any(True for _ in part.parameters(recurse=False))]
    assert layers and all(part.comfy_cast_weights for part in layers)
    found, _ = patcher.model(*given)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 0.02), (torch.bfloat16, 0.1)])
def test_half_precision_is_near(model, prompts, cnc, depths, monkeypatch, dtype, bound):
    """Weights that are kept in another type than the sampler's: cast while they are used, or computed in."""
    monkeypatch.setattr(args, "bf16_unet", True)
    half = load_cnc("both.safetensors")
    assert half.dtype == torch.float32 and {p.dtype for p in half.local.model.parameters()} == {torch.bfloat16}
    half = replace(half, dtype=dtype)
    given = {"foreground": depths[0], "background": depths[1], "exemplars": looks(), "mask": half_mask()}
    found, expected = (seen(compose_depth(model, *prompts, each, **given))[0][3] for each in (half, cnc))
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype and 0 < _largest_difference(one, other) < bound * other.abs().max().item()


def test_it_stacks_with_layers_and_attention_guidance(model, clip, prompts, cnc, depths):
    """Every layer has the maps of the whole canvas, and a guided evaluation sees them too."""
    given = {"foreground": depths[0], "background": depths[1], "exemplars": looks(), "mask": half_mask()}
    prepared = compose_depth(model, *prompts, cnc, **given)
    layout = parse_layout("a dog: 0 0 0.5 1", width=64, height=64, prompt="a dog", background="grass")
    settings = {"t0": 0.5, "strength": 0.0, "layer_prompt": "{phrase}"}
    layered = render_in_layers(prepared[0], clip, None, layout, *prepared[1:], **settings)
    calls = seen(layered)
    assert sum(len(call[0]) for call in calls) > 2 * STEPS and all(call[3] is not None for call in calls)
    assert sample(layered).isfinite().all()
    guided = guide_attention(prepared[0], clip, layout, strength=10.0), *prepared[1:]
    found = sample(guided)
    assert found.isfinite().all() and not torch.allclose(found, sample(prepared), atol=1e-4)


@pytest.mark.parametrize("name", ["SDXL", "SD3", "Flux", "QwenImage", "WAN21_T2V"])
def test_another_family_is_refused_in_one_sentence(name, cnc):
    family = build_family(name)
    prompt = family.clip.encode_from_tokens_scheduled(family.clip.tokenize("a dog"))
    with pytest.raises(ValueError, match=r"These CnC fusers belong to .*; the connected model .* Load a checkpoint of"):
        compose_depth(family.model, prompt, prompt, cnc)


def test_what_cannot_be_meant_is_refused(model, prompts, cnc, folder):
    with pytest.raises(ValueError, match="The mask keeps the looks of exemplars"):
        compose_depth(model, *prompts, cnc, mask=half_mask())
    for start, end in ((0.5, 0.5), (1.0, 1.5), (-1.0, 0.0)):
        with pytest.raises(ValueError, match=f"start is {start:g} and end {end:g}"):
            compose_depth(model, *prompts, cnc, start=start, end=end)
    flat = torch.full((1, 64, 64, 3), torch.nan)
    for name in ("foreground", "background"):
        with pytest.raises(ValueError, match=f"The {name} depth has values that are not numbers"):
            compose_depth(model, *prompts, cnc, **{name: flat})
    with pytest.raises(ValueError, match="There are 2 residual scales; expected one, or 5"):
        compose_depth(model, *prompts, cnc, residual_scale=[1.0, 1.0])
    strange = Exemplars(torch.zeros(1, 4, 5), torch.zeros(1, 4, 5))
    for mask in (None, half_mask()):
        with pytest.raises(ValueError, match=r"tokens have width 5, but the prompts have 16\. Make"):
            compose_depth(model, *prompts, cnc, exemplars=strange, mask=mask)
    with pytest.raises(ValueError, match="splits 64 channels into 2 heads, the CnC file into 8"):
        compose_depth(model, *prompts, load_cnc("wrong_heads.safetensors"))


# --- the nodes ---


def test_the_loader_lists_and_opens_files(folder):
    (options,) = (each.options for each in StageCnCLoader.define_schema().inputs)
    assert {"both.safetensors", "looks.safetensors", "fresh.safetensors"} <= set(options)
    (loaded,) = StageCnCLoader.execute("both.safetensors").args
    assert loaded.config.context_dim == CONTEXT and loaded.global_fuser.config == LOOKS
    assert StageCnCLoader.validate_inputs("both.safetensors") is True and StageCnCLoader.validate_inputs(None) is True
    assert StageCnCLoader.validate_inputs("gone.safetensors").startswith(
        'there is no CnC file "gone.safetensors"; found:'
    )


def test_a_file_that_was_replaced_is_loaded_again(folder):
    before = StageCnCLoader.fingerprint_inputs("looks.safetensors")
    assert StageCnCLoader.fingerprint_inputs("looks.safetensors") == before != 0
    os.utime(folder / "looks.safetensors", ns=(before + 10**9,) * 2)
    assert StageCnCLoader.fingerprint_inputs("looks.safetensors") != before
    assert StageCnCLoader.fingerprint_inputs(None) == StageCnCLoader.fingerprint_inputs("gone.safetensors") == 0


def test_the_converter_writes_what_the_loader_opens(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    with model_folder(CNC, tmp_path / CNC):
        local = LocalFuser(CONFIG)
        torch.save(
            {"state_dict": {f"local_adapter.{k}": v for k, v in local.state_dict().items()}}, folder / "one.ckpt"
        )
        torch.save({"local_adapter.feature_extractor.pre_extractor.0.weight": torch.ones(1)}, folder / "uni.ckpt")
        (options,) = (each.options for each in StageCnCConvert.define_schema().inputs)
        assert set(options) == {"one.ckpt", "uni.ckpt"}
        before = StageCnCConvert.fingerprint_inputs("one.ckpt")
        done = StageCnCConvert.execute("one.ckpt")
        after = StageCnCConvert.fingerprint_inputs("one.ckpt")
        assert before != after == StageCnCConvert.fingerprint_inputs("one.ckpt")
        assert done.args == ("one.safetensors",) and "local fuser (depth), 0.5 M weights" in done.ui["text"][0]
        assert load_cnc("one.safetensors").global_fuser is None
        with pytest.raises(CnCFileError, match="Uni-ControlNet"):
            StageCnCConvert.execute("uni.ckpt")
        assert [file.name for file in (tmp_path / CNC).iterdir()] == ["one.safetensors"]


def test_the_node_hands_on_every_input(model, prompts, cnc, depths):
    given = {
        "foreground_depth_strength": 0.5, "background_depth_strength": 1.5, "residual_scale": 0.7, "start": 0.1,
        "end": 0.9, "foreground_depth": depths[0], "background_depth": depths[1], "exemplars": looks(),
        "mask": half_mask(), "mask_rule": AREA,
    }  # fmt: skip
    found = sample(StageDepthCompose.execute(model, *prompts, cnc, **given).args)
    expected = compose_depth(
        model, *prompts, cnc, foreground=depths[0], background=depths[1], foreground_strength=0.5,
        background_strength=1.5, exemplars=looks(), mask=half_mask(), rule=AREA, residual_scale=0.7, start=0.1, end=0.9,
    )  # fmt: skip
    assert torch.equal(found, sample(expected))
    assert "nothing" in StageDepthCompose.validate_inputs(0.6, 0.6) and StageDepthCompose.validate_inputs(0.0, None)
