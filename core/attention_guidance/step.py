"""How the gradient of an energy becomes a step of a sampler's state."""

from torch import Tensor

SIGMA_SQUARED, PLAIN, NORMALISED = "sigma squared", "plain", "normalised"
RULES = (SIGMA_SQUARED, PLAIN, NORMALISED)
# Ours, no paper's: a step moves the values of the state by this share of their noise, root mean square.
NORMALISED_SHARE = 0.05


def guidance_step(gradient: Tensor, signal: float, noise: float, rule: str, scale: float, strength: float) -> Tensor:
    """What to take off a state x = a x0 + b eps: a VE latent (a = 1, b = sigma) or a flow's (a = 1 - t, b = t).

    - "sigma squared" (Chen et al., arXiv 2304.03373): b^2 strength scale g.
    - "plain" (BoxDiff, Attention Refocusing): a gradient step of the variance-preserving latent x / sqrt(a^2 + b^2)
      with size strength scale, which for x is (a^2 + b^2) strength scale g.
    - "normalised" (ours): NORMALISED_SHARE b strength g / rms(g), where rms is the root mean square over each
      picture's values. How steep the energy is does not matter, only its direction.

    reconstructed: the papers know VE and VP latents only. Here each is the published step of x / a, whose noise level
    is b / a, brought back to x.

    Args:
        gradient: (b ...), g, of the energy without any factor, with respect to x.
        signal: a, share of the clean latent in the state.
        noise: b, share of the noise.
        rule: one of `RULES`.
        scale: published factor of the energy.
        strength: the user's own factor.

    Returns:
        (b ...).

    Raises:
        ValueError: an unknown rule.
    """
    if rule == SIGMA_SQUARED:
        return gradient * (noise**2 * scale * strength)
    if rule == PLAIN:
        return gradient * ((noise**2 + signal**2) * scale * strength)
    if rule == NORMALISED:
        size = gradient.pow(2).mean(tuple(range(1, gradient.ndim)), keepdim=True).sqrt()
        # No gradient, no direction: then nothing moves.
        return gradient / size.where(size > 0, 1) * (NORMALISED_SHARE * noise * strength)
    raise ValueError(f'There is no step rule "{rule}"; known: {", ".join(RULES)}.')
