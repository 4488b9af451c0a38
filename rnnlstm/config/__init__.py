"""What a run is: every key with its default and rule, composed by Hydra, and the errors that refuse a bad one."""
