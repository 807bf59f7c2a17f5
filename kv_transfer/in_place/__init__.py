"""Embeddings that peers on the host read where they lie, in their producer's segment.

    producer                                        reader
    lock the offer ──── OfferEmbedding ──────────►  map, lock the blocks; is the offer still locked?
    unlock the offer ◄──── is_taken ──────────────  then a view for the engine
    are the blocks locked?                          …
    if not, they are free                           unlock them when the sequence has ended

A reader's lease is a record lock on the blocks' bytes in the segment's file: the kernel keeps it, tells the
producer of it, and takes it away when the reader's process ends, however it ends. Each end sets its own lock
before it looks at the other's: so an offer that is withdrawn is either seen to be taken, or never will be.
"""
