"""What the learner draws from: the replay and the overlay images."""
