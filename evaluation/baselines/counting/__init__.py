"""Two ComfyUI nodes that count a model's evaluations, for the evaluation's server only: users do not meet them.

What a method costs is how many rows its network evaluates for a picture, gradients and start latents included; time
says the same with the machine's moods in it.
"""

from collections.abc import Callable

KEY = "evaluation_count"


class Rows:
    """How many rows a model has evaluated, whatever was cloned from it."""

    def __init__(self) -> None:
        self.counted = 0

    def count(self, executor: Callable, x: object, *args: object, **kwargs: object) -> object:
        """APPLY_MODEL wrapper."""
        self.counted += len(x)
        return executor(x, *args, **kwargs)


class EvaluationCount:
    """Model -> the same model, whose evaluations are counted from here on."""

    CATEGORY = "Stagecraft/evaluation"
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "count"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, tuple]]:
        """Describe the node's inputs."""
        return {"required": {"model": ("MODEL",)}}

    @classmethod
    def IS_CHANGED(cls, **inputs: object) -> float:
        """Every run counts for itself."""
        return float("nan")

    def count(self, model: object) -> tuple:
        """Begin at none."""
        from comfy.patcher_extension import WrappersMP  # ComfyUI's modules are there by now

        counted, rows = model.clone(), Rows()
        counted.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, rows.count)
        counted.set_attachments(KEY, rows)
        return (counted,)


class EvaluationCounted:
    """Model and what came of it -> the number of rows, as text for the API."""

    CATEGORY = "Stagecraft/evaluation"
    RETURN_TYPES = ()
    FUNCTION = "show"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, tuple]]:
        """Describe the node's inputs."""
        return {"required": {"model": ("MODEL",), "after": ("IMAGE",)}}

    def show(self, model: object, after: object) -> dict:
        """Say how many there were by now."""
        return {"ui": {"text": [str(model.get_attachment(KEY).counted)]}}


NODE_CLASS_MAPPINGS = {"EvaluationCount": EvaluationCount, "EvaluationCounted": EvaluationCounted}
NODE_DISPLAY_NAME_MAPPINGS = {
    "EvaluationCount": "Count Evaluations (evaluation)",
    "EvaluationCounted": "Counted Evaluations (evaluation)",
}
