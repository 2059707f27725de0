"""The data side: a teacher's answers collected, verified, kept by rule, freed of doubles and of evaluation sets.

`prepare` does it all; every step stands alone too. `settings` imports nothing but recipes.
"""
