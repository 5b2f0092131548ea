"""Signal-to-noise, bias and cost of gradient estimators at one point of parameter space."""
