"""The learning rate of each step."""

from math import cos, pi

from spiritsafe.recipe import TrainPart

FLOOR = 0.1


def learning_rate(step: int, steps: int, settings: TrainPart) -> float:
    """Linear warm-up over a share of the steps, then constant, or linear or cosine decay to a tenth."""
    warm = max(1, round(settings.warmup * steps))
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    gone = (step - warm) / max(1, steps - warm)
    match settings.schedule:
        case "linear":
            left = 1 - gone
        case "cosine":
            left = (1 + cos(pi * gone)) / 2
        case "constant":
            left = 1.0
    return settings.learning_rate * (FLOOR + (1 - FLOOR) * left)
