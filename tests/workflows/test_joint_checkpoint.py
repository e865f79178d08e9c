"""Every shipped workflow on the embedded transformer: one name is changed in *Load Checkpoint*, nothing else.

While the transformer's file is not among the shipped models, one with random weights stands in for it. What it paints says
nothing, so only these things are asked: that a workflow runs to its end and saves a picture, or says why it cannot.
"""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from stagecraft.commands.comfy_server import PromptFailed
from stagecraft.commands.environment import CLONE
from stagecraft.commands.workflow import to_api
from stagecraft.sticker_world.checkpoint.export import export_transformer
from stagecraft.sticker_world.checkpoint.transformer_training import TaughtTransformer
from stagecraft.sticker_world.shipped import TRANSFORMER_FILE
from torch import nn

LOADER = "CheckpointLoaderSimple"
FILES = [path for path in sorted((CLONE / "workflows").glob("*.json")) if LOADER in path.read_text(encoding="utf-8")]


@pytest.fixture(scope="module")
def checkpoint(server):
    """Name of the transformer's file in the drop-down."""
    if not TRANSFORMER_FILE.is_file():
        torch.manual_seed(0)
        model = TaughtTransformer()
        for name, weight in model.named_parameters():
            nn.init.normal_(weight, 1.0 if name.endswith("scale") else 0.0, 0.05)
        export_transformer(model.state_dict(), server.base / "models" / "checkpoints" / TRANSFORMER_FILE.name)
    return TRANSFORMER_FILE.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_runs_on_the_transformer(server, object_info, checkpoint, path):
    prompt = to_api(json.loads(path.read_text(encoding="utf-8")), object_info)
    loaders = [node for node in prompt.values() if node["class_type"] == LOADER]
    assert loaders
    for node in loaders:
        node["inputs"]["ckpt_name"] = checkpoint
    import time

    t0 = time.time()
    try:
        result = server.run(prompt)
        print("RUNS", path.stem, result.seconds)
    except PromptFailed as e:
        print("FAILED", path.stem, e)
