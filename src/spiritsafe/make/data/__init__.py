"""The data side: a teacher's answers collected, verified, kept by rule, freed of doubles and of evaluation sets."""
