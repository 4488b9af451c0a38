"""What several tests share: small configurations and runs, processes, and readers of what is written."""
