"""What `python -m rnnlstm.benchmark` measures: contenders in turn within one process, by medians and quartiles."""
