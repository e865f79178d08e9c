"""Random graphs around one node of the pack: what it needs comes from real sources, what it gives is put to use.

Links join fitting types only; what is wrong in a graph are values, missing links, and things of a fitting type that do
not belong together (another size, another batch, another model). A graph follows from a seed, its number and the
server's list of nodes alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import TypeAlias

from .outcomes import PREFIX, PROBE, Graph, is_link
from .sources import ONLY, PICTURES, SAMPLERS, SCHEDULERS, SOURCES, TOGETHER
from .values import BOUNDARY, VALID, WRONG, Input, Node, Value, value_of

Link: TypeAlias = list  # [node id, slot]

_SIZES = ((64, 64), (128, 128), (128, 128), (128, 96), (96, 128), (256, 256))
_DEEPEST = 3
_MOODS = (VALID, VALID, BOUNDARY, BOUNDARY, WRONG)
_EDGES = {VALID: 0.0, BOUNDARY: 0.4, WRONG: 0.1}  # how many of a node's values lie on an edge
# What is of no use alone goes on into a node that takes it.
_UNSEEN = ("STAGE_", "CLIP_VISION")
_HANDED_ON = (*_UNSEEN, "LAYERS")


class RandomGraph:
    """One graph while it grows.

    Attributes:
        graph: in the API's format.
        random: of this graph alone.
        target: class of the node that it was made for.
        target_id: that node, once it is there.
        mood: what the target's values are.
        painted: how many runs of a sampler it holds.
    """

    def __init__(self, nodes: Mapping[str, Node], random: Random, target: str, mood: str) -> None:
        self.nodes = nodes
        self.random = random
        self.target = target
        self.target_id = ""
        self.mood = mood
        self.graph: Graph = {}
        self.painted = 0
        self._size = random.choice(_SIZES)
        self._batch = random.choice((1, 1, 1, 1, 1, 1, 1, 2, PICTURES))
        self._links: dict[str, list[Link]] = {}
        self._ours = sorted(name for name in nodes if name.startswith(PREFIX))

    def build(self) -> Graph:
        """Make the whole graph."""
        self.target_id = self._stage(self.target, {}, 0, self.mood)
        self._use(self.target_id, 0)
        return self.graph

    def add(self, class_type: str, **inputs: object) -> str:
        """Add a node; returns its id."""
        node_id = str(len(self.graph) + 1)
        self.graph[node_id] = {"class_type": class_type, "inputs": inputs}
        for slot, kind in enumerate(self.nodes[class_type].outputs if class_type in self.nodes else ()):
            # Pictures and masks of a shipped file have sizes of their own, which fit nothing else.
            if class_type != "StageLoadLayers" or kind == "LAYERS":
                self._links.setdefault(kind, []).append([node_id, slot])
        return node_id

    def once(self, class_type: str, **inputs: object) -> str:
        """The node of this kind with these values, which a graph needs once only."""
        for node_id, node in self.graph.items():
            if node == {"class_type": class_type, "inputs": inputs}:
                return node_id
        return self.add(class_type, **inputs)

    def size(self) -> tuple[int, int]:
        """Width and height: the graph's own, now and then another."""
        odd = self.mood != VALID and self.random.random() < 0.12
        return self.random.choice(((72, 40), (128, 64), (16, 16))) if odd else self._size

    def batch(self) -> int:
        """Pictures of a batch: the graph's own number, now and then another."""
        odd = self.mood != VALID and self.random.random() < 0.12
        return self.random.randint(1, PICTURES) if odd else self._batch

    def link(self, kind: str, depth: int) -> Link | None:
        """Something of a type: one that is there, one of the sources, or what one of the pack's nodes makes.

        Args:
            kind: the type.
            depth: how far from the target; deep in a graph only simple things are made.
        """
        there = self._links.get(kind)
        if there and self.random.random() < (0.4 if depth < _DEEPEST else 0.9):
            return self.random.choice(there)
        sources = SOURCES.get(kind, ())
        makers = [name for name in self._ours if kind in self.nodes[name].outputs]
        if sources and (depth >= _DEEPEST or not makers or self.random.random() < 0.75):
            return (sources[0] if depth >= _DEEPEST else self.random.choice(sources))(self, depth)
        if not makers or depth > 2 * _DEEPEST:
            return None
        maker = self.random.choice(makers)
        node_id = self._stage(maker, {}, depth + 1, BOUNDARY if self.mood != VALID and depth == 0 else VALID)
        return [node_id, self.nodes[maker].outputs.index(kind)]

    def _stage(self, class_type: str, given: Mapping[str, Link], depth: int, mood: str) -> str:
        inputs: dict[str, Value | Link] = dict(given)
        # One wrong value at a time: a second one would hide what the first one does.
        widgets = [about.name for about in self.nodes[class_type].inputs if about.is_widget]
        wrong = self.random.choice(widgets) if mood == WRONG and widgets else None
        together = self._together(class_type, mood)
        for about in self.nodes[class_type].inputs:
            if about.name in given:
                continue
            if about.is_widget:
                edge = BOUNDARY if self.random.random() < _EDGES[mood] else VALID
                value = value_of(self.random, class_type, about, WRONG if about.name == wrong else edge)
            else:
                value = self._connect(class_type, about, depth, mood, together)
            if value is not None or about.is_widget:
                inputs[about.name] = {"__value__": value} if about.is_widget and isinstance(value, list) else value
        return self.add(class_type, **inputs)

    def _together(self, class_type: str, mood: str) -> Sequence[str] | None:
        """The optional links to connect, None where each is drawn by itself."""
        groups = TOGETHER.get(class_type)
        return self.random.choice(groups) if groups and (mood == VALID or self.random.random() < 0.7) else None

    def _connect(
        self, class_type: str, about: Input, depth: int, mood: str, together: Sequence[str] | None
    ) -> Link | None:
        missing = 0.0 if mood == VALID else 0.03
        left_out = missing if about.required else 0.45 + 0.15 * min(depth, 3)
        if together is not None and not about.required:
            left_out = float(about.name not in together)
        if self.random.random() < left_out:
            return None
        only = ONLY.get(f"{class_type}.{about.name}")
        if only and (mood == VALID or self.random.random() < 0.8):
            return only(self, depth)
        return self.link(self.random.choice(about.kinds), depth)

    def _use(self, node_id: str, depth: int) -> None:
        """Put what a node gives to use: painted, handed on, looked at."""
        node = self.nodes[self.graph[node_id]["class_type"]]
        outputs = {kind: [node_id, slot] for slot, kind in reversed(list(enumerate(node.outputs)))}
        for slot, kind in enumerate(node.outputs):
            if not kind.startswith(_UNSEEN) and kind not in ("MODEL", "NOISE"):
                self.add(PROBE, value=[node_id, slot])
        if "MODEL" in outputs or "CONDITIONING" in outputs or "NOISE" in outputs:
            self._paint(node_id, outputs)
        for kind, link in outputs.items():
            if kind.startswith(_HANDED_ON) and depth < 2:
                takers = [
                    name for name in self._ours if self.nodes[name].takes(kind) and (not depth or self._shows(name))
                ]
                if takers and (not self._shows(node.name) or self.random.random() < 0.4):
                    taker = self.random.choice(takers)
                    name = self.random.choice(self.nodes[taker].takes(kind))
                    self._use(self._stage(taker, {name: link}, depth + 1, VALID), depth + 1)

    def _shows(self, name: str) -> bool:
        """Whether a prompt may end with a node: it shows something, or gives what can be looked at or painted with."""
        node = self.nodes[name]
        return node.is_output or any(not kind.startswith(_UNSEEN) for kind in node.outputs)

    def _paint(self, node_id: str, outputs: Mapping[str, Link]) -> None:
        """Run a sampler with what a node gives; its other prompt and its latent are its own or new ones."""
        random = self.random
        prompts = [[node_id, slot] for slot, kind in enumerate(self._outputs(node_id)) if kind == "CONDITIONING"]
        positive = prompts[0] if prompts else self.link("CONDITIONING", _DEEPEST)
        negative = prompts[1] if len(prompts) > 1 else self.link("CONDITIONING", _DEEPEST)
        model = outputs.get("MODEL") or self.link("MODEL", _DEEPEST)
        latent = outputs.get("LATENT") or self.link("LATENT", _DEEPEST)
        seed, steps, cfg = random.randrange(1000), random.randint(1, 3), random.choice((1.0, 3.0, 5.0))
        sampler, scheduler = random.choice(SAMPLERS), random.choice(SCHEDULERS)
        shared = {"model": model, "positive": positive, "negative": negative, "cfg": cfg}
        run = {"steps": steps, "scheduler": scheduler}
        self.painted += 1
        if "NOISE" in outputs or random.random() < 0.2:
            guider = self.add("CFGGuider", **shared)
            sigmas = self.add("BasicScheduler", model=model, denoise=self._denoise(), **run)
            chosen = self.add("KSamplerSelect", sampler_name=sampler)
            noise = outputs.get("NOISE") or self.link("NOISE", _DEEPEST)
            links = {"guider": [guider, 0], "sampler": [chosen, 0], "sigmas": [sigmas, 0]}
            made = self.add("SamplerCustomAdvanced", noise=noise, latent_image=latent, **links)
        elif random.random() < 0.2:
            ends = {"start_at_step": 0, "end_at_step": 2, "add_noise": "enable", "return_with_leftover_noise": "enable"}
            named = {"noise_seed": seed, "sampler_name": sampler, "latent_image": latent}
            made = self.add("KSamplerAdvanced", **shared, **run, **ends, **named)
        else:
            named = {"seed": seed, "sampler_name": sampler, "latent_image": latent}
            made = self.add("KSampler", **shared, **run, denoise=self._denoise(), **named)
        self.add(PROBE, value=[made, 0])
        guided = any(node["class_type"] == "StageAttentionGuidance" for node in self.graph.values())
        if random.random() < (0.5 if guided else 0.05):
            self.add("StageGuidanceReport", latent=[made, 0])
        if random.random() < 0.3:
            decoded = self.add("VAEDecode", samples=[made, 0], vae=self.link("VAE", _DEEPEST))
            self.add("PreviewImage", images=[decoded, 0])

    def _denoise(self) -> float:
        return 1.0 if self.mood == VALID or self.random.random() < 0.7 else self.random.choice((0.6, 0.3))

    def _outputs(self, node_id: str) -> tuple[str, ...]:
        return self.nodes[self.graph[node_id]["class_type"]].outputs


def random_graph(nodes: Mapping[str, Node], seed: int, number: int, mood: str | None = None) -> RandomGraph:
    """Make the graph of a number; in each round of numbers every node of the pack is the target once.

    Args:
        nodes: of the server, as `values.described` reads them.
        seed: of the whole session.
        number: of the graph, from 0.
        mood: of the target's values; None draws one.
    """
    ours = sorted(name for name in nodes if name.startswith(PREFIX))
    # A text seeds alike in every Python and process.
    Random(f"{seed} round {number // len(ours)}").shuffle(ours)
    random = Random(f"{seed} graph {number}")
    drawn = random.choice(_MOODS)
    graph = RandomGraph(nodes, random, ours[number % len(ours)], mood or drawn)
    graph.build()
    return graph


def without_target(made: RandomGraph) -> Graph | None:
    """The graph in which what goes through the target's MODEL and prompts passes it by, to see whether it did anything.

    Returns:
        None where the target hands on no model that it was given.
    """
    outputs, given = made.nodes[made.target].outputs, made.graph[made.target_id]["inputs"]
    instead, names = {}, {"MODEL": ["model"], "CONDITIONING": ["positive", "negative"]}
    for slot, kind in enumerate(outputs):
        waiting = names.get(kind)
        if waiting and is_link(given.get(waiting[0])):
            instead[slot] = given[waiting.pop(0)]
    if not any(outputs[slot] == "MODEL" for slot in instead):
        return None
    twin = {}
    for node_id, each in made.graph.items():
        inputs = {}
        for name, value in each["inputs"].items():
            passed = is_link(value) and value[0] == made.target_id and value[1] in instead
            inputs[name] = instead[value[1]] if passed else value
        twin[node_id] = {"class_type": each["class_type"], "inputs": inputs}
    return twin
