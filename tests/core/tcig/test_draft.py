"""TCIG's first stage: gradients against their definitions, the loop against a slow one, and drafts that fit a layout.

The VQGAN here has a colour per code and a decoder that only enlarges, the segmenter tells colours apart, and CLIP is
transformers' own with random weights: so what has to come out is known.
"""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from stagecraft.core.clip.clip_guide import CLIPGuide
from stagecraft.core.layout.reading import parse_layout
from stagecraft.core.tcig import draft as stage_one
from stagecraft.core.tcig.cut_outs import CutOuts
from stagecraft.core.tcig.draft import CLIP, DraftSettings
from stagecraft.core.tcig.optimisation import START, DraftError
from stagecraft.core.tcig.prompts import WeightedPrompt, distances
from stagecraft.core.tcig.segmentation_loss import make_terms, overlap_text, region_overlaps
from stagecraft.core.tcig.starts import flat_colours, picture_start, random_start
from stagecraft.core.tcig.vqgan import VQGAN, clamp_with_gradient, straight_through
from stagecraft.tests.core.tcig.colour_models import LAYOUT, SIZE, ColourCodes, make_segmenter
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

PROMPTS = (WeightedPrompt("a"), WeightedPrompt("b", -0.3))


@pytest.fixture(scope="module")
def vqgan():
    return VQGAN(ColourCodes())


@pytest.fixture(scope="module")
def guide():
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = CLIPTextConfig(**small, vocab_size=10, eos_token_id=9, bos_token_id=8)
    vision = CLIPVisionConfig(**small, image_size=16, patch_size=8)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8)
    network = CLIPModel(config).eval().requires_grad_(False)
    return CLIPGuide(network, lambda texts: {"input_ids": torch.tensor([[8, len(text), 9] for text in texts])})


@pytest.fixture(scope="module")
def layout():
    return parse_layout(LAYOUT, width=64, height=64)


@pytest.fixture(scope="module")
def terms(layout):
    return make_terms(layout, [make_segmenter()], [1.0], SIZE, SIZE)


def few(number=4):
    return CutOuts(number)


def draft(vqgan, start, guide, prompts, terms, *, seed, start_map=None, on_step=None, **settings):
    settings = DraftSettings(**settings)
    return stage_one.draft(
        vqgan, start, guide, prompts, terms, settings, seed=seed, start_map=start_map, on_step=on_step
    )


def test_quantising_is_exact_forward_and_nothing_backward():
    latent, codes, weights = (torch.rand(1, 2, 3, 4, requires_grad=True) for _ in range(3))
    found = straight_through(latent, codes.detach() * 1e-9)
    assert torch.equal(found, codes.detach() * 1e-9)
    (found * weights).sum().backward()
    assert torch.equal(latent.grad, weights) and codes.grad is None


@given(st.floats(-3, 3, allow_subnormal=False, width=32), st.floats(-3, 3, allow_subnormal=False, width=32))
def test_clamping_lets_back_in_what_is_outside(value, slope):
    x = torch.tensor(value, requires_grad=True)
    found = clamp_with_gradient(x)
    found.backward(torch.tensor(slope))
    assert found == x.clamp(0, 1)
    leads_back = (x > 1 and slope > 0) or (x < 0 and slope < 0) or 0 <= x <= 1
    assert x.grad == (torch.tensor(slope) if leads_back else 0)


def test_the_nearest_code_is_the_nearest(vqgan):
    latent = 3 * torch.rand(2, 3, 4, 5) - 1.5
    found = vqgan.nearest(latent)
    every = (latent[:, None] - vqgan.codes[None, :, :, None, None]).square().sum(2)
    torch.testing.assert_close((latent - found).square().sum(1), every.amin(1))
    assert torch.equal(vqgan.nearest(found), found)


def test_a_draft_puts_things_where_the_layout_says(vqgan, guide, layout, terms):
    start = random_start(vqgan, SIZE, SIZE, 0)
    run = partial(draft, vqgan, start, guide, PROMPTS, seed=0, iterations=60, cut_outs=few(), clip_weight=0.1)
    found = run(terms)
    overlaps = region_overlaps(terms, found.picture)
    assert list(overlaps) == [0, 1] and min(overlaps.values()) > 0.9
    free = region_overlaps(terms, run(()).picture)
    assert max(free.values()) < 0.6, "the segmenter did nothing"
    assert found.losses["segmenter"][-1] < 0.1 * found.losses["segmenter"][0]
    assert [len(each) for each in found.losses.values()] == [60, 60] and not found.stopped_early
    text = overlap_text(layout, overlaps).splitlines()
    assert len(text) == 3 and text[1] == f"an apple: mask IoU {overlaps[0]:.2f}"
    low, high = vqgan.bounds()
    assert (found.latent >= low).all() and (found.latent <= high).all()
    assert found.picture.shape == (1, 3, SIZE, SIZE) and 0 <= found.picture.min() and found.picture.max() <= 1


def test_a_seed_gives_the_same_bits_and_leaves_the_global_one_alone(vqgan, guide, terms):
    def run(seed):
        start = random_start(vqgan, SIZE, SIZE, seed)
        return draft(vqgan, start, guide, PROMPTS, terms, seed=seed, iterations=3, cut_outs=few())

    before = torch.get_rng_state()
    first, again, other = run(1), run(1), run(2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.picture, again.picture) and first.losses == again.losses
    assert not torch.equal(first.picture, other.picture)
    with torch.inference_mode():
        assert torch.equal(run(1).picture, first.picture)


def test_models_and_the_start_stay_as_they_are(vqgan, guide, terms):
    start = random_start(vqgan, SIZE, SIZE, 0)
    networks = (vqgan.network, guide.network, terms[0].segmenter.network)
    before = [start.clone(), *(weight.clone() for network in networks for weight in network.state_dict().values())]
    draft(vqgan, start, guide, PROMPTS, terms, seed=0, iterations=2, cut_outs=few())
    after = [start, *(weight for network in networks for weight in network.state_dict().values())]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not any(weight.requires_grad for network in networks for weight in network.parameters())


def slow_draft(vqgan, guide, layout, segmenter, start, iterations, rate, weight):
    """The loop as papers write it: one loss, one graph, every cut-out through CLIP by itself."""
    z = start.clone().requires_grad_()
    first, second = torch.zeros_like(z), torch.zeros_like(z)
    masks = F.avg_pool2d(layout.visible_masks(SIZE, SIZE)[1:], 2)
    texts = guide.embed_texts([prompt.text for prompt in PROMPTS])
    losses = []
    for step in range(1, iterations + 1):
        flat = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
        codes = vqgan.codes[torch.cdist(flat, vqgan.codes).argmin(1)].view(1, *z.shape[2:], -1).permute(0, 3, 1, 2)
        picture = clamp_with_gradient((vqgan.network.decoder(z + (codes - z).detach()) + 1) / 2)
        pooled = (F.adaptive_avg_pool2d(picture, 16) + F.adaptive_max_pool2d(picture, 16)) / 2
        clip = 0
        for text, prompt in zip(texts, PROMPTS, strict=True):
            clip = clip + prompt.weight * sum(distances(guide.embed_pictures(pooled), text)[0] for _ in range(3)) / 3
        found = segmenter.network(picture).logits.softmax(1)[0, 1:]
        seg = ((found - masks) ** 2).mean()
        losses.append((float(clip.detach()), float(seg.detach())))
        (gradient,) = torch.autograd.grad(clip + weight * seg, z)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        with torch.no_grad():
            z -= rate * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
            z.copy_(
                torch.minimum(torch.maximum(z, vqgan.codes.amin(0)[:, None, None]), vqgan.codes.amax(0)[:, None, None])
            )
    return z.detach(), losses


def test_the_loop_is_the_published_one(vqgan, guide, layout):
    segmenter, start = make_segmenter(), random_start(vqgan, SIZE, SIZE, 4)
    terms = make_terms(layout, [segmenter], [7.0], SIZE, SIZE)
    settings = {"iterations": 6, "learning_rate": 0.2, "balanced": False, "cut_outs": CutOuts(3, augmented=False)}
    found = draft(vqgan, start, guide, PROMPTS, terms, seed=0, **settings)
    latent, losses = slow_draft(vqgan, guide, layout, segmenter, start, 6, 0.2, 7.0)
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(list(zip(*found.losses.values(), strict=True))))
    torch.testing.assert_close(found.latent, latent, atol=1e-4, rtol=1e-4)
    assert found.factors == {CLIP: 1.0, "segmenter": 7.0}
    assert losses[-1][1] < losses[0][1]


def test_balancing_compares_gradients_of_the_latent(vqgan, guide, layout):
    terms = make_terms(layout, [make_segmenter()], [0.5], SIZE, SIZE)
    start = random_start(vqgan, SIZE, SIZE, 0)
    plain = CutOuts(1, augmented=False)
    found = draft(vqgan, start, guide, PROMPTS, terms, seed=0, iterations=1, cut_outs=plain, clip_weight=2.0)
    z = start.clone().requires_grad_()
    texts = guide.embed_texts([prompt.text for prompt in PROMPTS])
    pooled = plain(vqgan.decode(z), guide.size, None)
    clip = sum(p.weight * distances(guide.embed_pictures(pooled), t)[0] for p, t in zip(PROMPTS, texts, strict=True))
    of_clip = torch.autograd.grad(clip, z)[0].norm()
    of_term = torch.autograd.grad(terms[0].loss(vqgan.decode(z), terms[0].target(vqgan.decode(z).detach())), z)[
        0
    ].norm()
    assert found.factors[CLIP] == 2.0
    assert found.factors["segmenter"] == pytest.approx(0.5 * float(of_clip / of_term), rel=1e-3)


def test_a_term_without_a_gradient_leaves_the_others_their_strength(vqgan, guide, layout):
    terms = make_terms(layout, [make_segmenter()], [2.0], SIZE, SIZE)
    start = random_start(vqgan, SIZE, SIZE, 0)
    run = partial(draft, vqgan, start, terms=terms, seed=0, iterations=11, cut_outs=few())
    reached = run(guide=guide, prompts=(WeightedPrompt("a", stop=99.0),))  # from the beginning, so nothing is pulled
    alone = run(guide=None, prompts=())
    assert reached.factors == pytest.approx({CLIP: 1.0, "segmenter": 2.0})
    torch.testing.assert_close(reached.latent, alone.latent, atol=1e-4, rtol=1e-4)


def test_the_start_holds_what_nothing_asks_for(vqgan, layout):
    terms = make_terms(layout, [make_segmenter()], [2.0], SIZE, SIZE)
    start = picture_start(vqgan, flat_colours(layout, SIZE, SIZE), SIZE, SIZE)
    run = partial(draft, vqgan, start, None, (), terms, seed=0, iterations=30, balanced=False)
    free, held = run(), run(start_weight=50.0)
    far, near = ((each.latent - start).square().mean() / vqgan.codes.var() for each in (free, held))
    assert near < 0.5 * far
    assert START not in free.losses and held.losses[START][0] == 0 < held.losses[START][-1]
    assert held.factors == {"segmenter": 2.0, START: 50.0}


def test_a_map_holds_some_cells_and_frees_the_others(vqgan, layout):
    terms = make_terms(layout, [make_segmenter()], [2.0], SIZE, SIZE)
    start = picture_start(vqgan, flat_colours(layout, SIZE, SIZE), SIZE, SIZE)
    run = partial(draft, vqgan, start, None, (), terms, seed=0, iterations=30, balanced=False, start_weight=50.0)
    left = torch.zeros(1, 1, *start.shape[-2:])
    left[..., : start.shape[-1] // 2] = 1
    moved = ((run(start_map=left).latent - start).square().mean((0, 1, 2)) / vqgan.codes.var()).chunk(2)
    assert moved[0].mean() < 0.2 * moved[1].mean()
    assert torch.equal(run(start_map=torch.ones_like(left)).latent, run().latent)
    # In CLIP's unit, fewer held cells are held as strongly together: their share of the force is larger.
    nowhere = run(start_map=torch.zeros_like(left), balanced=True)
    assert torch.equal(nowhere.latent, run(start_weight=0.0, balanced=True).latent)


def test_the_pull_has_the_gradient_of_its_loss_and_its_weight_in_clips_unit(vqgan, guide):
    start, plain = random_start(vqgan, SIZE, SIZE, 0), CutOuts(1, augmented=False)
    run = partial(draft, vqgan, start, guide, PROMPTS, (), seed=0, cut_outs=plain)
    spread, texts = vqgan.codes.std(), guide.embed_texts([prompt.text for prompt in PROMPTS])

    def clip(z):
        seen = guide.embed_pictures(plain(vqgan.decode(z), guide.size, None))
        return sum(prompt.weight * distances(seen, text)[0] for prompt, text in zip(PROMPTS, texts, strict=True))

    z = start.clone().requires_grad_()
    adam = torch.optim.Adam([z], lr=0.1)
    for _ in range(3):
        adam.zero_grad()
        (clip(z) + 5 * ((z - start) / spread).square().mean()).backward()
        adam.step()
        with torch.no_grad():
            z.clamp_(*vqgan.bounds())
    found = run(iterations=3, start_weight=5.0, balanced=False)
    torch.testing.assert_close(found.latent, z.detach(), atol=1e-4, rtol=1e-4)

    z = start.clone().requires_grad_()
    offset = torch.full_like(start, float(spread)).requires_grad_()  # one deviation away
    of_pull = torch.autograd.grad((offset / spread).square().mean(), offset)[0].norm()
    expected = 0.5 * torch.autograd.grad(clip(z), z)[0].norm() / of_pull
    assert run(iterations=1, start_weight=0.5).factors[START] == pytest.approx(float(expected), rel=1e-3)


def test_noise_on_what_segmenters_see_comes_from_the_seed(vqgan, terms):
    start = random_start(vqgan, SIZE, SIZE, 0)
    run = partial(draft, vqgan, start, None, (), terms, iterations=2)
    first, again, other = (run(seed=seed, segmenter_noise=0.5).latent for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(run(seed=0).latent, run(seed=1).latent)


def test_several_segmenters_look_at_what_each_knows(vqgan, layout):
    apples, frogs = (make_segmenter(("background", name)) for name in ("apple", "frog"))
    terms = make_terms(layout, [apples, frogs, make_segmenter()], [1.0, 2.0, 3.0], SIZE, SIZE)
    assert [term.phrases for term in terms] == [("an apple",), ("a frog",), ("an apple", "a frog")]
    assert [term.members for term in terms] == [((0,),), ((1,),), ((0,), (1,))]
    assert [term.weight for term in terms] == [1.0, 2.0, 3.0] and len({term.name for term in terms}) == 3
    found = draft(vqgan, random_start(vqgan, SIZE, SIZE, 0), None, (), terms[:2], seed=0, iterations=60)
    assert min(region_overlaps(terms, found.picture).values()) > 0.8
    assert list(found.losses) == ["segmenter 1", "segmenter 2"]


def test_a_plateau_ends_it_early(vqgan, terms):
    start = random_start(vqgan, SIZE, SIZE, 0)
    run = partial(draft, vqgan, start, None, (), terms, seed=0, iterations=60)
    still = run(learning_rate=1e-9, patience=10)
    assert still.stopped_early and len(still.losses["segmenter"]) == 20
    moving = run(patience=25, iterations=55)  # looked at after 50, where the second half is far below the first
    assert not moving.stopped_early and len(moving.losses["segmenter"]) == 55


def test_a_draft_can_be_watched_and_ended(vqgan, terms):
    seen = []

    def watch(iteration, picture):
        seen.append((iteration, picture))
        if iteration == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draft(vqgan, random_start(vqgan, SIZE, SIZE, 0), None, (), terms, seed=0, iterations=9, on_step=watch)
    assert [iteration for iteration, _ in seen] == [0, 1, 2]
    assert all(picture.shape == (1, 3, SIZE, SIZE) and not picture.requires_grad for _, picture in seen)
    assert torch.is_inference_mode_enabled() is False and torch.is_grad_enabled()


def test_what_cannot_be_meant_is_refused_in_a_sentence(vqgan, guide, layout, terms):
    start = random_start(vqgan, SIZE, SIZE, 0)
    run = partial(draft, vqgan, start, guide, PROMPTS, terms, seed=0)
    for options, message in (
        ({"iterations": 0}, "iterations is 0"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"clip_weight": math.nan}, "weight of CLIP is nan"),
        ({"patience": -1}, "patience is -1"),
        ({"segmenter_noise": math.nan}, "segmenter_noise is nan"),
        ({"start_weight": -1.0}, "start_weight is -1.0"),
    ):
        with pytest.raises(DraftError, match=message):
            run(**options)
    bad = make_terms(layout, [make_segmenter()], [math.inf], SIZE, SIZE)
    with pytest.raises(DraftError, match="weight of segmenter is inf"):
        draft(vqgan, start, guide, PROMPTS, bad, seed=0)
    unweighted = make_terms(layout, [make_segmenter()], [0.0], SIZE, SIZE)
    with pytest.raises(DraftError, match="nothing to draw for"):
        draft(vqgan, start, None, (), unweighted, seed=0)
    broken = make_terms(layout, [make_segmenter(sharpness=math.nan)], [1.0], SIZE, SIZE)
    with pytest.raises(DraftError, match="iteration 1: the loss of segmenter is not finite"):
        draft(vqgan, start, guide, PROMPTS, broken, seed=0, iterations=20, cut_outs=few())
