"""A ComfyUI of our own: started headless on a free port with nothing in it but this pack, and stopped again."""

from __future__ import annotations

import ctypes
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from .comfy_api import ComfyApi, PromptFailed, PromptRejected, Result
from .environment import Environment
from .messages import SetupProblem

__all__ = ["ComfyServer", "PromptFailed", "PromptRejected", "Result", "ServerProblem"]

DEVICE_VARIABLE = "STAGECRAFT_DEVICE"
PACK_NAME = "stagecraft"
# ComfyUI lists some of these at its start and expects them to be there.
_BASE_FOLDERS = ("custom_nodes", "input", "models", "output", "temp", "user")
_START_SECONDS = 300.0


class ServerProblem(SetupProblem):
    """ComfyUI did not start, stopped by itself, or could not load the pack; the text ends with its log."""


class ComfyServer(ComfyApi):
    """A running ComfyUI; use it in a `with` statement.

    Attributes:
        base: the folder that holds its inputs, outputs, models and custom_nodes.
        log: the file with everything it printed.
    """

    def __init__(
        self,
        environment: Environment,
        pack: Path,
        *,
        port: int | None = None,
        arguments: Sequence[str] = (),
        base: Path | None = None,
        name: str = PACK_NAME,
    ) -> None:
        """Prepare a server; it starts on entering the `with` statement.

        Args:
            environment: the Python and the ComfyUI to run.
            pack: the pack's folder; it is linked into custom_nodes, not copied.
            port: the port; None takes a free one.
            arguments: further command line arguments for ComfyUI.
            base: the folder for its files; None makes a temporary one that goes away at the end.
            name: what the pack's folder in custom_nodes is called.
        """
        self.environment = environment
        self.pack = pack.resolve()
        self.name = name
        self._temporary = tempfile.TemporaryDirectory(prefix="stagecraft-") if base is None else None
        self.base = base or Path(self._temporary.name).resolve()
        self.log = self.base / "comfyui.log"
        port = port or free_port()
        super().__init__(f"http://127.0.0.1:{port}")
        self._command = comfyui_command(environment, port, self.base)
        # Nodes that call paid services would ask the network for their prices; no shipped workflow uses one.
        self._command += ["--disable-auto-launch", "--disable-api-nodes", *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self._answers = False

    def __enter__(self) -> ComfyServer:
        prepare_base(self.base, self.pack, self.name)
        with open(self.log, "wb") as log:
            self._process = start_comfyui(self._command, self.environment, log)
        try:
            self._wait_until_it_answers()
            self._require_the_pack()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def process_id(self) -> int:
        """The process of the running ComfyUI.

        Raises:
            ServerProblem: it was not started.
        """
        if self._process is None:
            raise ServerProblem("ComfyUI was not started.")
        return self._process.pid

    def stop(self) -> None:
        """Stop ComfyUI; does nothing where it has stopped already."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._temporary is not None:
            self._temporary.cleanup()

    def log_tail(self, lines: int = 30) -> str:
        """Give the last lines of ComfyUI's log."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def _request(self, path: str, body: bytes | None = None, content_type: str = "") -> bytes:
        try:
            return super()._request(path, body, content_type)
        except urllib.error.HTTPError:
            raise
        except (OSError, http.client.HTTPException):
            status = self._exit_status()
            if status is None:
                raise
            raise ServerProblem(
                f"ComfyUI stopped with exit status {status}; the end of its log:\n{self.log_tail()}"
            ) from None

    def _exit_status(self) -> int | None:
        if self._process is None:
            return None
        try:
            # A process that ends closes its connections a little before it is gone.
            return self._process.wait(timeout=3.0 if self._answers else 0.0)
        except subprocess.TimeoutExpired:
            return None

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            try:
                self.get_json("/system_stats")
                self._answers = True
                return
            except OSError:
                time.sleep(0.1)
        raise ServerProblem(f"ComfyUI did not answer within {_START_SECONDS:.0f} s; its log:\n{self.log_tail()}")

    def _require_the_pack(self) -> None:
        module = f"custom_nodes.{self.name}"
        if not any(node.get("python_module") == module for node in self.object_info().values()):
            raise ServerProblem(f"ComfyUI could not load the pack {self.pack}; its log:\n{self.log_tail(80)}")


def free_port() -> int:
    """Ask the system for a port of this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def comfyui_command(environment: Environment, port: int, base: Path | None) -> list[str]:
    """Write the command that starts ComfyUI on this machine's own address.

    Args:
        environment: the Python and the ComfyUI to run.
        port: the port.
        base: the folder for its files; None lets it use its own folder.
    """
    command = [str(environment.python), "-s", str(environment.comfyui / "main.py")]
    command += ["--listen", "127.0.0.1", "--port", str(port)]
    if base is not None:
        # Without the second option all copies of Stagecraft would share one database inside ComfyUI's folder.
        database = (base / "user" / "comfyui.db").as_posix()
        command += ["--base-directory", str(base), "--database-url", f"sqlite:///{database}"]
    if not _cuda_works(environment):
        command.append("--cpu")
    return command


def start_comfyui(
    command: list[str], environment: Environment, log: IO[bytes] | None = None, lock: int | None = None
) -> subprocess.Popen[bytes]:
    """Start ComfyUI as a process that does not outlive this one.

    Args:
        command: as `comfyui_command` writes it.
        environment: the Python and the ComfyUI to run.
        log: takes what it prints; None leaves that on the terminal.
        lock: descriptor of a lock file that it goes on to hold where it does outlive this process (macOS).
    """
    return subprocess.Popen(
        command,
        cwd=environment.comfyui,
        env=environment.variables(),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=None if log is None else subprocess.STDOUT,
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        pass_fds=() if lock is None or sys.platform == "win32" else (lock,),
    )


def _end_with_parent() -> None:
    """Ask Linux to stop this process when its parent is gone, however that ended; other systems cannot be asked."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def prepare_base(base: Path, pack: Path, name: str = PACK_NAME) -> None:
    """Make the folders that ComfyUI expects and put a link to the pack into custom_nodes."""
    for folder in _BASE_FOLDERS:
        (base / folder).mkdir(parents=True, exist_ok=True)
    link = base / "custom_nodes" / name
    if link.resolve() == pack:
        return
    if sys.platform == "win32":
        import _winapi

        if os.path.lexists(link):
            link.rmdir()
        # Unlike a symbolic link, a junction needs no special right.
        _winapi.CreateJunction(str(pack), str(link))
    else:
        link.unlink(missing_ok=True)
        link.symlink_to(pack, target_is_directory=True)


def _cuda_works(environment: Environment) -> bool:
    if os.environ.get(DEVICE_VARIABLE, "").lower() == "cpu" or sys.platform == "darwin":
        return False
    # Importing PyTorch takes seconds, so it is only asked where a graphics driver is installed at all.
    for driver in ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1", "libamdhip64.so"):
        try:
            ctypes.CDLL(driver)
            break
        except OSError:
            continue
    else:
        return False
    question = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.call([str(environment.python), "-c", question], env=environment.variables()) == 0
