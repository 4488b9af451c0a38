"""Sweeps beyond one process at a time: engines that exist, started through Hydra's launchers.

`sweep` (in the command) starts `bridge` (a process that speaks Hydra), whose launcher plugin carries a `work.Work` to
wherever jobs run: a process of joblib's, a batch job of Slurm's, a task of Ray's. They talk through a `letterbox`.
"""
