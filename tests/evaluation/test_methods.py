"""Equal news: what each method hears of a layout, and that no other news reaches its graph."""

import json

import pytest
import torch
from PIL import ImageColor
from stagecraft.core.layered_rendering.vision_guidance import LAMBDA_AT_1, PUBLISHED_TOP_K, dynamic_scale
from stagecraft.evaluation.graphs.colours import GUESSES
from stagecraft.evaluation.graphs.lrdiff import NOISIEST, PUBLISHED, LRDiff
from stagecraft.evaluation.graphs.methods import MultiDiffusion
from stagecraft.evaluation.graphs.told import COLOURS, CUT_OUTS, PROMPT, TOLD
from stagecraft.evaluation.graphs.told import GUESSES as GUESSED
from stagecraft.evaluation.layouts import PAINTED
from stagecraft.evaluation.sets.sets import load_set
from stagecraft.sticker_world.shipped import MODELS
from stagecraft.sticker_world.world.concepts import CONCEPT_NAMES

ITEM = load_set("objects_2")[0]


def graph_of(method):
    return PAINTED[method](ITEM.layout, ITEM.seed, 1)


def colours_in(graph):
    layouts = [node["inputs"]["layout"] for node in graph.values() if node["class_type"] == "StageLayout"]
    return [region.get("colour") for text in layouts for region in json.loads(text)["regions"]]


@pytest.mark.parametrize("method", PAINTED)
def test_a_method_hears_of_colours_only_what_its_row_says(method):
    told, found = TOLD[method].hears, colours_in(graph_of(method))
    true = [region.colour for region in ITEM.layout.regions]
    assert all(true)
    if COLOURS in told:
        assert found == true
    elif GUESSED in told:
        assert found == [GUESSES[region.phrase.split()[-1]] for region in ITEM.layout.regions]
    else:
        assert not any(found)


@pytest.mark.parametrize("method", PAINTED)
def test_no_method_opens_a_network_that_reads_pictures(method):
    readers = {folder.name for kind in ("segmenters", "hf_clip") for folder in (MODELS / kind).iterdir()}
    given = {value for node in graph_of(method).values() for value in node["inputs"].values() if isinstance(value, str)}
    assert not given & readers
    assert (CUT_OUTS in TOLD[method].hears) == any(
        node["class_type"] == "StageSpatialLatent" for node in graph_of(method).values()
    )


def test_guesses_are_colours_of_every_concept():
    assert set(GUESSES) == set(CONCEPT_NAMES)
    assert all(ImageColor.getrgb(colour) for colour in GUESSES.values())


def test_the_competitor_can_hand_over_to_the_whole_prompt_and_keep_things_out_of_the_background():
    graph = MultiDiffusion(end_at=0.7, background_negative="{phrases}")(ITEM.layout, ITEM.seed, 1)
    ranges = [n["inputs"] for n in graph.values() if n["class_type"] == "ConditioningSetTimestepRange"]
    assert sorted((each["start"], each["end"]) for each in ranges) == [(0.0, 0.7)] * 2 + [(0.7, 1.0)] * 2
    texts = [node["inputs"]["text"] for node in graph.values() if node["class_type"] == "CLIPTextEncode"]
    assert ", ".join(region.phrase for region in ITEM.layout.regions) in texts and ITEM.layout.prompt in texts


@pytest.mark.parametrize("method", PAINTED)
def test_a_method_hears_the_whole_prompt_only_where_its_row_says_so(method):
    texts = [node["inputs"].get("text") for node in graph_of(method).values()]
    assert (ITEM.layout.prompt in texts) == (PROMPT in TOLD[method].hears)


def test_the_published_row_is_the_scripts_vector_as_it_is():
    """In the network's own precision: the mean of Eq. 6 times one, whatever the node's strength of 1 stands for."""
    inside = torch.tensor(LAMBDA_AT_1 * PUBLISHED.strength)
    assert torch.equal(inside, torch.tensor(1 / dynamic_scale(PUBLISHED_TOP_K, NOISIEST).item()))
    assert LAMBDA_AT_1 * LRDiff().strength == 0.6
