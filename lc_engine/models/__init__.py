"""Loading a model, finding its classifier, pooling its features."""
