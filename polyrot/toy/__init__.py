"""The Dyck-3 task, its transformer, training, folding and symmetries."""
