"""Teacher signals: their kinds, where they come from, and the cache that keeps them."""

from spiritsafe.make.signals.kinds import DenseSignal, SparseSignal, TeacherSignal, joined
from spiritsafe.make.signals.topk import Signals, capture, load_signals

__all__ = ["DenseSignal", "Signals", "SparseSignal", "TeacherSignal", "capture", "joined", "load_signals"]
