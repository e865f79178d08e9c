"""Makes the clone importable as the package `stagecraft`, whatever its folder is called."""

import runpy
from pathlib import Path

from hypothesis import settings

runpy.run_path(str(Path(__file__).resolve().parent.parent / "commands" / "launcher.py"))

# How long an example takes says something about the machine, not about the code.
settings.register_profile("stagecraft", deadline=None)
settings.load_profile("stagecraft")
