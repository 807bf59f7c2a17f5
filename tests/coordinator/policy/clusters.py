"""Any small cluster: roles, group and KV blocks of each instance."""

from hypothesis import strategies as st

clusters = st.lists(
    st.tuples(
        st.sampled_from(["e", "p", "d", "ep", "pd", "ed", "epd"]),
        st.sampled_from(["text", "multimodal", "shared"]),
        st.integers(0, 1200),
    ),
    min_size=1,
    max_size=8,
)
