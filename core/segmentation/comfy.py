"""Segmenter folders by their names in drop-downs."""

from functools import partial

from ..comfy.model_folders import config_folders
from ..comfy.named_files import NamedFiles
from .files import SegmenterError
from .segmenter import Segmenter

SEGMENTERS = "segmenters"  # the kind of model folder; the front door adds the embedded ones to it
EMBEDDED = "sticker_world"  # the segmenter that comes with the pack
DEEPEST = 2  # a folder below a model folder, as "sticker_world" or "nvidia/segformer-b0"

SEGMENTER_FOLDERS = NamedFiles(
    SEGMENTERS,
    SegmenterError,
    'there is no segmenter "{name}"; found: {found}. Put its folder into models/{kind} and choose it in the drop-down.',
    folders=partial(config_folders, SEGMENTERS, DEEPEST),
    embedded=EMBEDDED,
)
load_segmenter = SEGMENTER_FOLDERS.reader(Segmenter.load)
