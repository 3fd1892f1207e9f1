"""A pod's volumes: made before its containers start, kept up to date, taken away when it ends."""
