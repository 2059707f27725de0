"""Teacher signals: their kinds, where they come from, and the cache that keeps them."""

from spiritsafe.make.signals.kinds import DenseSignal, SparseSignal, TeacherSignal, joined
from spiritsafe.make.signals.local import fill, open_cache
from spiritsafe.make.signals.manifest import tokenizer_digest
from spiritsafe.make.signals.quantise import Precision
from spiritsafe.make.signals.reader import SignalCache
from spiritsafe.make.signals.sample import Keep

__all__ = [
    "DenseSignal",
    "Keep",
    "Precision",
    "SignalCache",
    "SparseSignal",
    "TeacherSignal",
    "fill",
    "joined",
    "open_cache",
    "tokenizer_digest",
]
