"""Devices and processes of a run: set-up of JAX, meshes, `jax.distributed`."""
