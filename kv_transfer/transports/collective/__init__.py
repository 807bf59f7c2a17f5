"""torch.distributed point-to-point between one sender and one receiver: NCCL on GPUs, gloo elsewhere.

A pair is one sender's connection to one receiver, made when it is first needed and made again after
it broke; each end gives it a thread. Frames (what comes next, what has arrived) go over a socket,
payloads over a process group of two:

    sender (rank 0)                                receiver (rank 1)
    hello ─────────────── socket ───────────────►  who, token, backend
                     ◄─── socket ────────────────  the pair's store
    reached ───────────── socket ───────────────►
    [ both join the process group by that store ]
    PAYLOAD lease, planes, tokens ── socket ────►  posts the receive
    bytes of one slice ═══ process group ═══════►  scatters them into leased blocks
    DRAIN lease ────────── socket ──────────────►
                     ◄─── socket ──── TAKEN bytes, or REFUSED with the reason

Frames are no tensors, because a gloo receive can be neither interrupted nor time out without losing
its group, and one of NCCL occupies the GPU. A socket can be waited for idly, for ever, and says at
once when the peer is gone. So a payload's receive is only posted when its bytes are on their way.
"""
