"""What the server's process holds: memory, and handles (open files, sockets, threads)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

_MB = 1024**2
# reconstructed: an allocator keeps some of what it had; these are well above what an unchanged server varies by
_SPARE_MB, _SPARE_SHARE, _SPARE_HANDLES = 400.0, 0.15, 24
# The measure of a soak: runs 50 to 80 against the last 30, at most 2 per cent more.
SETTLED, LAST, SOAK_SHARE = slice(49, 80), 30, 0.02


@dataclass(frozen=True)
class Usage:
    """What a process holds at one moment.

    Attributes:
        megabytes: resident memory.
        handles: open files and sockets; on Windows its handles.
        threads: running threads.
    """

    megabytes: float
    handles: int
    threads: int

    @classmethod
    def of_process(cls, process_id: int) -> Usage:
        """Measure a running process.

        Raises:
            psutil.Error: there is no such process.
        """
        import psutil  # ComfyUI needs it, so it is there; the command's --help works without

        process = psutil.Process(process_id)
        handles = process.num_handles() if psutil.WINDOWS else process.num_fds()
        return cls(process.memory_info().rss / _MB, handles, process.num_threads())

    def to_dict(self) -> dict[str, float]:
        """As JSON takes it."""
        return asdict(self)


def seconds_of_work(process_id: int) -> float:
    """How long a process has computed so far, with all its threads together.

    Raises:
        psutil.Error: there is no such process.
    """
    import psutil

    times = psutil.Process(process_id).cpu_times()
    return times.user + times.system


def growth_of_batches(usages: Sequence[Usage]) -> str:
    """Say what grew from batch to batch of different graphs, with everything unloaded in between.

    The first batches load each kind of model once, so the second third is compared with the last usage.

    Args:
        usages: one after each batch.

    Returns:
        A sentence, empty where nothing grew or there are fewer than six batches.
    """
    if len(usages) < 6:
        return ""
    settled, last = usages[len(usages) // 3 : 2 * len(usages) // 3], usages[-1]
    memory, handles = max(each.megabytes for each in settled), max(each.handles for each in settled)
    if last.megabytes > memory * (1 + _SPARE_SHARE) + _SPARE_MB:
        return f"memory grew from {memory:.0f} MB to {last.megabytes:.0f} MB"
    if last.handles > handles + _SPARE_HANDLES:
        return f"open handles grew from {handles} to {last.handles}"
    return ""


def growth_of_soak(usages: Sequence[Usage]) -> tuple[float, str]:
    """Compare the last 30 runs of a soak with runs 50 to 80.

    Args:
        usages: one after each run.

    Returns:
        The share by which memory grew (0 with fewer than 110 runs, of which nothing can be said), and a sentence that
        is empty where that is within 2 per cent and no handle is left open.
    """
    if len(usages) < SETTLED.stop + LAST:
        return 0.0, ""
    settled, last = usages[SETTLED], usages[-LAST:]
    before, after = (sum(each.megabytes for each in some) / len(some) for some in (settled, last))
    share = after / before - 1
    if share > SOAK_SHARE:
        return share, f"memory of repeated runs grew by {share:.1%}, from {before:.0f} MB to {after:.0f} MB"
    handles = (max(each.handles for each in some) for some in (settled, last))
    before, after = handles
    if after > before + _SPARE_HANDLES:
        return share, f"open handles of repeated runs grew from {before} to {after}"
    return share, ""
