"""What a run needs and does not have: schedules, estimates, training."""
