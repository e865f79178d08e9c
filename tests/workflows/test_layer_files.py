"""Layers through a real server's queue: saved, moved to the input folder, loaded, and of a batch one by one."""

import io

import numpy as np
import pytest
from PIL import Image
from stagecraft.commands.comfy_api import PromptRejected


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def composite(**inputs):
    plain = {"arrange": "", "shadow": 0.0, "shadow_right": 0.0, "shadow_down": 0.0, "shadow_blur": 0.0}
    return node("StageComposite", **plain, mask_means="1 shows the picture", **inputs)


@pytest.mark.parametrize("suffix", [".psd", ".ora"])
def test_what_was_saved_loads_again_as_the_same_picture(server, suffix):
    formats = {"psd": suffix == ".psd", "openraster": suffix == ".ora", "pngs": False}
    prompt = {
        "1": node("StageLoadLayers", file="sticker_world_meadow.ora"),
        "2": composite(layers=["1", 2]),
        "3": node("StageSaveLayers", layers=["2", 2], filename_prefix=f"again/{suffix[1:]}", **formats),
    }
    prompt["2"]["inputs"] |= {"arrange": "dog | right=0.1 | scale=1.2", "shadow": 0.5, "shadow_blur": 0.02}
    saved = server.run(prompt)
    (file,) = (server.base / "output" / "again").glob(f"*{suffix}")
    file.rename(server.base / "input" / file.name)
    loaded = server.run({"1": node("StageLoadLayers", file=file.name), "2": node("PreviewImage", images=["1", 0])})
    first, second = (
        np.asarray(Image.open(io.BytesIO(pictures[0])).convert("RGB"), int)
        for pictures in (saved.images["3"], loaded.images["2"])
    )
    # Preview Image cuts off what it has beyond 256 steps.
    assert abs(first - second).max() <= 1 and first.std() > 10


def test_every_picture_of_a_batch_becomes_files_of_its_own(server):
    prompt = {
        "1": node("EmptyImage", width=64, height=48, batch_size=3, color=0x336699),
        "2": composite(background=["1", 0]),
        "3": node("StageSaveLayers", layers=["2", 2], filename_prefix="batch/a", psd=False, openraster=True, pngs=True),
    }
    result = server.run(prompt)
    files = sorted(path.name for path in (server.base / "output" / "batch").iterdir())
    stems = [f"a_0000{number}_" for number in (1, 2, 3)]
    assert files == sorted(stem + end for stem in stems for end in (".ora", ".png", "00_background.png"))
    assert len(result.images["3"]) == 6


@pytest.mark.parametrize(
    ("kind", "inputs", "message"),
    [
        ("StageLoadLayers", {"file": "gone.psd"}, 'no file "gone.psd" with layers'),
        ("StageComposite", {}, "Nothing is connected"),
    ],
)
def test_what_cannot_run_is_refused_before_it_runs(server, kind, inputs, message):
    bad = composite() if kind == "StageComposite" else node(kind, **inputs)
    with pytest.raises(PromptRejected, match=message):
        server.run({"1": bad, "2": node("PreviewImage", images=["1", 0])})
