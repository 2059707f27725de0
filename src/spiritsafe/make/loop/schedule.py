"""The learning rate of each step."""

from math import cos, pi

from spiritsafe.recipe import TrainPart

FLOOR = 0.1


def learning_rate(step: int, steps: int, settings: TrainPart) -> float:
    """Linear warm-up over a share of the steps, then constant, or linear or cosine decay to a tenth."""
    warm = max(1, round(settings.warmup * steps))
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    return _decayed((step - warm) / max(1, steps - warm), settings)


def rate_along(share: float, settings: TrainPart) -> float:
    """The same where the number of steps is not known, for a step that begins at a share of the training.

    The warm-up begins at a tenth, since nothing is spent before the first step.
    """
    if share < settings.warmup:
        return settings.learning_rate * (FLOOR + (1 - FLOOR) * share / settings.warmup)
    return _decayed((share - settings.warmup) / (1 - settings.warmup), settings)


def _decayed(gone: float, settings: TrainPart) -> float:
    match settings.schedule:
        case "linear":
            left = 1 - gone
        case "cosine":
            left = (1 + cos(pi * gone)) / 2
        case "constant":
            left = 1.0
    return settings.learning_rate * (FLOOR + (1 - FLOOR) * left)
