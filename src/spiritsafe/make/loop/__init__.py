"""The one training loop, and what a method needs of it: hidden states of packed rows, and the head."""

from spiritsafe.make.loop.budget import Budget, Spent
from spiritsafe.make.loop.ranks import Ranks, joined, this_rank
from spiritsafe.make.loop.track import tracked
from spiritsafe.make.loop.train import OnStep, train
from spiritsafe.make.loop.trunk import head_of, hidden_states, packs

__all__ = [
    "Budget",
    "OnStep",
    "Ranks",
    "Spent",
    "head_of",
    "hidden_states",
    "joined",
    "packs",
    "this_rank",
    "tracked",
    "train",
]
