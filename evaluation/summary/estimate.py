"""A number with its interval, and how result files keep it."""

import math
from dataclasses import dataclass
from typing import Literal

from ..result_rows import DIGITS, measure
from .verdicts import Interval, verdict


@dataclass(frozen=True)
class Estimate:
    """A value of a set of pictures, None where it does not apply, and its interval, None where there is none."""

    value: float | None
    interval: Interval | None

    @classmethod
    def of(cls, value: float, low: float, high: float) -> "Estimate":
        """Round three numbers to what result files keep; what is not finite becomes None."""
        whole = math.isfinite(low) and math.isfinite(high)
        interval = (round(float(low), DIGITS), round(float(high), DIGITS)) if whole else None
        return cls(round(float(value), DIGITS) if math.isfinite(value) else None, interval)

    def measure(
        self, name: str, unit: str = "", target: float | None = None, at: Literal["least", "most"] = "least"
    ) -> dict:
        """A single number of a result file, its interval and what that says of the target, see `verdicts.verdict`."""
        low, high = self.interval or (None, None)
        said = verdict(self.interval, target, at=at)
        return measure(name, self.value, unit, target) | {"low": low, "high": high, "verdict": said}
