"""TCIG's first stage in ComfyUI: the node, previews, cancelling and refusals, with small real models."""

import comfy.model_management
import comfy.utils
import pytest
import torch
from PIL import Image
from stagecraft.core.comfy.device import patcher_of
from stagecraft.core.layout.reading import parse_layout
from stagecraft.core.layout.region import LayoutError
from stagecraft.core.segmentation.files import SegmenterError
from stagecraft.core.tcig.comfy.draft import DRAFT_BYTES, PREVIEW_EVERY
from stagecraft.core.tcig.optimisation import DraftError
from stagecraft.core.tcig.starts import COLOURS, NOISE, PICTURE
from stagecraft.evaluation.sets.sets import TUNING_SET
from stagecraft.evaluation.tcig.evaluate import METHODS, masked
from stagecraft.nodes.layout.layout import StageLayoutBatch
from stagecraft.nodes.tcig.draft import StageTCIGDraft, read_weights

SETTINGS = {
    "prompt": "",
    "iterations": 3,
    "size": 32,
    "seed": 5,
    "start": NOISE,
    "clip_weight": 1.0,
    "segmenter_weights": "1.0",
    "balance": True,
    "learning_rate": 0.5,
    "cut_outs": 2,
    "patience": 0,
}


@torch.inference_mode()
def run(models, layout, **changes):
    return StageTCIGDraft.PREPARE_CLASS_CLONE({}).execute(layout, **models, **(SETTINGS | changes)).args


def test_a_draft_comes_with_its_numbers(models, layout):
    image, iou, report, curve = run(models, layout)
    assert image.shape == (1, 32, 32, 3) and image.dtype == torch.float32 and image.device.type == "cpu"
    assert 0 <= image.min() and image.max() <= 1 and image.std() > 0
    assert 0 <= iou <= 1 and "a dog: mask IoU" in report and "3 iterations" in report
    assert curve.shape[0] == 1 and curve.shape[-1] == 3


def test_a_run_twice_is_the_same_and_a_batch_is_its_pictures(models, layout):
    other = parse_layout("a duck: 0.1 0.1 0.9 0.9", width=64, height=64)
    (both,) = StageLayoutBatch.execute(layout, other).args
    batch, *_, curves = run(models, both)
    state = torch.get_rng_state()
    first, second = run(models, layout)[0], run(models, other, seed=6)[0]
    assert torch.equal(batch, torch.cat([first, second])) and len(curves) == 2
    assert torch.equal(run(models, layout)[0], first) and not torch.equal(run(models, layout, seed=7)[0], first)
    assert torch.equal(torch.get_rng_state(), state)
    largest = run(models, layout, seed=2**64 - 1)[0]
    assert largest.isfinite().all()


def test_every_input_counts(models, layout):
    first = run(models, layout)[0]
    image = torch.rand(1, 20, 24, 3, generator=torch.Generator().manual_seed(0))
    for changes in (
        {"prompt": "an apple"},
        {"start": COLOURS},
        {"start": PICTURE, "image": image},
        {"clip_weight": 0.2},
        {"segmenter_weights": "0"},
        {"balance": False},
        {"learning_rate": 0.2},
        {"cut_outs": 3},
    ):
        assert not torch.equal(run(models, layout, **changes)[0], first), changes
    open_ground = parse_layout("a dog: 0 0 0.25 0.25\na cat: 0.5 0 0.75 0.25", width=64, height=64)
    from_colours = run(models, open_ground, start=COLOURS)[0]
    for changes in ({"segmenter_noise": 0.0}, {"start_weight": 0.0}, {"image": image}):
        assert not torch.equal(run(models, open_ground, start=COLOURS, **changes)[0], from_colours), changes
    for changes in ({"start_weight": 9.0}, {"image": image}):  # random codes are nothing to hold to, and no picture
        assert torch.equal(run(models, layout, **changes)[0], first), changes
    still = run(models, layout, patience=10, iterations=60, learning_rate=1e-9, clip_weight=0.0)
    assert "20 iterations, ended early" in still[2]


def test_any_canvas_keeps_its_shape(models):
    layout = parse_layout("a dog: 0 0 1 1", width=100, height=67)
    assert run(models, layout, size=50)[0].shape == (1, 34, 50, 3)  # cells would make it 32 x 52


def test_progress_shows_previews_and_cancelling_ends_it_at_once(models, layout):
    calls = []

    def hook(value, total, preview, node_id=None, **more):
        calls.append((value, total, preview))
        if value >= 8:  # newer versions leave some calls out where they come fast
            comfy.model_management.interrupt_current_processing()

    comfy.utils.set_progress_bar_global_hook(hook)
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            run(models, layout, iterations=20)
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
        comfy.model_management.interrupt_current_processing(False)
    values = [value for value, *_ in calls]
    assert values == sorted(set(values)) and sum(value >= 8 for value in values) == 1, "none behind the interrupt"
    assert {total for _, total, _ in calls} == {20}
    previews = [preview for *_, preview in calls if preview is not None]
    assert len(previews) == 2 and PREVIEW_EVERY == 5
    assert all(
        kind == "JPEG" and isinstance(drawn, Image.Image) and drawn.size == (32, 32) for kind, drawn, _ in previews
    )
    assert not torch.is_inference_mode_enabled()
    run(models, layout)  # the models are as they were


def test_models_are_back_where_they_were(models, layout):
    networks = [models["vqgan"].network, models["clip"].guide.network, models["segmenter"][0].network]
    before = [[(id(each), each._version) for each in network.parameters()] for network in networks]
    run(models, layout)
    assert [[(id(each), each._version) for each in network.parameters()] for network in networks] == before


def test_bad_inputs_are_refused_in_the_editor():
    def check(**changes):
        names = ("prompt", "iterations", "start", "clip_weight", "segmenter_weights", "learning_rate")
        return StageTCIGDraft.validate_inputs(**({name: SETTINGS[name] for name in names} | changes))

    assert check() is True and check(prompt=None, iterations=None, start=None) is True
    assert "iterations is 0" in check(iterations=0)
    assert "clip_weight is nan" in check(clip_weight=float("nan"))
    assert "learning_rate is 0" in check(learning_rate=0.0)
    assert "learning_rate is inf" in check(learning_rate=float("inf"))
    assert "segmenter_noise is nan" in check(segmenter_noise=float("nan"))
    assert "start_weight is -1" in check(start_weight=-1.0)
    assert "no number" in check(prompt="a dog: brown")
    assert "segmenter_weights is" in check(segmenter_weights="much")
    assert 'no start "upside down"' in check(start="upside down")
    assert "nothing to draw for" in check(clip_weight=0.0, segmenter_weights="0, 0")
    assert check(clip_weight=0.0, segmenter_weights="0, 1") is check(clip_weight=None, segmenter_weights="0") is True
    assert "needs an image" in check(start=PICTURE) and check(start=PICTURE, image=None) is True


def test_what_is_evaluated_is_the_node_with_its_defaults():
    defaults = {each.id: each.default for each in StageTCIGDraft.define_schema().inputs if hasattr(each, "default")}
    graph = METHODS["tcig"].graph(None, masked(TUNING_SET, 1)[0], 0)
    (inputs,) = (node["inputs"] for node in graph.values() if node["class_type"] == "StageTCIGDraft")
    set_here = inputs.keys() & defaults.keys() - {"seed"}
    assert {name: inputs[name] for name in set_here} == {name: defaults[name] for name in set_here}
    assert {"start", "iterations", "segmenter_weights", "cut_outs"} <= set_here


def test_what_shows_only_in_the_run_is_a_sentence(models, layout):
    with pytest.raises(SegmenterError, match='no class for the phrase "a dgo".*dog'):
        run(models, parse_layout("a dgo: 0 0 1 1", width=64, height=64))
    with pytest.raises(LayoutError, match="leaves the canvas"):
        parse_layout("a dog: 0.5 0.5 1.5 1", width=64, height=64)
    with pytest.raises(LayoutError, match="not the shape of the canvas"):
        parse_layout("a dog: mask 1", width=64, height=64, masks=[torch.ones(8, 16)])
    with pytest.raises(DraftError, match="iterations is 0"):
        run(models, layout, iterations=0)
    with pytest.raises(DraftError, match="2 segmenter_weights for 1 segmenters"):
        run(models, layout, segmenter_weights="1, 2")
    with pytest.raises(ValueError, match="needs an image"):
        run(models, layout, start=PICTURE)
    with pytest.raises(DraftError, match="not finite"):
        run(models, layout, start=PICTURE, image=torch.full((1, 8, 8, 3), torch.nan))
    with pytest.raises(DraftError, match="2 images for 1 layouts"):
        run(models, layout, start=PICTURE, image=torch.zeros(2, 8, 8, 3))
    with pytest.raises(DraftError, match="2 images for 1 layouts"):
        run(models, layout, start=COLOURS, image=torch.zeros(2, 8, 8, 3))
    with pytest.raises(DraftError, match="size is 2"):
        run(models, layout, size=2)
    assert read_weights(" 1, 0.5 2") == [1.0, 0.5, 2.0]
    for text in ("", "nan", "-1", "inf", "1;2"):
        with pytest.raises(DraftError):
            read_weights(text)


def test_room_is_made_for_what_a_draft_computes(models, layout, monkeypatch):
    asked, load = [], comfy.model_management.load_models_gpu

    def watched(patchers, memory_required=0):
        asked.append((patchers, memory_required))
        load(patchers, memory_required=memory_required)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", watched)
    run(models, layout)
    networks = [models["vqgan"].network, models["clip"].guide.network, models["segmenter"][0].network]
    width = models["vqgan"].network.config.block_out_channels[0]
    assert asked == [([patcher_of(each) for each in networks], DRAFT_BYTES * width * SETTINGS["size"] ** 2)]


def test_the_end_of_a_long_prompt_is_named_and_not_lost_silently(models, layout, caplog):
    long = "a dog and a cat on a " * 12 + "meadow of flowers"
    report = run(models, layout, prompt=long)[2]
    assert (
        'does not read the end of the prompt: "' in report and 'meadow of flowers". Write the prompt shorter' in report
    )
    assert "meadow of flowers" in caplog.text
    halves = f"{long[:80]} | meadow of flowers"
    for fits in ({"prompt": halves}, {"prompt": "a dog"}, {"prompt": long, "clip_weight": 0.0}):
        assert "does not read" not in run(models, layout, **fits)[2]
