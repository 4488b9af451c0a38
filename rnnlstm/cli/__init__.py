"""What the commands share: arguments, help, Tab completion, exit codes, a sweep's progress in the terminal."""
