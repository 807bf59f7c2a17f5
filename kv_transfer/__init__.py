"""Peer-to-peer movement of KV blocks and embeddings between stage servers; knows nothing of scheduling."""
