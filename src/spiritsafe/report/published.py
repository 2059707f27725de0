"""DeepSeek-R1's published training ledger, for scale (Nature 645, 633-638, 2025; arXiv 2501.12948)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedLedger:
    """A ledger that others published: hours of one graphics processor, money at an assumed rate."""

    name: str
    gpu_hours: int
    usd_per_gpu_hour: float
    usd: float
    leaves_out: tuple[str, ...]
    source: str
    url: str


R1 = PublishedLedger(
    name="DeepSeek-R1",
    gpu_hours=147_336,
    usd_per_gpu_hour=2.0,
    usd=294_672.0,
    leaves_out=("the base model V3 (2.788 million GPU-hours)", "failed runs", "data", "staff"),
    source="Nature 645, 633-638 (2025), arXiv 2501.12948",
    url="https://arxiv.org/abs/2501.12948",
)
