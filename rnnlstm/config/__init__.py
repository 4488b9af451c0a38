"""What a run is: every key with its default and rule, composed by Hydra, and the errors that refuse a bad one."""

__version__ = "0.2.0"  # pyproject.toml reads it here; CITATION.cff and CHANGELOG.md have the same
