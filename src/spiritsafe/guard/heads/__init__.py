"""The fitted stages of the risk control: n-grams under a linear model, a sentence encoder under another."""
