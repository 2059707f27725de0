"""Teacher signals: their kinds, where they come from, and the cache that keeps them."""

from spiritsafe.make.signals.kinds import DenseSignal, SparseSignal, TeacherSignal, joined
from spiritsafe.make.signals.local import fill, open_cache
from spiritsafe.make.signals.quantise import Precision
from spiritsafe.make.signals.reader import SignalCache
from spiritsafe.make.signals.sample import Keep
from spiritsafe.make.signals.topk import Signals, capture, load_signals

__all__ = [
    "DenseSignal",
    "Keep",
    "Precision",
    "SignalCache",
    "Signals",
    "SparseSignal",
    "TeacherSignal",
    "capture",
    "fill",
    "joined",
    "load_signals",
    "open_cache",
]
