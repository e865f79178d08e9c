"""Runs one of Stagecraft's modules inside the environment: `python commands/launcher.py commands.demo [arguments]`.

The folder of a clone may have any name, also one that is no Python name, and inside it all imports are relative. So the
clone is registered under the fixed name `stagecraft`. That happens on import, because processes started by
multiprocessing import this file again and need the name too. tests/conftest.py runs this file for the same reason.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import signal
import sys
from pathlib import Path

PACKAGE = "stagecraft"
_COMMANDS = Path(__file__).resolve().parent


def register_package() -> None:
    """Make the clone importable as `stagecraft`, without running its ComfyUI front door."""
    spec = importlib.machinery.ModuleSpec(PACKAGE, loader=None, is_package=True)
    spec.submodule_search_locations = [str(_COMMANDS.parent)]
    sys.modules.setdefault(PACKAGE, importlib.util.module_from_spec(spec))


register_package()


def main(arguments: list[str]) -> int:
    """Call a module's `main` with the remaining arguments.

    Args:
        arguments: the module below `stagecraft`, "commands.demo", and then what its `main` takes.

    Returns:
        The exit status. A SetupProblem is printed as its one sentence and gives 1.
    """
    # A plain kill must stop a ComfyUI that was started too, so it has to leave by an exception.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    module = importlib.import_module(f"{PACKAGE}.{arguments[0]}")
    problem = importlib.import_module(f"{PACKAGE}.commands.messages").SetupProblem
    try:
        return module.main(arguments[1:]) or 0
    except problem as found:
        print(f"stage.py: {found}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    # A script's own folder comes first on the path, where commands/test.py would hide a module of the same name.
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != _COMMANDS]
    sys.exit(main(sys.argv[1:]))
