"""What `bench growth` counts: on the networks' own classes, against evaluations of narrow ones."""

import comfy.ldm.flux.math as flux_math
import comfy.ldm.modules.attention as attention
import pytest
import torch
from stagecraft.evaluation.bench.growth import Point
from stagecraft.evaluation.bench.growth_network import INSIDE, NARROW, Growth, at_width
from stagecraft.evaluation.bench.growth_runs import WIDTH, Call, Inside, Runs
from stagecraft.evaluation.bench.live_memory import count_row
from stagecraft.evaluation.bench.operations import count_operations

SMALL = Point(regions=4, canvas=128)


@pytest.fixture(scope="module", params=["sd15", "flux"])
def growth(request):
    return Growth(request.param, small=True)


@pytest.fixture
def narrow(growth, monkeypatch):
    """The narrowest network, with the attention that the bench starts ComfyUI with."""
    monkeypatch.setattr(attention, "optimized_attention", attention.attention_pytorch)
    monkeypatch.setattr(flux_math, "optimized_attention", attention.attention_pytorch)
    return growth.network(NARROW[growth.name][0])


def test_what_each_method_has_the_network_evaluate(growth, narrow):
    runs = Runs(narrow, growth.channels, WIDTH)
    point = Point(regions=4, canvas=256, tokens=154)
    whole = {method: runs.calls_of(method, point) for method in ("plain", "set_mask", "multidiffusion", "layered")}
    assert {method: calls for method, calls in whole.items()} == {
        "plain": [Call(2, 32, 32, 154)],
        "set_mask": [Call(6, 32, 32, 154)],  # four regions, what is free, one negative prompt
        "multidiffusion": [Call(10, 32, 32, 154)],
        "layered": [Call(10, 32, 32, 154)],
    }
    areas = runs.calls_of("set_area", point)
    assert sum(call.rows for call in areas) == 2 + 2 * 4, "ComfyUI gives every area a negative prompt"
    # Boxes of 5 x 5 cells, on which eight cells of margin come; a part at the canvas' edge is no smaller.
    assert sorted(runs.calls_of("layered_crop", point), key=lambda call: call.width) == [
        Call(8, 24, 24, 154),
        Call(2, 32, 32, 154),
    ]


def test_operations_without_products_are_those_with_them(growth, narrow):
    inside = Inside(narrow, growth.channels, WIDTH)
    for method in INSIDE[growth.name]:
        evaluated = count_operations(inside.job(method, SMALL))
        assert evaluated > 1e8
        assert count_operations(inside.job(method, SMALL), unevaluated=True) == pytest.approx(evaluated, rel=0.01), (
            method
        )


def test_three_narrow_networks_say_what_a_wide_one_needs(growth):
    for method in INSIDE[growth.name]:  # may try a kernel once in a process
        Inside(growth.network(NARROW[growth.name][0]), growth.channels, WIDTH).job(method, SMALL)()
    *widths, wide = (NARROW[growth.name][0] * factor for factor in (1, 2, 3, 5))
    for method in INSIDE[growth.name]:
        counted = [
            count_operations(Inside(growth.network(width), growth.channels, WIDTH).job(method, SMALL), unevaluated=True)
            for width in (*widths, wide)
        ]
        assert at_width(widths, counted[:3], wide) == pytest.approx(counted[3], rel=1e-9), method


def test_a_row_counted_without_data_is_a_row_evaluated(growth, narrow):
    call = Call(1, 16, 20, 154)
    empty = growth.network(NARROW[growth.name][0], "meta").model.diffusion_model.to("meta")
    operations, memory = count_row(lambda: growth.evaluate(empty, call, "meta"))
    network = narrow.model.diffusion_model
    assert operations == count_operations(lambda: growth.evaluate(network, call)) > 1e7
    assert memory == pytest.approx(count_row(lambda: growth.evaluate(network, call))[1], rel=0.05)
    two = count_row(lambda: growth.evaluate(empty, Call(2, 16, 20, 154), "meta"))
    assert two[0] == 2 * operations and two[1] == pytest.approx(2 * memory, rel=0.01)


def test_live_memory_is_the_most_at_once():
    def chain():
        x = torch.zeros(1000)
        for _ in range(9):
            x = x + 1
        return x

    assert count_row(chain) == (0, 8000), "the result of a sum and what it is made of"
