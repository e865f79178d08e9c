"""How each class of network that ComfyUI runs lays out its attention: one entry a class, found by the class itself.

An order is computed from what goes into an evaluation and is believed only where it accounts for every token of a call;
what does not fit is not read. ComfyUI may change an order between versions: `tests/comfy/attention/test_orders.py`
measures each by changing a word and a cell, so that it fails there and not in pictures.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import nn

from ...clip.comfy.columns import ADAPTED_T5, CLIPS_AND_T5, ONE
from ...comfy.types import Model
from ..token_order import TokenOrder
from .orders import (
    Call,
    anima_order,
    aura_order,
    cosmos_order,
    flux_order,
    hidream_order,
    hunyuan_order,
    lens_order,
    lumina_order,
    plain_order,
    qwen_order,
    vace_order,
    wan_order,
)

HOME = "comfy.ldm."  # the package of ComfyUI's own networks
OTHER_METHOD = "Use Layered Rendering, which works with every model"
SOFT = "soft guidance"


@dataclass(frozen=True)
class Family:
    """What one class of networks is like, as far as reading and guiding its attention goes.

    Attributes:
        name: of its checkpoints, as people call them.
        order: where text and picture lie in a call; None where a call is none that is read: refiners, references,
            foreign ones. A U-Net has no such function: its blocks say what they are.
        blocks: the lists of its blocks, in the order of evaluation.
        in_place: it adds to tensors that a way back still needs, so a gradient wants
            `attention_guidance.overwritten.overwriting_allowed`.
        checkpointed: what the parts of a block are called that can be evaluated again on the way back.
        appends: more tokens of text, which nobody sees, leave the picture as it is.
        refiner: where the blocks are that mix the text in attentions of its own first; "": there are none.
        pools: the mean over all tokens of the text is an input of its own.
        frames: it paints videos.
        prompt: what stands in an embedded prompt, one of `clip.comfy.columns`' ways.
        refuses: methods that do not work on it, and why.
    """

    name: str
    order: Callable[[Call], TokenOrder | None] | None
    blocks: tuple[str, ...] = ()
    in_place: bool = False
    checkpointed: tuple[str, ...] = ()
    appends: bool = True
    refiner: str = ""
    pools: bool = False
    frames: bool = False
    prompt: str = ONE
    refuses: dict[str, str] = field(default_factory=dict)

    def count(self, network: nn.Module) -> int:
        """How many blocks a network has whose attention is read; 0: it does not say."""
        return sum(len(getattr(network, name, ())) for name in self.blocks)


_BOTH = ("double_blocks", "single_blocks")
_MLPS = ("img_mlp", "txt_mlp")
UNET = Family("SD 1.x, SD 2.x, SDXL", None)
WAN = Family("Wan", wan_order, ("blocks",), checkpointed=("ffn",), frames=True)
COSMOS = Family("Cosmos-Predict2", cosmos_order, ("blocks",), checkpointed=("mlp",), frames=True)
LUMINA = Family(
    "Lumina 2, Z-Image",
    lumina_order,
    ("layers",),
    checkpointed=("feed_forward",),
    appends=False,
    refiner="context_refiner",
)
FAMILIES: dict[str, Family] = {
    "flux.model.Flux": Family("Flux", flux_order, _BOTH, True, _MLPS),
    "chroma.model.Chroma": Family("Chroma", plain_order, _BOTH, True, _MLPS),
    "chroma_radiance.model.ChromaRadiance": Family("Chroma Radiance", plain_order, _BOTH, True, _MLPS),
    "modules.diffusionmodules.mmdit.OpenAISignatureMMDITWrapper": Family(
        "SD 3, SD 3.5", plain_order, ("joint_blocks",), checkpointed=("mlp",), prompt=CLIPS_AND_T5
    ),
    "aura.mmdit.MMDiT": Family(
        "AuraFlow", aura_order, ("double_layers", "single_layers"), checkpointed=("mlp", "mlpC", "mlpX")
    ),
    "qwen_image.model.QwenImageTransformer2DModel": Family(
        "Qwen-Image", qwen_order, ("transformer_blocks",), checkpointed=_MLPS
    ),
    "lumina.model.NextDiT": LUMINA,
    "lumina.model.NextDiTPixelSpace": LUMINA,
    "hunyuan_video.model.HunyuanVideo": Family(
        "HunyuanVideo, HunyuanImage",
        hunyuan_order,
        _BOTH,
        True,
        _MLPS,
        refiner="txt_in.individual_token_refiner.blocks",
        pools=True,
        frames=True,
    ),
    "hidream.model.HiDreamImageTransformer2DModel": Family(
        "HiDream-I1",
        hidream_order,
        ("double_stream_blocks", "single_stream_blocks"),
        checkpointed=("ff_i", "ff_t"),
        refuses={SOFT: "it needs a phrase in the tokens of two text encoders at once"},
    ),
    "wan.model.WanModel": WAN,
    "wan.model.CameraWanModel": WAN,
    "wan.model.VaceWanModel": Family("Wan VACE", vace_order, ("blocks",), checkpointed=("ffn",), frames=True),
    "cosmos.predict2.MiniTrainDIT": COSMOS,
    "anima.model.Anima": Family(
        "Anima",
        anima_order,
        ("blocks",),
        checkpointed=("mlp",),
        prompt=ADAPTED_T5,
        refuses={SOFT: "an adapter inside it turns the whole prompt into other tokens"},
    ),
    "krea2.model.SingleStreamDiT": Family(
        "Krea 2", plain_order, ("blocks",), checkpointed=("mlp",), refiner="txtfusion.refiner_blocks"
    ),
    "ideogram4.model.Ideogram4Transformer2DModel": Family(
        "Ideogram 4", plain_order, ("layers",), checkpointed=("feed_forward",)
    ),
    "lens.model.LensTransformer2DModel": Family("Lens", lens_order, ("transformer_blocks",), checkpointed=_MLPS),
}

_UNSEEN = "its attention does not pass where other programs can see it"
_PREFIX = "it keeps what it has computed of the text and goes on from there, so a call does not hold all tokens"
_UNTRIED = "nobody has tried it yet"
_OTHER_KIND = "its latent is not one picture or video"
# By a part of the class' full name, for classes of other packs stand in modules of any name.
REFUSED: dict[str, str] = {
    "ernie.model.": _UNSEEN,
    "pixart.": _UNSEEN,
    "hydit.": _UNSEEN,
    "nunchaku": "it has an attention of its own, inside its quantised blocks",
    "ComfyFluxWrapper": "it has an attention of its own, inside its quantised blocks",
    "TrT": "it is compiled as a whole, attention included",
    "hidream_o1.": _PREFIX,
    "wan.ar_model.": _PREFIX,
    "lightricks.": _OTHER_KIND,
    "omnigen.": _UNTRIED,
    "boogu.": _UNTRIED,
    "genmo.": _UNTRIED,
    "cogvideo.": _UNTRIED,
}


def network_of(model: Model) -> nn.Module:
    """The network itself, also where another node has compiled it."""
    return uncompiled_network(model.get_model_object("diffusion_model"))


def uncompiled_network(network: nn.Module) -> nn.Module:
    """What another node has compiled, as it was."""
    return getattr(network, "_orig_mod", network)


def known_family(network: nn.Module) -> Family | None:
    """The family of a network, None if its class is not known."""
    network = uncompiled_network(network)
    # What a pack derives from a U-Net still says where its blocks are; a transformer's order may be another's then.
    if isinstance(network, UNetModel):
        return UNET
    kind = type(network)
    if not kind.__module__.startswith(HOME):
        return None
    return FAMILIES.get(f"{kind.__module__.removeprefix(HOME)}.{kind.__qualname__}")


def takes_repeated_text(model: Model) -> bool:
    """Whether prompts of different lengths may share an evaluation, the shorter ones repeated.

    In cross-attention to a text that stays as it is that changes nothing; where text is a part of the state it does.
    """
    return isinstance(network_of(model), UNetModel)


def family_of(model: Model, method: str, instead: str = OTHER_METHOD) -> Family:
    """The family of a model, for a method that reads its attention.

    Args:
        model: any.
        method: begins the sentence, such as "Attention maps".
        instead: ends it.

    Raises:
        ValueError: a class whose attention is not read, by name, and why.
    """
    network = network_of(model)
    family = known_family(network)
    if family is not None and (family is not UNET or has_context(network)):
        return family
    kind = type(network)
    full = f"{kind.__module__}.{kind.__qualname__}"
    why = next((reason for part, reason in REFUSED.items() if part in full), "Stagecraft does not know that class")
    if family is UNET:
        why = "it has no attention to a prompt"
    known = ", ".join(dict.fromkeys(each.name for each in (UNET, *FAMILIES.values())))
    raise ValueError(
        f"{method}: the attention of this model, {kind.__name__}, to its prompt cannot be read: {why}. "
        f"Models that work: {known}. {instead}."
    )


def has_context(network: nn.Module) -> bool:
    """Whether a U-Net looks at a prompt."""
    return any(getattr(part, "attn2", None) is not None for part in network.modules())
