"""CnC's global fuser: CLIP embeddings of a foreground and a background picture become tokens of the prompt.

Compose and Conquer (Lee et al., ICLR 2024, arXiv 2401.09048), section 3.2. Two independent networks of the same shape.
The names of the weights are those of the published file, without the prefix `global_adapter.`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from einops import rearrange
from torch import Tensor, nn

from .sd1_blocks import FeedForward, Operations

TOKENS = 4
DROPOUT = (0.1, 0.3)  # of the first and the second network, in training


@dataclass(frozen=True)
class TokenConfig:
    """Shapes of a global fuser; the defaults are the published ones, for CLIP ViT-L/14 and SD 1.5.

    Attributes:
        embedding: width of a picture's projected CLIP embedding.
        context: width of the prompt's tokens.
        tokens: per picture.
    """

    embedding: int = 768
    context: int = 768
    tokens: int = TOKENS

    @classmethod
    def from_state_dict(cls, weights: Mapping[str, Tensor], tokens: int = TOKENS) -> "TokenConfig":
        """Read the shapes off a fuser's weights, by the published names without `global_adapter.`.

        Raises:
            ValueError: weights are missing that every global fuser has, or they do not make whole tokens.
        """
        needed = ("norm1_fg.weight", "ff2_fg.net.2.weight")
        if missing := [name for name in needed if name not in weights]:
            raise ValueError(f"No weights of a CnC global fuser: {missing[0]} is missing.")
        embedding, total = (weights[name].shape[:1].numel() for name in needed)
        if total % tokens:
            raise ValueError(f"The global fuser's output of {total} values cannot be cut into {tokens} tokens.")
        return cls(embedding, total // tokens, tokens)


class GlobalFuser(nn.Module):
    """Embeddings of two pictures -> tokens that go behind the text, the foreground's first."""

    def __init__(self, config: TokenConfig | None = None, operations: Operations = nn) -> None:
        """Make a fuser with fresh weights.

        Args:
            config: the shapes; none: the published ones.
            operations: whose layers it is built from; Linear and LayerNorm are enough.
        """
        super().__init__()
        self.config = config = config or TokenConfig()
        total = config.tokens * config.context
        for side in ("fg", "bg"):
            self.add_module(f"ff1_{side}", FeedForward(config.embedding, total // 2, operations, DROPOUT[0]))
            self.add_module(f"ff2_{side}", FeedForward(total // 2, total, operations, DROPOUT[1]))
            self.add_module(f"norm1_{side}", operations.LayerNorm(config.embedding))
            self.add_module(f"norm2_{side}", operations.LayerNorm(total // 2))

    def forward(self, foreground: Tensor, background: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of both pictures, at strength 1.

        Args:
            foreground: (b embedding), CLIP's projected embedding, not normalised; zeros for no picture (the null
                image of training, which does not give zero tokens).
            background: the same.

        Returns:
            (b tokens context) each.
        """
        return self._tokens("fg", foreground), self._tokens("bg", background)

    def _tokens(self, side: str, embedding: Tensor) -> Tensor:
        hidden = self.get_submodule(f"ff1_{side}")(self.get_submodule(f"norm1_{side}")(embedding))
        tokens = self.get_submodule(f"ff2_{side}")(self.get_submodule(f"norm2_{side}")(hidden))
        return rearrange(tokens, "b (n c) -> b n c", n=self.config.tokens)
