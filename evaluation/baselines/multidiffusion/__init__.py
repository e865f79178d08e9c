"""MultiDiffusion as a ComfyUI node, for the evaluation's server only: users do not meet it.

It is a node pack of its own, so that a run of Stagecraft's nodes cannot depend on it. The old form of a node is enough
for it, and leaves the pack's own files the only ones that import ComfyUI's node API.
"""

MOST_SEEDS = 2**64 - 1


class EvaluationMultiDiffusion:
    """Model and layout -> model and prompts that paint the layout by MultiDiffusion with bootstrapping."""

    CATEGORY = "Stagecraft/evaluation"
    RETURN_TYPES = ("MODEL", "CONDITIONING", "CONDITIONING")
    FUNCTION = "prepare"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, tuple]]:
        """Describe the node's inputs."""
        required = {
            "model": ("MODEL",),
            "clip": ("CLIP",),
            "vae": ("VAE",),
            "layout": ("STAGE_LAYOUT",),
            "negative": ("CONDITIONING",),
            "background_negative": ("CONDITIONING",),
            "bootstrapped": ("FLOAT", {"min": 0.0, "max": 1.0, "tooltip": "Share of the run."}),
            "seed": ("INT", {"min": 0, "max": MOST_SEEDS, "tooltip": "Of the random colours."}),
        }
        return {"required": required}

    def prepare(self, **inputs: object) -> tuple:
        """Prepare model and prompts."""
        from .method import paint_regions  # ComfyUI's modules are there by now

        return paint_regions(**inputs)


NODE_CLASS_MAPPINGS = {"EvaluationMultiDiffusion": EvaluationMultiDiffusion}
NODE_DISPLAY_NAME_MAPPINGS = {"EvaluationMultiDiffusion": "MultiDiffusion (baseline)"}
