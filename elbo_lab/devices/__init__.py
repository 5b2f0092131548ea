"""Where a run computes: set-up, meshes of devices, several processes."""
