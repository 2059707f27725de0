"""Ways to learn compared at equal budget: one start, one set of prompts and answers, one measure."""
