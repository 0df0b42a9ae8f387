"""What every agent shares: networks, replay, environments, training, evaluation, configuration."""
