"""Any small cluster: roles, group, KV blocks and sequences in a batch of each instance."""

from hypothesis import strategies as st

clusters = st.lists(
    st.tuples(
        st.sampled_from(["e", "p", "d", "ep", "pd", "ed", "epd"]),
        st.sampled_from(["text", "multimodal", "shared"]),
        st.integers(0, 1200),
        st.one_of(st.none(), st.integers(1, 8)),
    ),
    min_size=1,
    max_size=8,
)
