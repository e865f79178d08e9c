"""Joint attention without a mask: the same as with the mask, row by row and on the way back."""

from itertools import pairwise

import pytest
import torch
from stagecraft.core.attention import in_blocks, with_lse
from stagecraft.core.attention.with_lse import attention_with_lse, plain_with_lse
from stagecraft.core.soft_guidance.joint import joint_bias
from stagecraft.core.soft_guidance.merge import joint_parts, merged_attention
from stagecraft.core.soft_guidance.soft_guidance import AREA, TokenColumns, column_bias
from stagecraft.tests.core.soft_guidance.test_joint import GRID, ORDERS, SPANS, WORDS, masks, seen

HEADS, WIDTH = 3, 8
KINDS = {"soft": (), "hard": (True, True), "one hard": (True, False)}


def random(*shape, seed, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def given(tokens, batch=1, dtype=torch.float64):
    return [random(batch, HEADS, tokens, WIDTH, seed=seed, dtype=dtype).requires_grad_() for seed in range(3)]


def by_bias(q, k, v, bias):
    logits = q @ k.mT * q.shape[-1] ** -0.5 + bias[:, None].to(q.dtype)
    return logits.softmax(-1) @ v


def tokens_of(order):
    return 26 if order.others else 21


def is_seen(order):
    """Rows that are not those of a column that nobody sees."""
    rows = torch.ones(tokens_of(order), dtype=torch.bool)
    rows[order.text.start + WORDS - 1] = False
    return rows


def of_weights(*weights):
    columns = [TokenColumns(span.start, span.stop, k, weight=weights[k]) for k, span in enumerate(SPANS)]
    bias = column_bias(masks(), columns, WORDS, GRID, AREA)
    bias[..., WORDS - 1] = -torch.inf
    return bias


def gradients(out, order, leaves):
    rows = is_seen(order)
    slope = random(*out[:, :, rows].shape, seed=9)
    return torch.autograd.grad((out[:, :, rows] * slope).sum(), leaves)


@pytest.mark.parametrize("weights", [(2.0, 0.5), (1.0, 1.0), (1.0, 3.0)])
@pytest.mark.parametrize("folds", [False, True], ids=["beside", "folded"])
@pytest.mark.parametrize("hard", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_merged_is_masked_and_so_is_its_gradient(order, hard, folds, weights):
    """Regions that overlap, cells of nobody, registers and references, in double precision."""
    bias = of_weights(*weights)
    leaves = given(tokens_of(order))
    parts = joint_parts(order, tokens_of(order), bias[0], SPANS, hard, folds=folds)
    expected = by_bias(*leaves, joint_bias(order, tokens_of(order), bias, SPANS, hard))
    found = merged_attention(*leaves, [parts])
    rows = is_seen(order)
    torch.testing.assert_close(found[:, :, rows], expected[:, :, rows], atol=1e-12, rtol=0)
    assert (found[:, :, ~rows] == 0).all()
    for one, other in zip(gradients(found, order, leaves), gradients(expected, order, leaves), strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


def test_folded_parts_of_weight_one_need_no_merging():
    """So an attention that says nothing but its result evaluates them all."""
    order, calls = ORDERS["text first"], []
    leaves = given(21, dtype=torch.float32)

    def attend(q, k, v):
        calls.append((q.shape[2], k.shape[2]))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    parts = joint_parts(order, 21, of_weights(1.0, 1.0)[0], SPANS, folds=True)
    found = merged_attention(*leaves, [parts], attend)
    assert not parts.added and len(calls) == len(parts.base)
    # Cells of nobody with the prompt's three columns, of the first region, of both; then the words of either.
    assert sorted(calls) == sorted([(3 + 4, 15), (4, 15 + 2), (4, 15 + 5), (2, 2 + 8), (3, 3 + 4)])
    expected = by_bias(*leaves, joint_bias(order, 21, of_weights(1.0, 1.0), SPANS))
    rows = is_seen(order)
    torch.testing.assert_close(found[:, :, rows], expected[:, :, rows], atol=1e-5, rtol=0)
    calls.clear()
    merged_attention(*leaves, [joint_parts(order, 21, seen()[0], SPANS, folds=True)], attend)
    assert not calls, "other weights have to be merged, which takes the sums too"


def test_rows_of_a_batch_have_their_own():
    order = ORDERS["registers and references"]
    both = torch.cat([seen(), seen().flip(1)])
    q, k, v = given(26, batch=3, dtype=torch.float32)
    first, other = (joint_parts(order, 26, each, SPANS) for each in both)
    found = merged_attention(q, k, v, [first, first, other])
    expected = by_bias(q, k, v, joint_bias(order, 26, both[[0, 0, 1]], SPANS))
    rows = is_seen(order)
    torch.testing.assert_close(found[:, :, rows], expected[:, :, rows], atol=1e-5, rtol=0)


def test_without_regions_only_what_nobody_sees_is_left_out():
    order = ORDERS["text first"]
    bias = torch.zeros(1, 6, WORDS)
    bias[..., 7:] = -torch.inf
    (part,), added = vars(joint_parts(order, 21, bias[0], ())).values()
    assert not added and part.rows.tolist() == part.keys.tolist() == [*range(7), *range(9, 21)]


def test_a_region_without_cells_keeps_to_itself():
    bias = seen()
    bias[..., SPANS[0]] = -torch.inf
    order, leaves = ORDERS["text first"], given(21)
    found = merged_attention(*leaves, [joint_parts(order, 21, bias[0], SPANS)])
    expected = by_bias(*leaves, joint_bias(order, 21, bias, SPANS))
    rows = is_seen(order)
    torch.testing.assert_close(found[:, :, rows], expected[:, :, rows], atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_kernel_and_matrix_products_give_the_same_sums(dtype):
    q, k, v = (random(2, 3, n, 16, seed=n, dtype=dtype) for n in (70, 33, 33))
    bound = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    logits = q.double() @ k.double().mT / 4
    for evaluate in (attention_with_lse, plain_with_lse):
        out, lse = evaluate(q, k, v)
        assert out.dtype == dtype and lse.dtype == torch.promote_types(dtype, torch.float32)
        torch.testing.assert_close(lse.double(), logits.logsumexp(-1), atol=bound, rtol=bound)
        torch.testing.assert_close(out.double(), logits.softmax(-1) @ v.double(), atol=bound, rtol=bound)


def test_kernels_that_are_not_there_or_give_something_else_are_not_used(monkeypatch):
    """They are no promise of PyTorch's."""

    def gone(q, k, v):
        raise AttributeError("no such operation")

    def of_base_two(q, k, v):
        out, lse = with_lse.plain_with_lse(q, k, v)
        return out, lse * 1.4427

    monkeypatch.setitem(with_lse._KERNELS, "cpu", (gone, of_base_two))
    with_lse._kernel.cache_clear()
    try:
        q, k, v = given(20)
        for found, expected in zip(attention_with_lse(q, k, v), plain_with_lse(q, k, v), strict=True):
            assert torch.equal(found, expected)
    finally:
        with_lse._kernel.cache_clear()


def test_the_sum_has_a_derivative_too():
    q, k, v = (random(1, 2, n, 8, seed=n).requires_grad_() for n in (9, 5, 5))
    assert torch.autograd.gradcheck(attention_with_lse, (q, k, v))


def test_some_queries_at_a_time(monkeypatch):
    """As with so many that their logits do not fit."""
    leaves = q, k, v = given(29)
    whole = [*plain_with_lse(q, k, v), *torch.autograd.grad(attention_with_lse(q, k, v)[0].sum(), leaves)]
    monkeypatch.setattr(in_blocks, "AT_ONCE", HEADS * 29 * 4)
    parts = [*plain_with_lse(q, k, v), *torch.autograd.grad(attention_with_lse(q, k, v)[0].sum(), leaves)]
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, atol=1e-13, rtol=0)


def test_memory_grows_with_tokens_and_not_with_their_square():
    """Largest tensor that is made, on the way back too."""
    largest = [largest_tensor(tokens) for tokens in (512, 1024, 2048)]
    for small, large in pairwise(largest):
        assert large <= 2.1 * small, largest


def largest_tensor(side):
    order = ORDERS["text first"].__class__(slice(0, WORDS), slice(WORDS, WORDS + side), (1, side))
    bias = torch.zeros(side, WORDS)
    for number, span in enumerate(SPANS):
        bias[:, span] = -torch.inf
        bias[number * side // 2 : (number + 1) * side // 2, span] = 0.5
    leaves = [random(1, 1, WORDS + side, WIDTH, seed=s, dtype=torch.float32).requires_grad_() for s in range(3)]
    with Largest() as found, pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_blocks, "AT_ONCE", 8 * (WORDS + 512))
        out = merged_attention(*leaves, [joint_parts(order, WORDS + side, bias, SPANS)])
        torch.autograd.grad(out.sum(), leaves)
    return found.numbers


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """Remembers the largest number of elements of a result."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for each in torch.utils._pytree.tree_leaves(result):
            if isinstance(each, torch.Tensor):
                self.numbers = max(self.numbers, each.untyped_storage().nbytes() // each.element_size())
        return result


def test_the_gradient_of_large_logits_in_half_precision_is_as_exact_as_pytorchs():
    """Rounding the logits before the log-sum-exp is taken off them made weights that do not sum to 1."""
    whole = [3 * random(1, 2, 1024, 64, seed=seed, dtype=torch.float32).bfloat16().float() for seed in range(3)]
    slope = random(1, 2, 1024, 64, seed=9, dtype=torch.float32)

    def gradient(attend, dtype):
        leaves = [each.to(dtype).requires_grad_() for each in whole]
        return [each.float() for each in torch.autograd.grad((attend(*leaves) * slope.to(dtype)).sum(), leaves)]

    pytorchs = torch.nn.functional.scaled_dot_product_attention
    ours = gradient(lambda *inputs: attention_with_lse(*inputs)[0], torch.bfloat16)
    for found, usual, right in zip(
        ours, gradient(pytorchs, torch.bfloat16), gradient(pytorchs, torch.float32), strict=True
    ):
        assert (found - right).norm() < 2 * (usual - right).norm()


def test_products_that_half_precision_does_not_hold_are_scaled_first():
    q = torch.full((1, 1, 4, 128), 25.0, dtype=torch.float16)  # 80000 before they are divided by the root of 128
    out, lse = plain_with_lse(q, q, q)
    assert torch.equal(out, q) and lse.isfinite().all()
