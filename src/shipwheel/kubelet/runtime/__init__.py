"""What runs containers: any CRI v1 runtime, or a simulation, behind one interface."""
