"""Attention maps in the graph."""

import torch
from torch import Tensor

from ...core.attention.comfy.maps import Reading, attention_maps, encoded
from ...core.attention.heat_maps import draw_heat_map, scaled_map
from ...core.attention.shown_maps import write_maps
from ...core.attention.sites import PLACES, QUARTER, check_choice
from ...core.comfy.types import Clip, Model, Vae
from ...core.drawing.pictures import check_finite, colours_of
from ...core.layout.layout import Layout as LayoutValue
from ...core.layout.layout import layouts_of
from ...core.layout.preview import fit_within, preview_size
from ...core.layout.region import LayoutError
from ..api import Layout, io, ui
from ..inputs import category_of

AUTOMATIC = "automatic"
SMOOTHINGS = {AUTOMATIC: None, "on": True, "off": False}
ATTENTION, WHICH_WORD = "attention", "which word is here"
DEFAULT_NOISE = 0.5  # things have found their places by then, and their outlines are not yet in the picture itself


class StageAttentionMaps(io.ComfyNode):
    """Picture and prompt -> where each phrase looks."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageAttentionMaps",
            display_name="Attention Maps",
            category=category_of(__name__),
            description="Shows where each phrase of a prompt looks in a picture: one heat map per phrase, from the "
            "model's own attention. For U-Nets and transformers: SD, SDXL, SD 3, Flux, Qwen-Image, Z-Image, Wan and "
            "others.",
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="A U-Net or a transformer; its LoRAs count, guidance does not."),
                io.Clip.Input("clip", tooltip="Text encoder of the same checkpoint; finds the phrases in the prompt."),
                io.Vae.Input("vae", tooltip="The checkpoint's VAE; brings the pictures to the model."),
                io.Image.Input(
                    "image",
                    tooltip="Pictures to look into; for a model of videos, the frames of one. More give more maps.",
                ),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    default="",
                    tooltip="What the model is told while it looks. Empty: the layout's. More words share out the "
                    "attention among more tokens.",
                ),
                io.String.Input(
                    "phrases",
                    multiline=True,
                    default="",
                    placeholder="a dog\na cat",
                    tooltip="One phrase per line, each as the prompt says it; more phrases give more maps at no cost. "
                    "Empty: the names of the layout's things.",
                ),
                io.Float.Input(
                    "noise",
                    default=DEFAULT_NOISE,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How far back in a run the model looks: the picture gets the noise of that step. Higher "
                    "shows rough places, lower finer outlines; at 1 there is only noise.",
                ),
                io.Combo.Input(
                    "sites",
                    options=list(PLACES),
                    default=QUARTER,
                    tooltip="Which attentions are averaged. quarter of the latent: the clearest at 512 pixels, 16 x 16 "
                    "there. half of the latent: a level finer, for smaller pictures. middle and first up: those that "
                    "Attention Guidance reads with chen, coarser. first of each down stage: finer and noisier, as "
                    "LRDiff reads them. Transformers have blocks of one size instead: found, which they read for the "
                    "places above too, takes those that agree with each other; middle blocks: every second from a "
                    "quarter to 55 % of the depth; all blocks: more even, less clear.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Of the noise. Another number, higher or lower, gives slightly other maps.",
                ),
                Layout.Input(
                    "layout",
                    optional=True,
                    tooltip="Draws the asked places, and gives prompt and phrases where those are empty. More things "
                    "give more maps.",
                ),
                io.String.Input(
                    "blocks",
                    default="",
                    optional=True,
                    tooltip="Numbers of a transformer's blocks, counted from 0, such as 8-12 or 3, 5; then sites does "
                    "not count. Higher numbers are later in the network; more of them give more even maps. Empty: as "
                    "sites says. The text output says which were read.",
                ),
                io.Combo.Input(
                    "smoothing",
                    options=list(SMOOTHINGS),
                    default=AUTOMATIC,
                    optional=True,
                    tooltip="Blurs each map by a 3 x 3 Gaussian of one cell before they are averaged. automatic: in "
                    "transformers, whose maps are grainy, not in U-Nets.",
                ),
                io.Combo.Input(
                    "read",
                    options=[ATTENTION, WHICH_WORD],
                    default=ATTENTION,
                    optional=True,
                    tooltip="attention: how much of all it looks at a place gives to the phrase. which word is here: "
                    "how much of what it gives to the prompt's words; clearer where a place looks at little text, as "
                    "in large pictures of transformers.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="heat_maps", tooltip="Each picture once per phrase: bright where the phrase looks."
                ),
                io.Mask.Output(
                    display_name="maps", tooltip="The same maps without the picture, each with 1 as its maximum."
                ),
                io.String.Output(display_name="text", tooltip="Which attentions were read."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Model,
        clip: Clip,
        vae: Vae,
        image: Tensor,
        prompt: str,
        phrases: str,
        noise: float,
        sites: str,
        seed: int,
        layout: LayoutValue | list[LayoutValue] | None = None,
        blocks: str = "",
        smoothing: str = AUTOMATIC,
        read: str = ATTENTION,
    ) -> io.NodeOutput:
        """Look, and draw."""
        reading = Reading(noise, blocks.strip() or sites, seed, SMOOTHINGS[smoothing], read == WHICH_WORD)
        check_choice(reading.sites)
        layouts: list[LayoutValue | None] = [None] if layout is None else layouts_of(layout, len(image))
        groups = [(layouts[0], image)]
        if len(set(map(id, layouts))) > 1:
            groups = [(each, image[i : i + 1]) for i, each in enumerate(layouts)]
        drawn, masks, said, shown = [], [], {}, []
        for each, pictures in groups:
            text, names = _asked(prompt, phrases, each)
            colours = check_finite(colours_of(pictures), "image", "Connect one that shows something")
            found = attention_maps(model, clip, encoded(model, vae, colours), text, names, reading)
            said[found.text()] = None
            asked = _places(each)
            for picture, maps in zip(pictures, found.for_pictures(len(pictures)), strict=True):
                shown = shown or [_shown(picture, names, maps, each)]
                for name, attention in zip(names, maps, strict=True):
                    drawn.append(draw_heat_map(picture, attention, name, asked.get(name, ())))
                    masks.append(scaled_map(attention, *picture.shape[:2]))
        heat_maps, where = torch.stack(drawn), "\n".join(said)
        preview = ui.PreviewImage(heat_maps, cls=cls).as_dict()
        return io.NodeOutput(heat_maps, torch.stack(masks), where, ui=preview | {"stage_maps": shown})


def _shown(picture: Tensor, names: list[str], maps: Tensor, layout: LayoutValue | None) -> dict[str, object]:
    """What a layout canvas shows of the first picture: its maps, and of which layout they are."""
    small = fit_within(picture[None, ..., :3].float())
    images = ui.PreviewImage(small).as_dict()["images"]
    known = "" if layout is None else layout.fingerprint()
    return {"layout": known, "picture": images[0], "maps": write_maps(names, maps)}


def _places(layout: LayoutValue | None) -> dict[str, list[Tensor]]:
    """Masks of the places of each phrase, of which several regions may have the same."""
    found: dict[str, list[Tensor]] = {}
    for region in () if layout is None else layout.regions:
        found.setdefault(region.phrase, []).append(region.mask_on(*preview_size(layout)))
    return found


def _asked(prompt: str, phrases: str, layout: LayoutValue | None) -> tuple[str, list[str]]:
    """Prompt and phrases as written, or else as the layout has them."""
    names = [line.strip() for line in phrases.splitlines() if line.strip()]
    if layout is not None:
        prompt = prompt.strip() or layout.prompt
        names = names or list(dict.fromkeys(region.phrase for region in layout.sorted_regions()))
    if not names or not prompt.strip():
        raise LayoutError(
            "Attention Maps has no prompt or no phrases. Write the prompt and one of its phrases per line, or connect "
            "a layout."
        )
    return prompt, names
