"""Making and unmaking clusters: keys, processes, machines."""
