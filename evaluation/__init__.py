"""Layout scores on fixed sets, the base family's own numbers, speed: what the README's tables come from."""
