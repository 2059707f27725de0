"""The language model's head and its loss in one step: logits exist for one tile of tokens at a time."""

from spiritsafe.make.head.loss import HeadLoss, head_loss

__all__ = ["HeadLoss", "head_loss"]
