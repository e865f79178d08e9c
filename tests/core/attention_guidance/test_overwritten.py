"""Whatever is written over, the gradient is that of the same steps without writing; address and reuse do not matter."""

import gc
from contextlib import suppress

import pytest
import torch
from stagecraft.core.attention_guidance.overwritten import overwriting_allowed

FACTORS = torch.linspace(0.5, 1.5, 24)


def whole(h):
    return h.mul_(FACTORS)


def a_part_that_begins_elsewhere(h):
    h[8:] *= FACTORS[8:]
    return h


def what_a_part_was_saved_of(h):
    part = h[8:16].square()  # saves the part, whose address is not that of what is written
    h *= FACTORS
    return torch.cat([h[:8], part, h[16:]])


def twice(h):
    h[:12] *= FACTORS[:12]
    h = h + h.square()
    h[12:] *= FACTORS[12:]
    return h


def several_at_once(h):
    torch._foreach_mul_([h[:12], h[12:]], [FACTORS[:12], FACTORS[12:]])
    return h


def of_a_patch_between(h):
    with torch.no_grad():
        h.detach()[4:9] = 3.0
    return h


WRITES = (whole, a_part_that_begins_elsewhere, what_a_part_was_saved_of, twice, several_at_once, of_a_patch_between)


def slope(write, before):
    """The gradient through steps that save what they get, then a write, then steps again."""
    x = torch.linspace(-1, 1, 24, dtype=torch.float64).requires_grad_()
    h = x * 2 + 1
    energy = before(h).sum()
    energy = energy + (write(h) ** 3).sum()
    return torch.autograd.grad(energy, x)[0]


def saves(h):
    return h.sin() + h.square() * h[3:4]


def by_hand(write, before):
    """The same, where the write has a tensor of its own."""
    x = torch.linspace(-1, 1, 24, dtype=torch.float64).requires_grad_()
    h = x * 2 + 1
    return torch.autograd.grad(before(h.clone()).sum() + (write(h.clone()) ** 3).sum(), x)[0]


@pytest.mark.parametrize("write", WRITES)
def test_the_gradient_is_that_without_writing(write):
    with overwriting_allowed():
        expected = by_hand(write, saves)
    with overwriting_allowed():
        torch.testing.assert_close(slope(write, saves), expected)
    assert not torch.allclose(expected, by_hand(lambda h: h, saves))


def test_a_write_that_is_not_recorded_has_no_derivative_and_spoils_none():
    x = torch.linspace(-1, 1, 24, dtype=torch.float64).requires_grad_()
    with overwriting_allowed():
        h = x * 2 + 1
        energy = h.square().sum()
        torch.mul(h.detach(), 5.0, out=h.detach())
        (found,) = torch.autograd.grad(energy, x)
    assert torch.equal(found, (4 * (x * 2 + 1)).detach())


def test_memory_that_is_used_again_is_not_taken_for_what_lay_there():
    """Many steps of one size, each of which frees what the one before has overwritten."""

    def run(write):
        x = torch.linspace(0.1, 1, 64, dtype=torch.float64).requires_grad_()
        energy = 0
        for number in range(200):
            h = x + number
            energy = energy + h.sin().sum() + write(h).sum()
        return torch.autograd.grad(energy, x)[0]

    with overwriting_allowed():
        found = run(lambda h: h.mul_(1.5))
    torch.testing.assert_close(found, run(lambda h: h * 1.5))


def test_what_is_saved_several_times_is_copied_once(monkeypatch):
    copies = []
    clone = torch.Tensor.clone
    monkeypatch.setattr(torch.Tensor, "clone", lambda self, *args: (copies.append(self.shape), clone(self, *args))[1])
    x = torch.ones(24, requires_grad=True)
    with overwriting_allowed():
        h = x * 2
        energy = h.sin().sum() + h.square().sum() + h.exp().sum()
        h.mul_(2.0)
        torch.autograd.grad(energy, x)
    assert len(copies) == 1


@pytest.mark.parametrize("broken_off", [False, True])
def test_nothing_of_a_pass_outlives_it(broken_off):
    """Also of a branch that no way back reaches, whose steps save their results, and of a pass that is broken off."""
    x = torch.linspace(-1, 1, 24, dtype=torch.float64).requires_grad_()

    def run():
        with overwriting_allowed():
            branches = [(x * 2).sigmoid(), (x * 2).softmax(-1), (x * 2).exp()]
            if broken_off:
                raise InterruptedError
            torch.autograd.grad((x * 2).sin().sum(), x)
            return len(branches)

    with suppress(InterruptedError):
        run()
    gc.collect()
    assert not [each for each in gc.get_objects() if type(each).__name__ == "_Saved"]


def test_a_result_that_its_own_step_has_saved_may_be_overwritten():
    x = torch.linspace(-1, 1, 24, dtype=torch.float64).requires_grad_()
    with overwriting_allowed():
        h = (x * 2).sigmoid()
        energy = h.sum()
        with torch.no_grad():
            h.mul_(7.0)
        (found,) = torch.autograd.grad(energy, x)
    expected = (x * 2).sigmoid().detach()
    torch.testing.assert_close(found, 2 * expected * (1 - expected))
