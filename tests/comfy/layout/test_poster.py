"""A layout as large as a poster costs what its boxes cost, and hears when the run is cancelled."""

import random
import threading
import time

import comfy.model_management
import psutil
import pytest
from stagecraft.core.layout.reading import parse_layout
from stagecraft.nodes.layout.layout import StageLayout, visible_regions

SIDE = 16384
NUMBER = 40
MEGABYTES = 200
MEGABYTE = 2**20
SECONDS = 6  # 2 on an idle machine


class Peak(threading.Thread):
    """The most memory of this process while something runs."""

    def __enter__(self):
        self.process, self.running = psutil.Process(), True
        self.first = self.most = self.process.memory_info().rss
        self.start()
        return self

    def run(self):
        while self.running:
            self.most = max(self.most, self.process.memory_info().rss)
            time.sleep(0.002)

    def __exit__(self, *_):
        self.running = False
        self.join()

    @property
    def megabytes(self):
        return (self.most - self.first) // MEGABYTE


def poster(kind):
    shuffled, lines = random.Random(1), []
    for index in range(NUMBER):
        x, y = 0.7 * shuffled.random(), 0.7 * shuffled.random()
        box = (0, 0, 1, 1) if kind == "whole canvas" else (x, y, x + 0.1 + 0.2 * shuffled.random(), y + 0.25)
        place = " ".join(f"{side:.4f}" for side in box)
        lines.append(f"thing {index}: {'ellipse ' if kind == 'ellipses' else ''}{place}")
    return "\n".join(lines)


@pytest.mark.parametrize("kind", ["boxes", "whole canvas"])
def test_forty_boxes_on_a_poster(kind):
    with Peak() as peak:
        start = time.perf_counter()
        masks = StageLayout.execute(poster(kind), "", "", SIDE, SIDE).args[2]
        seconds = time.perf_counter() - start
    print(f"{kind}: {seconds:.2f} s, {peak.megabytes} MB")
    assert masks.shape == (NUMBER, 1261, 1261)
    assert seconds < SECONDS and peak.megabytes < MEGABYTES


def test_masks_on_a_poster_hear_an_interrupt():
    layout = parse_layout(poster("ellipses"), width=SIDE, height=SIDE)
    heard = []

    def interrupt():
        heard.append(time.perf_counter())
        comfy.model_management.interrupt_current_processing()

    timer = threading.Timer(0.2, interrupt)
    timer.start()
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            visible_regions(layout)
        late = time.perf_counter() - heard[0]
    finally:
        timer.cancel()
        comfy.model_management.interrupt_current_processing(False)
    print(f"interrupt heard after {late:.2f} s")
    assert late < 3  # 1 on an idle machine
