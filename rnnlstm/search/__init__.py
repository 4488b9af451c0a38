"""`-m search=optuna`: the values of a sweep's keys are chosen, trial by trial, for the lowest loss.

`space` reads what may be chosen, in Hydra's grammar; `suggest` has Optuna choose; `search` trains what was chosen as
ordinary jobs, by whatever launcher; `ranking` says at the end which was best.
"""
