"""The control loops, a module each, and the manager that runs them."""
