"""Folders in the Hugging Face layout, read by this one reader: nothing asks a network, leaves the folder or runs code.

Transformers' own `from_pretrained` opens what a folder's files name: another model's weights, attention kernels on a
hub, a pickle somewhere else on the disk. Here files are opened by this file alone, and transformers gets a
configuration that was checked and tensors.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from safetensors import safe_open
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PICTURES, PROCESSOR, TOKENIZER = "preprocessor_config.json", "processor_config.json", "tokenizer_config.json"
TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
SAFE = ".safetensors"
LARGEST_JSON = 2**24  # bytes of settings or an index; thousands of weights need less
LARGEST_SIDE = 8192  # pixels that a network sees
# What a configuration may not say, and what would come of it.
HUB, CODE, KERNELS = "would fetch another network", "would run code of its own", "would fetch or need special kernels"
FORBIDDEN = {
    "backbone": HUB,
    "use_timm_backbone": HUB,
    "use_pretrained_backbone": HUB,
    "auto_map": CODE,
    "trust_remote_code": CODE,
    "quantization_config": KERNELS,
    "compression_config": KERNELS,
    "use_kernels": KERNELS,
    "vocab_file": "would leave the folder",
    "merges_file": "would leave the folder",
    "tokenizer_file": "would leave the folder",
}
# MaskFormer's decoder is set up as a whole DETR, whose own backbone is never built: what is said of it is left out.
DECODER, BACKBONE = "decoder_config", "backbone"
IMPLEMENTATION = "_implementation"  # ends the names of settings for attention and others
PLAIN = (None, "eager", "sdpa")  # of them those that PyTorch has
FOREIGN = ("timm_backbone", "timm_wrapper")  # model types whose weights another library fetches
COUNTED = "position_ids"  # old exports leave out what can be counted: which position is the how-manieth


class ModelFolderError(ValueError):
    """A folder that holds no usable model of its kind, or one that would not stay within it."""


@dataclass(frozen=True)
class ModelFolder:
    """One folder. Every method raises `error` with one sentence about whatever is wrong.

    Attributes:
        path: of the folder; it may be a link itself.
        what: it should hold, for people, such as "segmenter".
        error: what is raised.
    """

    path: Path
    what: str
    error: type[ModelFolderError]

    def refuse(self, problem: str, cause: BaseException | None = None) -> ModelFolderError:
        """The error that says of this folder: it `problem`."""
        reason = f" ({(str(cause) or type(cause).__name__).splitlines()[0][:300]})" if cause is not None else ""
        return self.error(f"The {self.what} folder {self.path.name} {problem}{reason}.")

    def require(self, *names: str) -> None:
        """Check that the folder and these files of it are there."""
        if not _asked(self.path.is_dir):
            raise self.error(
                f"There is no {self.what} folder {self.path.name}: {self.path} is missing. Choose another, or copy it "
                "there."
            )
        if missing := [name for name in names if not _asked((self.path / name).is_file)]:
            pickles = " (pickled weights such as pytorch_model.bin are not opened)" if WEIGHTS in missing else ""
            raise self.refuse(
                f"lacks {' and '.join(missing)}{pickles}. Copy the whole folder in the Hugging Face layout"
            )

    def inside(self, name: str) -> Path:
        """A file of the folder by its name, or through links that stay in the folder."""
        path = self.path / name
        try:
            stays = not any(each.anchor or ".." in each.parts for each in (PurePosixPath(name), PureWindowsPath(name)))
            stays = stays and path.resolve(strict=True).is_relative_to(self.path.resolve())
        except FileNotFoundError as error:
            raise self.refuse(f"lacks {name}. Copy the whole folder") from error
        except (OSError, ValueError, RuntimeError) as error:  # no permission, a NUL, a link to itself
            raise self.refuse(f"has a file {name!r} that cannot be opened", error) from error
        if not stays:
            raise self.refuse(f"names {name!r}, which lies outside of it. Copy the file itself into the folder")
        if not path.is_file():
            raise self.refuse(f"has no file {name}, but something else of that name. Copy the whole folder again")
        return path

    def json(self, name: str) -> dict[str, object]:
        """The object in a JSON file, checked for what would leave the folder or run something."""
        path = self.inside(name)
        try:
            if path.stat().st_size > LARGEST_JSON:
                raise ValueError(f"more than {LARGEST_JSON} bytes")
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise ValueError("it does not hold a JSON object")
        except (OSError, ValueError, RecursionError) as error:
            raise self.refuse(f"has a {name} that cannot be read as JSON. Copy it again", error) from error
        decoder = content.get(DECODER)
        if isinstance(decoder, dict):
            content[DECODER] = {key: value for key, value in decoder.items() if BACKBONE not in key}
        for key, value in _entries(content):
            if problem := _problem(key, value):
                raise self.refuse(
                    f'has a {name} that {problem} ("{key}": {json.dumps(value)[:80]}). Nothing is fetched or run here: '
                    "choose a folder that is whole by itself"
                )
        return content

    @cached_property
    def config(self) -> dict[str, object]:
        """What config.json says."""
        self.require(CONFIG)
        return self.json(CONFIG)

    def require_model(self) -> None:
        """Check that settings and weights are there, before anything else is said of a folder without them."""
        self.require(CONFIG, *(() if _asked((self.path / INDEX).is_file) else (WEIGHTS,)))

    def weights(self) -> dict[str, Tensor]:
        """Copies of all tensors of model.safetensors, or of the files that its index names; no file stays open."""
        names = [WEIGHTS]
        if not _asked((self.path / WEIGHTS).is_file) and _asked((self.path / INDEX).is_file):
            named = self.json(INDEX).get("weight_map")
            names = sorted({str(each) for each in named.values()}) if isinstance(named, dict) else []
            if not names or not all(name.endswith(SAFE) for name in names):
                raise self.refuse(f"has a {INDEX} that names other files than {SAFE}. Copy it again")
        self.require(*(name for name in names if name == WEIGHTS))
        return {key: value for name in names for key, value in self.tensors(name).items()}

    def tensors(self, name: str) -> dict[str, Tensor]:
        """All tensors of one safetensors file of the folder."""
        path = self.inside(name)
        try:
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
        except Exception as error:  # over damaged bytes the reader stumbles anywhere
            raise self.refuse(f"cannot be opened: {name} is no whole safetensors file. Copy it again", error) from error

    def network(
        self, class_of: Callable[["PreTrainedConfig"], type[nn.Module]], unused: tuple[str, ...] = ()
    ) -> nn.Module:
        """Transformers' network with its weights.

        Args:
            class_of: of the network, by its configuration.
            unused: endings of the names of weights that may be missing.

        Returns:
            float32, eval mode, no gradients on weights.
        """
        config = dict(self.config)
        weights = self.weights()
        try:
            from transformers import CONFIG_MAPPING  # slow to import, and only needed here

            read = CONFIG_MAPPING[config.get("model_type")].from_dict(config)
            # Without a name of a folder nothing can be looked for anywhere.
            network, report = class_of(read).from_pretrained(
                None, config=read, state_dict=weights, output_loading_info=True, local_files_only=True
            )
        except Exception as error:  # whatever a wrong value does inside
            raise self.refuse("cannot be opened: its configuration and weights make no network", error) from error
        if missing := sorted(key for key in report["missing_keys"] if not key.endswith((COUNTED, *unused))):
            raise self.refuse(f"lacks {len(missing)} weights, {missing[0]} first. Copy the whole folder")
        return network.float().eval().requires_grad_(False)

    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """Transformers' tokenizer."""
        # Without its files transformers would make one that knows no words, and say nothing.
        if not any(all(_asked((self.path / name).is_file) for name in names) for names in TOKENIZERS):
            raise self.refuse("lacks its tokenizer. Copy tokenizer.json, or vocab.json and merges.txt, into it")
        for file in sorted(self.path.iterdir()):
            if file.suffix in (".json", ".txt", ".model"):
                self.inside(file.name)
        for name in (CONFIG, TOKENIZER):
            if _asked((self.path / name).is_file):
                self.json(name)
        try:
            from transformers import AutoTokenizer

            return AutoTokenizer.from_pretrained(str(self.path), local_files_only=True, trust_remote_code=False)
        except Exception as error:  # the package tokenizers raises nothing more special over damaged files
            raise self.refuse("has a tokenizer that cannot be opened. Copy its files again", error) from error

    def pictures(self) -> dict[str, object]:
        """The image processor's settings, which newer exports keep inside the whole processor's; empty without any."""
        if _asked((self.path / PICTURES).is_file):
            return self.json(PICTURES)
        found = self.json(PROCESSOR).get("image_processor") if _asked((self.path / PROCESSOR).is_file) else None
        return found if isinstance(found, dict) else {}

    def colours(self, settings: Mapping[str, object], name: str, default: Sequence[float]) -> tuple[float, ...]:
        """Three numbers of the image processor's settings, one for each colour; what divides is not 0."""
        found = settings.get(name, default)
        right = isinstance(found, list | tuple) and len(found) == 3 and all(map(_is_number, found))
        if not right or ("std" in name and min(found) <= 0):
            raise self.refuse(f"has picture settings with {name} {_shown(found)}; expected three numbers")
        return tuple(map(float, found))

    def side(self, value: object) -> int:
        """A number of pixels of the image processor's settings."""
        if not _is_number(value) or not 1 <= value <= LARGEST_SIDE or int(value) != value:
            raise self.refuse(f"has picture settings with a size of {_shown(value)}; expected 1 to {LARGEST_SIDE}")
        return int(value)


def _problem(key: str, value: object) -> str:
    """What would come of an entry of a configuration; empty: nothing."""
    if key in FORBIDDEN and value:
        return FORBIDDEN[key]
    if key.endswith(IMPLEMENTATION) and not all(
        each in PLAIN for each in (value.values() if isinstance(value, dict) else (value,))
    ):
        return KERNELS
    return HUB if key == "model_type" and value in FOREIGN else ""


def _entries(content: object) -> Iterator[tuple[str, object]]:
    """Every entry at any depth."""
    waiting = [content]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            yield from found.items()
        waiting += found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()


def _asked(question: Callable[[], bool]) -> bool:
    """Whether the disk says yes; no where it cannot be asked."""
    try:
        return question()
    except (OSError, ValueError):
        return False


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _shown(value: object) -> str:
    return repr(value)[:80]
