"""Scripts that train and use models on the surveys, one per task; what they share is in ``common``."""
