"""What the training scripts share: arguments, images as tensors, augmentation, models, the trainer, metrics, model cards."""
