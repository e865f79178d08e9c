"""The client of ComfyUI's API on a real server: results, refusals, failures, interruption, broken servers."""

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stagecraft.commands.comfy_api import ComfyApi, PromptFailed, PromptRejected
from stagecraft.commands.comfy_server import ComfyServer, ServerProblem
from stagecraft.commands.environment import CLONE, current_environment


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def picture(colour=0x3366CC, size=64):
    return {
        "1": node("EmptyImage", width=size, height=size, batch_size=2, color=colour),
        "2": node("SaveImage", images=["1", 0], filename_prefix="api"),
    }


def slow(seed, steps=200):
    """A prompt of many steps that lasts about a minute; `seed` keeps it out of ComfyUI's cache."""
    prompt = {"0": node("EmptyImage", width=1024, height=1024, batch_size=4, color=seed)}
    for step in range(1, steps + 1):
        prompt[str(step)] = node("ImageBlur", image=[str(step - 1), 0], blur_radius=15, sigma=3.0)
    return prompt | {"save": node("SaveImage", images=[str(steps), 0], filename_prefix="slow")}


def test_a_result_has_the_pictures_and_the_time(server):
    result = server.run(picture())
    assert list(result.images) == ["2"]
    for data in result.images["2"]:
        image = np.asarray(Image.open(io.BytesIO(data)))
        assert image.shape == (64, 64, 3)
        assert (image == [0x33, 0x66, 0xCC]).all()
    assert len(result.images["2"]) == 2
    assert 0 <= result.seconds < 60


def test_what_another_client_has_queued_is_waited_for(server):
    known = set(server.get_json("/history"))
    with pytest.raises(PromptFailed, match="nothing was run within 0 s"):
        server.wait_for_new(known, 0.3)
    ComfyApi(server.url).run(picture(0x112233))
    assert server.wait_for_new(known, 10)["status"]["status_str"] == "success"


def test_a_picture_can_be_uploaded_and_replaced(server, tmp_path):
    for colour in ("red", "blue"):
        Image.new("RGB", (8, 8), colour).save(tmp_path / "some picture.png")
        name = server.upload(tmp_path / "some picture.png")
        result = server.run({"1": node("LoadImage", image=name), "2": node("PreviewImage", images=["1", 0])})
        shown = Image.open(io.BytesIO(result.images["2"][0]))
        assert shown.getpixel((0, 0)) == Image.new("RGB", (1, 1), colour).getpixel((0, 0))


def test_a_refused_prompt_names_the_node_and_the_input(server):
    prompt = picture()
    del prompt["1"]["inputs"]["width"]
    prompt["1"]["inputs"]["height"] = -5
    with pytest.raises(PromptRejected) as refusal:
        server.run(prompt)
    assert "EmptyImage (node 1): Required input is missing (width)" in str(refusal.value)
    assert "height" in str(refusal.value)
    assert refusal.value.node_errors["1"]["class_type"] == "EmptyImage"


@pytest.mark.parametrize(
    ("prompt", "message"),
    [({}, "Prompt has no outputs"), ({"1": node("NoSuchNode")}, "NoSuchNode"), ({"1": {"inputs": {}}}, "class_type")],
)
def test_a_prompt_that_is_wrong_as_a_whole_is_refused(server, prompt, message):
    with pytest.raises(PromptRejected, match=message):
        server.run(prompt)


def test_half_a_prompt_is_refused_too(server):
    # ComfyUI would run the right half and say nothing in its history about the other.
    prompt = picture() | {"3": node("EmptyImage", width=8, height=8, batch_size=1), "4": node("PreviewImage")}
    prompt["4"]["inputs"] = {"images": ["3", 0]}
    with pytest.raises(PromptRejected, match=r"EmptyImage \(node 3\): Required input is missing \(color\)"):
        server.run(prompt)


def test_a_failing_node_is_named_and_the_server_lives_on(server, tmp_path):
    (tmp_path / "broken.png").write_text("this is not a picture")
    prompt = {"7": node("LoadImage", image=server.upload(tmp_path / "broken.png"))}
    prompt["8"] = node("PreviewImage", images=["7", 0])
    with pytest.raises(PromptFailed) as failure:
        server.run(prompt)
    assert failure.value.node_id == "7"
    assert str(failure.value).startswith("LoadImage (node 7): ")
    assert "cannot identify image file" in failure.value.message
    assert "Traceback" in failure.value.traceback or "File " in failure.value.traceback
    assert server.run(picture(0x010203)).images


def test_an_interrupted_prompt_says_so(server):
    interrupted = []

    def interrupt(elapsed):
        if elapsed > 0.5 and not interrupted:
            interrupted.append(elapsed)
            server.interrupt()

    with pytest.raises(PromptFailed, match="interrupted"):
        server.run(slow(1), on_progress=interrupt)
    assert interrupted
    assert server.run(picture(0x010204)).images


def test_a_prompt_that_takes_too_long_is_stopped(server):
    with pytest.raises(PromptFailed, match="no result after 1 s"):
        server.run(slow(2), timeout=1.0)
    started = time.monotonic()
    assert server.run(picture(0x010205)).images
    assert time.monotonic() - started < 30, "the slow prompt went on"


def test_a_server_that_does_not_start_shows_its_log():
    server = ComfyServer(current_environment(), CLONE, arguments=("--no-such-option",))
    with pytest.raises(ServerProblem, match="(?s)exit status 2.*no-such-option"), server:
        pytest.fail("it started")
    assert not server.base.exists()


def test_a_pack_that_cannot_be_imported_shows_why(tmp_path):
    pack = tmp_path / "a pack"
    pack.mkdir()
    (pack / "__init__.py").write_text("raise RuntimeError('the pack is broken')")
    with pytest.raises(ServerProblem, match="(?s)could not load the pack.*the pack is broken"):
        with ComfyServer(current_environment(), pack):
            pytest.fail("it started without the pack")


def test_a_server_that_dies_is_noticed_and_cleaned_up(tmp_path):
    pack = tmp_path / "pack"
    pack.mkdir()
    # A real pack of one node that ends ComfyUI as a crash would.
    (pack / "__init__.py").write_text(
        "import os\n"
        "class End:\n"
        "    INPUT_TYPES = classmethod(lambda cls: {'required': {}})\n"
        "    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), 'end', 'test', True\n"
        "    def end(self):\n"
        "        print('the end is here', flush=True)\n"
        "        os._exit(3)\n"
        "NODE_CLASS_MAPPINGS = {'StageTestEnd': End}\n"
    )
    with ComfyServer(current_environment(), pack) as server:
        base = server.base
        with pytest.raises(ServerProblem, match="(?s)exit status 3.*the end is here"):
            server.run({"1": node("StageTestEnd")})
    assert not base.exists()


def test_the_server_stops_with_its_block(tmp_path):
    with ComfyServer(current_environment(), CLONE) as server:
        process = server._process
        assert process.poll() is None
        link = server.base / "custom_nodes" / "stagecraft"
        assert os.path.samefile(link, CLONE)
    assert process.poll() is not None
    assert not server.base.exists()
    # The link went away, and not what it leads to.
    assert (CLONE / "stage.py").exists()


ORPHAN = """
import runpy, sys, time
from pathlib import Path
runpy.run_path(str(Path(sys.argv[1]) / "commands" / "launcher.py"))
from stagecraft.commands.comfy_server import ComfyServer
from stagecraft.commands.environment import current_environment
with ComfyServer(current_environment(), Path(sys.argv[1]), base=Path(sys.argv[2])) as server:
    print(server._process.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux stops a process when its parent is killed")
def test_a_server_does_not_outlive_a_killed_program(tmp_path):
    command = [sys.executable, "-c", ORPHAN, str(CLONE), str(tmp_path / "base")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        server = int(program.stdout.readline())
        program.kill()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{server}").exists():
        assert time.monotonic() < deadline, "ComfyUI is still running"
        time.sleep(0.2)
