"""Layout scores on fixed sets, the base family's own numbers, speed: what the tables of README.md and docs/ show."""
