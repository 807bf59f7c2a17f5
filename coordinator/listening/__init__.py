"""How the coordinator listens: servers, interceptors, writes to clients."""
