"""The record: what a run leaves on disk. JSON lines are the truth, TensorBoard's events are a view of them."""
