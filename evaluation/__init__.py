"""Layout scores on fixed sets, the base family's own numbers, speed: what the tables in README.md and docs/ come from."""
