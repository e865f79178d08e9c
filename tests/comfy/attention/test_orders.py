"""The order of text and picture in every transformer, measured: which keys move with a word, which rows with a cell."""

from dataclasses import replace

import pytest
import torch
from stagecraft.core.attention.comfy.families import known_family
from stagecraft.core.attention.comfy.orders import Call
from stagecraft.core.attention.comfy.recording import OVERRIDE
from stagecraft.tests.comfy.transformers import TRANSFORMERS, small

pytestmark = pytest.mark.usefixtures("no_gradients")
WORD, CELL = 4, (2, 5)  # that are changed: a token of the prompt, and a token's row and column in the last frame


def heads_first(x, heads, named):
    return x if named.get("skip_reshape") else x.unflatten(-1, (heads, -1)).transpose(1, 2)


def watch(made, x, text, refine=False):
    """Queries, keys and order of every call that the family knows; text is only refined first where that is asked."""
    family, seen, counts = known_family(made.network), [], {}

    def override(attend, q, k, v, heads, *args, **kwargs):
        named = kwargs | dict(zip(("mask", "attn_precision", "skip_reshape"), args, strict=False))
        queries, keys = (heads_first(each, heads, named) for each in (q, k))
        shape = queries.shape[2], keys.shape[2]
        number = counts[shape] = counts.get(shape, -1) + 1
        call = Call(made.network, *shape, x.shape, text.shape[1], made.given(len(x)), number)
        order = family.order(call) if len(q) == len(x) else None
        out = attend(q, k, v, heads, *args, **kwargs)
        if order is None:
            return out if seen or refine else torch.zeros_like(out)
        seen.append((queries, keys, order))
        return out

    made.run(x, text, {OVERRIDE: override})
    return seen


def moved(before, after):
    """Tokens (n), how much each has moved."""
    return (after - before).abs().amax((0, 1, 3))


def reworded(made, x, text):
    """The same with another word; Anima's are T5's tokens, not those of the embedding."""
    given = made.given(len(x))
    if "t5xxl_ids" in given:
        ids = given["t5xxl_ids"] + 100 * torch.eye(given["t5xxl_ids"].shape[-1], dtype=torch.int64)[WORD]
        return replace(made, given=lambda batch: given | {"t5xxl_ids": ids}), x, text
    text = text.clone()
    text[:, WORD] += 1.0
    return made, x, text


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_word_moves_its_column_and_a_cell_its_row(name):
    made = small(name)
    x, text = made.state(), made.prompt()
    plain = watch(made, x, text)
    assert plain, "no call is known"

    first = next(i for i, (_, _, order) in enumerate(plain) if order.words)
    _, keys, order = plain[first]
    change = moved(keys, watch(*reworded(made, x, text))[first][1])
    assert int(change.argmax()) == order.text.start + WORD
    assert order.words == made.text
    if not known_family(made.network).refiner:
        assert int((change > 1e-5).sum()) == 1

    other, (row, column) = x.clone(), CELL
    other[..., made.patch * row, made.patch * column] += 1.0 if x.ndim == 4 else 0.0
    if x.ndim == 5:
        other[:, :, -1, made.patch * row, made.patch * column] += 1.0
    queries, keys, order = plain[0]
    change = moved(queries, watch(made, other, text)[0][0])
    assert order.grid == (x.shape[-2] // made.patch, x.shape[-1] // made.patch)
    token = ((order.frames - 1) * order.grid[0] + row) * order.grid[1] + column
    assert change.argmax() == order.image.start + token
    assert order.image.stop - order.image.start == order.frames * order.grid[0] * order.grid[1]
    assert int((change > 1e-5).sum()) == 1
