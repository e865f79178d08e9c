"""Arrays on disk of which every row is made once, in a run that may be broken off and started again."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm import tqdm

Rows = Callable[[range], np.ndarray]


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Eight digits that tell weights from others."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(weights[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:8]


def prepare(
    path: Path,
    key: str,
    shape: tuple[int, ...],
    make: Rows,
    *,
    rows_at_once: int,
    dtype: np.dtype | type[np.generic] = np.float16,
) -> np.ndarray:
    """Open an array, making the rows that are not there yet.

    Args:
        path: of the array, a .npy; beside it lies a .json with how far it is made.
        key: names everything that the rows depend on; an array that was made with another one is made again.
        shape: of all rows.
        make: gives the rows of a range.
        rows_at_once: how many rows are asked for and saved at once.
        dtype: of the array.

    Returns:
        The array, memory-mapped.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    progress = path.with_suffix(".json")
    said = json.loads(progress.read_text()) if progress.exists() and path.exists() else {}
    done = said.get("done", 0) if said.get("key") == key else 0
    if done < shape[0]:
        array = np.lib.format.open_memmap(path, "r+" if done else "w+", dtype, shape)
        starts = range(done, shape[0], rows_at_once)
        for start in tqdm(starts, path.stem, mininterval=10):
            rows = range(start, min(start + rows_at_once, shape[0]))
            array[rows.start : rows.stop] = make(rows)
            array.flush()
            progress.write_text(json.dumps({"key": key, "done": rows.stop}))
        del array
    return np.load(path, mmap_mode="r")
