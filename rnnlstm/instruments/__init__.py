"""What looks inside networks: probes during training, and exact analyses of gradient flow that take seconds."""
