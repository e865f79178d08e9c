"""Arrays that are made row by row: each row once, also after a break, and all again when something changed."""

import numpy as np
import pytest
from stagecraft.sticker_world.training.prepared import prepare


def test_every_row_is_made_once_even_after_a_break(tmp_path):
    made, stop_at = [], 4

    def rows(which):
        if which.start >= stop_at:
            raise KeyboardInterrupt
        made.extend(which)
        return np.array([[row, row + 0.5] for row in which])

    path = tmp_path / "new" / "rows.npy"
    with pytest.raises(KeyboardInterrupt):
        prepare(path, "a", (7, 2), rows, rows_at_once=2)
    stop_at = 100
    for _ in range(2):
        array = prepare(path, "a", (7, 2), rows, rows_at_once=2)
        assert made == list(range(7)) and array.dtype == np.float16
        assert np.array_equal(array, np.arange(7)[:, None] + [0, 0.5])
    again = prepare(path, "b", (3, 2), rows, rows_at_once=2)
    assert made == [*range(7), *range(3)] and again.shape == (3, 2)
