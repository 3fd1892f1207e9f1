"""What a sender may do: RBAC and the node's own rules."""
