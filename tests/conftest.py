"""Makes the clone importable as the package `stagecraft`, whatever its folder is called."""

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).resolve().parent.parent / "commands" / "launcher.py"))
