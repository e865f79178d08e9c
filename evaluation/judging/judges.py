"""Where the judges lie. Nothing but `evaluate` and tests opens them: what judges takes no part in what it judges."""

from pathlib import Path

FOLDER = Path(__file__).parent / "weights"
SEGMENTER_FOLDER = FOLDER / "segmenter"
CLIP_FOLDER = FOLDER / "clip"
JUDGES = {"segmenter": SEGMENTER_FOLDER, "CLIP": CLIP_FOLDER}  # whose weights a run names
