"""transformers without its own progress bars and advice: what a person sees is ours to say."""

import os


def quieten() -> None:
    """Switch them off; call it before loading, converting or saving a model."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
