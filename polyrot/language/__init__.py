"""Language models: GPT-NeoX trained here, Pythia's seeds, any pair of checkpoints."""
