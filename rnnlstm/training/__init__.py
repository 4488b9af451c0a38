"""Training: the step, its clipping and checks, evaluation, and the run around them."""
