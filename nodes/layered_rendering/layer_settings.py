"""Settings of single layers in the graph."""

from ...core.comfy.types import Conditioning
from ...core.layered_rendering.comfy.settings import LayerSettings
from ..api import LayerSettings as SettingsSocket
from ..api import io
from ..inputs import category_of


class StageLayerSettings(io.ComfyNode):
    """Prompts and CFG of one layer -> settings for Layered Rendering."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageLayerSettings",
            display_name="Layer Settings",
            category=category_of(__name__),
            description="Gives one layer its own prompts, with the LoRA hooks and ControlNets on them, and its own "
            "CFG. Chain several for several layers.",
            inputs=[
                io.String.Input(
                    "region",
                    default="background",
                    tooltip="Which layer: the region's name as in the layout, its number in the layout, or background.",
                ),
                io.Boolean.Input(
                    "own_cfg",
                    default=False,
                    tooltip="On: the layer has the CFG below while layers are painted. Off: the sampler's, and cfg is "
                    "not used.",
                ),
                io.Float.Input(
                    "cfg",
                    default=5.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="Only with own_cfg: the layer's CFG. Higher follows its prompt more closely, lower leaves "
                    "it freer.",
                ),
                io.Conditioning.Input(
                    "positive",
                    optional=True,
                    tooltip="The layer's own prompt, without mask or area. A ControlNet, LoRA hook or schedule on it "
                    "applies to this layer only. Not connected: the region's prompt.",
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="The layer's own negative prompt, without mask or area. Not connected: the run's.",
                ),
                SettingsSocket.Input(
                    "before",
                    optional=True,
                    tooltip="Settings of other layers, to be joined with this one's.",
                ),
            ],
            outputs=[SettingsSocket.Output(display_name="layers", tooltip="For Layered Rendering.")],
        )

    @classmethod
    def execute(
        cls,
        region: str,
        own_cfg: bool,
        cfg: float,
        positive: Conditioning | None = None,
        negative: Conditioning | None = None,
        before: tuple[LayerSettings, ...] = (),
    ) -> io.NodeOutput:
        """Append to the chain."""
        return io.NodeOutput((*before, LayerSettings(region, positive, negative, cfg if own_cfg else None)))
