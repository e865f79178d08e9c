"""Looks as tokens, CLIP folders as CLIP_VISION, and what the nodes of soft guidance hand on."""

import json
from functools import partial

import comfy.controlnet
import comfy.hooks
import comfy.sample
import comfy.sd
import comfy.t2i_adapter.adapter
import folder_paths
import pytest
import torch
import transformers
from stagecraft.core.clip.comfy.vision import KIND, FolderClipVision, load_clip_vision
from stagecraft.core.clip.small_clip import SmallCLIP
from stagecraft.core.compose_and_conquer.comfy.exemplars import Exemplars, make_exemplars
from stagecraft.core.compose_and_conquer.comfy.files import CnC
from stagecraft.core.compose_and_conquer.global_fuser import GlobalFuser, TokenConfig
from stagecraft.core.layout.reading import parse_layout
from stagecraft.core.soft_guidance.comfy.apply import apply_soft_guidance
from stagecraft.core.soft_guidance.comfy.regions import phrase_regions
from stagecraft.core.soft_guidance.comfy.run import soft_attention
from stagecraft.core.soft_guidance.comfy.tokens import RegionTokens
from stagecraft.core.soft_guidance.soft_guidance import AREA, PUBLISHED, SoftGuidance, two_sides
from stagecraft.nodes.clip.folder import StageCLIPLoader
from stagecraft.nodes.inputs import NOT_CONNECTED
from stagecraft.nodes.soft_guidance.exemplars import StageExemplars
from stagecraft.nodes.soft_guidance.soft_guidance import StageRegionTokens, StageSoftGuidance
from stagecraft.sticker_world.shipped import CLIP_FOLDER
from stagecraft.tests.comfy.conftest import CONTEXT, encode
from stagecraft.tests.comfy.families import fill

import nodes as comfy_nodes

PROMPT, NEGATIVE = "a green meadow", "blurry"

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture(scope="module")
def clip_vision():
    folder_paths.add_model_folder_path(KIND, str(CLIP_FOLDER.parent))
    return StageCLIPLoader.execute(CLIP_FOLDER.name).args[1]


@pytest.fixture(scope="module")
def fuser():
    made = GlobalFuser(TokenConfig(embedding=96, context=CONTEXT))
    fill(made, 5)
    return made


@pytest.fixture(scope="module")
def pictures():
    return torch.rand(2, 96, 96, 3, generator=torch.Generator().manual_seed(0))


def sample(model, positive, negative, batch=1):
    latent = torch.zeros(batch, 4, 8, 8)
    noise = comfy.sample.prepare_noise(latent, 7)
    return comfy.sample.sample(
        model, noise, 2, 2.0, "euler", "normal", positive, negative, latent, seed=7, disable_pbar=True
    )


# --- CLIP folders ---


def test_the_embedded_clip_sees_as_in_its_training(clip_vision, pictures):
    small = SmallCLIP.load(CLIP_FOLDER)
    found = clip_vision.encode_image(pictures)
    unit = torch.nn.functional.normalize(found["image_embeds"], dim=-1)
    torch.testing.assert_close(unit, small.embed_images(pictures), atol=5e-3, rtol=0)  # ComfyUI rounds to 8 bits
    assert found["image_embeds"].norm(dim=-1).min() > 1.5, "the projection itself, not a unit vector"
    assert found["last_hidden_state"].shape == found["penultimate_hidden_states"].shape == (2, 65, 96)
    wide = torch.nn.functional.pad(pictures, (0, 0, 16, 16))  # what lies beside the middle square is not seen
    assert torch.equal(clip_vision.encode_image(wide)["image_embeds"], found["image_embeds"])
    squeezed = clip_vision.encode_image(wide, crop=False)["image_embeds"]
    assert not torch.allclose(squeezed, found["image_embeds"], atol=1e-2)
    assert load_clip_vision(CLIP_FOLDER.name) is clip_vision, "shared until its files change"


def test_any_folder_is_what_transformers_makes_of_it(tmp_path, pictures):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    vision = {**sizes, "image_size": 96, "patch_size": 32, "hidden_act": "quick_gelu"}
    config = transformers.CLIPConfig(text_config=sizes, vision_config=vision, projection_dim=24)
    model = transformers.CLIPModel(config).eval().half().float()  # ComfyUI keeps these weights in fp16 on CPUs
    model.save_pretrained(tmp_path)
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
    (tmp_path / "preprocessor_config.json").write_text(f'{{"image_mean": {mean}, "image_std": {std}}}')
    pictures = (pictures * 255).round() / 255
    pixels = ((pictures - torch.tensor(mean)) / torch.tensor(std)).movedim(-1, 1)
    vision = model.vision_model(pixel_values=pixels)
    found = FolderClipVision(tmp_path).encode_image(pictures)
    torch.testing.assert_close(found["image_embeds"], model.visual_projection(vision.pooler_output), atol=1e-4, rtol=0)
    torch.testing.assert_close(found["last_hidden_state"], vision.last_hidden_state, atol=1e-4, rtol=1e-4)


def test_folders_that_are_not_there_or_have_no_vision_tower(tmp_path, clip_vision):
    assert 'There is no CLIP folder "gone"; found: sticker_world' in StageCLIPLoader.validate_inputs("gone")
    assert StageCLIPLoader.validate_inputs("sticker_world") is True
    assert StageCLIPLoader.validate_inputs(None) is True
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = transformers.CLIPModel(transformers.CLIPConfig(text_config=sizes, vision_config=sizes, projection_dim=8))
    weights = {name: weight for name, weight in model.state_dict().items() if name.startswith("text")}
    model.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(ValueError, match="no whole CLIP Vision model: .* is missing"):
        FolderClipVision(tmp_path)
    transformers.CLIPTextModel(model.config.text_config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no whole CLIP Vision model: config.json is of a clip_text_model"):
        FolderClipVision(tmp_path)


def test_a_configuration_may_leave_out_what_is_usual(tmp_path, pictures):
    """Older files hold only what differs from the defaults."""
    sizes = {"hidden_size": 24, "intermediate_size": 24, "num_hidden_layers": 2}  # and 12 heads, as is usual
    config = transformers.CLIPConfig(text_config=sizes, vision_config={**sizes, "image_size": 96})
    model = transformers.CLIPModel(config).eval().half().float()
    model.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"vision_config": {**sizes, "image_size": 96}}))
    found = FolderClipVision(tmp_path).encode_image(pictures)["image_embeds"]
    written = config.to_dict()["vision_config"]
    (tmp_path / "config.json").write_text(json.dumps({"vision_config": written, "projection_dim": 512}))
    assert torch.equal(FolderClipVision(tmp_path).encode_image(pictures)["image_embeds"], found)
    assert found.shape == (2, 512)


# --- exemplars ---


def test_tokens_are_the_fusers_at_their_strengths(clip_vision, fuser, pictures):
    cnc = CnC("file", None, torch.float32, None, fuser)
    (found,) = StageExemplars.execute(cnc, clip_vision, 1.0, 0.5, pictures[:1], pictures[1:]).args
    embeddings = clip_vision.encode_image(pictures)["image_embeds"]
    foreground, background = fuser(embeddings[:1], embeddings[1:])
    torch.testing.assert_close(found.foreground, foreground, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.background, background * 0.5, atol=1e-5, rtol=0)


def test_no_picture_is_not_strength_0(clip_vision, fuser, pictures):
    null = make_exemplars(fuser, clip_vision, pictures)
    expected = fuser(torch.zeros(1, 96), torch.zeros(1, 96))[1]
    assert torch.equal(null.background, expected) and expected.abs().max() > 0.01
    assert null.foreground.shape == (2, 4, CONTEXT) and null.background.shape == (1, 4, CONTEXT)
    assert not make_exemplars(fuser, clip_vision, pictures, foreground_strength=0.0).foreground.any()


def test_strength_0_still_takes_attention_as_published(model, clip, clip_vision, fuser, pictures):
    texts = encode(clip, PROMPT), encode(clip, NEGATIVE)
    mask = torch.ones(1, 64, 64)
    zero = make_exemplars(fuser, clip_vision, pictures[:1], foreground_strength=0.0, background_strength=0.0)
    assert not torch.allclose(sample(*apply_soft_guidance(model, *texts, zero.regions(mask))), sample(model, *texts))


@pytest.mark.parametrize("width", [768, 32])
def test_another_clip_vision_is_one_sentence(clip_vision, width, pictures):
    right = "clip-vit-large-patch14" if width == 768 else "sticker_world, with Load CLIP Folder"
    with pytest.raises(ValueError, match=f"width 96, but the CnC file was trained with {width}. Load .*{right}"):
        make_exemplars(GlobalFuser(TokenConfig(embedding=width, context=8)), clip_vision, pictures)
    with pytest.raises(ValueError, match="has no global fuser"):
        make_exemplars(None, clip_vision, pictures)


# --- soft guidance's node ---


def test_the_node_hands_on_every_input(model, clip):
    texts = encode(clip, PROMPT), encode(clip, NEGATIVE)
    layout = parse_layout("a dog: 0 0 0.5 1\na cat: 0.5 0 1 1 | a fluffy cat | strength=0.5", width=64, height=64)
    looks = Exemplars(torch.randn(1, 4, CONTEXT), torch.randn(1, 4, CONTEXT))
    mask = torch.zeros(64, 64)
    mask[16:48, 16:48] = 1
    own = encode(clip, "a red ball")
    (first,) = StageRegionTokens.execute(mask, 2.0, False, True, conditioning=own).args
    (regions,) = StageRegionTokens.execute(mask[None], 1.5, True, False, conditioning=own, before=first).args
    given = {"clip": clip, "layout": layout, "exemplars": looks, "mask": mask, "regions": regions}
    found = StageSoftGuidance.execute(model, *texts, 0.3, AREA, **given).args
    expected = apply_soft_guidance(
        model,
        *texts,
        [
            RegionTokens(own[0][0], mask[None], weight=2.0),
            RegionTokens(own[0][0], mask[None], outside=True, weight=1.5, negative=False),
            RegionTokens(looks.foreground, mask[None]),
            RegionTokens(looks.background, mask[None], outside=True),
            RegionTokens(encode(clip, "a dog")[0][0], layout.masks(64, 64)[:1], weight=3.0, negative=False),
            RegionTokens(encode(clip, "a fluffy cat")[0][0], layout.masks(64, 64)[1:], weight=1.5, negative=False),
        ],
        AREA,
    )
    assert torch.equal(sample(*found), sample(*expected))
    assert not torch.equal(sample(*found), sample(model, *texts))


def test_strength_0_gives_back_what_came_in(model, clip):
    texts = encode(clip, PROMPT), encode(clip, NEGATIVE)
    layout = parse_layout("a dog: 0 0 0.5 1", width=64, height=64, background="a beach")
    found = StageSoftGuidance.execute(model, *texts, 0.0, PUBLISHED, clip=clip, layout=layout).args
    assert found[0] is model and found[1] is texts[0] and found[2] is texts[1]


def test_missing_halves_are_refused_before_anything_runs():
    def check(**connected):
        return StageSoftGuidance.validate_inputs(None, **{name: None for name in connected})

    assert "no regions" in check() and "no regions" in check(clip=1)
    assert "clip too" in check(layout=1)
    assert "Connect both" in check(exemplars=1) and "Connect both" in check(mask=1, clip=1, layout=1)
    assert check(layout=1, clip=1) is check(exemplars=1, mask=1) is check(regions=1) is True
    tokens = partial(StageRegionTokens.validate_inputs, None)
    assert "either" in tokens() and "either" in tokens(None, None, None)
    assert "needs both" in tokens(style_model=None) and "needs both" in tokens(None, NOT_CONNECTED, None)
    assert tokens(None) is tokens(style_model=None, clip_vision_output=None) is True


def test_layouts_of_a_batch_and_the_background(model, clip):
    """Each picture as it is alone, also where regions' numbers and strengths differ."""
    texts = [
        "a dog: 0 0 0.5 1\na cat: 0.25 0.25 1 1 | strength=2",
        "a cat: 0 0 1 0.5 | strength=0.5",
        # A prompt of two chunks; those of the others are not to count twice beside it.
        f"a bird: 0 0 0.5 0.5 | {'a bird in the sky ' * 20}\na fish: 0.5 0.5 1 1",
    ]
    layouts = [
        parse_layout(text, width=64 * size, height=64 * size, background=background)
        for size, text, background in zip((1, 1, 2), texts, ("a beach", "", "a room"), strict=True)
    ]
    pair = encode(clip, PROMPT), encode(clip, NEGATIVE)
    together = sample(*apply_soft_guidance(model, *pair, phrase_regions(clip, layouts, 3.0)), batch=3)
    for place, layout in enumerate(layouts):
        regions = phrase_regions(clip, layout, 3.0)
        assert len(regions) == len(layout.regions) + bool(layout.background)
        alone = sample(*apply_soft_guidance(model, *pair, regions), batch=3)
        size = max(1.0, alone.std().item())
        torch.testing.assert_close(together[place] / size, alone[place] / size, atol=1e-4, rtol=0)
    assert not torch.allclose(together[0], together[1], atol=1e-2)
    wide = parse_layout("a dog: 0 0 0.5 1", width=128, height=64)
    with pytest.raises(ValueError, match="canvases of 64 x 64 and 128 x 64 pixels"):
        phrase_regions(clip, [layouts[0], wide], 1.0)


def test_style_models_are_any_pictures_tokens(clip):
    """ComfyUI's own style model: as many tokens as it has, of every picture."""
    adapter = comfy.t2i_adapter.adapter.StyleAdapter(width=64, context_dim=CONTEXT, num_head=2, n_layes=1, num_token=3)
    fill(adapter, 3)
    seen = comfy.clip_vision.Output()
    seen["last_hidden_state"] = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(1))
    style = comfy.sd.StyleModel(adapter)
    ((region,),) = StageRegionTokens.execute(
        torch.ones(1, 8, 8), 1.0, False, True, style_model=style, clip_vision_output=seen
    ).args
    assert torch.equal(region.tokens, adapter(seen.last_hidden_state).reshape(1, 6, CONTEXT))
    seen["last_hidden_state"] = torch.randn(2, 5, 32)
    with pytest.raises(ValueError, match="reads pictures encoded at width 64, but this CLIP Vision gives 32"):
        StageRegionTokens.execute(torch.ones(1, 8, 8), 1.0, False, True, style_model=style, clip_vision_output=seen)
    scheduled = encode(clip, PROMPT) * 2
    with pytest.raises(ValueError, match="has 2 parts"):
        StageRegionTokens.execute(torch.ones(1, 8, 8), 1.0, False, True, conditioning=scheduled)
    placed = comfy_nodes.ConditioningSetMask().append(encode(clip, PROMPT), torch.ones(1, 8, 8), "default", 0.7)[0]
    with pytest.raises(ValueError, match="options that its tokens cannot keep: mask, mask_strength"):
        StageRegionTokens.execute(torch.ones(1, 8, 8), 1.0, False, True, conditioning=placed)
    hooked = comfy.hooks.set_hooks_for_conditioning(encode(clip, PROMPT), comfy.hooks.HookGroup())
    with pytest.raises(ValueError, match="options that its tokens cannot keep: hooks.*work on the sampler's prompt"):
        StageRegionTokens.execute(torch.ones(1, 8, 8), 1.0, False, True, conditioning=hooked)


# --- for control objects ---


class AttendingControl(comfy.controlnet.ControlBase):
    """Attends to the context as CnC's local fuser does, and keeps what it found."""

    def __init__(self):
        super().__init__()
        self.found = []

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
        attend, context = soft_attention(transformer_options), cond["c_crossattn"]
        q = torch.randn(len(context), 64, CONTEXT, generator=torch.Generator().manual_seed(2))
        self.found.append((q, context, attend and attend(q, context, context, 2, grid=(8, 8))))

    def copy(self):
        return self


def test_control_objects_attend_with_the_same_mask(model, clip):
    """Both rows, whose texts differ in length: text open, foreground inside, background outside."""
    control = AttendingControl()
    pair = [
        [
            [text, {**options, "control": control, "control_apply_to_uncond": False}]
            for text, options in encode(clip, each)
        ]
        for each in ("a long prompt of many words " * 20, NEGATIVE)
    ]
    looks = [torch.randn(1, 4, CONTEXT, generator=torch.Generator().manual_seed(seed)) for seed in (3, 4)]
    mask = torch.zeros(1, 64, 64)
    mask[:, 10:50, 20:40] = 1
    sample(*apply_soft_guidance(model, *pair, Exemplars(*looks).regions(mask)))
    assert control.found
    soft = SoftGuidance([mask], two_sides(4))
    for q, context, found in control.found:
        assert len(q) == 2
        for row, text in zip(range(2), (NEGATIVE, "a long prompt of many words " * 20), strict=True):
            own = torch.cat([encode(clip, text)[0][0], *looks], 1)
            row = row if torch.equal(context[row, : own.shape[1]], own[0]) else 1 - row
            assert torch.equal(context[row, : own.shape[1]], own[0]) and not context[row, own.shape[1] :].any()
            expected = soft.attend(q[row : row + 1], own, own, 2, grid=(8, 8))
            torch.testing.assert_close(found[row : row + 1], expected, atol=1e-5, rtol=0)
    control.found.clear()
    many = RegionTokens(torch.randn(1, 7 * 77, CONTEXT), mask, negative=False)
    short = [[[text, {**options, "control": control}] for text, options in encode(clip, each)] for each in "ab"]
    sample(*apply_soft_guidance(model, *short, [many]))
    assert {context.shape[1] for _, context, _ in control.found} == {624}, "616 would look like eight times the prompt"
    control.found.clear()
    sample(model, *pair)
    assert all(found is None for _, _, found in control.found) and control.found
