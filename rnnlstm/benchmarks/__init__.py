"""What `python -m rnnlstm.benchmark` measures: contenders in turn within one process, medians and their spread."""
