"""Nodes by the thousand in one process: they register, keep their leases, and their pods live by declared stages."""
