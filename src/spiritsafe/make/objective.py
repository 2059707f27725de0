"""What each answer token is pulled towards: a divergence from the teacher, the text itself, or both."""

from dataclasses import dataclass
from typing import Literal

from spiritsafe.errors import RecipeError

Divergence = Literal["forward-kl", "reverse-kl", "jsd", "skew-kl", "tv"]


@dataclass(frozen=True)
class Objective:
    """Loss per token = (1 - cross_entropy) * divergence(teacher, student) + cross_entropy * -log q(token).

    Names as in GKD (arXiv 2306.13649) and DistiLLM (arXiv 2402.03898); p teacher, q student, nats:
    `forward-kl` KL(p||q), `reverse-kl` KL(q||p), `jsd` b KL(p||m) + (1-b) KL(q||m) with m = b p + (1-b) q,
    `skew-kl` KL(p || b p + (1-b) q), `tv` half the L1 distance. `temperature` divides both models' logits
    of the divergence (no factor T^2), never those of the cross-entropy. `divergence=None` learns from text
    alone.
    """

    divergence: Divergence | None = "forward-kl"
    beta: float = 0.5
    temperature: float = 1.0
    cross_entropy: float = 0.0

    def __post_init__(self) -> None:
        if self.divergence in ("jsd", "skew-kl") and not 0 < self.beta < 1:
            raise RecipeError("objective.beta", f"{self.beta} is not inside (0, 1)", "use forward-kl or reverse-kl")
        if self.temperature <= 0:
            raise RecipeError("objective.temperature", f"{self.temperature} is not above 0")
        if not 0 <= self.cross_entropy <= 1:
            raise RecipeError("objective.cross_entropy", f"{self.cross_entropy} is not a share")


TEXT = Objective(divergence=None, cross_entropy=1.0)
