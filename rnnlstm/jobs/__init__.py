"""A command's configurations trained: here, in processes beside each other, on Slurm or on Ray; and searches."""
