"""gRPC servicers: each method converts, makes one domain call, converts back."""
