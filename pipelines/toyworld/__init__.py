"""The toy world: drawn videos of toy actions, and the CLIP that is pretrained on it."""
