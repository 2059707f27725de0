"""What a run shows: the page, the terminal table and the model card, from its directory alone."""
