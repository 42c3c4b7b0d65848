"""What a scale must offer to be judged: models, sites, activations, interventions."""
