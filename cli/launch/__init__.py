"""Starts a cluster's processes, watches over them and ends them."""
