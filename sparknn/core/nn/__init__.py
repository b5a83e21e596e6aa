"""One network: layers, activations, losses, solvers, step-size schedules."""
