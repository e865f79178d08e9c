"""A fuzzed server: runs a graph and says what became of it, paints the reference picture, measures the process."""

from __future__ import annotations

import random
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from ..comfy_api import PromptFailed, PromptRejected, Result
from ..comfy_server import ComfyServer, ServerProblem
from ..environment import CLONE, Environment
from .graphs import RandomGraph, without_target
from .outcomes import FINISHED, PROBE, RAW, Graph, Outcome, of_failure, of_rejection, of_result, probed
from .process import Usage, seconds_of_work
from .sources import CHECKPOINT
from .values import Node, described

# A small prompt that takes longer has hung, also on a machine that has other work.
PROMPT_SECONDS = 240.0
# What ComfyUI itself writes while a prompt runs; any other line is something that was said.
_COMFYUI_SAYS = tuple(
    "got prompt|Prompt executed|Requested to load|loaded |Loaded |model weight|model_type|VAE load|CLIP/text|Using |"
    "Unload|0 models|adm |Model |no CLIP|left over keys|unet |lowvram".split("|")
)


@dataclass(frozen=True)
class Run:
    """One prompt that was run.

    Attributes:
        outcome: what became of it.
        seconds: how long it took.
        result: what it gave, or None.
        log: what the server wrote meanwhile.
    """

    outcome: Outcome
    seconds: float
    result: Result | None
    log: str


class Session:
    """A server with the pack and the probe in it; use it in a `with` statement.

    Attributes:
        server: that runs.
        nodes: what it offers, known on entering.
    """

    def __init__(self, environment: Environment, base: Path) -> None:
        """Prepare the server; it starts on entering.

        Args:
            environment: the Python and the ComfyUI to run.
            base: an empty folder for its files.
        """
        self.server = ComfyServer(environment, CLONE, base=base)
        self.nodes: dict[str, Node] = {}
        self._nonce = 0

    def __enter__(self) -> Session:
        shutil.copytree(
            Path(__file__).parent / "probe",
            self.server.base / "custom_nodes" / "fuzz_probe",
            ignore=shutil.ignore_patterns("__pycache__"),
            dirs_exist_ok=True,
        )
        self.server.__enter__()
        try:
            info = self.server.object_info()
            if PROBE not in info:
                raise ServerProblem(f"ComfyUI could not load the probe; its log:\n{self.server.log_tail(80)}")
            self.nodes = described(info)
        except BaseException:
            self.server.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()

    def usage(self) -> Usage:
        """What the server's process holds now."""
        return Usage.of_process(self.server.process_id)

    def run(self, graph: Graph, timeout: float = PROMPT_SECONDS) -> Run:
        """Run a graph to its end, whatever that is.

        Raises:
            ServerProblem: the server died of it.
        """
        started, written = time.monotonic(), self.server.log.stat().st_size
        result = None
        try:
            result = self.server.run(graph, timeout=timeout)
            outcome = of_result(graph, result, self._log_since(written))
        except PromptRejected as rejection:
            outcome = of_rejection(graph, rejection)
        except PromptFailed as failure:
            outcome = of_failure(graph, failure)
        return Run(outcome, time.monotonic() - started, result, self._log_since(written))

    def did_nothing(self, made: RandomGraph, run: Run) -> bool:
        """Tell whether the target of a finished graph changed no picture and nothing was said about it.

        The graph is run again with the target passed by; where that gives the same, bit for bit, the target was of no
        effect. A strength of 0 is of no effect rightly, so this is a number to look at and no failure.
        """
        twin = without_target(made)
        if twin is None or run.result is None or _said(run.log) or _shows_text(made, run):
            return False
        painted = [
            node_id
            for node_id, node in made.graph.items()
            if node["class_type"] == PROBE and "Sampler" in made.graph[node["inputs"]["value"][0]]["class_type"]
        ]
        plain = self.run(twin)
        if plain.outcome.kind != FINISHED or plain.result is None:
            return False
        ours, theirs = probed(made.graph, run.result), probed(twin, plain.result)
        return bool(painted) and all(ours[node]["digest"] == theirs[node]["digest"] for node in painted)

    def reference(self) -> str:
        """Paint the plain picture and give its digest; nothing that ran before may change it.

        Raises:
            ServerProblem: it could not be painted.
        """
        # ComfyUI keeps results by their inputs and ignores an input that a node does not have.
        self._nonce += 1
        run = self.run(reference_graph(self._nonce))
        if run.outcome.kind != FINISHED or run.result is None:
            raise ServerProblem(f"The reference picture could not be painted: {run.outcome.line()}")
        return probed(reference_graph(0), run.result)["seen"]["digest"]

    def rest(self) -> Usage:
        """Let the server unload everything, and measure it."""
        self.server.free()
        self.reference()
        self.server.free()
        time.sleep(0.5)
        return self.usage()

    def interrupted_after(self, graph: Graph, seconds: float, patience: float) -> tuple[float | None, Outcome]:
        """Queue a long graph, interrupt it and wait until that is heard.

        Args:
            graph: that runs long.
            seconds: how long it may run.
            patience: seconds within which the interrupt should have been heard; ten times that are waited for.

        Returns:
            Seconds from the interrupt to its end, or None where the graph ended before, and how it ended. On a machine
            with other work it is the time that the server itself has computed meanwhile, where that is less.
        """
        asked: list[float] = []
        worked: list[float] = []

        def ask() -> None:
            asked.append(time.monotonic())
            worked.append(seconds_of_work(self.server.process_id))
            self.server.interrupt()

        timer = threading.Timer(seconds, ask)
        timer.start()
        try:
            run = self.run(graph, timeout=seconds + 10 * patience)
        finally:
            timer.cancel()
            timer.join()
        if not worked or run.outcome.kind == FINISHED:
            return None, run.outcome
        took = min(time.monotonic() - asked[0], seconds_of_work(self.server.process_id) - worked[0])
        if run.outcome.kind == RAW and "interrupted" not in run.outcome.message:
            return took, run.outcome
        return took, Outcome(FINISHED, message="interrupted")

    def _log_since(self, position: int) -> str:
        with open(self.server.log, "rb") as log:
            log.seek(position)
            return log.read().decode("utf-8", "replace")


def reference_graph(nonce: int) -> Graph:
    """A plain picture of a fixed seed; the number keeps it out of ComfyUI's cache and changes nothing."""
    prompt = {"clip": ["loader", 1], "nonce": nonce}
    return {
        "loader": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": CHECKPOINT}},
        "prompt": {"class_type": "CLIPTextEncode", "inputs": {"text": "a dog and a cat", **prompt}},
        "negative": {"class_type": "CLIPTextEncode", "inputs": {"text": "", **prompt}},
        "latent": {
            "class_type": "EmptyLatentImage",
            "inputs": {"width": 128, "height": 128, "batch_size": 2, "nonce": nonce},
        },
        "sampler": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["loader", 0],
                "positive": ["prompt", 0],
                "negative": ["negative", 0],
                "latent_image": ["latent", 0],
                "seed": 18,
                "steps": 3,
                "cfg": 5.0,
                "sampler_name": "euler_ancestral",
                "scheduler": "normal",
                "denoise": 1.0,
            },
        },
        "picture": {"class_type": "VAEDecode", "inputs": {"samples": ["sampler", 0], "vae": ["loader", 2]}},
        "seen": {"class_type": PROBE, "inputs": {"value": ["picture", 0], "nonce": nonce}},
    }


def new_seeds(graph: Graph, number: int) -> Graph:
    """The same graph with other noise, so that nothing of it is in ComfyUI's cache."""
    draw = random.Random(f"seeds {number}")
    return {
        node_id: {
            "class_type": node["class_type"],
            "inputs": {
                name: draw.randrange(1 << 32) if name in ("seed", "noise_seed") else value
                for name, value in node["inputs"].items()
            }
            | ({} if "Loader" in node["class_type"] else {"nonce": number}),
        }
        for node_id, node in graph.items()
    }


def _said(log: str) -> bool:
    lines = (line.strip() for line in log.replace("\r", "\n").splitlines())
    return any(line and "%|" not in line and not line.startswith(_COMFYUI_SAYS) for line in lines)


def _shows_text(made: RandomGraph, run: Run) -> bool:
    return bool(run.result and (run.result.outputs.get(made.target_id) or {}).get("text"))
