"""Where the judges lie. Nothing but `evaluate` and tests opens them: what judges takes no part in what it judges."""

from pathlib import Path

JUDGES = Path(__file__).parent / "weights"
SEGMENTER_FOLDER = JUDGES / "segmenter"
CLIP_FOLDER = JUDGES / "clip"
