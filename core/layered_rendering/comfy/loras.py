"""LoRAs that single regions wear, by their files' names: ComfyUI's own files, loading and hooks on conditioning."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import comfy.hooks
import comfy.lora
import comfy.lora_convert
import comfy.utils
import folder_paths

from ...comfy.types import Clip, Model, Options
from ...layout.region import LayoutError, Region, read_loras

KIND = "loras"  # of ComfyUI's model folders
NEAREST = 3  # names that an error offers


@dataclass(frozen=True)
class Worn:
    """What a region wears; equal where the text is.

    Attributes:
        text: names and strengths, as the layout has them.
        hooks: ComfyUI's, which patch the weights for the entries that carry them, and for no others.
    """

    text: str
    hooks: comfy.hooks.HookGroup = field(compare=False)

    def on(self, options: Options) -> Options:
        """An entry's options with these hooks beside those that it has."""
        return options | {"hooks": comfy.hooks.HookGroup.combine_all_hooks([options.get("hooks"), self.hooks])}

    def reader(self, clip: Clip) -> Clip:
        """A clone of a text encoder that reads with the LoRAs' part for it."""
        clip = clip.clone()
        clip.use_clip_schedule = False
        clip.patcher.forced_hooks = self.hooks.clone()
        target = comfy.hooks.create_target_dict(comfy.hooks.EnumWeightTarget.Clip)
        clip.patcher.register_all_hook_patches(self.hooks, target)
        return clip


class Wardrobe:
    """Opens the LoRAs that regions of one rendering wear, each once, so that equal ones share their batches."""

    def __init__(self, model: Model, clip: Clip) -> None:
        self.model, self.clip = model, clip
        self.opened: dict[str, Worn] = {}

    def of(self, region: Region | None) -> Worn | None:
        """What a region wears; None for nothing, which is left as it is to the last bit.

        Raises:
            LayoutError: a name that no file has, or that several have.
            ValueError: a file that cannot be read, or that has nothing for this model.
        """
        asked = [] if region is None else read_loras(region.lora)
        if not asked:
            return None
        text = ", ".join(f"{name}:{strength:g}" for name, strength in asked)
        if text not in self.opened:
            hooks = comfy.hooks.HookGroup()
            for name, strength in asked:
                weights = self._open(name, region.phrase)
                hooks = hooks.clone_and_combine(comfy.hooks.create_hook_lora(weights, strength, strength))
            self.opened[text] = Worn(text, hooks)
        return self.opened[text]

    def _open(self, name: str, phrase: str) -> dict:
        file = find_lora(name, phrase)
        try:
            path = folder_paths.get_full_path_or_raise(KIND, file)
            weights = comfy.lora_convert.convert_lora(comfy.utils.load_torch_file(path, safe_load=True))
        except Exception as error:
            raise ValueError(
                f'The LoRA "{file}" of the region "{phrase}" cannot be read ({error}). Fetch the file anew.'
            ) from error
        keys = comfy.lora.model_lora_keys_unet(self.model.model, {})
        keys = comfy.lora.model_lora_keys_clip(self.clip.cond_stage_model, keys)
        if not comfy.lora.load_lora(weights, keys, log_missing=False):
            network = type(self.model.model).__name__
            raise ValueError(
                f'The LoRA "{file}" of the region "{phrase}" has nothing for this model ({network}): none of its '
                f"{len(weights)} weights has a place there. It was trained for another kind of model; write "
                "lora=name of one for this model, or load the checkpoint that it is for."
            )
        return weights


def find_lora(name: str, phrase: str) -> str:
    """The file that a name means, with or without its folder and ending, among ComfyUI's LoRAs.

    Raises:
        LayoutError: no file has the name, or several have.
    """
    files = folder_paths.get_filename_list(KIND)
    wanted = _plain(name)
    for spelt in (lambda file: file, _without_ending, _last_part, lambda file: _without_ending(_last_part(file))):
        found = [file for file in files if spelt(_plain(file)) == wanted]
        if len(found) > 1:
            raise LayoutError(
                f'The region "{phrase}" wears the LoRA "{name}", which several files could be: {", ".join(found)}. '
                "Write the folder too."
            )
        if found:
            return found[0]
    near = _nearest(wanted, files)
    hint = f"The nearest are {', '.join(near)}." if near else "There are none in ComfyUI's models/loras."
    raise LayoutError(f'The region "{phrase}" wears the LoRA "{name}", but there is no file of that name. {hint}')


def _nearest(wanted: str, files: Sequence[str]) -> list[str]:
    by_name = {_without_ending(_last_part(_plain(file))): _without_ending(file) for file in files}
    found = difflib.get_close_matches(_without_ending(_last_part(wanted)), by_name, NEAREST, 0.0)
    return [by_name[name] for name in found]


def _plain(name: str) -> str:
    return name.replace("\\", "/").casefold()


def _last_part(name: str) -> str:
    return PurePosixPath(name).name


def _without_ending(name: str) -> str:
    stem, dot, ending = name.rpartition(".")
    return stem if dot and ending in ENDINGS else name


ENDINGS = tuple(ending.lstrip(".") for ending in folder_paths.supported_pt_extensions)
