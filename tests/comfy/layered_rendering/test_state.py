"""The scale of xi in every parametrisation that ComfyUI knows."""

import comfy.model_sampling
import pytest
import torch
from stagecraft.core.layered_rendering.comfy.state import scale_of_state
from stagecraft.core.layered_rendering.vision_guidance import state_scale

pytestmark = pytest.mark.usefixtures("no_gradients")


class _Settings:
    sampling_settings = {}


@pytest.mark.parametrize(
    ("sampling", "kind", "expected"),
    [
        ("ModelSamplingDiscrete", "EPS", lambda s: (s**2 + 1) ** 0.5),
        ("ModelSamplingDiscrete", "V_PREDICTION", lambda s: (s**2 + 1) ** 0.5),
        ("ModelSamplingContinuousEDM", "EDM", lambda s: ((2 * s) ** 2 + 1) ** 0.5),
        ("ModelSamplingDiscreteFlow", "CONST", lambda s: ((1 - s) ** 2 + s**2) ** 0.5),
        ("ModelSamplingCosmosRFlow", "COSMOS_RFLOW", lambda s: (s**2 + 1) ** 0.5),
    ],
)
@pytest.mark.parametrize("dims", [4, 5])
def test_scale_of_the_state_in_comfyuis_own_parametrisations(sampling, kind, expected, dims):
    names = [getattr(comfy.model_sampling, name) for name in (sampling, kind)]
    built = type("Sampling", tuple(names), {})(_Settings())
    if kind == "EDM":
        built.set_parameters(0.002, 80.0, 0.5)
    sigma = torch.tensor([0.9, 0.3, 0.01])
    found = scale_of_state(built, torch.zeros((3, 4) + (8,) * (dims - 2)), sigma)
    assert found.shape == (3,) + (1,) * (dims - 1)
    torch.testing.assert_close(found.flatten(), expected(sigma))
    assert state_scale(torch.tensor(1.0), torch.tensor(0.0)) == 1
