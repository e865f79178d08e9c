"""The order of text and picture in the attention calls of ComfyUI's transformers, one function for each way."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from ..sites import CROSS, SELF
from ..token_order import TokenOrder

PICTURE = 4  # dimensions of a picture's latent; a video's has one more


@dataclass(frozen=True)
class Call:
    """One call of attention in an evaluation, and what went into that.

    Attributes:
        network: that is evaluated.
        queries: tokens.
        keys: tokens.
        shape: of the latent, (b c h w) or (b c f h w).
        text: tokens of the prompt's embedding; 0: there is none.
        given: what the network is given besides, by name: references, other encoders' outputs.
        number: of calls with as many queries and keys before it in this evaluation.
        all_that_see: whether orders are wanted of all calls that see the text, to mask them, and not only of those that
            are read.
    """

    network: nn.Module
    queries: int
    keys: int
    shape: Sequence[int]
    text: int
    given: Mapping[str, object]
    number: int = 0
    all_that_see: bool = False

    @property
    def is_square(self) -> bool:
        """Whether queries and keys may be the same tokens."""
        return self.queries == self.keys

    def grid(self, patch: int) -> tuple[int, int]:
        """Rows and columns of a frame in tokens."""
        return _patches(self.shape[-2], patch), _patches(self.shape[-1], patch)

    def frames(self, patch: int = 1) -> int:
        """Frames in tokens."""
        return 1 if len(self.shape) == PICTURE else _patches(self.shape[2], patch)

    def length(self, name: str) -> int:
        """Tokens of another input, (b t c) or (... t c); 0: there is none."""
        given = self.given.get(name)
        return given.shape[-2] if isinstance(given, Tensor) else 0


def _patches(cells: int, patch: int) -> int:
    return -(-cells // patch)


def _joined(call: Call, parts: Sequence[tuple[str, int]], grid: tuple[int, int], frames: int = 1) -> TokenOrder | None:
    """Tokens of one sequence, part behind part; none where they are not all that a call has, or a part is missing."""
    places, start = {}, 0
    others = []
    for name, length in parts:
        place = slice(start, start + length)
        start += length
        if name in ("text", "image"):
            places[name] = place
        elif length:
            others.append(place)
    if not call.is_square or call.queries != start or not call.text:
        return None
    return TokenOrder(places["text"], places["image"], grid, frames, tuple(others))


def plain_order(call: Call) -> TokenOrder | None:
    """Text, picture: Chroma, SD 3, Krea 2, Ideogram 4."""
    patch = _patch_of(call.network)
    grid = call.grid(patch)
    return _joined(call, [("text", call.text), ("image", grid[0] * grid[1])], grid)


def _patch_of(network: nn.Module) -> int:
    """Cells along a token's sides."""
    if hasattr(network, "ae_channels"):  # Ideogram 4's latent is patched already
        return 1
    patch = getattr(network, "patch_size", None) or getattr(network, "patch", 1)
    return patch if isinstance(patch, int) else patch[-1]


def flux_order(call: Call) -> TokenOrder | None:
    """Text, picture, references: Flux, Flux.2, LongCat."""
    patch = _patch_of(call.network)
    grid = call.grid(patch)
    parts = [("text", call.text), ("image", grid[0] * grid[1]), ("references", _reference_tokens(call, patch))]
    return _joined(call, parts, grid)


def qwen_order(call: Call) -> TokenOrder | None:
    """Text, picture (or layers of one, as frames), references: Qwen-Image."""
    patch = _patch_of(call.network)
    grid, frames = call.grid(patch), call.frames()
    parts = [("text", call.text), ("image", frames * grid[0] * grid[1]), ("references", _reference_tokens(call, patch))]
    return _joined(call, parts, grid, frames)


def _reference_tokens(call: Call, patch: int) -> int:
    references = call.given.get("ref_latents") or ()
    return sum(
        (each.shape[2] if each.ndim > PICTURE else 1)
        * _patches(each.shape[-2], patch)
        * _patches(each.shape[-1], patch)
        for each in references
    )


def aura_order(call: Call) -> TokenOrder | None:
    """Registers, text, picture: AuraFlow."""
    grid = call.grid(_patch_of(call.network))
    registers = call.network.register_tokens.shape[1]
    return _joined(call, [("registers", registers), ("text", call.text), ("image", grid[0] * grid[1])], grid)


def lumina_order(call: Call) -> TokenOrder | None:
    """Text, padding, picture, padding: Lumina 2 pads nothing, Z-Image both to multiples of 32.

    With references of its Omni model other tokens stand between; these calls are not read.
    """
    if call.given.get("ref_latents"):
        return None
    grid, multiple = call.grid(_patch_of(call.network)), call.network.pad_tokens_multiple or 1
    n = grid[0] * grid[1]
    padding = [("padding", -length % multiple) for length in (call.text, n)]
    return _joined(call, [("text", call.text), padding[0], ("image", n), padding[1]], grid)


def hunyuan_order(call: Call) -> TokenOrder | None:
    """Picture and text, or text and picture in newer versions, which the blocks tell: HunyuanVideo, HunyuanImage.

    The text is a vision encoder's, the language model's and ByT5's; HunyuanVideo 1.5 has ByT5's before the language
    model's. A reference frame stands before the picture.
    """
    network = call.network
    patch = network.patch_size
    grid = _patches(call.shape[-2], patch[-2]), _patches(call.shape[-1], patch[-1])
    frames = call.frames(patch[0] if len(patch) > 2 else 1)
    glyphs = call.length("txt_byt5") if network.byt5_in is not None else 0
    text = [("text", call.text), ("glyphs", glyphs)]
    text = [("vision", call.length("clip_fea")), *(text if network.cond_type_embedding is None else text[::-1])]
    reference = call.given.get("ref_latent")
    before = 0
    if isinstance(reference, Tensor):  # (b c f h w)
        before = math.prod(map(_patches, reference.shape[-len(patch) :], patch))
    picture = [("reference", before), ("image", frames * grid[0] * grid[1])]
    is_flipped = len(network.double_blocks) > 0 and getattr(network.double_blocks[0], "flipped_img_txt", False)
    return _joined(call, picture + text if is_flipped else text + picture, grid, frames)


def hidream_order(call: Call) -> TokenOrder | None:
    """Picture, T5, the last layer of Llama, this block's layer of Llama: HiDream-I1.

    HiDream-E1 puts the picture that it edits to the right of the one it paints; these calls are not read.
    """
    if call.given.get("image_cond") is not None:
        return None
    grid = call.grid(_patch_of(call.network))
    llama = call.length("encoder_hidden_states_llama3")
    return _joined(call, [("image", grid[0] * grid[1]), ("text", call.text), ("llama", llama), ("llama", llama)], grid)


def lens_order(call: Call) -> TokenOrder | None:
    """Picture, text; the latent is patched already: Lens."""
    grid = call.grid(1)
    return _joined(call, [("image", grid[0] * grid[1]), ("text", call.text)], grid)


def wan_order(call: Call) -> TokenOrder | None:
    """Cross-attention to the text, self-attention of the video: Wan; before its own frames a reference's tokens."""
    return _wan_order(call, lambda block: True)


def _wan_order(call: Call, is_own: Callable[[int], bool]) -> TokenOrder | None:
    time, *sides = call.network.patch_size
    grid = _patches(call.shape[-2], sides[0]), _patches(call.shape[-1], sides[1])
    frames = call.frames(time)
    first, total = _wan_tokens(call, grid, frames)
    image = slice(first, first + frames * grid[0] * grid[1])
    # A block of image to video looks at a picture's own encoding first; without one at the text, with other weights.
    vision = call.length("clip_fea")
    without = CROSS if call.all_that_see else "text with other weights"
    vision = [("vision", vision) if vision else (without, call.text)] if call.network.img_emb is not None else []
    roles = [(SELF, total), *vision, (CROSS, call.text)]
    return _cross_order(call, roles, TokenOrder(slice(0, 0), image, grid, frames, is_joint=False), is_own)


def _wan_tokens(call: Call, grid: tuple[int, int], frames: int) -> tuple[int, int]:
    """Number of the video's first token, and of all."""
    time, *sides = call.network.patch_size
    reference, first = call.given.get("reference_latent"), 0
    if call.network.ref_conv is not None and isinstance(reference, Tensor):
        first = (reference.shape[-2] // sides[0]) * (reference.shape[-1] // sides[1])
    behind = call.given.get("time_dim_concat")
    more = _patches(behind.shape[2], time) * grid[0] * grid[1] if isinstance(behind, Tensor) else 0
    for each in call.given.get("context_latents") or ():
        more += _patches(each.shape[-3], time) * _patches(each.shape[-2], sides[0]) * _patches(each.shape[-1], sides[1])
    return first, first + frames * grid[0] * grid[1] + more


def vace_order(call: Call) -> TokenOrder | None:
    """As Wan; the blocks that look at the control video call attention too, in between, and are not read: Wan VACE."""
    controls = call.given.get("vace_context")
    streams = controls.shape[1] if isinstance(controls, Tensor) else 0
    own = [
        is_own
        for block in range(len(call.network.blocks))
        for is_own in (True, *[False] * (streams * (block in call.network.vace_layers_mapping)))
    ]
    return _wan_order(call, lambda block: call.all_that_see or (block < len(own) and own[block]))


def cosmos_order(call: Call) -> TokenOrder | None:
    """Cross-attention to the text, self-attention of the video: Cosmos-Predict2."""
    return _cosmos_order(call, call.text)


def anima_order(call: Call) -> TokenOrder | None:
    """The same; the keys are T5's tokens, which an adapter inside the network fills and pads to 512: Anima."""
    ids = call.given.get("t5xxl_ids")
    return _cosmos_order(call, max(ANIMA_TEXT, ids.shape[-1]) if isinstance(ids, Tensor) else call.text)


ANIMA_TEXT = 512


def _cosmos_order(call: Call, text: int) -> TokenOrder | None:
    network = call.network
    grid, frames = call.grid(network.patch_spatial), call.frames(network.patch_temporal)
    n = frames * grid[0] * grid[1]
    order = TokenOrder(slice(0, 0), slice(0, n), grid, frames, is_joint=False)
    return _cross_order(call, [(SELF, n), (CROSS, text)], order)


def _cross_order(
    call: Call, roles: Sequence[tuple[str, int]], order: TokenOrder, is_own: Callable[[int], bool] = lambda block: True
) -> TokenOrder | None:
    """A call of self- or cross-attention by its shape, and by its turn where several of a block have the same.

    Args:
        call: of which the order is asked.
        roles: of a block's calls in their order, and how many keys each has; the first is self-attention.
        order: of self-attention.
        is_own: whether a block's attention is read, the block counted in the order of evaluation.
    """
    alike = [role for role, keys in roles if keys == call.keys]
    if call.queries != roles[0][1] or not alike or not call.text:
        return None
    block, turn = divmod(call.number, len(alike))
    if alike[turn] not in (SELF, CROSS) or not is_own(block):
        return None
    return order if alike[turn] == SELF else replace(order, text=slice(0, call.keys))
