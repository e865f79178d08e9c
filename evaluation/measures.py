"""Single numbers of a result file: a name, a value, its unit, and what is asked of it."""

from .judging.yardsticks import DIGITS


def measure(name: str, value: float | None, unit: str = "", target: float | None = None) -> dict:
    """Give one measure as result files keep it."""
    rounded = None if value is None else round(value, DIGITS)
    return {"name": name, "value": rounded, "unit": unit, "target": target}
