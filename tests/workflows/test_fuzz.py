"""`stage.py fuzz` on a real server: 60 prompts that must stay clean, and that what it looks for is seen there."""

import pytest
from stagecraft.commands.environment import current_environment
from stagecraft.commands.fuzz.batches import fuzz
from stagecraft.commands.fuzz.interrupts import interrupt
from stagecraft.commands.fuzz.outcomes import CLEAR, FINISHED, FOREIGN, PROBE, RAW, REFUSED
from stagecraft.commands.fuzz.report import Report
from stagecraft.commands.fuzz.session import Session

SEED, PROMPTS = 18, 60


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    with Session(current_environment(), tmp_path_factory.mktemp("fuzz")) as running:
        yield running


@pytest.mark.slow
def test_sixty_prompts_end_well_or_in_a_sentence(session, tmp_path):
    report = Report(SEED, tmp_path)
    fuzz(session, report, range(PROMPTS), iter)
    assert not report.failures, "\n".join(report.lines())
    # Most nodes are reached, and each way to end is met: a harness in which everything is refused finds nothing.
    assert report.count(RAW) == 0
    assert report.count(FINISHED) >= PROMPTS // 5 and report.count(CLEAR) and report.count(REFUSED)


def test_the_probe_sees_what_a_picture_hides(session):
    graph = {
        "latent": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "noise": {"class_type": "RandomNoise", "inputs": {"noise_seed": 1}},
        "loader": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sticker_world.safetensors"}},
        "sigmas": {
            "class_type": "BasicScheduler",
            "inputs": {"model": ["loader", 0], "scheduler": "normal", "steps": 1, "denoise": 1.0},
        },
        "noisy": {
            "class_type": "AddNoise",
            "inputs": {
                "model": ["loader", 0],
                "noise": ["noise", 0],
                "sigmas": ["sigmas", 0],
                "latent_image": ["latent", 0],
            },
        },
    }
    last = "noisy"
    for number in range(40):
        graph[str(number)] = {"class_type": "LatentMultiply", "inputs": {"samples": [last, 0], "multiplier": 10.0}}
        last = str(number)
    graph["probe"] = {"class_type": PROBE, "inputs": {"value": [last, 0]}}
    outcome = session.run(graph).outcome
    # Nothing of the pack is in this graph, so it is ComfyUI's own.
    assert (outcome.kind, outcome.type) == (FOREIGN, "NaN")


def test_the_reference_is_painted_anew_each_time(session):
    first = session.reference()
    used = session.usage()
    assert session.reference() == first and len(first) == 24
    assert used.megabytes > 100 and used.handles > 0


def test_an_interrupt_is_heard_and_the_server_works_on(session, tmp_path):
    report = Report(SEED, tmp_path)
    interrupt(session, report, 2, iter)
    assert not report.failures, "\n".join(report.lines())
    assert len(report.interrupts) == 2
