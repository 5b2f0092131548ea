"""How a model is trained and measured. One file is one method."""
