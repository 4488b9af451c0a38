"""The literature's results, each as a study: a sweep, a criterion fixed before it was run, and a verdict."""
