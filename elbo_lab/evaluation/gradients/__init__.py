"""Signal-to-noise ratio, bias and cost of gradient estimators at fixed parameters."""
