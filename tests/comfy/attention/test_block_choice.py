"""The choice of blocks on a trained network whose right answer is known: Sticker World's U-Net and its exact masks."""

import comfy.model_management
import comfy.sd
import numpy as np
import pytest
import torch
from stagecraft.core.attention.block_choice import WordMaps, block_scores, pooled_map
from stagecraft.core.attention.comfy.recording import recording
from stagecraft.core.attention.recorder import AttentionRecorder
from stagecraft.core.attention.sites import ALL_BLOCKS, CROSS
from stagecraft.core.clip.comfy.words import Reader
from stagecraft.core.comfy.sticker_world import register_model_class
from stagecraft.sticker_world.shipped import CHECKPOINT_FILE
from stagecraft.sticker_world.world.captions import plain_prompt
from stagecraft.sticker_world.world.scene import make_scene

pytestmark = pytest.mark.usefixtures("no_gradients")
SCENES, NOISE, GRID = 8, 0.55, (16, 16)


def scenes():
    for i in range(SCENES):
        scene = make_scene(7001, i, held_out=True, counts=(0.0, 0.0, 0.5, 0.5))
        yield scene, plain_prompt(tuple(thing.concept for thing in scene.objects), scene.background)


def area_under_curve(found, inside):
    """How surely a map tells the cells of a thing from others."""
    ranks = found.flatten().argsort().argsort()[inside.flatten()].double()
    yes, no = int(inside.sum()), int((~inside).sum())
    return float((ranks.sum() - yes * (yes - 1) / 2) / (yes * no))


def test_sites_that_agree_are_those_that_hit_the_masks():
    register_model_class()
    model, clip, vae = comfy.sd.load_checkpoint_guess_config(str(CHECKPOINT_FILE), embedding_directory=[])[:3]
    comfy.model_management.load_models_gpu([model])
    inner, sampling = model.model, model.get_model_object("model_sampling")
    sigma = torch.tensor([float(sampling.percent_to_sigma(1 - NOISE))])
    scores, hits = [], []
    for i, (scene, caption) in enumerate(scenes()):
        reader = Reader(clip)
        phrases = reader.positions(caption, [thing.concept.replace("_", " ") for thing in scene.objects])
        words = reader.span(caption).words
        latent = inner.process_latent_in(vae.encode(torch.from_numpy(scene.image)[None].float() / 255))
        x = latent + sigma * torch.randn(latent.shape, generator=torch.Generator().manual_seed(i))
        recorder = AttentionRecorder(ALL_BLOCKS, tuple(x.shape[-2:]), [torch.tensor(words)])
        options = recording({}, {"entry": recorder})["transformer_options"] | {"uuids": ["entry"]}
        text = clip.encode_from_tokens_scheduled(clip.tokenize(caption))[0][0]
        inner.apply_model(x, sigma, c_crossattn=text, transformer_options=options)
        maps = [pooled_map(each, site.grid) for site, each in recorder.maps.items() if site.stream == CROSS]
        maps = [torch.nn.functional.interpolate(each[:, :, 0], GRID, mode="bilinear")[:, :, None] for each in maps]
        at = [[words.index(position) for position in phrase] for phrase in phrases]
        scores.append(block_scores(WordMaps(maps, at, range(len(words)))))
        hits.append([hit(each, at, scene) for each in maps])
    scores, hits = torch.stack(scores).mean(0), np.mean(hits, 0)
    assert len(scores) == 7
    best = set(np.argsort(hits)[-3:].tolist())
    assert set(scores.argsort()[-3:].tolist()) == best
    assert hits[list(best)].min() > 0.9 > 0.7 > np.sort(hits)[-4], "there is something to be chosen"


def hit(maps, phrases, scene):
    """How well a site's maps of the phrases tell their things from the rest."""
    found = []
    for phrase, thing in zip(phrases, scene.objects, strict=True):
        inside = (
            torch.nn.functional.interpolate(torch.from_numpy(thing.visible)[None, None], GRID, mode="area")[0, 0] >= 0.5
        )
        if 3 < int(inside.sum()) < 250:
            found.append(area_under_curve(maps[0, phrase, 0].mean(0), inside))
    return np.mean(found)
