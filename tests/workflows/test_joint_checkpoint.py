"""Every shipped workflow on the embedded transformer: another name in *Load Checkpoint*, and fewer steps to save time.

What is shown is that a workflow runs to its end, or says why it cannot.
"""

import io
import json

import numpy as np
import pytest
from PIL import Image
from stagecraft.commands.comfy_server import PromptFailed
from stagecraft.commands.environment import CLONE
from stagecraft.commands.workflow import to_api
from stagecraft.sticker_world.shipped import TRANSFORMER_FILE

LOADER = "CheckpointLoaderSimple"
FILES = [path for path in sorted((CLONE / "workflows").glob("*.json")) if LOADER in path.read_text(encoding="utf-8")]
STEPS = 4
# What a workflow says that needs networks which belong to the U-Net.
FUSERS = "These CnC fusers belong to Sticker World"
LORA = 'The LoRA "sticker_world/neon.safetensors" of the region "a panda" has nothing for this model'
SAYS = {"cnc_depth": FUSERS, "cnc_looks": FUSERS, "two_looks": LORA}
# Text2Layer has networks of its own and takes only the checkpoint's text encoder.
SAME_PICTURE = ("text2layer", "text2layer_n")
# For the things that were asked for, which fewer steps do not paint.
LOOKS_AT_THE_PICTURE = ("layout_from_picture", "spatial_latent")


def prompt_of(path, object_info, checkpoint=None):
    prompt = to_api(json.loads(path.read_text(encoding="utf-8")), object_info)
    for inputs in (node["inputs"] for node in prompt.values()):
        if "ckpt_name" in inputs and checkpoint is not None:
            inputs["ckpt_name"] = checkpoint
        if path.stem not in LOOKS_AT_THE_PICTURE:  # of fewer steps there is nothing to be seen
            inputs |= {key: STEPS for key in ("steps", "iterations") if key in inputs}
    return prompt


def saved(prompt, result):
    pictures = [
        png for node, each in result.images.items() if prompt[node]["class_type"] == "SaveImage" for png in each
    ]
    return [np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) for png in pictures]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_runs_on_the_transformer_or_says_why_not(server, object_info, path):
    prompt = prompt_of(path, object_info, TRANSFORMER_FILE.name)
    if path.stem in SAYS:
        with pytest.raises(PromptFailed, match=SAYS[path.stem]):
            server.run(prompt)
        return
    pictures = saved(prompt, server.run(prompt))
    assert pictures
    for picture in pictures:
        assert min(picture.shape[:2]) >= 256 and picture.std() > 0
    if path.stem in SAME_PICTURE:
        prompt = prompt_of(path, object_info)
        for found, expected in zip(pictures, saved(prompt, server.run(prompt)), strict=True):
            assert np.array_equal(found, expected)
