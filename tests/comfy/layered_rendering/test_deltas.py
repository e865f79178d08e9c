"""Where delta comes from: a colour, a vector, a reference, or the attention of the first step (Eq. 6)."""

import pytest
import torch
from einops import rearrange
from stagecraft.core.clip.comfy.words import phrase_positions
from stagecraft.core.layered_rendering.comfy.deltas import colour_latent
from stagecraft.core.layered_rendering.vision_guidance import VisionGuidance
from stagecraft.core.layout.region import LayoutError
from stagecraft.tests.comfy.layered_rendering.slow_layers import slow_apart
from stagecraft.tests.comfy.layered_rendering.small_runs import (
    DYNAMIC,
    TWO,
    assert_same_picture,
    layered,
    sample,
    slow_run,
    starting_point,
    two_layers,
)

pytestmark = pytest.mark.usefixtures("no_gradients")


def slow_attention(model, text, columns, x_in, timestep):
    """Maps of the first cross-attention of each down stage, from hooks on the network's own layers."""
    found = {}
    hooks = []
    for block in model.model.diffusion_model.input_blocks:
        for part in block:
            if type(part).__name__ == "SpatialTransformer":
                attention = part.transformer_blocks[0].attn2

                def record(module, args, kwargs, attention=attention):
                    x, context = args[0], kwargs["context"]
                    q, k = attention.to_q(x), attention.to_k(context)
                    q, k = (rearrange(y, "b n (h d) -> b h n d", h=attention.heads) for y in (q, k))
                    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
                    found.setdefault(x.shape[1], weights[..., columns].mean((1, 3)))

                hooks.append(attention.register_forward_pre_hook(record, with_kwargs=True))
    model.model.diffusion_model(x_in, torch.full((len(x_in),), float(timestep)), context=text.expand(len(x_in), -1, -1))
    for hook in hooks:
        hook.remove()
    assert found, "the network has no cross-attention on its way down"
    height, width = x_in.shape[-2:]
    resized = []
    for cells, weights in found.items():
        factor = round((height * width / cells) ** 0.5)
        coarse = weights.reshape(len(x_in), 1, height // factor, width // factor)
        resized.append(torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[:, 0])
    return torch.stack(resized).mean(0)


@pytest.mark.parametrize("mode", ["paper", "trajectories"])
def test_dynamic_deltas_match_the_slow_loop(model, clip, prompts, mode):
    text = "a dog: 0.125 0.25 0.625 0.875\na cat: 0.5 0 1 0.5 | a small cat | strength=0.5"
    ours, our_prompts = layered(model, clip, None, text, prompts, strength=0.8, guidance=DYNAMIC, mode=mode)
    bare = [(text, box, None) for text, box, _ in _boxes()]
    slow = slow_run(model, clip, bare, (64, 64))
    x = starting_point(slow)
    data = (slow.sigmas[0] ** 2 + 1) ** -0.5
    state = x * data
    columns = {"a dog": [2], "a small cat": [3]}  # nouns: "a cat" is not in that caption, and articles do not count
    for layer, (caption, _, _), factor in list(zip(slow.layers, bare, [0, 0.8, 0.4], strict=True))[1:]:
        attention = slow_attention(model, layer.text, columns[caption], state, slow.timesteps[0])
        strongest = attention.flatten(1).topk(5).indices[0]
        factor *= (data**2 + (1 - data**2) / len(strongest)) ** -0.5
        layer.delta = factor * state[0].flatten(1)[:, strongest].mean(1)
    expected = slow(x) if mode == "paper" else slow_apart(slow, x)
    assert_same_picture(model.model.process_latent_in(sample(ours, our_prompts)), expected)


def _boxes():
    return [("on a meadow", None, None), ("a dog", (8, 16, 40, 56), None), ("a small cat", (32, 0, 64, 32), None)]


def test_dynamic_deltas_of_a_batch_are_those_of_its_pictures(model, clip, prompts):
    ours, our_prompts = layered(model, clip, None, TWO, prompts, guidance=DYNAMIC)
    noise = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    together = sample(ours, our_prompts, batch=3, noise=noise)
    for i in range(3):
        assert_same_picture(sample(ours, our_prompts, noise=noise[i : i + 1]), together[i : i + 1])


def test_reading_attention_leaves_other_overrides_working(model, clip, prompts):
    calls = []

    def count(attend, *args, **kwargs):
        calls.append(1)
        return attend(*args, **kwargs)

    other = model.clone()
    other.model_options["transformer_options"]["optimized_attention_override"] = count
    ours, our_prompts = layered(model, clip, None, TWO, prompts, guidance=DYNAMIC)
    theirs, _ = layered(other, clip, None, TWO, prompts, guidance=DYNAMIC)
    assert torch.equal(sample(theirs, our_prompts), sample(ours, our_prompts)) and calls


def test_phrases_are_found_by_their_tokens(clip):
    def found(caption, phrase):
        return phrase_positions(clip, caption, phrase)

    assert found("a dog and a cat", "a cat") == [5], "an article looks nowhere in particular"
    assert found("a cat", "The cat") == [2] and found("a", "a") == [1]
    assert found("an apple and the apple", "the apple") == [5]
    assert found("a (red:1.3) dog, a red dog", "red dog") == [2, 3, 6, 7]
    unusual = clip.tokenize("a stegosaurus")["l"][0]
    length = len([token for token, _ in unusual if token < 49406]) - 1
    assert length > 1, "the test wants a word of several tokens"
    assert found("on the moon a stegosaurus sleeps", "stegosaurus") == list(range(5, 5 + length))
    assert found("a small cat", "a cat") == [3]
    assert found(" ".join(["word"] * 80) + " dog", "dog") == [77 + 1 + 80 - 75]
    with pytest.raises(LayoutError, match='The prompt "something" of the region "a cat" does not say its name'):
        found("something", "a cat")


def test_a_colour_is_its_flat_pictures_latent_in_the_models_own_scale(model, vae):
    flat = torch.tensor([1.0, 165 / 255, 0.0]).expand(1, 256, 256, 3)
    expected = vae.encode(flat.contiguous())[0, :, 16, 16] * 0.18215
    torch.testing.assert_close(colour_latent(model, vae, "orange", ""), expected)
    torch.testing.assert_close(colour_latent(model, vae, "#FFA500", ""), expected)


def test_a_given_vector_and_a_colours_latent_are_the_same_guidance(model, clip, vae, prompts):
    red = colour_latent(model, vae, "red", "")
    by_colour, its_prompts = layered(model, clip, vae, "a dog: 0 0 0.5 1 | colour=red", prompts)
    guidance = VisionGuidance(source="vector", vector=tuple(red.tolist()))
    by_vector, other_prompts = layered(model, clip, None, "a dog: 0 0 0.5 1", prompts, guidance=guidance)
    assert torch.equal(sample(by_vector, other_prompts), sample(by_colour, its_prompts))
    with pytest.raises(ValueError, match="vector has 2 numbers, but the model has 4 latent channels"):
        wrong = VisionGuidance(source="vector", vector=(1.0, 2.0))
        layered(model, clip, None, "a dog: 0 0 0.5 1", prompts, guidance=wrong)


def test_a_reference_gives_its_mean_latent(model, clip, vae, prompts):
    pictures = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(3))
    means = [vae.encode(picture[None]).mean((0, 2, 3)) * 0.18215 for picture in pictures]
    guidance = VisionGuidance(source="reference", references=pictures)
    text = "a dog: 0 0 0.5 1\na cat: 0.5 0 1 1"
    _, (positive, _) = layered(model, clip, vae, text, prompts, guidance=guidance)
    found = [options["stagecraft_delta"][0] for _, options in positive if "stagecraft_delta" in options]
    torch.testing.assert_close(torch.stack(found), torch.stack(means), atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="2 reference pictures are connected for 1 regions"):
        layered(model, clip, vae, "a dog: 0 0 0.5 1", prompts, guidance=guidance)
    with pytest.raises(ValueError, match="but no VAE"):
        layered(model, clip, None, text, prompts, guidance=guidance)


def test_first_step_only_and_sides_of_different_strength(model, clip, vae, prompts):
    guidance = VisionGuidance(inject="first step", inside=0.5, outside=2.0)
    ours, our_prompts = layered(model, clip, vae, TWO, prompts, guidance=guidance)
    slow = slow_run(model, clip, two_layers(model, vae), (64, 64))

    def asymmetric(layer, shape, sigma):
        xi = torch.zeros(shape)
        if layer.delta is not None and sigma == slow.sigmas[0]:
            inside = slow.painted([layer.box])[0]
            for row in range(shape[2]):
                for column in range(shape[3]):
                    share = slow.cell(inside, row, column)
                    xi[:, :, row, column] = layer.delta * (0.5 * share - 2.0 * (1 - share))
        return xi * (sigma**2 + 1) ** 0.5

    slow.guidance = asymmetric
    assert_same_picture(model.model.process_latent_in(sample(ours, our_prompts)), slow(starting_point(slow)))
