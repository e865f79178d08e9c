"""Where a prompt's phrases are along its embedding, for whatever family reads it."""

from collections.abc import Sequence

from ...clip.comfy.columns import ADAPTED_T5, PromptColumns, prompt_columns
from ...clip.comfy.words import Reader, token_count
from ...comfy.types import Clip, Conditioning, Entry
from ...layout.region import LayoutError
from .families import UNET, Family

PADDED_IN_FRONT = 512  # Flux.2 is given no fewer tokens


def columns_in(
    family: Family, clip: Clip, caption: str, phrases: Sequence[str], embedded: Conditioning, remedy: str = ""
) -> PromptColumns:
    """Find phrases in an embedded prompt.

    Args:
        family: of the network that reads it.
        clip: that has embedded the caption.
        caption: what was embedded.
        phrases: all that it shall say.
        embedded: the embedded caption.
        remedy: what else a person can do where a phrase is not found; ends the error's last sentence.

    Raises:
        LayoutError: a phrase that the caption does not say, or an embedding of unexpected length.
    """
    if family is not UNET:
        return prompt_columns(clip, caption, phrases, embedded[0][0].shape[1], family.prompt, remedy)
    reader = Reader(clip)
    found, words = reader.positions(caption, phrases, remedy), reader.span(caption).words
    return PromptColumns(found, list(words), token_count(clip, caption))


def length_in(family: Family, columns: PromptColumns, entry: Entry) -> int:
    """How many tokens of text a network reads of a prompt.

    Args:
        family: of the network.
        columns: of the prompt's phrases.
        entry: the prompt as ComfyUI has prepared it for the model.

    Raises:
        LayoutError: something has put tokens to the embedding, or taken some off.
    """
    if family is UNET or family.prompt == ADAPTED_T5:
        return columns.length
    length = entry["model_conds"]["c_crossattn"].cond.shape[1]
    if length not in (columns.length, PADDED_IN_FRONT):
        raise LayoutError(
            f"The prompt was embedded as {columns.length} tokens, but the model is given {length}, so it is not known "
            "where its words are. Remove the node that changes the prompt behind its text encoder."
        )
    return length
