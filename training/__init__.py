"""Scripts that train and use models on the surveys, one a task; what they share is in ``common``."""
